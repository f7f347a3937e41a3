"""``listen``: hints of what has changed, in the loop that listens."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from tests.stores.support import (
    EVERYTHING,
    HOUR,
    MINUTE,
    Place,
    end,
    insert_one,
    line,
    start_one,
)
from windlass.clock import FakeClock
from windlass.job import Job
from windlass.lifecycle import Interrupted, Returned
from windlass.store import Notice, NoticeKind, Store


class Ear:
    """Collects notices, and waits until they tell of something."""

    def __init__(self, store: Store, *kinds: NoticeKind) -> None:
        self.heard: list[Notice] = []
        self.threads: set[int] = set()
        self._event = asyncio.Event()
        self.close = store.listen(frozenset(kinds), self._hear)

    def _hear(self, notice: Notice) -> None:
        self.threads.add(threading.get_ident())
        self.heard.append(notice)
        self._event.set()

    async def until(self, told: Callable[[Notice], bool]) -> None:
        async with asyncio.timeout(10):
            while not any(told(notice) for notice in self.heard):
                self._event.clear()
                await self._event.wait()


async def from_now_on(store: Store, *kinds: NoticeKind) -> Ear:
    """An ear that has heard, and forgotten, all that led up to this moment."""
    ear = Ear(store, "ready", *kinds)
    await insert_one(store, queue="marker")
    await ear.until(ready("marker"))
    ear.heard.clear()
    return ear


def ready(queue: str) -> Callable[[Notice], bool]:
    # No queue named: any of them may have pending jobs.
    return lambda notice: notice.kind == "ready" and (not notice.queues or queue in notice.queues)


def changed(job: Job) -> Callable[[Notice], bool]:
    return lambda notice: notice.kind == "changed" and job.id in notice.ids


async def test_an_insert_makes_a_queue_ready(store: Store) -> None:
    ear = Ear(store, "ready")

    await insert_one(store, queue="mail")

    await ear.until(ready("mail"))
    ear.close()


@pytest.mark.parametrize("how", ["promote", "hand back", "retry", "resume"])
async def test_whatever_makes_jobs_claimable_makes_their_queue_ready(
    store: Store, clock: FakeClock, how: str
) -> None:
    if how == "promote":
        job = await insert_one(store, queue="mail", delay=MINUTE)
    else:
        job = await start_one(store, queue="mail")
    if how == "retry":
        await end(store, job, Returned())
    if how == "resume":
        await store.pause("mail", True)
        await insert_one(store, queue="mail")
    clock.advance(HOUR)
    steps: dict[str, Callable[[], Awaitable[object]]] = {
        "promote": lambda: store.promote(EVERYTHING),
        "hand back": lambda: end(store, job, Interrupted()),
        "retry": lambda: store.retry([job.id]),
        "resume": lambda: store.pause("mail", False),
    }
    ear = await from_now_on(store, "ready")

    await steps[how]()

    await ear.until(ready("mail"))
    ear.close()


async def test_a_request_to_cancel_is_told(store: Store) -> None:
    job = await start_one(store)
    ear = Ear(store, "cancel")

    await store.cancel([job.id], reason="operator")

    await ear.until(lambda notice: notice.kind == "cancel" and job.id in notice.ids)
    ear.close()


@pytest.mark.parametrize("how", ["ack", "progress", "log", "cancel"])
async def test_changes_are_told(store: Store, how: str) -> None:
    job = await start_one(store)
    other = await insert_one(store)
    ear = await from_now_on(store, "changed")

    match how:
        case "ack":
            await end(store, job, Returned())
        case "progress":
            await store.progress(job.claim, 0.5, None)
        case "log":
            await store.log(job.claim, [line("a")])
        case _:
            job = other
            await store.cancel([job.id], reason="operator")

    await ear.until(changed(job))
    ear.close()


async def test_only_what_was_asked_for_is_told(store: Store) -> None:
    all_ears = Ear(store, "ready", "cancel", "changed")
    ear = Ear(store, "cancel")

    job = await start_one(store)
    await store.cancel([job.id], reason="operator")
    await ear.until(lambda notice: job.id in notice.ids)
    await all_ears.until(ready("default"))
    await all_ears.until(changed(job))

    assert {notice.kind for notice in ear.heard} == {"cancel"}
    all_ears.close()
    ear.close()


async def test_nothing_is_told_once_listening_has_ended(store: Store) -> None:
    ended, ear = Ear(store, "ready"), Ear(store, "ready")
    ended.close()
    ended.close()

    await insert_one(store)
    await ear.until(ready("default"))

    assert ended.heard == []
    ear.close()


async def test_hints_come_in_the_loop_that_listens(place: Place) -> None:
    """One store is used by loops in two threads, as the portal of synchronous callers does."""
    store = place.connect()
    await store.open()
    ear = Ear(store, "ready")

    await asyncio.to_thread(lambda: asyncio.run(_insert(store)))

    await ear.until(ready("default"))
    assert ear.threads == {threading.get_ident()}
    ear.close()
    await store.close()


async def _insert(store: Store) -> None:
    await insert_one(store)


async def test_hints_come_from_other_stores_on_the_same_place(place: Place) -> None:
    one, two = place.connect(), place.connect()
    await one.open()
    await two.open()
    ear = Ear(two, "ready", "changed", "cancel")

    job = await insert_one(one)

    await ear.until(ready("default"))
    await ear.until(changed(job))
    ear.close()
    await two.close()
    await one.close()

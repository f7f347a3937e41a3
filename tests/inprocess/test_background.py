"""``Background``: supervised, counted, drained, and never the death of the application."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from datetime import timedelta

import pytest

from windlass.background import Background
from windlass.errors import Closed, ConfigError
from windlass.events import BackgroundFailed, EventBus


class Boom(Exception):
    pass


async def test_closing_lets_what_was_accepted_finish() -> None:
    done: list[str] = []

    async def slow(name: str) -> None:
        await asyncio.sleep(0.01)
        done.append(name)

    def blocking(name: str, *, mark: str) -> None:
        done.append(name + mark)

    async with Background() as background:
        background.execute(slow, "a")
        background.execute(blocking, "b", mark="!")
        assert background.running == 2

    assert sorted(done) == ["a", "b!"]
    assert (background.finished, background.failed, background.running) == (2, 0, 0)


async def test_an_exception_is_told_and_counted_and_the_application_lives() -> None:
    events, told = EventBus(), list[BackgroundFailed]()
    events.subscribe(BackgroundFailed, told.append)

    async def fail() -> None:
        raise Boom("no")

    def leave() -> None:
        raise SystemExit(3)

    async with Background(events) as background:
        background.execute(fail)
        background.execute(leave)
        await background.close()

    assert background.failed == 2
    assert sorted(event.error for event in told) == ["Boom: no", "SystemExit: 3"]
    assert "raise Boom" in next(event.traceback for event in told if "Boom" in event.error)


async def test_an_exception_that_nobody_listens_for_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail() -> None:
        raise Boom("unheard")

    async with Background() as background:
        background.execute(fail)

    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "Boom: unheard" in caplog.text


async def test_an_exception_whose_text_raises_is_counted_like_others() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    async def fail() -> None:
        raise Mute

    async with Background() as background:
        background.execute(fail)

    assert background.failed == 1


async def test_what_outlasts_the_grace_is_cancelled_and_counted() -> None:
    cleaned = False

    async def for_ever() -> None:
        nonlocal cleaned
        try:
            await asyncio.Event().wait()
        finally:
            cleaned = True

    async with Background(grace=timedelta(seconds=0.01)) as background:
        background.execute(for_ever)

    assert cleaned
    assert (background.failed, background.running) == (1, 0)


async def test_a_stuck_thread_does_not_hold_up_closing_for_longer_than_the_grace() -> None:
    release = threading.Event()

    async with Background(grace=0.01) as background:
        background.execute(release.wait, 10)

    assert background.failed == 1
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("windlass-background"):
            await asyncio.to_thread(thread.join, 10)


@pytest.mark.parametrize("opened", [False, True])
async def test_it_refuses_work_before_opening_and_after_closing(opened: bool) -> None:
    background = Background()
    if opened:
        async with background:
            pass

    with pytest.raises(Closed, match="closed" if opened else "not open yet"):
        background.execute(print)


async def test_it_is_opened_once() -> None:
    async with Background() as background:
        with pytest.raises(Closed, match="make a new one"):
            await background.__aenter__()


async def test_threads_may_call_it_and_nothing_they_handed_over_is_lost() -> None:
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    async with Background() as background:

        def hand_over() -> None:
            for n in range(500):
                background.execute(note, n)

        await asyncio.gather(*(asyncio.to_thread(hand_over) for _ in range(4)))

    assert len(ran) == 2000
    assert background.finished == 2000


async def test_a_thread_that_hands_over_during_closing_is_refused_or_served() -> None:
    ran = accepted = 0
    begun = threading.Event()

    async def note() -> None:
        nonlocal ran
        ran += 1

    background = Background()

    def hand_over() -> None:
        nonlocal accepted
        while True:
            try:
                background.execute(note)
            except Closed:
                return
            accepted += 1
            begun.set()

    async with asyncio.TaskGroup() as group, background:
        group.create_task(asyncio.to_thread(hand_over))
        await asyncio.to_thread(begun.wait, 10)

    assert ran == accepted == background.finished


async def test_no_more_plain_functions_run_at_once_than_threads_are_given() -> None:
    running = most = 0
    lock = threading.Lock()

    def count() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1

    async with Background(threads=2) as background:
        for _ in range(20):
            background.execute(count)

    assert most <= 2
    assert background.finished == 20


async def test_the_callers_context_is_seen_inside() -> None:
    user: ContextVar[str] = ContextVar("user")
    seen: list[str] = []

    async with Background() as background:
        user.set("ada")
        background.execute(lambda: seen.append(user.get()))
        user.set("bob")

    assert seen == ["ada"]


async def test_a_cancelled_caller_cancels_at_once_what_still_runs() -> None:
    ended = asyncio.Event()
    running = asyncio.Event()

    async def for_ever() -> None:
        running.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def app() -> None:
        async with Background(grace=3600) as background:
            background.execute(for_ever)
            await running.wait()

    async with asyncio.TaskGroup() as group:
        main = group.create_task(app())
        await running.wait()
        await asyncio.sleep(0)
        main.cancel()
        await asyncio.wait_for(ended.wait(), 10)

    assert main.cancelled()


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="thread"):
        Background(threads=0)
    with pytest.raises(ConfigError, match="grace"):
        Background(grace=-1)

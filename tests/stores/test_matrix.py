"""Every operation on a job in every status, generated from ``lifecycle.TRANSITIONS``.

An arrow of the table happens; where the table has none, nothing changes at all.
"""

from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from tests.stores.support import (
    EVERYTHING,
    HOUR,
    MINUTE,
    ack,
    ack_with,
    all_jobs,
    claim,
    job_in,
    new_job,
    new_token,
)
from windlass.clock import FakeClock
from windlass.job import FINAL, Job, JobId, Retention, Status
from windlass.lifecycle import TRANSITIONS, Change, Verb
from windlass.store import Store

ID = JobId("0190aaaa-0000-7000-8000-00000000000a")
States = Status | None


async def _insert(store: Store, clock: FakeClock, job: Job | None, to: States) -> None:
    delay = HOUR if to is Status.SCHEDULED else None
    await store.insert([new_job(id=ID, delay=delay)])


async def _promote(store: Store, clock: FakeClock, job: Job | None, to: States) -> None:
    await store.promote(EVERYTHING)


async def _claim(store: Store, clock: FakeClock, job: Job | None, to: States) -> None:
    await claim(store, EVERYTHING, worker="claimant")


async def _ack(store: Store, clock: FakeClock, job: Job | None, to: States) -> None:
    assert to is not None
    [any_job] = [job] if job else [answer.job for answer in await store.insert([new_job("other")])]
    # Where nobody holds the job its own token is tried, which an earlier holder may still know.
    held = replace(any_job, id=ID, token=any_job.token or new_token())
    ends = {"result": b"1"} if to is Status.COMPLETED else {"reason": "so"} if to in FINAL else {}
    change = Change(to, counted=True, **ends)
    await ack(store, ack_with(held, change, change))
    if job is None:
        await store.cancel([any_job.id], reason="was only a pattern")


async def _cancel(store: Store, clock: FakeClock, job: Job | None, to: States) -> None:
    await store.cancel([ID], reason="operator")


async def _retry(store: Store, clock: FakeClock, job: Job | None, to: States) -> None:
    await store.retry([ID])


async def _prune(store: Store, clock: FakeClock, job: Job | None, to: States) -> None:
    await store.prune(Retention(), EVERYTHING)


Operation = Callable[[Store, FakeClock, Job | None, States], Awaitable[None]]
OPERATIONS: dict[Verb, Operation] = {
    Verb.INSERT: _insert,
    Verb.PROMOTE: _promote,
    Verb.CLAIM: _claim,
    Verb.ACK: _ack,
    Verb.CANCEL: _cancel,
    Verb.EXPIRE: _promote,
    Verb.RETRY: _retry,
    Verb.PRUNE: _prune,
}
LATER: dict[Verb, timedelta] = {
    Verb.PROMOTE: 2 * HOUR, Verb.EXPIRE: 2 * HOUR, Verb.PRUNE: timedelta(days=365),
}  # fmt: skip
"""How long after the job was made the operation comes."""
CHOOSES = {Verb.INSERT, Verb.ACK}
"""The caller of these says where the arrow shall lead; for the others the store does."""


def cases() -> Iterator[tuple[Verb, States, States]]:
    for verb, arrows in TRANSITIONS.items():
        reachable = sorted({to for ends in arrows.values() for to in ends if to is not None})
        for before in (None, *Status):
            for to in reachable if verb in CHOOSES else [None]:
                yield verb, before, to


def test_the_table_names_every_verb() -> None:
    assert set(TRANSITIONS) == set(Verb) == set(OPERATIONS)


@pytest.mark.parametrize(("verb", "before", "to"), list(cases()))
async def test_arrows_happen_and_nothing_else_does(
    store: Store, clock: FakeClock, verb: Verb, before: States, to: States
) -> None:
    options: dict[str, Any] = {"expires": MINUTE} if verb is Verb.EXPIRE else {}
    if before is not None:
        await job_in(store, before, id=ID, **options)
    clock.advance(LATER.get(verb, timedelta(0)))
    [job] = await store.get([ID])

    await OPERATIONS[verb](store, clock, job, to)

    [after] = await store.get([ID])
    status = None if after is None else after.status
    allowed = TRANSITIONS[verb].get(before)
    if allowed is None:
        assert after == job
    else:
        assert status in ({to} if verb in CHOOSES else allowed)
        assert after != job
    counted = (await store.stats()).count(*([] if status is None else [status]))
    assert counted == len([each for each in await all_jobs(store) if status in (None, each.status)])

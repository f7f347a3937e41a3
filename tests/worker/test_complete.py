"""Outcomes reach the store in batches, survive its absence, and are reduced when it refuses them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.worker.support import Bench, eventually
from windlass.errors import StoreFull, StoreUnavailable
from windlass.events import AckStale, StoreFailed, StoreRecovered
from windlass.job import Claim, Failure, JobId, Lane, Status, Token
from windlass.lifecycle import Ack, Change
from windlass.worker.complete import reduced


async def test_acks_that_wait_together_go_together() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        pass

    ids = await bench.put_many(work, [()] * 100)
    async with bench.working():
        for job_id in ids:
            await bench.until(job_id)

    assert sum(map(len, bench.store.acks)) == 100
    assert len(bench.store.acks) <= 20


@pytest.mark.parametrize("trouble", [StoreUnavailable("away"), StoreFull("full")])
async def test_outcomes_wait_until_the_store_is_back(trouble: Exception) -> None:
    bench = Bench()
    failures = iter([trouble, trouble])
    runs = 0

    async def fail(acks: Any) -> None:
        for error in failures:
            raise error

    bench.store.before["ack"] = fail

    @bench.registry.task
    async def work() -> None:
        nonlocal runs
        runs += 1

    async with bench.working():
        job = await bench.until(await bench.put(work))

    assert (job.status, runs) == (Status.COMPLETED, 1)
    assert [event.operation for event in bench.of(StoreFailed)] == ["ack"]
    assert [event.operation for event in bench.of(StoreRecovered)] == ["ack"]


async def test_an_ack_whose_reply_is_lost_is_repeated_and_counts_once() -> None:
    bench = Bench()
    lost = iter([True])
    runs = 0

    async def lose(answer: Any) -> None:
        if next(lost, False):
            raise StoreUnavailable("the reply was lost")

    bench.store.after["ack"] = lose

    @bench.registry.task
    async def work() -> None:
        nonlocal runs
        runs += 1

    async with bench.working() as worker:
        job_id = await bench.put(work)
        await bench.until(job_id)
        await eventually(lambda: not worker._runs.held)

    assert (runs, worker.stale, bench.of(AckStale)) == (1, 0, [])
    assert (await bench.job(job_id)).status is Status.COMPLETED


async def test_an_ack_that_the_store_refuses_is_reduced_and_harms_no_other() -> None:
    bench = Bench()

    async def refuse(acks: Sequence[Ack]) -> None:
        if any(ack.then.failure and "unstorable" in ack.then.failure.message for ack in acks):
            raise RuntimeError("this cannot be bound to a parameter")

    bench.store.before["ack"] = refuse

    @bench.registry.task(name="bad")
    async def bad() -> None:
        raise ValueError("unstorable")

    @bench.registry.task
    async def good() -> int:
        return 1

    async with bench.working():
        first, second = await bench.put(bad), await bench.put(good)
        good_job = await bench.until(second)
        bad_job = await bench.until(first, Status.SCHEDULED)

    assert good_job.status is Status.COMPLETED
    assert (bad_job.failures, bad_job.errors) == (1, ())


@pytest.mark.parametrize("trouble", [StoreUnavailable("away"), StoreFull("full")])
async def test_an_outage_while_acks_go_one_by_one_reduces_none(trouble: Exception) -> None:
    bench = Bench()
    errors = iter([RuntimeError("one of them is bad"), trouble])

    async def fail(acks: Any) -> None:
        for error in errors:
            raise error

    bench.store.before["ack"] = fail

    @bench.registry.task
    async def work() -> int:
        return 1

    async with bench.working():
        job = await bench.until(await bench.put(work))

    assert (job.status, bytes(job.result or b"")) == (Status.COMPLETED, b"1")


async def test_a_stale_outcome_changes_nothing_and_is_counted() -> None:
    bench = Bench()
    gate = asyncio.Event()

    @bench.registry.task
    async def work() -> int:
        await gate.wait()
        return 1

    async with bench.working() as worker:
        job_id = await bench.put(work)
        job = await bench.until(job_id, Status.PROCESSING)
        # Somebody else settles it under the same claim, as a reclaimer would.
        change = Change(Status.FAILED, reason="reclaimed")
        await bench.store.ack([Ack(job.claim, job.lane, change, change, reclaimed=True)])
        gate.set()
        event = await bench.event(AckStale)
        assert worker.stale == 1

    assert (event.id, event.operation) == (job_id, "ack")
    assert (await bench.job(job_id)).reason == "reclaimed"


def ack(change: Change) -> Ack:
    return Ack(Claim(JobId("j"), Token("t")), Lane("q", "t"), change, change)


def test_the_first_reduction_cleans_and_cuts_texts() -> None:
    failure = Failure(1, "error", "Bad\x00", "m" * 9_000, "t" * 99_000)

    then = reduced(ack(Change(Status.SCHEDULED, failure=failure, counted=True)), 1).then

    assert then.failure is not None
    assert then.failure.type == "Bad\ufffd"
    assert len(then.failure.message) == 1_000
    assert len(then.failure.traceback or "") == 16 * 1024
    assert (then.status, then.counted) == (Status.SCHEDULED, True)


def test_the_second_reduction_leaves_no_text_of_the_users() -> None:
    failure = Failure(1, "error", "E", "m", "t")

    then = reduced(ack(Change(Status.FAILED, failure=failure, counted=True, reason="r")), 2).then

    assert then == Change(Status.FAILED, counted=True, reason="what it said could not be stored")


def test_a_result_that_the_store_refuses_fails_the_job() -> None:
    then = reduced(ack(Change(Status.COMPLETED, result=b'"?"')), 1).then

    assert then == Change(Status.FAILED, counted=True, reason="its result could not be stored")

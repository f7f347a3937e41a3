"""A worker claims what it can start at once, as soon as it can, and never more."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.worker.support import QUICK, Bench, eventually, soon
from windlass.errors import StoreUnavailable
from windlass.events import StoreFailed, StoreRecovered
from windlass.job import Limit, Status
from windlass.store import HandOut


async def test_it_never_claims_more_than_it_has_free_slots() -> None:
    bench = Bench()
    running = most = 0

    @bench.registry.task
    async def work(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001 * (n % 7))
        running -= 1

    ids = await bench.put_many(work, [[n] for n in range(200)])
    async with bench.working():
        for job_id in ids:
            await bench.until(job_id)

    assert most == QUICK.concurrency
    assert max(limit for _, limit in bench.store.claims) == QUICK.concurrency


async def test_full_batches_follow_each_other_without_a_pause() -> None:
    bench = Bench()
    slow_poll = msgspec.structs.replace(QUICK, poll=timedelta(hours=1))

    @bench.registry.task
    async def work() -> None:
        pass

    ids = await bench.put_many(work, [()] * 100)
    async with bench.working(slow_poll):
        for job_id in ids:
            await bench.until(job_id)


async def test_a_hint_starts_a_job_at_once() -> None:
    bench = Bench()
    patient = msgspec.structs.replace(QUICK, poll=timedelta(hours=1))
    started: list[float] = []

    @bench.registry.task
    async def work() -> None:
        started.append(time.perf_counter())

    delays = []
    async with bench.working(patient):
        for _ in range(50):
            before = time.perf_counter()
            await bench.until(await bench.put(work))
            delays.append(started[-1] - before)

    assert sorted(delays)[25] < 0.005


async def test_without_hints_the_poll_finds_the_job() -> None:
    bench = Bench()
    listen = bench.store.listen
    bench.store.listen = lambda kinds, callback: (
        listen(kinds, callback) if "changed" in kinds else lambda: None
    )

    @bench.registry.task
    async def work() -> None:
        pass

    async with bench.working():
        job = await bench.until(await bench.put(work))

    assert job.status is Status.COMPLETED


async def test_a_rate_limit_that_opens_wakes_it() -> None:
    bench = Bench()
    patient = msgspec.structs.replace(QUICK, poll=timedelta(hours=1))

    @bench.registry.task(rate="20/s")
    async def work() -> None:
        pass

    from windlass.limits import Rate

    await bench.store.set_limits([Limit(scope="type", name="work", rate=Rate(20, 1.0, 1))])
    before = time.perf_counter()
    ids = await bench.put_many(work, [()] * 4)
    async with bench.working(patient):
        for job_id in ids:
            await bench.until(job_id)

    assert time.perf_counter() - before >= 3 * 0.05 * 0.99


async def test_each_kind_of_task_has_its_own_slots() -> None:
    bench = Bench()
    gate = asyncio.Event()

    @bench.registry.task
    async def waits() -> None:
        await gate.wait()

    @bench.registry.task
    def threaded() -> int:
        return 1

    await bench.put_many(waits, [()] * 50)
    async with bench.working():
        job = await bench.until(await bench.put(threaded))
        gate.set()

    assert job.status is Status.COMPLETED
    assert {frozenset(want.types) for want, _ in bench.store.claims} == {
        frozenset({"waits"}),
        frozenset({"threaded"}),
    }


async def test_a_failed_claim_is_made_anew_with_another_token() -> None:
    bench = Bench()
    failures = iter([StoreUnavailable("away"), StoreUnavailable("away")])
    tokens: list[Any] = []
    claim = bench.store.claim

    async def failing(want: Any, limit: int, worker: Any, token: Any) -> HandOut:
        tokens.append(token)
        for error in failures:
            raise error
        answer: HandOut = await claim(want, limit, worker, token)
        return answer

    bench.store.claim = failing

    @bench.registry.task
    async def work() -> None:
        pass

    job_id = await bench.put(work)
    async with bench.working():
        job = await bench.until(job_id)

    assert job.status is Status.COMPLETED
    assert len(set(tokens)) == len(tokens) >= 3
    assert [event.operation for event in bench.of(StoreFailed)] == ["claim"]
    assert [event.operation for event in bench.of(StoreRecovered)] == ["claim"]


async def test_a_claim_whose_reply_is_lost_is_handed_back_and_run_once() -> None:
    bench = Bench()
    runs = 0
    losses = iter([True])

    async def lose_the_reply(answer: HandOut) -> None:
        if answer.jobs and next(losses, False) is True:
            raise StoreUnavailable("the connection broke")

    bench.store.after["claim"] = lose_the_reply

    @bench.registry.task
    async def work() -> None:
        nonlocal runs
        runs += 1

    job_id = await bench.put(work)
    async with bench.working():
        job = await bench.until(job_id)

    # Within a beat, long before the lease is out; the lost hand-out cost nothing.
    assert (job.status, runs, job.fence) == (Status.COMPLETED, 1, 2)
    assert (job.failures, job.crashes) == (0, 0)


async def test_a_claim_under_way_is_no_lost_one() -> None:
    bench = Bench()
    beats = asyncio.Event()

    async def wait_for_beats(answer: HandOut) -> None:
        # The rows are ours already, and beats come and go before we learn of them.
        if answer.jobs:
            seen = len(bench.store.beats)
            await eventually(lambda: len(bench.store.beats) >= seen + 3)
            beats.set()

    bench.store.after["claim"] = wait_for_beats

    @bench.registry.task
    async def work() -> None:
        pass

    job_id = await bench.put(work)
    async with bench.working():
        await soon(beats.wait())
        job = await bench.until(job_id)

    assert (job.status, job.fence) == (Status.COMPLETED, 1)


async def test_a_quiet_worker_finishes_and_claims_nothing_until_it_resumes() -> None:
    bench = Bench()
    gate = asyncio.Event()

    @bench.registry.task
    async def work() -> None:
        await gate.wait()

    async with bench.working() as worker:
        first = await bench.put(work)
        await bench.until(first, Status.PROCESSING)
        worker.quiet()
        await eventually(lambda: worker.state == "quiet")
        second = await bench.put(work)
        gate.set()
        await bench.until(first)
        assert not worker.ready
        assert (await bench.job(second)).status is Status.PENDING
        worker.resume()
        await bench.until(second)


async def test_a_backlog_of_acks_holds_it_up() -> None:
    bench = Bench()
    gate = asyncio.Event()

    async def wait(acks: Any) -> None:
        await gate.wait()

    bench.store.before["ack"] = wait

    @bench.registry.task
    async def work() -> None:
        pass

    ids = await bench.put_many(work, [()] * 200)
    worker = bench.worker()
    worker._max_backlog = 50
    async with bench.working(worker=worker):
        await eventually(lambda: worker._fetchers[0].held_up)
        done_meanwhile = worker._completer.backlog
        gate.set()
        for job_id in ids:
            await bench.until(job_id)

    assert 50 < done_meanwhile <= 50 + QUICK.concurrency


async def test_a_draining_worker_ends_when_nothing_is_left_that_could_run() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        pass

    @bench.registry.task
    async def chain(n: int) -> None:
        if n:
            await bench.put(chain, n - 1)

    await bench.put_many(work, [()] * 30)
    await bench.put(chain, 3)
    later = await bench.put_raw("work", delay=timedelta(hours=1))
    await soon(bench.worker(msgspec.structs.replace(QUICK, drain=True)).run())

    stats = await bench.store.stats()
    assert stats.count(Status.COMPLETED) == 34
    assert (await bench.job(later)).status is Status.SCHEDULED


@pytest.mark.parametrize("field", ["queues", "paused"])
async def test_it_leaves_other_queues_alone(field: str) -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        pass

    options = QUICK
    if field == "queues":
        options = msgspec.structs.replace(QUICK, queues=frozenset({"default"}))
    else:
        await bench.store.pause("other", True)
    other = await bench.put_raw("work", queue="other")
    async with bench.working(options):
        await bench.until(await bench.put(work))

    assert (await bench.job(other)).status is Status.PENDING

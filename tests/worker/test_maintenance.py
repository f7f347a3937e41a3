"""What every worker does for all: promote, reclaim the jobs of the dead, prune, call for quarantine."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec

from tests.worker.support import QUICK, SOON, Bench, soon
from windlass.context import Context
from windlass.events import SuspectsWait
from windlass.job import Failure, JobFilter, Retention, Status, Token, WorkerId, WorkerInfo
from windlass.lifecycle import Ack, Expired, settle
from windlass.retry import RetryPolicy
from windlass.store import Want
from windlass.worker.maintenance import Observation


def info(name: str, beat: int, lease: float = 10.0, **fields: Any) -> WorkerInfo:
    return WorkerInfo(
        id=WorkerId(name), host="h", pid=1, version="0", queues=None, types=("work",), slots=1,
        beat=beat, lease=timedelta(seconds=lease), **fields,
    )  # fmt: skip


def test_a_worker_is_suspected_when_its_beat_stood_still_for_a_lease() -> None:
    observation = Observation(interval=2.0)

    for now in range(0, 10, 2):
        assert observation.suspects([info("a", 5), info("b", now)], now) == []

    assert observation.suspects([info("a", 5), info("b", 99)], 10) == [("a", 5)]


def test_a_beat_starts_the_observation_anew() -> None:
    observation = Observation(interval=5.0)
    observation.suspects([info("a", 5)], 0)
    observation.suspects([info("a", 6)], 9)

    assert observation.suspects([info("a", 6)], 11) == []
    assert observation.suspects([info("a", 6)], 19) == [("a", 6)]


def test_an_observer_that_was_paused_suspects_nobody() -> None:
    observation = Observation(interval=2.0)
    observation.suspects([info("a", 5)], 0)

    assert observation.suspects([info("a", 5)], 4.1) == []
    assert observation.suspects([info("a", 5)], 8) == []
    assert observation.suspects([info("a", 5)], 12) == []
    assert observation.suspects([info("a", 5)], 14.1) == [("a", 5)]


def test_a_worker_that_left_is_forgotten() -> None:
    observation = Observation(interval=20.0)
    observation.suspects([info("a", 5)], 0)
    observation.suspects([], 5)

    assert observation.suspects([info("a", 5)], 10) == []


async def claim_and_die(bench: Bench, name: str, *, suspects: bool = False) -> list[Any]:
    """Claim everything as a worker that never beats again."""
    await bench.store.heartbeat(info(name, 0, lease=0.3))
    want = Want(None, frozenset({"work"}), suspects)
    jobs: list[Any] = (
        await bench.store.claim(want, 100, WorkerId(name), Token(f"token of {name}"))
    ).jobs
    assert jobs
    return jobs


async def test_the_jobs_of_a_dead_worker_are_run_by_another() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        pass

    ids = await bench.put_many(work, [()] * 3)
    await claim_and_die(bench, "dead")
    async with bench.working():
        jobs = [await bench.until(job_id) for job_id in ids]

    assert {job.status for job in jobs} == {Status.COMPLETED}
    assert {(job.fence, job.crashes, job.charges, job.failures) for job in jobs} == {(2, 1, 0, 0)}
    assert [worker.id for worker in await bench.store.workers()] == []


async def test_a_job_that_must_not_run_twice_fails_with_its_worker() -> None:
    bench = Bench()

    @bench.registry.task(on_lost="fail")
    async def work() -> None:
        raise AssertionError("run twice")

    job_id = await bench.put(work)
    await claim_and_die(bench, "dead")
    async with bench.working():
        job = await bench.until(job_id)

    assert (job.status, job.reason) == (Status.FAILED, "its worker died, and it must not run twice")


async def test_a_job_that_is_due_runs_soon() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        pass

    options = msgspec.structs.replace(QUICK, poll=timedelta(seconds=2))
    async with bench.working(options):
        # The promoter sleeps already when this comes.
        job_id = await bench.put_raw("work", delay=timedelta(seconds=0.2))
        job = await bench.until(job_id)

    assert job.started_at is not None
    assert timedelta(0) <= job.started_at - job.ready_at < timedelta(seconds=1.5)


async def test_a_retry_is_promoted_when_it_is_due_and_not_at_the_next_poll() -> None:
    bench = Bench()

    @bench.registry.task(retry=RetryPolicy(initial=timedelta(seconds=0.2), jitter=0.0))
    async def work(ctx: Context[Any]) -> None:
        if ctx.attempt < 3:
            raise ValueError

    options = msgspec.structs.replace(QUICK, poll=timedelta(hours=1))
    async with bench.working(options):
        job = await bench.until(await bench.put(work))

    assert (job.status, job.failures) == (Status.COMPLETED, 2)


async def test_ended_jobs_are_pruned() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        pass

    ids = await bench.put_many(work, [()] * 5)
    async with bench.working():
        for job_id in ids:
            await bench.until(job_id)
    zero = timedelta(0)
    retention = Retention(completed=zero, cancelled=zero, failed=zero, keyed=zero, least=zero)
    async with bench.working(retention=retention), asyncio.timeout(SOON):
        while (await bench.store.find(JobFilter(), 1)).jobs:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def make_suspect(bench: Bench, job_id: Any) -> None:
    """Have two workers die with the job."""
    for name in (f"first of {job_id}", f"second of {job_id}"):
        (job,) = await claim_and_die(bench, name)
        await bench.store.leave(WorkerId(name), died=True)
        failure = Failure(1, "lost", "WorkerDied", "died")
        ack = settle(job, Expired(failure), RetryPolicy(), 0.0)
        now = msgspec.structs.replace(ack.then, delay=timedelta(0))
        await bench.store.ack([Ack(ack.claim, ack.lane, now, now, reclaimed=True)])
        await bench.store.promote(10)
    assert (await bench.job(job_id)).suspect


async def test_a_worker_leaves_suspects_alone_and_says_that_it_cannot_start_a_quarantine() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        raise AssertionError("run outside of quarantine")

    job_id = await bench.put(work)
    await make_suspect(bench, job_id)
    async with bench.working() as worker:
        event = await bench.event(SuspectsWait)
        assert event.worker == worker.id
        await asyncio.sleep(0.5)

    assert (await bench.job(job_id)).status is Status.PENDING
    assert len(bench.of(SuspectsWait)) == 1


async def test_a_quarantine_runs_suspects_one_at_a_time_and_nothing_else() -> None:
    bench = Bench()
    running = most = 0

    @bench.registry.task
    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    suspects = []
    for _ in range(3):
        suspects.append(await bench.put(work))
        await make_suspect(bench, suspects[-1])
    normal = await bench.put(work)
    worker = bench.worker(msgspec.structs.replace(QUICK, quarantine=True))
    async with bench.working(worker=worker):
        jobs = [await bench.until(job_id) for job_id in suspects]

    assert {job.status for job in jobs} == {Status.COMPLETED}
    assert most == 1
    assert (await bench.job(normal)).status is Status.PENDING


async def test_a_quarantine_ends_by_itself_when_no_suspects_wait(monkeypatch: Any) -> None:
    from windlass.worker import worker as module

    monkeypatch.setattr(module, "_QUARANTINE_IDLE", 0.2)
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        pass

    job_id = await bench.put(work)
    await make_suspect(bench, job_id)
    await soon(bench.worker(msgspec.structs.replace(QUICK, quarantine=True)).run())

    assert (await bench.job(job_id)).status is Status.COMPLETED


async def test_a_quarantine_that_lives_already_is_not_doubled() -> None:
    from random import Random

    from windlass.worker.quarantine import Quarantine

    bench = Bench()

    def quarantine(queues: frozenset[str] | None) -> Quarantine:
        return Quarantine(
            ["true"], bench.store, bench.events, worker=lambda: WorkerId("w"), queues=queues,
            types=frozenset({"work"}), rng=Random(1),
        )  # fmt: skip

    everything = info("q", 1, quarantine=True)
    narrow = msgspec.structs.replace(everything, queues=("a",))
    other = msgspec.structs.replace(everything, types=("other",))
    cases = [
        (None, [everything], False),
        (None, [narrow], True),
        (None, [other], True),
        (None, [info("w", 1)], True),
        (frozenset({"a"}), [narrow], False),
        (frozenset({"a", "b"}), [narrow], True),
    ]
    for queues, workers, expected in cases:
        keeper = quarantine(queues)
        keeper.wanted(workers)
        assert keeper._asked.is_set() is expected

"""A clean stop loses nothing, repeats nothing, burns no attempt, and keeps its deadline."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import CancelledError
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from tests.worker import tasks
from tests.worker.support import QUICK, SOON, Bench, eventually, soon
from windlass.context import Context, SyncContext
from windlass.errors import ConfigError, StoreUnavailable
from windlass.events import JobEnded, WorkerStopped
from windlass.job import Status
from windlass.store import HandOut
from windlass.worker.presence import EXIT_STUCK


async def test_runs_that_end_within_the_grace_end_well() -> None:
    bench = Bench()
    gate = asyncio.Event()

    @bench.registry.task
    async def work() -> str:
        await gate.wait()
        return "done"

    worker = bench.worker()
    run = asyncio.create_task(worker.run())
    job_id = await bench.put(work)
    await bench.until(job_id, Status.PROCESSING)
    worker.stop()
    await eventually(lambda: worker.state == "stopping")
    late = await bench.put(work)
    gate.set()
    await soon(run)

    assert (await bench.job(job_id)).status is Status.COMPLETED
    assert (await bench.job(late)).status is Status.PENDING
    assert await bench.store.workers() == []
    assert bench.of(WorkerStopped)[0].handed_back == 0
    assert worker.state == "stopped"


async def test_after_the_grace_runs_are_interrupted_and_cost_no_attempt() -> None:
    bench = Bench()
    cleaned = asyncio.Event()

    @bench.registry.task
    async def work(ctx: Context[Any]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled
            await asyncio.sleep(0.01)
            cleaned.set()

    worker = bench.worker()
    run = asyncio.create_task(worker.run())
    job_id = await bench.put(work)
    await bench.until(job_id, Status.PROCESSING)
    before = time.monotonic()
    worker.stop(timedelta(seconds=0.2))
    await soon(run)
    took = time.monotonic() - before

    job = await bench.job(job_id)
    assert cleaned.is_set()
    assert (job.status, job.failures, job.crashes) == (Status.PENDING, 0, 0)
    assert 0.2 <= took < 1.5
    assert bench.of(WorkerStopped)[0].handed_back == 1
    # No lease to wait for: the worker is gone, and with it everything it held.
    assert await bench.store.workers() == []


@pytest.mark.parametrize("hours", [(1, 0), (0, 1)])
async def test_a_second_stop_may_shorten_the_grace_and_never_lengthens_it(
    hours: tuple[int, int],
) -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        await asyncio.Event().wait()

    worker = bench.worker()
    run = asyncio.create_task(worker.run())
    job_id = await bench.put(work)
    await bench.until(job_id, Status.PROCESSING)
    for grace in hours:
        worker.stop(timedelta(hours=grace))
    await soon(run)

    assert (await bench.job(job_id)).status is Status.PENDING


async def test_an_exception_in_answer_to_the_stop_costs_no_attempt_either() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        except CancelledError:
            raise RuntimeError("I was interrupted") from None

    async with bench.working():
        job_id = await bench.put(work)
        await bench.until(job_id, Status.PROCESSING)

    job = await bench.job(job_id)
    assert (job.status, job.failures) == (Status.PENDING, 0)


@pytest.mark.parametrize("repeat", [1, 5])
async def test_to_cancel_run_is_a_stop_without_grace(repeat: int) -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)

    run = asyncio.create_task(bench.worker().run())
    job_id = await bench.put(work)
    await bench.until(job_id, Status.PROCESSING)
    for _ in range(repeat):
        run.cancel()
        await asyncio.sleep(0)
    await soon(asyncio.wait([run]))

    assert run.cancelled()
    assert (await bench.job(job_id)).status is Status.PENDING
    assert await bench.store.workers() == []


async def test_the_end_of_the_program_interrupts_and_loses_nothing() -> None:
    """asyncio.run() cancels all tasks at its end, the runs of a forgotten worker among them."""
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        await asyncio.Event().wait()

    async def main() -> Any:
        keep = asyncio.create_task(bench.worker().run())
        job_id = await bench.put(work)
        await bench.until(job_id, Status.PROCESSING)
        return job_id, keep

    job_id, _ = await asyncio.to_thread(lambda: asyncio.run(main()))

    job = await bench.job(job_id)
    assert (job.status, job.failures) == (Status.PENDING, 0)


async def test_a_claim_under_way_at_the_stop_is_handed_back_unstarted() -> None:
    bench = Bench()
    claimed, gate = asyncio.Event(), asyncio.Event()

    async def wait(answer: HandOut) -> None:
        if answer.jobs:
            claimed.set()
            await gate.wait()

    bench.store.after["claim"] = wait

    @bench.registry.task
    async def work() -> None:
        raise AssertionError("started after the stop")

    job_id = await bench.put(work)
    worker = bench.worker()
    run = asyncio.create_task(worker.run())
    await soon(claimed.wait())
    worker.stop()
    await eventually(lambda: worker.state == "stopping")
    gate.set()
    await soon(run)

    job = await bench.job(job_id)
    assert (job.status, job.failures, job.fence) == (Status.PENDING, 0, 1)
    assert bench.store.acks[0][0].then.unstarted


async def test_a_claim_whose_reply_is_lost_at_the_stop_is_handed_back() -> None:
    bench = Bench()
    claimed = asyncio.Event()

    async def lose(answer: HandOut) -> None:
        if answer.jobs:
            claimed.set()
            raise StoreUnavailable("the reply was lost")

    bench.store.after["claim"] = lose

    @bench.registry.task
    async def work() -> None:
        raise AssertionError("started")

    options = msgspec.structs.replace(QUICK, beat=timedelta(seconds=30), lease=timedelta(minutes=2))
    job_id = await bench.put(work)
    worker = bench.worker(options)
    run = asyncio.create_task(worker.run())
    await soon(claimed.wait())
    worker.stop()
    await soon(run)

    assert (await bench.job(job_id)).status is Status.PENDING
    assert await bench.store.workers() == []


async def test_outcomes_are_flushed_before_it_leaves() -> None:
    bench = Bench()
    failures = iter([StoreUnavailable("away")] * 3)
    ended = asyncio.Event()

    async def fail(acks: Any) -> None:
        for error in failures:
            raise error

    bench.store.before["ack"] = fail

    @bench.registry.task
    async def work() -> int:
        ended.set()
        return 1

    worker = bench.worker()
    run = asyncio.create_task(worker.run())
    job_id = await bench.put(work)
    await soon(ended.wait())
    worker.stop(timedelta(0))
    await soon(run)

    assert (await bench.job(job_id)).status is Status.COMPLETED


async def test_a_stop_before_the_start_and_during_registration_ends_it_at_once() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        raise AssertionError("started")

    job_id = await bench.put(work)
    early = bench.worker()
    early.stop()
    await soon(early.run())

    async def fail(worker: Any) -> None:
        raise StoreUnavailable("away for long")

    bench.store.before["heartbeat"] = fail
    waiting = bench.worker()
    run = asyncio.create_task(waiting.run())
    await eventually(lambda: bool(bench.store.beats))
    waiting.stop()
    await soon(run)

    job = await bench.job(job_id)
    assert (job.status, job.fence) == (Status.PENDING, 0)


async def test_a_worker_runs_once() -> None:
    bench = Bench()
    worker = bench.worker()
    worker.stop()
    await soon(worker.run())

    with pytest.raises(ConfigError, match="runs once"):
        await worker.run()


async def test_stop_may_come_from_any_thread() -> None:
    bench = Bench()
    worker = bench.worker()
    run = asyncio.create_task(worker.run())
    await eventually(lambda: worker.ready)

    await asyncio.to_thread(worker.stop)

    await soon(run)


async def test_a_thread_that_does_not_end_is_settled_as_the_last_act_before_the_exit() -> None:
    bench = Bench()
    gate = threading.Event()
    codes: list[int] = []

    @bench.registry.task
    def stubborn() -> None:
        gate.wait(SOON)

    told: list[JobEnded] = []
    bench.events.subscribe(JobEnded, told.append)
    worker = bench.worker(embedded=False, exit=codes.append)
    run = asyncio.create_task(worker.run())
    job_id = await bench.put(stubborn)
    await bench.until(job_id, Status.PROCESSING)
    worker.stop(timedelta(0))
    await soon(run)
    gate.set()

    job = await bench.job(job_id)
    assert codes == [EXIT_STUCK]
    assert [(each.job.id, each.outcome) for each in told] == [(job_id, "snoozed")]
    # It may not start elsewhere before this process is gone.
    assert (job.status, job.failures, job.crashes) == (Status.SCHEDULED, 0, 0)
    assert await bench.store.workers() == []


async def test_a_thread_far_beyond_its_time_out_makes_the_worker_drain_and_exit() -> None:
    bench = Bench()
    gate = threading.Event()
    codes: list[int] = []

    @bench.registry.task(timeout=0.1)
    def stubborn() -> None:
        gate.wait(SOON)

    @bench.registry.task
    async def innocent() -> str:
        await asyncio.sleep(0.5)
        return "done"

    options = msgspec.structs.replace(QUICK, grace=timedelta(seconds=0.3))
    worker = bench.worker(options, embedded=False, exit=codes.append)
    run = asyncio.create_task(worker.run())
    stuck = await bench.put(stubborn)
    other = await bench.put(innocent)
    await soon(run)
    gate.set()

    job = await bench.job(stuck)
    assert codes == [EXIT_STUCK]
    assert (job.status, job.failures, job.errors[-1].kind) == (Status.SCHEDULED, 1, "timeout")
    assert (await bench.job(other)).status is Status.COMPLETED


async def test_an_embedded_worker_lives_on_with_a_stuck_thread() -> None:
    bench = Bench()
    gate = threading.Event()

    @bench.registry.task(timeout=0.1)
    def stubborn() -> None:
        gate.wait(SOON)

    options = msgspec.structs.replace(QUICK, grace=timedelta(0))
    async with bench.working(options) as worker:
        job_id = await bench.put(stubborn)
        await eventually(lambda: bool(worker._runs.stuck))
        held = await bench.job(job_id)
        assert worker.ready
        gate.set()
        job = await bench.until(job_id, Status.SCHEDULED)

    assert held.status is Status.PROCESSING
    assert job.errors[-1].kind == "timeout"


async def test_a_thread_that_notices_the_stop_is_interrupted() -> None:
    bench = Bench()

    @bench.registry.task
    def polite(ctx: SyncContext[Any]) -> str:
        while not ctx.cancelled:
            time.sleep(0.002)
        return "not all of it"

    async with bench.working():
        job_id = await bench.put(polite)
        await bench.until(job_id, Status.PROCESSING)

    job = await bench.job(job_id)
    assert (job.status, job.result, job.failures) == (Status.PENDING, None, 0)


async def test_a_process_is_killed_at_the_deadline_and_costs_no_attempt() -> None:
    bench = Bench()
    bench.registry.add(tasks.dawdle)

    async with bench.working():
        job_id = await bench.put(tasks.dawdle)
        await bench.until(job_id, Status.PROCESSING, when=lambda job: job.note == "dawdling")

    job = await bench.job(job_id)
    assert (job.status, job.failures, job.crashes) == (Status.PENDING, 0, 0)


async def test_stops_at_random_moments_lose_and_repeat_nothing() -> None:
    bench = Bench()
    rng = Random(7)
    finished: list[int] = []

    @bench.registry.task
    async def work(n: int) -> int:
        await asyncio.sleep(rng.random() / 50)
        finished.append(n)
        return n

    ids = await bench.put_many(work, [[n] for n in range(300)])
    for _ in range(30):
        worker = bench.worker(msgspec.structs.replace(QUICK, concurrency=50))
        run = asyncio.create_task(worker.run())
        await asyncio.sleep(rng.random() / 20)
        worker.stop(timedelta(seconds=rng.choice([0, 0.01, 1])))
        await soon(run)
        assert await bench.store.workers() == []
        assert (await bench.store.stats()).count(Status.PROCESSING) == 0
    await soon(bench.worker(msgspec.structs.replace(QUICK, drain=True)).run())

    jobs = [await bench.job(job_id) for job_id in ids]
    assert {job.status for job in jobs} == {Status.COMPLETED}
    assert sorted(finished) == list(range(300))
    assert {(job.failures, job.crashes) for job in jobs} == {(0, 0)}


# ---------------------------------------------------------------------- resources


async def test_resources_are_entered_before_the_first_claim_and_left_after_the_last_run() -> None:
    bench = Bench()
    steps: list[str] = []

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[dict[str, int]]:
        assert bench.store.claims == []
        steps.append("enter")
        yield {"answer": 42}
        steps.append("exit")

    @bench.registry.task
    async def ask(ctx: Context[dict[str, int]]) -> int:
        steps.append("run")
        return ctx.resources["answer"]

    @bench.registry.task
    def ask_in_thread(ctx: SyncContext[dict[str, int]]) -> int:
        return ctx.resources["answer"]

    first, second = await bench.put(ask), await bench.put(ask_in_thread)
    async with bench.working(resources=lifespan):
        answers = [bytes((await bench.until(job_id)).result or b"") for job_id in (first, second)]

    assert answers == [b"42", b"42"]
    assert steps == ["enter", "run", "exit"]


async def test_a_lifespan_that_fails_ends_the_worker_with_a_clear_error() -> None:
    bench = Bench()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        await asyncio.sleep(0)
        if bench.store.claims == []:
            raise OSError("no route to the database")
        yield

    worker = bench.worker(resources=lifespan)
    with pytest.raises(ConfigError, match="no job was claimed: OSError: no route to the database"):
        await soon(worker.run())

    assert (worker.state, bench.store.beats, bench.store.claims) == ("stopped", [], [])


# ---------------------------------------------------------------------- middleware


async def test_middleware_is_an_onion_around_every_run() -> None:
    bench = Bench()
    steps: list[str] = []

    def layer(name: str) -> Any:
        async def middleware(ctx: Context[Any], call_next: Any) -> object:
            steps.append(f"{name} before {ctx.job.type}")
            try:
                return await call_next(ctx)
            finally:
                steps.append(f"{name} after")

        return middleware

    @bench.registry.task
    async def work() -> int:
        steps.append("work")
        return 1

    async with bench.working(middleware=[layer("outer"), layer("inner")]):
        await bench.until(await bench.put(work))

    assert steps == [
        "outer before work", "inner before work", "work", "inner after", "outer after",
    ]  # fmt: skip


async def test_middleware_may_replace_the_result_refuse_or_time_out_a_run() -> None:
    bench = Bench()

    async def meddle(ctx: Context[Any], call_next: Any) -> object:
        match ctx.job.type:
            case "replaced":
                return [await call_next(ctx)]
            case "refused":
                raise PermissionError("not today")
            case _:
                async with asyncio.timeout(0.02):
                    return await call_next(ctx)

    @bench.registry.task
    async def replaced() -> int:
        return 1

    @bench.registry.task
    async def refused() -> None:
        raise AssertionError("never called")

    @bench.registry.task
    async def slow() -> None:
        await asyncio.Event().wait()

    @bench.registry.task
    def slow_thread(ctx: SyncContext[Any]) -> None:
        while not ctx.cancelled:
            time.sleep(0.002)

    async with bench.working(middleware=[meddle]):
        done = await bench.until(await bench.put(replaced))
        others = [
            await bench.until(await bench.put(task), Status.SCHEDULED)
            for task in (refused, slow, slow_thread)
        ]

    assert bytes(done.result or b"") == b"[1]"
    assert [job.errors[-1].type for job in others] == [
        "PermissionError", "TimeoutError", "TimeoutError",
    ]  # fmt: skip

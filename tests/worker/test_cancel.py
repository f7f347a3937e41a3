"""A cancellation is defined in every phase of a job's life, for every executor."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import CancelledError
from typing import Any, Literal

import pytest

from tests.worker import tasks
from tests.worker.support import SOON, Bench, eventually
from windlass.context import Context, Run, SyncContext
from windlass.executors import call_on_loop
from windlass.job import Job, JobId, Status
from windlass.lifecycle import Cancelled, Interrupted, Outcome
from windlass.worker.execute import execute


async def cancel(bench: Bench, job_id: JobId) -> None:
    await bench.store.cancel([job_id], reason="asked for")


async def no_longer_running(bench: Bench, job_id: JobId) -> Job:
    """Look again and again: for stores whose hints are switched off."""
    async with asyncio.timeout(SOON):
        while (job := await bench.job(job_id)).status is Status.PROCESSING:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    return job


async def test_a_job_that_waits_never_starts() -> None:
    bench = Bench()

    @bench.registry.task
    async def never() -> None:
        raise AssertionError("started")

    job_id = await bench.put(never)
    await cancel(bench, job_id)
    async with bench.working():
        job = await bench.until(job_id)

    assert (job.status, job.reason, job.fence) == (Status.CANCELLED, "asked for", 0)


@pytest.mark.parametrize(
    ("why", "outcome"),
    [
        ("cancelled", Cancelled()),
        ("shutdown", Interrupted(started=False)),
        ("lost", Interrupted(started=False)),
    ],
)
async def test_a_run_that_is_ended_before_its_first_step_never_takes_it(
    why: Literal["cancelled", "shutdown", "lost"], outcome: Outcome
) -> None:
    bench = Bench()

    @bench.registry.task
    async def never() -> None:
        raise AssertionError("started")

    run = Run(await bench.job(await bench.put(never)), bench.store)
    run.end(why)

    assert await execute(run, never, call_on_loop) == outcome


async def test_a_running_async_task_is_cancelled_at_its_next_await_and_may_clean_up() -> None:
    bench = Bench()
    started, cleaned = asyncio.Event(), asyncio.Event()

    @bench.registry.task
    async def long(ctx: Context[Any]) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert ctx.cancelled
            await asyncio.sleep(0)
            cleaned.set()

    async with bench.working():
        job_id = await bench.put(long)
        await started.wait()
        before = time.monotonic()
        await cancel(bench, job_id)
        job = await bench.until(job_id)
        took = time.monotonic() - before

    assert cleaned.is_set()
    assert (job.status, job.reason, job.failures) == (Status.CANCELLED, "cancelled on request", 0)
    # The hint was enough: it did not wait for the next beat.
    assert took < 0.25


async def test_without_the_hint_the_next_beat_tells() -> None:
    bench = Bench()
    bench.store.listen = lambda kinds, callback: lambda: None
    started = asyncio.Event()

    @bench.registry.task
    async def long() -> None:
        started.set()
        await asyncio.Event().wait()

    async with bench.working():
        job_id = await bench.put(long)
        await started.wait()
        await cancel(bench, job_id)
        job = await no_longer_running(bench, job_id)

    assert job.status is Status.CANCELLED


async def test_a_cancelled_task_that_swallows_it_is_cancelled_all_the_same() -> None:
    bench = Bench()
    started = asyncio.Event()

    @bench.registry.task
    async def stubborn() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except CancelledError:
            return "half done"
        return "never"

    async with bench.working():
        job_id = await bench.put(stubborn)
        await started.wait()
        await cancel(bench, job_id)
        job = await bench.until(job_id)

    assert (job.status, job.result) == (Status.CANCELLED, None)


async def test_a_failure_while_being_cancelled_stays_on_record() -> None:
    bench = Bench()
    started = asyncio.Event()

    @bench.registry.task
    async def clumsy() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("while cleaning up")

    async with bench.working():
        job_id = await bench.put(clumsy)
        await started.wait()
        await cancel(bench, job_id)
        job = await bench.until(job_id)

    assert (job.status, job.errors[-1].message) == (Status.CANCELLED, "while cleaning up")


@pytest.mark.parametrize("way", ["looks", "checks"])
async def test_a_thread_that_looks_ends_and_is_cancelled(way: str) -> None:
    bench = Bench()
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    @bench.registry.task
    def long(ctx: SyncContext[Any]) -> str:
        loop.call_soon_threadsafe(started.set)
        while not (way == "looks" and ctx.cancelled):
            if way == "checks":
                ctx.check()
            time.sleep(0.005)
        return "ended early"

    async with bench.working():
        job_id = await bench.put(long)
        await started.wait()
        await cancel(bench, job_id)
        job = await bench.until(job_id)

    assert (job.status, job.result) == (Status.CANCELLED, None)


async def test_a_thread_that_does_not_look_and_finishes_has_finished() -> None:
    bench = Bench()
    started, asked = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    @bench.registry.task
    def long() -> str:
        loop.call_soon_threadsafe(started.set)
        assert asked.wait(10)
        return "all of it"

    async with bench.working() as worker:
        job_id = await bench.put(long)
        await started.wait()
        await cancel(bench, job_id)
        await eventually(lambda: any(run.ending for run in worker._runs.active))
        asked.set()
        job = await bench.until(job_id)

    assert (job.status, bytes(job.result or b"")) == (Status.COMPLETED, b'"all of it"')


async def test_a_process_is_killed() -> None:
    bench = Bench()
    bench.registry.add(tasks.dawdle)

    async with bench.working():
        job_id = await bench.put(tasks.dawdle)
        await bench.until(job_id, Status.PROCESSING, when=lambda job: job.note == "dawdling")
        await cancel(bench, job_id)
        job = await bench.until(job_id)

    assert (job.status, job.reason) == (Status.CANCELLED, "cancelled on request")


async def test_a_job_that_has_ended_stays_as_it_is() -> None:
    bench = Bench()

    @bench.registry.task
    async def quick() -> int:
        return 1

    async with bench.working():
        job_id = await bench.put(quick)
        await bench.until(job_id)
        await cancel(bench, job_id)

    assert (await bench.job(job_id)).status is Status.COMPLETED


async def test_a_failed_attempt_is_not_retried_once_cancellation_was_asked_for() -> None:
    bench = Bench()
    gate, started = asyncio.Event(), asyncio.Event()
    bench.store.listen = lambda kinds, callback: lambda: None

    @bench.registry.task
    async def fails() -> None:
        started.set()
        await gate.wait()
        raise ValueError("no")

    async with bench.working():
        job_id = await bench.put(fails)
        await started.wait()
        # Too late for the worker to hear of it, in time for the row.
        await cancel(bench, job_id)
        gate.set()
        job = await no_longer_running(bench, job_id)

    assert (job.status, job.failures) == (Status.CANCELLED, 1)

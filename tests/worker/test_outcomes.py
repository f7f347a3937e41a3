"""Whatever a task does becomes one defined outcome, and never hurts the worker."""

from __future__ import annotations

import asyncio
import sys
from asyncio import CancelledError
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from tests.worker.support import AT_ONCE, Bench
from windlass.context import Context, current_context, in_handler
from windlass.errors import Discard, NonRetryable, Retry, Snooze
from windlass.events import JobEnded, JobStarted
from windlass.job import Job, Status
from windlass.retry import NO_RETRY, RetryPolicy


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


class TreacherousDelay(Exception):
    @property
    def retry_after(self) -> float:
        raise RuntimeError("no delay for you")


class Final(NonRetryable):
    pass


async def outcome_of(raised: BaseException, kind: str, **options: Any) -> Job:
    """What becomes of a job whose task raises; the same worker must run another job afterwards."""
    bench = Bench()

    if kind == "loop":

        @bench.registry.task(name="bad", **options)
        async def bad() -> None:
            raise raised

    else:

        @bench.registry.task(name="bad", **options)
        def bad() -> None:
            raise raised

    @bench.registry.task
    async def good() -> int:
        return 1

    first = await bench.put(bad)
    async with bench.working():
        await bench.event(JobEnded, lambda event: event.job.id == first)
        second = await bench.until(await bench.put(good))
        assert second.status is Status.COMPLETED
    return await bench.job(first)


async def test_a_value_is_stored_as_json_and_none_as_nothing() -> None:
    bench = Bench()

    @bench.registry.task
    async def double(x: int) -> dict[str, int] | None:
        return {"twice": 2 * x} if x else None

    @bench.registry.task
    def triple(x: int) -> int:
        return 3 * x

    async with bench.working():
        some = await bench.until(await bench.put(double, 4))
        none = await bench.until(await bench.put(double, 0))
        threaded = await bench.until(await bench.put(triple, 5))

    assert (some.status, bytes(some.result or b"")) == (Status.COMPLETED, b'{"twice":8}')
    assert (none.status, none.result) == (Status.COMPLETED, None)
    assert (threaded.status, bytes(threaded.result or b"")) == (Status.COMPLETED, b"15")


@pytest.mark.parametrize("kind", ["loop", "thread"])
@pytest.mark.parametrize(
    "raised",
    [
        ValueError("wrong"),
        Unprintable(),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        CancelledError(),
        TreacherousDelay("late"),
        RecursionError(),
        ExceptionGroup("two", [ValueError("a"), TypeError("b")]),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_whatever_is_raised_is_a_failed_attempt(raised: BaseException, kind: str) -> None:
    job = await outcome_of(raised, kind)

    assert (job.status, job.failures, job.crashes) == (Status.SCHEDULED, 1, 0)
    (failure,) = job.errors
    assert failure.kind == "error"
    assert failure.type.endswith(type(raised).__name__)
    assert failure.traceback is not None


@pytest.mark.parametrize("kind", ["loop", "thread"])
async def test_tasks_say_how_their_run_ended(kind: str) -> None:
    retried = await outcome_of(Retry("later", after=60), kind)
    discarded = await outcome_of(Discard("never"), kind)
    final = await outcome_of(Final("never"), kind)
    snoozed = await outcome_of(Snooze(90), kind)

    assert (retried.status, retried.failures) == (Status.SCHEDULED, 1)
    assert retried.ready_at - retried.created_at >= timedelta(seconds=60)
    assert (discarded.status, discarded.reason) == (Status.FAILED, "discarded by the task")
    assert (final.status, final.reason) == (Status.FAILED, "not to be retried")
    assert (snoozed.status, snoozed.failures) == (Status.SCHEDULED, 0)
    assert snoozed.ready_at - snoozed.created_at >= timedelta(seconds=90)


async def test_the_retry_policy_of_the_task_decides_by_exception() -> None:
    policy = RetryPolicy(exceptions={ValueError: None})

    assert (await outcome_of(ValueError("x"), "loop", retry=policy)).status is Status.FAILED
    assert (await outcome_of(KeyError("x"), "loop", retry=policy)).status is Status.SCHEDULED
    assert (await outcome_of(KeyError("x"), "loop", retry=NO_RETRY)).status is Status.FAILED


async def test_a_job_fails_when_its_attempts_are_used_up() -> None:
    bench = Bench()
    attempts: list[int] = []

    @bench.registry.task(max_attempts=3, retry=AT_ONCE)
    async def bad(ctx: Context[Any]) -> None:
        attempts.append(ctx.attempt)
        raise ValueError("again")

    async with bench.working():
        job = await bench.until(await bench.put(bad))

    assert attempts == [1, 2, 3]
    assert (job.status, job.reason) == (Status.FAILED, "attempts used up (3)")
    assert [failure.attempt for failure in job.errors] == [1, 2, 3]


@pytest.mark.parametrize(
    "make",
    [
        lambda: object(),
        lambda: float("nan"),
        lambda: 10**22,
        lambda: "\x00",
        lambda: "\ud800",
        lambda: "x" * 50_000_000,
        lambda: deep(10_000),
        lambda: open,
    ],
    ids=["object", "nan", "huge int", "nul", "surrogate", "50 MB", "deep", "builtin"],
)
async def test_a_result_that_cannot_be_stored_fails_the_job_for_good(
    make: Callable[[], Any],
) -> None:
    bench = Bench()
    runs = 0

    @bench.registry.task
    async def hostile() -> Any:
        nonlocal runs
        runs += 1
        return make()

    async with bench.working():
        job = await bench.until(await bench.put(hostile))

    assert (job.status, runs) == (Status.FAILED, 1)
    assert job.errors[-1].type.endswith("ResultError")


def deep(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("payload", [b"{", b"[]", b'{"x":"no number"}', b'{"y":1}', b"\xff"])
async def test_a_payload_that_does_not_fit_is_a_failed_attempt(payload: bytes) -> None:
    bench = Bench()

    @bench.registry.task
    async def strict(x: int) -> None:
        raise AssertionError("never called")

    async with bench.working():
        job_id = await bench.put_raw("strict", payload)
        job = await bench.until(job_id, Status.SCHEDULED)

    assert (job.failures, job.errors[-1].type) == (1, "windlass.errors.PayloadError")


async def test_a_type_that_is_unknown_here_stays_where_it_is() -> None:
    bench = Bench()

    @bench.registry.task
    async def known() -> None:
        pass

    unknown = await bench.put_raw("unknown")
    async with bench.working():
        await bench.until(await bench.put(known))

    job = await bench.job(unknown)
    assert (job.status, job.fence) == (Status.PENDING, 0)


async def test_an_alias_runs_the_task_under_its_former_name() -> None:
    bench = Bench()

    @bench.registry.task(aliases=["former"])
    async def present() -> str:
        return "done"

    async with bench.working():
        job = await bench.until(await bench.put_raw("former"))

    assert (job.type, job.status) == ("former", Status.COMPLETED)


async def test_a_run_that_takes_too_long_is_timed_out_and_retried() -> None:
    bench = Bench()
    ended = asyncio.Event()

    @bench.registry.task(timeout=0.2)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with bench.working():
        job = await bench.until(await bench.put(slow), Status.SCHEDULED)

    assert ended.is_set()
    (failure,) = job.errors
    assert (job.failures, failure.kind) == (1, "timeout")
    assert failure.message == "The run took longer than its time-out of 0.2 s."
    assert "Event().wait()" in (failure.traceback or "")


async def test_a_task_that_swallows_its_time_out_is_timed_out_all_the_same() -> None:
    bench = Bench()

    @bench.registry.task(timeout=0.2)
    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except CancelledError:
            return "as if nothing had happened"
        return "never"

    async with bench.working():
        job = await bench.until(await bench.put(stubborn), Status.SCHEDULED)

    assert job.errors[-1].kind == "timeout"


async def test_time_outs_of_its_own_are_the_tasks_own_affair() -> None:
    bench = Bench()

    @bench.registry.task
    async def careful() -> str:
        assert asyncio.current_task() is not None
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "gave up in time"
        return "never"

    async with bench.working():
        job = await bench.until(await bench.put(careful))

    assert (job.status, bytes(job.result or b"")) == (Status.COMPLETED, b'"gave up in time"')


async def test_a_run_knows_its_context_and_nothing_leaks_out_of_it() -> None:
    bench = Bench()
    seen: list[Any] = []

    @bench.registry.task
    async def look() -> None:
        ctx = current_context()
        assert ctx is not None
        seen.append((in_handler(), ctx.job.type, ctx.attempt, ctx.fence))

    @bench.registry.task
    def look_in_thread() -> None:
        ctx = current_context()
        assert ctx is not None
        seen.append((in_handler(), ctx.job.type, ctx.attempt, ctx.fence))

    async with bench.working():
        await bench.until(await bench.put(look))
        await bench.until(await bench.put(look_in_thread))

    assert seen == [(True, "look", 1, 1), (True, "look_in_thread", 1, 1)]
    assert not in_handler()


async def test_progress_and_lines_are_kept_with_the_job() -> None:
    bench = Bench()

    @bench.registry.task
    async def talk(ctx: Context[Any]) -> None:
        await ctx.log("begun")
        await ctx.progress(0.25, "a quarter")
        with pytest.raises(ValueError, match="from 0 to 1"):
            await ctx.progress(25)
        await ctx.log("bad\x00text", level="warning")

    async with bench.working():
        job = await bench.until(await bench.put(talk))

    assert (job.status, job.progress, job.note) == (Status.COMPLETED, 0.25, "a quarter")
    lines = await bench.store.logs(job.id)
    assert [(line.level, line.message, line.attempt) for line in lines] == [
        ("info", "begun", 1),
        ("warning", "bad\ufffdtext", 1),
    ]


async def test_events_tell_of_each_run_and_how_long_it_took() -> None:
    bench = Bench()

    @bench.registry.task
    async def work() -> None:
        await asyncio.sleep(0.02)

    async with bench.working() as worker:
        job_id = await bench.put(work)
        await bench.until(job_id)
        ended = await bench.event(JobEnded)

    (started,) = bench.of(JobStarted)
    assert (started.job.id, started.worker) == (job_id, worker.id)
    assert (ended.job.id, ended.status, ended.failure) == (job_id, Status.COMPLETED, None)
    assert timedelta(seconds=0.015) <= ended.ran < timedelta(seconds=5)


async def test_a_recursion_without_end_is_a_failed_attempt() -> None:
    bench = Bench()

    @bench.registry.task
    async def endless() -> None:
        def again() -> None:
            again()

        again()

    async with bench.working():
        job = await bench.until(await bench.put(endless), Status.SCHEDULED)

    assert job.errors[-1].type == "RecursionError"
    assert len(job.errors[-1].traceback or "") < sys.getrecursionlimit() * 100

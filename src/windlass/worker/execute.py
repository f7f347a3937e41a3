"""Execute: one run of one job becomes one Outcome, whatever the user's code does.

A task may return, raise anything at all, swallow its cancellation, return what cannot be stored or
raise what cannot be printed: nothing of that may reach the worker. What an exception means depends on
whether somebody had asked the run to end, so that is looked at first.
"""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from windlass.codec import encode_result
from windlass.context import Context, Run, running
from windlass.crashpoints import crash_point
from windlass.errors import Snooze
from windlass.executors import ChildDied, RemoteError
from windlass.faults import describe_exception
from windlass.job import Failure
from windlass.lifecycle import (
    Cancelled,
    Crashed,
    Interrupted,
    Outcome,
    Raised,
    Returned,
    Snoozed,
    TimedOut,
)
from windlass.middleware import Middleware, compose
from windlass.tasks import Task

__all__ = ["AnyTask", "Caller", "around", "execute", "timed_out"]

AnyTask = Task[..., Any]

Caller = Callable[[Run, AnyTask], Awaitable[object]]
"""How an executor runs the task's function."""


async def execute(run: Run, task: AnyTask, call: Caller) -> Outcome:
    """Run it. Never raises, and is never cancelled but from outside of the worker."""
    if run.over:
        return _before_start(run)
    running.set(run)
    if run.handle is not None:
        run.interrupt = run.handle.cancel
    crash_point("before-run")
    try:
        value = await call(run, task)
        result = None if value is None else encode_result(value)
    except BaseException as error:
        run.interrupt = None
        crash_point("after-run")
        # Returned at once: a local name would tie the exception and this frame into a cycle.
        return _after_exception(run, error)
    run.interrupt = None
    crash_point("after-run")
    return _after_return(run, result) if run.over else Returned(result)


def around(middleware: Sequence[Middleware], call: Caller) -> Caller:
    """*call* within the user's *middleware*; *call* itself when there is none."""
    if not middleware:
        return call

    async def call_within(run: Run, task: AnyTask) -> object:
        async def innermost(ctx: Context[Any]) -> object:
            return await call(run, task)

        return await compose(middleware, innermost)(run.context)

    return call_within


def timed_out(run: Run, traceback: str | None = None) -> TimedOut:
    """The outcome of *run*, which took too long; *traceback* shows where it stood."""
    timeout = run.job.timeout
    seconds = f" of {timeout.total_seconds():g} s" if timeout is not None else ""
    message = f"The run took longer than its time-out{seconds}."
    return TimedOut(Failure(run.job.attempt, "timeout", "TimedOut", message, traceback))


def _before_start(run: Run) -> Outcome:
    """It was asked to end before its first step."""
    return Cancelled() if run.ending == "cancelled" else Interrupted(started=False)


def _after_return(run: Run, result: bytes | None) -> Outcome:
    """It was asked to end, and returned. Whether it did so early is known by whether it noticed."""
    if run.ending == "timed out":
        return timed_out(run)
    if not run.noticed:
        return Returned(result)
    return Cancelled() if run.ending == "cancelled" else Interrupted()


def _after_exception(run: Run, error: BaseException) -> Outcome:
    if run.ending == "timed out":
        # Where a killed process stood is not known, and where the worker stood is no help.
        return timed_out(
            run, None if isinstance(error, ChildDied) else describe_exception(error)[2]
        )
    if run.ending == "shutdown" or run.ending == "lost":
        return Interrupted()
    if run.ending == "cancelled" and isinstance(error, CancelledError | ChildDied):
        return Cancelled()
    if isinstance(error, CancelledError) and _cancelled_from_outside():
        return Interrupted()
    if isinstance(error, Snooze):
        return Snoozed(error.delay)
    if isinstance(error, ChildDied):
        return Crashed(_failure(run, "crash", "ChildDied", str(error), None))
    if isinstance(error, RemoteError):
        return Raised(_failure(run, "error", *error.fault), error.stand_in)
    return Raised(_failure(run, "error", *describe_exception(error)), error)


def _cancelled_from_outside() -> bool:
    """Somebody cancelled this asyncio task, and it was not the worker: the program is ending."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(
    run: Run, kind: Literal["error", "crash"], type: str, message: str, traceback: str | None
) -> Failure:
    return Failure(run.job.attempt, kind, type, message, traceback)

"""Executors: what runs a task's function.

``async def`` runs on the worker's event loop, ``def`` in a thread, and ``run_in="process"`` in a child
process that can be killed. Each executor is a ``call(run, task)`` that decodes the payload, calls the
function and returns or raises what it did; ``execute`` makes an outcome of that. What ends a run early
differs: an async one is cancelled at its next await, a process is killed, and a thread can only be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from windlass.context import Run
from windlass.faults import Fault

if TYPE_CHECKING:
    from windlass.tasks import Task

__all__ = ["ChildDied", "RemoteError", "call_on_loop"]


class RemoteError(Exception):
    """A task in another process raised; here is what it said, as text."""

    def __init__(self, fault: Fault, stand_in: BaseException | None) -> None:
        super().__init__(f"{fault[0]}: {fault[1]}")
        self.fault = fault
        self.stand_in = stand_in
        """An exception that the retry policy treats as it would have treated the real one."""


class ChildDied(Exception):
    """The process that ran the task died with it."""


async def call_on_loop(run: Run, task: Task[..., Any]) -> object:
    """Run an ``async def`` right here."""
    args, kwargs = task.signature.decode(run.job.payload)
    if task.context_param is not None:
        kwargs[task.context_param] = run.context
    return await task.function(*args, **kwargs)

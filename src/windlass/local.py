"""The context of a task that is called directly: ``welcome(42)`` instead of ``welcome.enqueue(42)``.

Within another task the caller's own context is passed on. Elsewhere there is no job, so the task gets
a stand-in: progress and log lines go nowhere, and there are no resources.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from windlass.client import new_job_id
from windlass.clock import SystemClock
from windlass.context import Context, Run, SyncContext, current_context
from windlass.errors import ConfigError
from windlass.job import DEFAULT_QUEUE, Claim, Job, LogLine, Status, Token, WorkerId

__all__ = ["local_context", "local_sync_context"]


def local_context(type: str) -> Context[Any]:
    """The context for a direct call of the ``async def`` task *type*."""
    present = current_context()
    if isinstance(present, Context):
        return present
    return Run(_stand_in(type), _Nowhere(), _NoResources(type)).context


def local_sync_context(type: str) -> SyncContext[Any]:
    """The context for a direct call of the ``def`` task *type*."""
    present = current_context()
    if isinstance(present, SyncContext):
        return present
    return SyncContext(_stand_in(type), _SyncNowhere(), _NoResources(type))


class _Nowhere:
    async def progress(self, claim: Claim, fraction: float | None, note: str | None) -> bool:
        return True

    async def log(self, claim: Claim, lines: Sequence[LogLine]) -> bool:
        return True


class _SyncNowhere:
    cancelled = False

    def progress(self, fraction: float | None, note: str | None) -> bool:
        return True

    def log(self, line: LogLine) -> bool:
        return True


class _NoResources:
    """Stands for the resources that only a worker has, and says so when one is asked for."""

    def __init__(self, type: str) -> None:
        self._type = type

    def __getattr__(self, name: str) -> Any:
        raise ConfigError(
            f"Task {self._type!r} was called directly, where there is no ctx.resources.{name}: "
            f"pass a context of your own to {self._type}.function(ctx, …), or enqueue it."
        )


def _stand_in(type: str) -> Job:
    now = SystemClock().now()
    return Job(
        id=new_job_id(), seq=0, type=type, queue=DEFAULT_QUEUE, status=Status.PROCESSING,
        payload=msgspec.Raw(b"{}"), created_at=now, ready_at=now, started_at=now, fence=1,
        token=Token("local"), worker=WorkerId("local"),
    )  # fmt: skip

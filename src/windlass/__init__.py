"""Windlass: durable background jobs for Python.

A program says what shall happen later; Windlass makes sure that it does. Importing this package
must stay cheap: each public name is imported when it is used first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.background import Background
    from windlass.calls import Call
    from windlass.context import Context, SyncContext, current_context
    from windlass.errors import (
        ClaimLost,
        Closed,
        ConfigError,
        Discard,
        DuplicateJob,
        DuplicateTask,
        EnqueueError,
        IdConflict,
        JobCancelled,
        JobError,
        JobFailed,
        JobGone,
        JobNotFound,
        NonRetryable,
        PayloadError,
        QueueFull,
        ResultError,
        ResultTimeout,
        Retry,
        Snooze,
        StoreError,
        TaskError,
        UnknownTask,
        WindlassError,
    )
    from windlass.handles import JobHandle, SyncJobHandle
    from windlass.job import Job, JobFilter, JobId, Retention, Status, Unique
    from windlass.limits import Rate
    from windlass.middleware import Middleware, Next
    from windlass.retry import NO_RETRY, RetryPolicy
    from windlass.tasks import Registry

    __version__: str

__all__ = [
    "NO_RETRY",
    "Background",
    "Call",
    "ClaimLost",
    "Closed",
    "ConfigError",
    "Context",
    "Discard",
    "DuplicateJob",
    "DuplicateTask",
    "EnqueueError",
    "IdConflict",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobFilter",
    "JobGone",
    "JobHandle",
    "JobId",
    "JobNotFound",
    "Middleware",
    "Next",
    "NonRetryable",
    "PayloadError",
    "QueueFull",
    "Rate",
    "Registry",
    "ResultError",
    "ResultTimeout",
    "Retention",
    "Retry",
    "RetryPolicy",
    "Snooze",
    "Status",
    "StoreError",
    "SyncContext",
    "SyncJobHandle",
    "TaskError",
    "Unique",
    "UnknownTask",
    "Windlass",
    "WindlassError",
    "__version__",
    "current_context",
]

_HOMES = {
    "app": ("Windlass",),
    "background": ("Background",),
    "calls": ("Call",),
    "context": ("Context", "SyncContext", "current_context"),
    "handles": ("JobHandle", "SyncJobHandle"),
    "job": ("Job", "JobFilter", "JobId", "Retention", "Status", "Unique"),
    "limits": ("Rate",),
    "middleware": ("Middleware", "Next"),
    "retry": ("NO_RETRY", "RetryPolicy"),
    "tasks": ("Registry",),
}
"""Module → the public names that live there. All others are errors, and live in ``errors``.

``fan_out`` is not among them: a module of that name is an attribute of this package already."""

_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("windlass")
    else:
        from importlib import import_module

        value = getattr(import_module(f"windlass.{_HOME_OF.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

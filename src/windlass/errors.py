"""Every error Windlass raises, as one tree.

    WindlassError
    ├── ConfigError                 an option, URL or setting that cannot work (also a ValueError)
    │   └── TaskError               a task that cannot be declared as written
    │       └── DuplicateTask       two functions under one type name
    ├── PayloadError                arguments that do not fit the task's signature (also a ValueError)
    ├── ResultError                 a return value that cannot be stored as JSON
    ├── EnqueueError                the store did not accept a job
    │   ├── UnknownTask             no task of this type is registered here
    │   ├── QueueFull               the queue is at its capacity
    │   ├── DuplicateJob            the unique key is held, and the caller chose to be refused
    │   └── IdConflict              the id or idempotency key stands for another job
    ├── JobError                    about one job
    │   ├── JobNotFound             the store knows no such job
    │   ├── JobGone                 it ended and its row was pruned
    │   ├── JobFailed               result() of a job that ended ``failed``
    │   ├── JobCancelled            result() of a job that ended ``cancelled``
    │   ├── ResultTimeout           result() waited long enough (also a TimeoutError)
    │   └── ClaimLost               the running task no longer holds its job
    ├── Closed                      used before it was opened, or after it was closed (also a RuntimeError)
    └── StoreError                  the place where jobs live
        ├── StoreUnavailable        cannot be reached or opened now; trying again may help
        ├── StoreFull               the disk (or the store's own limit) is full
        ├── StoreInvalid            not a Windlass store, damaged, or on a file system that cannot keep it
        ├── SchemaMismatch          written by another version of Windlass than this one can serve
        └── NotSupported            this store cannot do what was asked

What a *task* raises to say how it ended is no error and stands apart, under :class:`TaskSignal`:
:class:`Retry`, :class:`Discard` and :class:`Snooze`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from windlass.job import Job

__all__ = [
    "ClaimLost",
    "Closed",
    "ConfigError",
    "Discard",
    "DuplicateJob",
    "DuplicateTask",
    "EnqueueError",
    "FieldError",
    "IdConflict",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobGone",
    "JobNotFound",
    "NonRetryable",
    "NotSupported",
    "PayloadError",
    "QueueFull",
    "ResultError",
    "ResultTimeout",
    "Retry",
    "SchemaMismatch",
    "Snooze",
    "StoreError",
    "StoreFull",
    "StoreInvalid",
    "StoreUnavailable",
    "TaskError",
    "TaskSignal",
    "UnknownTask",
    "WindlassError",
]


class WindlassError(Exception):
    """Base of all errors of Windlass. ``str(error)`` is one sentence that says what to do next."""


class ConfigError(WindlassError, ValueError):
    """An option, a URL or a setting that cannot work."""


class TaskError(ConfigError):
    """A function that cannot be a task as it is written."""


class DuplicateTask(TaskError):
    """Two functions were registered under one type name or alias."""


class FieldError(NamedTuple):
    """One thing wrong with a payload: *pointer* is an RFC 6901 JSON pointer (``/to/address``)."""

    pointer: str
    detail: str


class PayloadError(WindlassError, ValueError):
    """Arguments that do not fit the task's signature, or JSON that no store may keep.

    ``errors`` names each field at fault.
    """

    def __init__(self, message: str, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(message)
        self.errors = errors


class ResultError(WindlassError):
    """A task's return value that cannot be stored as JSON. The run is over: it is not repeated."""


class EnqueueError(WindlassError):
    """The job was not accepted; nothing was stored."""


class UnknownTask(EnqueueError):
    """No task of this type is registered; ``known`` lists near names for a "did you mean"."""

    def __init__(self, message: str, known: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.known = known


class QueueFull(EnqueueError):
    """The queue holds ``capacity`` jobs that have not started. Try again after ``retry_after``."""

    def __init__(self, queue: str, capacity: int, retry_after: timedelta | None = None) -> None:
        super().__init__(
            f"Queue {queue!r} is full: {capacity} jobs wait to start. "
            "Try again later, start more workers, or raise the queue's capacity."
        )
        self.queue = queue
        self.capacity = capacity
        self.retry_after = retry_after or timedelta(seconds=1)


class DuplicateJob(EnqueueError):
    """The unique key is held by ``existing``, and the caller chose ``on_conflict="reject"``."""

    def __init__(self, existing: Job) -> None:
        super().__init__(
            f"Unique key {existing.unique_key!r} is held by job {existing.id}, "
            f"which is {existing.status}."
        )
        self.existing = existing


class IdConflict(EnqueueError):
    """The id (or idempotency key) already stands for a job with another body: ``existing_id``."""

    def __init__(self, existing_id: str) -> None:
        super().__init__(
            f"Job {existing_id} exists with another type, payload or options. "
            "Use a new id or idempotency key for a new job."
        )
        self.existing_id = existing_id


class JobError(WindlassError):
    """About one job, named by ``job_id``."""

    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class JobNotFound(JobError):
    """The store knows no job of this id."""


class JobGone(JobError):
    """The job ended and was pruned by retention, so its result can no longer be read."""


class JobFailed(JobError):
    """``result()`` of a job that ended ``failed``; ``job`` holds its errors."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message, job.id)
        self.job = job


class JobCancelled(JobError):
    """``result()`` of a job that ended ``cancelled``; ``job`` holds the reason."""

    def __init__(self, message: str, job: Job) -> None:
        super().__init__(message, job.id)
        self.job = job


class ResultTimeout(JobError, TimeoutError):
    """The job had not ended when ``result(timeout=…)`` stopped waiting; it goes on undisturbed."""


class ClaimLost(JobError):
    """The running task no longer holds its job: what it writes would be ignored, so it should end."""


class Closed(WindlassError, RuntimeError):
    """Used before it was opened, or after it was closed."""


class StoreError(WindlassError):
    """The place where jobs live cannot do its work."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or opened now; nothing was changed, or it is not known whether."""


class StoreFull(StoreError):
    """No room is left to keep jobs safely: accepting and claiming stop until there is."""


class StoreInvalid(StoreError):
    """The file is not a Windlass store, is damaged, or lies where it cannot be kept safely."""


class SchemaMismatch(StoreError):
    """The store was written by a version of Windlass that this one cannot run beside."""


class NotSupported(StoreError):
    """This kind of store cannot do what was asked."""


class TaskSignal(Exception):
    """Raised by a task to say how its run ended."""


class Retry(TaskSignal):
    """Run this job again, ``after`` a delay (seconds or timedelta) or by the task's policy.

    Counts as a failed attempt, and ends ``failed`` when attempts are used up.
    """

    def __init__(self, message: str = "", *, after: float | timedelta | None = None) -> None:
        super().__init__(message)
        self.after = _as_delay(after)


class Discard(TaskSignal):
    """This job can never succeed: it ends ``failed`` at once, with no further attempt."""


class Snooze(TaskSignal):
    """Not now: run this job again after ``delay``. Costs no attempt."""

    def __init__(self, delay: float | timedelta, message: str = "") -> None:
        super().__init__(message)
        after = _as_delay(delay)
        assert after is not None
        self.delay = after


class NonRetryable(Exception):
    """Base or mixin for users' own exceptions after which a retry makes no sense."""


def _as_delay(value: float | timedelta | None) -> timedelta | None:
    if isinstance(value, float | int):
        value = timedelta(seconds=value)
    if value is not None and value < timedelta(0):
        raise ValueError("A delay cannot be negative.")
    return value

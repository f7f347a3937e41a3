"""How the program ends: exit codes, and errors as one sentence.

0  done                          4  the store cannot be used
1  a job or a check failed       5  no such job, task or queue
2  wrong usage                   6  a conflict, or the wrong state
3  configuration or import       7  waited too long
130, 143: ended by force, jobs handed back
"""

from __future__ import annotations

import traceback

import click

from windlass.errors import (
    ConfigError,
    DuplicateJob,
    IdConflict,
    JobCancelled,
    JobFailed,
    JobGone,
    JobNotFound,
    PayloadError,
    QueueFull,
    ResultTimeout,
    StoreError,
    UnknownTask,
    WindlassError,
)

__all__ = [
    "CONFIG",
    "CONFLICT",
    "FAILED",
    "NOT_FOUND",
    "STORE",
    "USAGE",
    "WAITED",
    "Told",
    "as_usage",
    "told",
]

FAILED, USAGE, CONFIG, STORE, NOT_FOUND, CONFLICT, WAITED = 1, 2, 3, 4, 5, 6, 7

_CODES: tuple[tuple[type[Exception], int], ...] = (
    (PayloadError, USAGE),
    (ConfigError, CONFIG),
    (StoreError, STORE),
    (UnknownTask, NOT_FOUND),
    (JobNotFound, NOT_FOUND),
    (JobGone, NOT_FOUND),
    (IdConflict, CONFLICT),
    (DuplicateJob, CONFLICT),
    (QueueFull, CONFLICT),
    (ResultTimeout, WAITED),
    (JobFailed, FAILED),
    (JobCancelled, FAILED),
)
"""The first that fits counts."""


class Told(click.ClickException):
    """An error that was made into a sentence, with its exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc] # click reads it from the instance too


def told(error: Exception, *, debug: bool = False) -> click.ClickException:
    """*error* as it is shown. Errors that are not ours are bugs, or the system's: raised as they are."""
    ours = _first(error)
    if not isinstance(ours, WindlassError):
        raise error
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    code = next((code for kind, code in _CODES if isinstance(ours, kind)), FAILED)
    return Told(str(ours), code)


def as_usage(error: ConfigError) -> click.UsageError:
    """An option that the person just typed: wrong usage, not wrong configuration."""
    return click.UsageError(str(error))


def _first(error: BaseException) -> BaseException:
    """The error itself, or of a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

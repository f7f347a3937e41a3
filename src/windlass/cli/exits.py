"""How the program ends: exit codes, and errors as one sentence.

0  done                          4  the store cannot be used
1  a job or a check failed       5  no such job, task or queue
2  wrong usage                   6  a conflict, or the wrong state
3  configuration or import       7  waited too long
130, 143: ended by force, jobs handed back
"""

from __future__ import annotations

import os
import threading
import traceback
from contextlib import suppress

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
    "end_soon",
    "told",
]

_LAST_MOMENTS = 3.0
"""Seconds that a process may take to end when all its work is done."""

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
    """*error* as it is shown. Errors that are neither ours nor the system's are bugs: raised as they
    are."""
    ours = _first(error)
    if not isinstance(ours, WindlassError | OSError):
        raise error
    if debug:
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    if not isinstance(ours, WindlassError):
        return Told(f"The system refuses: {_refusal(ours)}.", FAILED)
    code = next((code for kind, code in _CODES if isinstance(ours, kind)), FAILED)
    return Told(str(ours), code)


def end_soon(code: int) -> threading.Timer:
    """End this process with *code*, unless it ends by itself within a few seconds.

    Python waits without end for threads that tasks have left behind; a program that was told to stop
    must not. Cancel the answer if the process is to live on.
    """

    def end() -> None:
        with suppress(OSError):
            click.echo("Threads that tasks left behind would not end; they are cut off.", err=True)
        os._exit(code)

    timer = threading.Timer(_LAST_MOMENTS, end)
    timer.daemon = True
    timer.start()
    return timer


def as_usage(error: ConfigError) -> click.UsageError:
    """An option that the person just typed: wrong usage, not wrong configuration."""
    return click.UsageError(str(error))


def _refusal(error: OSError) -> str:
    """What the system says, and of what; in its own words where it says nothing else."""
    text = error.strerror or str(error) or type(error).__name__
    return f"{text} ({error.filename!r})" if error.filename else text


def _first(error: BaseException) -> BaseException:
    """The error itself, or of a group the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

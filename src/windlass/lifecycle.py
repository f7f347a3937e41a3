"""The life of a job: which status may follow which, and what follows a run.

:data:`TRANSITIONS` is the whole state machine; every store is tested against it, operation by
operation and status by status. :func:`settle` is the only place that decides what becomes of a job
after a run: the worker turns whatever happened into an :data:`Outcome`, ``settle`` turns that into an
:class:`Ack`, and the store applies the Ack if its claim still holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import assert_never

import msgspec

from windlass.errors import Discard
from windlass.job import Claim, Failure, Job, Lane, Status
from windlass.retry import RetryPolicy

__all__ = [
    "MAX_CHARGES",
    "TRANSITIONS",
    "Ack",
    "Cancelled",
    "Change",
    "Crashed",
    "Expired",
    "Interrupted",
    "Outcome",
    "Raised",
    "Returned",
    "Snoozed",
    "TimedOut",
    "Verb",
    "settle",
]

MAX_CHARGES = 3
"""Crashes for which a job alone is to blame before it fails."""

_LOST_DELAY = timedelta(seconds=0.5)
"""Least delay after a worker's death; up to as much again is added, so that survivors are not hit
by all of a dead worker's jobs at one moment."""


class Verb(StrEnum):
    """What can happen to a job."""

    INSERT = "insert"
    PROMOTE = "promote"
    CLAIM = "claim"
    ACK = "ack"
    CANCEL = "cancel"
    EXPIRE = "expire"
    RETRY = "retry"
    PRUNE = "prune"


_S = Status
TRANSITIONS: Mapping[Verb, Mapping[Status | None, frozenset[Status | None]]] = {
    Verb.INSERT: {None: frozenset({_S.SCHEDULED, _S.PENDING})},
    Verb.PROMOTE: {_S.SCHEDULED: frozenset({_S.PENDING})},
    Verb.CLAIM: {_S.PENDING: frozenset({_S.PROCESSING})},
    Verb.ACK: {
        _S.PROCESSING: frozenset({_S.COMPLETED, _S.FAILED, _S.CANCELLED, _S.SCHEDULED, _S.PENDING}),
    },
    # A running job is asked to end (`cancel_requested`) and stays `processing` until its Ack.
    Verb.CANCEL: {
        _S.SCHEDULED: frozenset({_S.CANCELLED}),
        _S.PENDING: frozenset({_S.CANCELLED}),
        _S.PROCESSING: frozenset({_S.PROCESSING}),
    },
    Verb.EXPIRE: {
        _S.SCHEDULED: frozenset({_S.CANCELLED}),
        _S.PENDING: frozenset({_S.CANCELLED}),
    },
    # A person's retry of a final job opens a new generation; of a scheduled one it only hurries it.
    Verb.RETRY: {
        _S.SCHEDULED: frozenset({_S.PENDING}),
        _S.COMPLETED: frozenset({_S.PENDING}),
        _S.FAILED: frozenset({_S.PENDING}),
        _S.CANCELLED: frozenset({_S.PENDING}),
    },
    Verb.PRUNE: {
        _S.COMPLETED: frozenset({None}),
        _S.FAILED: frozenset({None}),
        _S.CANCELLED: frozenset({None}),
    },
}
"""verb → status before → statuses it may lead to. None: no such row. What is absent does nothing."""


class Returned(msgspec.Struct, frozen=True):
    """The function returned; ``result`` is its value as JSON text (None for ``None``)."""

    result: bytes | None = None


class Raised(msgspec.Struct, frozen=True):
    """The function raised ``cause`` (None when only its description is left, as from a process)."""

    failure: Failure
    cause: BaseException | None = None


class TimedOut(msgspec.Struct, frozen=True):
    """The run took longer than the job's timeout and was ended."""

    failure: Failure


class Crashed(msgspec.Struct, frozen=True):
    """The process of this run alone died (an executor's child): charged to the job exactly."""

    failure: Failure


class Expired(msgspec.Struct, frozen=True):
    """The worker died with it. In quarantine that is the job's fault, elsewhere only suspicious."""

    failure: Failure


class Snoozed(msgspec.Struct, frozen=True):
    """The task asked to run later."""

    delay: timedelta


class Interrupted(msgspec.Struct, frozen=True):
    """The worker hands it back: shutdown, or a claim it never started (``started=False``)."""

    started: bool = True


class Cancelled(msgspec.Struct, frozen=True):
    """The run was ended because its cancellation had been requested."""

    reason: str = "cancelled on request"


Outcome = Returned | Raised | TimedOut | Crashed | Expired | Snoozed | Interrupted | Cancelled


class Change(msgspec.Struct, frozen=True):
    """What a store does to the row: the new status, and what is counted or noted with it."""

    status: Status
    delay: timedelta = timedelta(0)
    """Until due, for ``scheduled``."""
    result: bytes | None = None
    failure: Failure | None = None
    """Appended to the job's errors."""
    counted: bool = False
    """failures + 1."""
    crashed: bool = False
    """crashes + 1."""
    charged: bool = False
    """charges + 1."""
    unstarted: bool = False
    """The run never began: its rate charge is refunded."""
    reason: str | None = None


class Ack(msgspec.Struct, frozen=True):
    """What the holder of a claim asks for: ``then``, or ``if_cancel_requested`` when someone has.

    The store chooses between the two by the row it has locked, so that a request that was committed
    after :func:`settle` looked is not overwritten.
    """

    claim: Claim
    lane: Lane
    then: Change
    if_cancel_requested: Change
    reclaimed: bool = False
    """Made for a dead worker by someone else: the token is cleared, so that the owner's own Ack, if it
    still comes, is refused and not mistaken for this one."""


def settle(job: Job, outcome: Outcome, policy: RetryPolicy, roll: float) -> Ack:
    """What follows *outcome* for *job*, by *policy*; *roll* is random in [0, 1)."""
    then = _follow(job, outcome, policy, roll)
    reclaimed = isinstance(outcome, Expired)
    return Ack(job.claim, job.lane, then, _if_cancel_requested(then), reclaimed)


def _follow(job: Job, outcome: Outcome, policy: RetryPolicy, roll: float) -> Change:
    match outcome:
        case Returned(result):
            return Change(Status.COMPLETED, result=result)
        case Raised(failure, cause):
            return _after_failure(job, failure, cause, policy, roll)
        case TimedOut(failure):
            return _after_failure(job, failure, None, policy, roll)
        case Crashed(failure):
            return _after_crash(job, failure, roll, charged=True)
        case Expired(failure):
            # Suspects run nowhere but in quarantine, where nothing else can have been to blame.
            return _after_crash(job, failure, roll, charged=job.suspect)
        case Snoozed(delay):
            return Change(Status.SCHEDULED, delay=delay)
        case Interrupted(started):
            return Change(Status.PENDING, unstarted=not started)
        case Cancelled(reason):
            return Change(Status.CANCELLED, reason=reason)
        case _:
            assert_never(outcome)


def _after_failure(
    job: Job, failure: Failure, cause: BaseException | None, policy: RetryPolicy, roll: float
) -> Change:
    chosen = None if isinstance(cause, Discard) else policy.choose(cause)
    if chosen is None:
        reason = "discarded by the task" if isinstance(cause, Discard) else "not to be retried"
        return Change(Status.FAILED, failure=failure, counted=True, reason=reason)
    if job.attempt >= job.max_attempts:
        reason = f"attempts used up ({job.max_attempts})"
        return Change(Status.FAILED, failure=failure, counted=True, reason=reason)
    delay = chosen.asked(cause, roll)
    if delay is None:
        delay = chosen.delay(job.attempt, roll)
    return Change(Status.SCHEDULED, delay=delay, failure=failure, counted=True)


def _after_crash(job: Job, failure: Failure, roll: float, *, charged: bool) -> Change:
    if job.on_lost == "fail":
        return Change(
            Status.FAILED, failure=failure, crashed=True, charged=charged,
            reason="its worker died, and it must not run twice",
        )  # fmt: skip
    if charged and job.charges + 1 >= MAX_CHARGES:
        return Change(
            Status.FAILED, failure=failure, crashed=True, charged=True, reason="crashed its worker"
        )
    return Change(
        Status.SCHEDULED, delay=_LOST_DELAY * (1.0 + roll), failure=failure,
        crashed=True, charged=charged,
    )  # fmt: skip


def _if_cancel_requested(then: Change) -> Change:
    """Anything but ``completed`` becomes ``cancelled``; what happened stays on record."""
    if then.status is Status.COMPLETED or then.status is Status.CANCELLED:
        return then
    return Change(
        Status.CANCELLED, failure=then.failure, counted=then.counted, crashed=then.crashed,
        charged=then.charged, unstarted=then.unstarted, reason="cancelled on request",
    )  # fmt: skip

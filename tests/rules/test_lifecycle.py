"""What follows a run: every outcome, at every point of a job's life, is a row of a table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from windlass.errors import Discard, NonRetryable, ResultError, Retry
from windlass.job import FINAL, Failure, Job, JobId, Status, Token
from windlass.lifecycle import (
    MAX_CHARGES,
    TRANSITIONS,
    Ack,
    Cancelled,
    Change,
    Crashed,
    Expired,
    Interrupted,
    Outcome,
    Raised,
    Returned,
    Snoozed,
    TimedOut,
    Verb,
    settle,
)
from windlass.retry import RetryPolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POLICY = RetryPolicy(initial=timedelta(seconds=2), jitter=0.5)
FAILURE = Failure(attempt=1, kind="error", type="ValueError", message="no")


def running(**fields: Any) -> Job:
    base: dict[str, Any] = {
        "id": JobId("j"), "seq": 1, "type": "t", "queue": "q", "status": Status.PROCESSING,
        "payload": msgspec.Raw(b"{}"), "created_at": NOW, "ready_at": NOW, "token": Token("tok"),
        "max_attempts": 3,
    }  # fmt: skip
    return Job(**(base | fields))


def then(outcome: Outcome, roll: float = 0.0, **fields: Any) -> Change:
    return settle(running(**fields), outcome, POLICY, roll).then


def test_a_return_completes_with_its_result() -> None:
    ack = settle(running(), Returned(b"42"), POLICY, 0.0)

    assert ack == Ack(
        running().claim, running().lane,
        Change(Status.COMPLETED, result=b"42"), Change(Status.COMPLETED, result=b"42"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("failures", "seconds"), [(0, 2.0), (1, 4.0)], ids=["first failure", "second failure"]
)
def test_a_failure_is_scheduled_again_after_the_policys_delay(
    failures: int, seconds: float
) -> None:
    change = then(Raised(FAILURE, ValueError()), failures=failures)

    assert (change.status, change.counted, change.failure) == (Status.SCHEDULED, True, FAILURE)
    assert change.delay == timedelta(seconds=seconds)


def test_jitter_only_adds() -> None:
    assert then(TimedOut(FAILURE), roll=0.9).delay == timedelta(seconds=2 * 1.45)


@pytest.mark.parametrize("outcome", [Raised(FAILURE, ValueError()), TimedOut(FAILURE)])
def test_the_last_attempt_fails_for_good(outcome: Outcome) -> None:
    change = then(outcome, failures=2)

    assert (change.status, change.counted) == (Status.FAILED, True)
    assert change.reason == "attempts used up (3)"


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        (Discard("never"), "discarded by the task"),
        (NonRetryable("never"), "not to be retried"),
        (ResultError("not JSON"), "not to be retried"),
    ],
)
def test_what_cannot_succeed_fails_at_the_first_attempt(cause: Exception, reason: str) -> None:
    change = then(Raised(FAILURE, cause))

    assert (change.status, change.reason) == (Status.FAILED, reason)


def test_a_task_may_say_when_to_retry() -> None:
    change = then(Raised(FAILURE, Retry("busy", after=30)))

    assert (change.status, change.delay) == (Status.SCHEDULED, timedelta(seconds=30))


def test_a_policy_by_exception_overrules_the_tasks() -> None:
    class Slow(Exception): ...

    class Slower(Slow): ...

    policy = RetryPolicy(
        exceptions={Slow: RetryPolicy(initial=timedelta(minutes=5), jitter=0), KeyError: None}
    )

    slow = settle(running(), Raised(FAILURE, Slower()), policy, 0.0).then
    never = settle(running(), Raised(FAILURE, KeyError()), policy, 0.0).then

    assert slow.delay == timedelta(minutes=5)
    assert never.status is Status.FAILED


def test_snoozes_and_hand_backs_cost_no_attempt() -> None:
    snoozed = then(Snoozed(timedelta(minutes=1)), failures=2)
    returned = then(Interrupted(), failures=2)
    unstarted = then(Interrupted(started=False), failures=2)

    assert snoozed == Change(Status.SCHEDULED, delay=timedelta(minutes=1))
    assert returned == Change(Status.PENDING)
    assert unstarted == Change(Status.PENDING, unstarted=True)


def test_a_workers_death_is_counted_but_not_charged_to_an_innocent() -> None:
    change = then(Expired(FAILURE), roll=0.5, failures=2, crashes=0)

    assert (change.status, change.crashed, change.charged) == (Status.SCHEDULED, True, False)
    assert not change.counted
    assert change.delay == timedelta(seconds=0.75)


def test_a_suspect_is_charged_and_fails_at_the_third_charge() -> None:
    second = then(Expired(FAILURE), crashes=3, charges=MAX_CHARGES - 2)
    third = then(Expired(FAILURE), crashes=4, charges=MAX_CHARGES - 1)

    assert (second.status, second.charged) == (Status.SCHEDULED, True)
    assert (third.status, third.charged, third.reason) == (
        Status.FAILED, True, "crashed its worker",
    )  # fmt: skip


def test_the_crash_of_a_jobs_own_process_is_charged_at_once() -> None:
    first = then(Crashed(FAILURE), crashes=0, charges=0)
    last = then(Crashed(FAILURE), crashes=2, charges=MAX_CHARGES - 1)

    assert (first.status, first.charged) == (Status.SCHEDULED, True)
    assert (last.status, last.reason) == (Status.FAILED, "crashed its worker")


def test_only_a_reclaimers_ack_is_marked_as_one() -> None:
    assert settle(running(), Expired(FAILURE), POLICY, 0.0).reclaimed
    assert not settle(running(), Crashed(FAILURE), POLICY, 0.0).reclaimed


@pytest.mark.parametrize("outcome", [Expired(FAILURE), Crashed(FAILURE)])
def test_at_most_once_work_fails_when_it_is_lost(outcome: Outcome) -> None:
    assert then(outcome, on_lost="fail").status is Status.FAILED


@pytest.mark.parametrize(
    "outcome",
    [
        Raised(FAILURE, ValueError()), TimedOut(FAILURE), Expired(FAILURE), Crashed(FAILURE),
        Snoozed(timedelta(1)), Interrupted(), Cancelled(),
    ],
    ids=lambda outcome: type(outcome).__name__,
)  # fmt: skip
@pytest.mark.parametrize("failures", [0, 2])
def test_anything_but_a_return_becomes_cancelled_when_that_was_asked(
    outcome: Outcome, failures: int
) -> None:
    ack = settle(running(failures=failures), outcome, POLICY, 0.0)

    assert ack.if_cancel_requested.status is Status.CANCELLED
    assert ack.if_cancel_requested.failure == ack.then.failure
    assert ack.if_cancel_requested.charged == ack.then.charged


def test_final_statuses_are_left_only_by_a_person_or_by_pruning() -> None:
    leaving = {verb for verb, arrows in TRANSITIONS.items() if FINAL & arrows.keys()}

    assert leaving == {Verb.RETRY, Verb.PRUNE}


def test_every_status_can_be_reached_and_every_waiting_one_can_be_left() -> None:
    reached = {to for arrows in TRANSITIONS.values() for tos in arrows.values() for to in tos}

    assert reached == {*Status, None}
    for status in set(Status) - FINAL:
        assert any(status in arrows for arrows in TRANSITIONS.values())

"""The checker can fail: every invariant holds of a good history and finds what is planted in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.reliability import checker
from tests.reliability.checker import History, check, count
from tests.reliability.journal import Change, Row
from tests.reliability.ledger import Fact, Kind, Ledger, read
from windlass.job import Status

S = Status

# Job a: handed out to w1, which is killed; handed out again to w2, which completes it. Job b is w2's.
GOOD = History(
    facts=[
        Fact(Kind.TRIED, "p", 0.0, "a"), Fact(Kind.ACCEPTED, "p", 0.1, "a"),
        Fact(Kind.TRIED, "p", 0.2, "b"), Fact(Kind.ACCEPTED, "p", 0.3, "b"),
        Fact(Kind.STARTED, "w1", 1.0, "a", 1), Fact(Kind.KILLED, "w1", 1.5),
        Fact(Kind.STARTED, "w2", 1.6, "b", 1), Fact(Kind.FINISHED, "w2", 1.7, "b", 1),
        Fact(Kind.STARTED, "w2", 3.0, "a", 2), Fact(Kind.FINISHED, "w2", 3.1, "a", 2),
    ],
    journal=[
        Change("a", None, S.PENDING, 0, at=0.1), Change("b", None, S.PENDING, 0, at=0.3),
        Change("a", S.PENDING, S.PROCESSING, 1, token="t1", at=0.9),
        Change("b", S.PENDING, S.PROCESSING, 1, token="t2", at=1.55),
        Change("b", S.PROCESSING, S.COMPLETED, 1, token="t2", result='"r1"', at=1.75),
        Change("a", S.PROCESSING, S.SCHEDULED, 1, token=None, at=2.0),
        Change("a", S.SCHEDULED, S.PENDING, 1, at=2.9),
        Change("a", S.PENDING, S.PROCESSING, 2, token="t3", at=2.95),
        Change("a", S.PROCESSING, S.COMPLETED, 2, token="t3", result='"r2"', at=3.2),
    ],
    rows={
        "a": Row("a", S.COMPLETED, 2, result='"r2"'),
        "b": Row("b", S.COMPLETED, 1, result='"r1"'),
    },
    canaries={"b": "w2"},
)  # fmt: skip


def also(*facts: Fact) -> History:
    return replace(GOOD, facts=[*GOOD.facts, *facts])


def without(kind: Kind, job: str) -> History:
    return replace(GOOD, facts=[f for f in GOOD.facts if (f.kind, f.job) != (kind, job)])


def written(*changes: Change) -> History:
    return replace(GOOD, journal=[*GOOD.journal, *changes])


def standing(*rows: Row) -> History:
    return replace(GOOD, rows={**GOOD.rows, **{row.id: row for row in rows}})


PLANTED: dict[str, tuple[History, Callable[[History], list[str]]]] = {
    "an accepted job is gone": (
        replace(GOOD, rows={"b": GOOD.rows["b"]}), checker.i1_no_loss,
    ),
    "a job comes from nowhere": (
        standing(Row("c", S.COMPLETED, 1, result='"r1"')), checker.i2_no_phantom,
    ),
    "a second outcome": (
        written(Change("a", S.COMPLETED, S.COMPLETED, 2, token="t1")), checker.i3_one_final_status,
    ),
    "a status after the end": (
        written(Change("a", S.COMPLETED, S.PENDING, 2)), checker.i3_one_final_status,
    ),
    "a step that no rule knows": (
        written(Change("c", None, S.PROCESSING, 1)), checker.i3_one_final_status,
    ),
    "completed without a run": (without(Kind.STARTED, "b"), checker.i4_executed),
    "completed before it got through": (without(Kind.FINISHED, "b"), checker.i4_executed),
    "the result of an earlier hand-out": (
        standing(Row("a", S.COMPLETED, 2, result='"r1"')), checker.i5_outcome_once,
    ),
    "completed twice": (
        written(Change("b", S.PROCESSING, S.COMPLETED, 1, token="t2")), checker.i5_outcome_once,
    ),
    "completed by a stranger": (
        written(Change("c", S.PROCESSING, S.COMPLETED, 1, token=None)), checker.i5_outcome_once,
    ),
    "one hand-out started twice": (
        also(Fact(Kind.STARTED, "w2", 3.05, "a", 2)), checker.i6_no_double_start,
    ),
    "two runs at once": (
        replace(
            GOOD,
            facts=[fact for fact in GOOD.facts if fact.kind is not Kind.KILLED],
            journal=[change for change in GOOD.journal if change.after is not S.SCHEDULED],
        ),
        checker.i7_overlap_only_when_lost,
    ),
    "a run again for no reason": (
        also(Fact(Kind.STARTED, "w2", 4.0, "b", 2)), checker.i8_bounded_duplicates,
    ),
    "more runs again than were in flight": (
        also(Fact(Kind.STARTED, "w2", 4.0, "a", 3), Fact(Kind.KILLED, "w3", 1.55)),
        checker.i8_bounded_duplicates,
    ),
    "a job lingers": (standing(Row("a", S.PENDING, 1)), checker.i12_liveness),
    "a worker is deaf": (replace(GOOD, canaries={"b": "w3"}), checker.i12_liveness),
    "the fence was never needed": (GOOD, checker.i15_fence_exercised),
}  # fmt: skip


def test_a_good_history_passes() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize(("history", "invariant"), PLANTED.values(), ids=PLANTED)
def test_each_invariant_finds_what_is_planted(
    history: History, invariant: Callable[[History], list[str]]
) -> None:
    assert invariant(history) != []


def test_every_invariant_is_put_to_the_test() -> None:
    tried = {invariant for _, invariant in PLANTED.values()}

    assert tried == {*checker.INVARIANTS, checker.i15_fence_exercised}


BAD = Row("bad", S.FAILED, 5, crashes=5, charges=3, reason="crashed its worker")


def test_contained_poison_passes() -> None:
    assert checker.poison_contained(standing(BAD), {"bad"}) == []


@pytest.mark.parametrize(
    "row",
    [
        Row("a", S.FAILED, 2, reason="crashed its worker", charges=3),
        Row("a", S.PENDING, 2),
        BAD._replace(charges=2),
        BAD._replace(status=S.COMPLETED),
        BAD._replace(reason="attempts used up (15)"),
    ],
    ids=["an innocent fails", "an innocent waits", "two charges", "completed", "another reason"],
)
def test_poison_that_is_not_contained_is_found(row: Row) -> None:
    assert checker.poison_contained(standing(BAD, row), {"bad"}) != []


def test_an_innocent_that_starts_too_often_is_found() -> None:
    starts = [Fact(Kind.STARTED, "w2", 5.0 + n, "b", 2 + n) for n in range(3)]

    assert checker.poison_contained(also(*starts), set()) != []


def test_an_overlap_is_allowed_once_the_claim_was_lost() -> None:
    frozen = [
        Fact(Kind.STOPPED, "w1", 1.5), Fact(Kind.FINISHED, "w1", 3.05, "a", 1),
        *(fact for fact in GOOD.facts if fact.kind is not Kind.KILLED),
    ]  # fmt: skip

    assert check(replace(GOOD, facts=frozen)) == []


def test_a_frozen_worker_may_cost_the_others_their_jobs() -> None:
    # w1 froze while it held the write lock, so that w2's lease ran out too.
    history = also(
        Fact(Kind.STOPPED, "w1", 1.65), Fact(Kind.STARTED, "w3", 4.0, "b", 2),
    )  # fmt: skip

    assert checker.i8_bounded_duplicates(history) == []


HANDED_BACK = replace(
    GOOD,
    facts=[fact for fact in GOOD.facts if fact.kind is not Kind.KILLED],
    journal=[
        change._replace(after=S.PENDING, token="t1") if change.after is S.SCHEDULED else change
        for change in GOOD.journal
        if (change.before, change.after) != (S.SCHEDULED, S.PENDING)
    ],
)
"""Job a was handed back by w1, and not taken from it."""


def test_a_clean_stop_passes() -> None:
    assert checker.cleanly_stopped(HANDED_BACK) == []


@pytest.mark.parametrize(
    "history",
    [
        GOOD,
        replace(HANDED_BACK, facts=[*HANDED_BACK.facts, Fact(Kind.FINISHED, "w1", 1.4, "a", 1)]),
        replace(HANDED_BACK, facts=[f for f in HANDED_BACK.facts if f.kind is not Kind.FINISHED]),
        replace(HANDED_BACK, facts=[*HANDED_BACK.facts, Fact(Kind.STARTED, "w2", 5.0, "a", 3)]),
    ],
    ids=["taken", "finished and not recorded", "recorded and not finished", "repeated"],
)
def test_a_stop_that_is_not_clean_is_found(history: History) -> None:
    assert checker.cleanly_stopped(history) != []


def test_a_run_that_was_handed_back_is_no_duplicate() -> None:
    assert checker.i8_bounded_duplicates(HANDED_BACK) == []
    assert count(HANDED_BACK).again == 0


def test_stale_outcomes_put_the_fence_to_the_test() -> None:
    assert checker.i15_fence_exercised(also(Fact(Kind.STALE, "w1", 4.0, "a"))) == []


def test_a_history_is_counted() -> None:
    assert count(GOOD) == checker.Counts(
        jobs=2, starts=3, again=1, kills=1, freezes=0, stale=0, lost=1
    )


def test_the_ledger_reads_what_was_noted(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = Ledger(path, "w1")
    ledger.note(Kind.STARTED, "a", 3)
    ledger.note(Kind.KILLED, worker="w2")
    ledger.close()

    facts = read(path)

    assert [(f.kind, f.worker, f.job, f.fence) for f in facts] == [
        (Kind.STARTED, "w1", "a", 3),
        (Kind.KILLED, "w2", "-", 0),
    ]
    assert facts[0].at <= facts[1].at

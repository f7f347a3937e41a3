"""The claim protocol and the poison-job rule, explored exhaustively in small bounds.

Enough: with every clause, no reachable state breaks a promise, and the job can always still end.
Needed: without any one clause, some state breaks a promise or strands the job.
"""

from __future__ import annotations

from dataclasses import fields

import pytest

from tests.reliability import quarantine
from tests.reliability.protocol import Budget, Clauses, explore, without
from tests.reliability.reports import Reports

QUIET = Budget(kills=0, freezes=0, drops=0, late=0, steps=0, fails=0, stops=0, cancels=0, tokens=2)

ENOUGH = {
    "kill and lost message": QUIET._replace(kills=1, drops=1),
    "kill and cancel": QUIET._replace(kills=1, cancels=1),
    "kill, clock step": QUIET._replace(kills=1, steps=1),
    "freeze and cancel": QUIET._replace(freezes=1, cancels=1),
    "freeze, three hand-outs": QUIET._replace(freezes=1, tokens=3),
    "lost and late messages, cancel": QUIET._replace(drops=1, late=1, cancels=1),
    "stop, lost and late messages": QUIET._replace(stops=1, drops=1, late=1),
    "failure, late message, clock step": QUIET._replace(fails=1, late=1, steps=1),
}
ENOUGH_IN_FULL = {
    "freeze and late message": QUIET._replace(freezes=1, late=1),
    "kill, freeze, lost message": QUIET._replace(kills=1, freezes=1, drops=1),
    "freeze, failure, lost message": QUIET._replace(freezes=1, fails=1, drops=1),
    "freeze, stop, cancel": QUIET._replace(freezes=1, stops=1, cancels=1),
    "kill, lost and late, three hand-outs": QUIET._replace(kills=1, drops=1, late=1, tokens=3),
}

NEEDED = {
    "ack_checks_token": QUIET._replace(freezes=1),
    "ack_checks_status": QUIET._replace(freezes=1),
    "ack_recognises_repeat": QUIET._replace(drops=1),
    "reclaim_clears_token": QUIET._replace(freezes=1),
    "ack_after_run": QUIET._replace(stops=1),
    "ack_reads_cancel": QUIET._replace(cancels=1, fails=1),
    "held_until_answer": QUIET,
    "beat_returns_unknown": QUIET._replace(drops=1),
    "beat_compares_now": QUIET,
    "beat_loses_only_sent": QUIET,
    "claim_abandons": QUIET._replace(late=1),
    "claim_refuses_dead": QUIET._replace(freezes=1, tokens=3),
    "claim_refuses_absent": QUIET._replace(stops=1, late=1),
    "reclaim_two_looks": QUIET._replace(steps=1),
    "reclaim_any_dead": QUIET._replace(kills=1, drops=1),
    "leave_when_clean": QUIET._replace(stops=1, late=1),
}


@pytest.mark.parametrize("budget", ENOUGH.values(), ids=ENOUGH)
def test_the_clauses_are_enough(budget: Budget) -> None:
    found = explore(Clauses(), budget)

    assert found.sound, found
    assert found.states > 10_000


@pytest.mark.torture
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "budget"), ENOUGH_IN_FULL.items(), ids=ENOUGH_IN_FULL)
def test_the_clauses_are_enough_in_wider_bounds(
    name: str, budget: Budget, torture: bool, reports: Reports
) -> None:
    # Narrower by one disturbance where time is short; whole under `make torture`.
    narrowed = budget if torture else budget._replace(drops=0, late=0, tokens=2)

    found = explore(Clauses(), narrowed)

    reports.add(f"Model: {name}", {"states": found.states}, [] if found.sound else [str(found)])
    assert found.sound, found


def test_every_clause_is_put_to_the_test() -> None:
    assert set(NEEDED) == {field.name for field in fields(Clauses)}


@pytest.mark.parametrize(("clause", "budget"), NEEDED.items(), ids=NEEDED)
def test_each_clause_is_needed(clause: str, budget: Budget) -> None:
    found = explore(without(clause), budget)

    assert not found.sound


@pytest.mark.parametrize("kills", [0, 1, 2])
def test_poison_ends_and_innocents_do_not(kills: int) -> None:
    found = quarantine.explore(quarantine.Rules(), kills=kills)

    assert not found.innocents_failed
    assert found.charges_of_a_failed_bad_job == {3}
    assert found.most_starts_of_a_good_job <= 3 + kills
    assert not found.stuck


def test_an_innocent_starts_at_most_twice_more_because_of_a_bad_neighbour() -> None:
    found = quarantine.explore(quarantine.Rules(), good=3)

    assert found.most_starts_of_a_good_job == 3


@pytest.mark.parametrize(
    "rules",
    [
        quarantine.Rules(charge_only_in_quarantine=False),
        quarantine.Rules(suspects_only_in_quarantine=False),
        quarantine.Rules(quarantine_of_one=False),
    ],
    ids=["charged everywhere", "suspects beside others", "quarantine of two"],
)
def test_each_clause_of_the_poison_rule_is_needed(rules: quarantine.Rules) -> None:
    # One kill from outside may cost every good job one more start, and no more than that.
    found = quarantine.explore(rules, good=3, kills=1)

    assert found.innocents_failed or found.most_starts_of_a_good_job > 4

"""A small model of the poison-job rule (promise 7), explored exhaustively with the real `settle`.

One bad job, which kills whatever process runs it, among good ones; a worker of two slots; a
quarantine worker of one. Somebody may also kill either process from outside, a few times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from windlass.job import FINAL, Failure, Job, JobId, Status, Token
from windlass.lifecycle import Expired, Returned, settle
from windlass.retry import RetryPolicy

__all__ = ["Rules", "Verdict", "explore"]

SLOTS = 2
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_FAILURE = Failure(attempt=1, kind="lost", type="WorkerLost", message="its worker died")


@dataclass(frozen=True)
class Rules:
    """The clauses of the rule; False leaves one out."""

    charge_only_in_quarantine: bool = True
    suspects_only_in_quarantine: bool = True
    quarantine_of_one: bool = True


class One(NamedTuple):
    """A job: where it stands, what is counted, where it runs, how often it started."""

    bad: bool
    status: Status = Status.PENDING
    crashes: int = 0
    charges: int = 0
    place: str = ""
    starts: int = 0


State = tuple[tuple[One, ...], int]
"""The jobs, and how many kills from outside are left."""


class Verdict(NamedTuple):
    """What the exploration found about all ways things can go."""

    states: int
    innocents_failed: bool
    most_starts_of_a_good_job: int
    charges_of_a_failed_bad_job: set[int]
    stuck: bool


def explore(rules: Rules, *, good: int = 2, kills: int = 0) -> Verdict:
    """Visit every state that one bad job and *good* others can reach."""
    start: State = ((One(bad=True), *(One(bad=False) for _ in range(good))), kills)
    seen, queue = {start}, deque([start])
    into: dict[State, list[State]] = {}
    while queue:
        state = queue.popleft()
        for after in _steps(state, rules):
            into.setdefault(after, []).append(state)
            if after not in seen:
                seen.add(after)
                queue.append(after)
    ends = {state for state in seen if all(job.status in FINAL for job in state[0])}
    can_end, queue = set(ends), deque(ends)
    while queue:
        for before in into.get(queue.popleft(), ()):
            if before not in can_end:
                can_end.add(before)
                queue.append(before)
    jobs = [job for state in ends for job in state[0]]
    return Verdict(
        states=len(seen),
        innocents_failed=any(job.status is Status.FAILED for job in jobs if not job.bad),
        most_starts_of_a_good_job=max(job.starts for job in jobs if not job.bad),
        charges_of_a_failed_bad_job={job.charges for job in jobs if job.bad},
        stuck=seen != can_end,
    )


def _steps(state: State, rules: Rules) -> Iterator[State]:
    jobs, kills = state
    for place, slots in (("worker", SLOTS), ("quarantine", 1 if rules.quarantine_of_one else 2)):
        inside = [i for i, job in enumerate(jobs) if job.place == place]
        for i, job in enumerate(jobs):
            if job.status is Status.PENDING and len(inside) < slots and _may(job, place, rules):
                claimed = job._replace(status=Status.PROCESSING, place=place, starts=job.starts + 1)
                yield _put(jobs, i, claimed), kills
        for i in inside:
            if jobs[i].bad:
                yield _die(jobs, place, rules), kills
            else:
                yield _put(jobs, i, _settled(jobs[i], Returned(), rules)), kills
        if inside and kills:
            yield _die(jobs, place, rules), kills - 1


def _may(job: One, place: str, rules: Rules) -> bool:
    suspect = job.crashes >= 2
    if place == "quarantine":
        return suspect
    return not suspect or not rules.suspects_only_in_quarantine


def _die(jobs: tuple[One, ...], place: str, rules: Rules) -> tuple[One, ...]:
    return tuple(_settled(j, Expired(_FAILURE), rules) if j.place == place else j for j in jobs)


def _settled(job: One, outcome: Expired | Returned, rules: Rules) -> One:
    crashes = job.crashes if rules.charge_only_in_quarantine else max(2, job.crashes)
    row = Job(
        id=JobId("j"), seq=1, type="t", queue="q", status=Status.PROCESSING, token=Token("t"),
        payload=msgspec.Raw(b"{}"), created_at=_NOW, ready_at=_NOW, crashes=crashes,
        charges=job.charges,
    )  # fmt: skip
    change = settle(row, outcome, RetryPolicy(), 0.0).then
    status = Status.PENDING if change.status is Status.SCHEDULED else change.status
    return job._replace(
        status=status, place="", crashes=min(3, job.crashes + change.crashed),
        charges=job.charges + change.charged,
    )  # fmt: skip


def _put(jobs: tuple[One, ...], i: int, job: One) -> tuple[One, ...]:
    return (*jobs[:i], job, *jobs[i + 1 :])

"""The invariants, each a pure function from what happened to what was wrong with it.

An invariant answers sentences, one for each violation; an empty list means that it held. It sees a
:class:`History`: the ledgers outside of the store, the journal that the database kept by triggers, and
the jobs as they stand in the end. Its numbers are those of the reliability plan: I1 no loss, I2 no
phantom, I3 one final status, I4 executed, I5 outcome once and from the right hand-out, I6 no double
start, I7 overlap only after a lost claim, I8 bounded duplicates, I12 liveness, I15 the fence was put to
the test.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import NamedTuple

from tests.reliability.journal import Change, Row
from tests.reliability.ledger import Fact, Kind
from windlass.job import FINAL, Status
from windlass.lifecycle import TRANSITIONS

__all__ = [
    "INVARIANTS", "Counts", "History", "Invariant", "check", "cleanly_stopped", "count",
    "poison_contained", "value_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class History:
    """What happened to the jobs of one test."""

    facts: list[Fact]
    journal: list[Change] = field(default_factory=list)
    rows: Mapping[str, Row] = field(default_factory=dict)
    canaries: Mapping[str, str] = field(default_factory=dict)
    """Job → the worker that alone could run it."""

    def of(self, *kinds: Kind) -> Iterator[Fact]:
        """The facts of these kinds, in order."""
        return (fact for fact in self.facts if fact.kind in kinds)


Invariant = Callable[[History], list[str]]


def value_of(fence: int) -> str:
    """The value that a test's task returns: it tells from which hand-out it comes."""
    return f"r{fence}"


def i1_no_loss(history: History) -> list[str]:
    """Every job whose enqueue was answered stands in the store, and has ended."""
    accepted = {fact.job for fact in history.of(Kind.ACCEPTED)}
    return [f"I1: {job} was accepted and is not there" for job in accepted - history.rows.keys()]


def i2_no_phantom(history: History) -> list[str]:
    """Nothing stands in the store that no producer tried to enqueue."""
    tried = {fact.job for fact in history.of(Kind.TRIED)}
    return [f"I2: nobody tried to enqueue {job}" for job in history.rows.keys() - tried]


def i3_one_final_status(history: History) -> list[str]:
    """A generation ends once, nothing follows its end, and every change is one the rules know."""
    wrong = []
    ended: set[tuple[str, int]] = set()
    for change in history.journal:
        at = (change.job, change.generation)
        if at in ended:
            wrong.append(f"I3: {change.job} went {change.before} → {change.after} after its end")
        elif change.after not in _MAY_FOLLOW[change.before]:
            wrong.append(f"I3: {change.job} went {change.before} → {change.after}")
        if change.after in FINAL:
            ended.add(at)
    return wrong


def i4_executed(history: History) -> list[str]:
    """A completed job was started and finished, in the hand-out whose outcome was accepted."""
    started = {(fact.job, fact.fence) for fact in history.of(Kind.STARTED)}
    finished = {(fact.job, fact.fence) for fact in history.of(Kind.FINISHED)}
    got_through = started & finished
    return [
        f"I4: {change.job} was completed by hand-out {change.fence}, which did not get through"
        for change in history.journal
        if change.after is Status.COMPLETED and (change.job, change.fence) not in got_through
    ]


def i5_outcome_once(history: History) -> list[str]:
    """The result kept is that of the one hand-out whose outcome was accepted, by its holder."""
    wrong = []
    outcomes: dict[str, list[Change]] = defaultdict(list)
    for change in history.journal:
        if change.after is Status.COMPLETED:
            outcomes[change.job].append(change)
    for job, found in outcomes.items():
        if len(found) > 1:
            wrong.append(f"I5: {job} was completed {len(found)} times")
        if any(change.token is None for change in found):
            wrong.append(f"I5: {job} was completed by somebody who did not hold it")
    wrong += [
        f"I5: {row.id} was handed out {row.fence} times and keeps {row.result}"
        for row in history.rows.values()
        if row.status is Status.COMPLETED and row.result != f'"{value_of(row.fence)}"'
    ]
    return wrong


def i6_no_double_start(history: History) -> list[str]:
    """A hand-out starts at most once."""
    starts = Counter((fact.job, fact.fence) for fact in history.of(Kind.STARTED))
    return [
        f"I6: {job}, hand-out {f}, started {n} times" for (job, f), n in starts.items() if n > 1
    ]


def i7_overlap_only_when_lost(history: History) -> list[str]:
    """Two runs of a job overlap only if the earlier one had lost its claim by then."""
    ends = _ends(history)
    lost = {(c.job, c.fence) for c in history.journal if _is_loss(c)}
    wrong = []
    for job, runs in _starts_by_job(history).items():
        for earlier, later in pairwise(runs):
            overlap = ends[job, earlier.fence] > later.at
            if overlap and (job, earlier.fence) not in lost:
                wrong.append(
                    f"I7: {job} ran twice at once, hand-outs {earlier.fence} and {later.fence}"
                )
    return wrong


def i8_bounded_duplicates(history: History) -> list[str]:
    """Starts beyond the first are no more than what was in flight when something was done to a
    worker. A frozen worker may hold up all others, so there everybody's jobs count."""
    in_flight = _InFlight(history)
    thawed = [(fact.worker, fact.at) for fact in history.of(Kind.THAWED)]
    bound = 0
    for fact in history.of(Kind.KILLED, Kind.STOPPED):
        if fact.kind is Kind.KILLED:
            # To the end of time, because it starts nothing any more, whatever the clocks say.
            bound += in_flight.during(fact.at, inf, fact.worker)
        else:
            until = min(
                (at for of, at in thawed if of == fact.worker and at > fact.at), default=inf
            )
            bound += in_flight.during(fact.at, until, None)
    again = _again(history)
    return [f"I8: {again} starts too many, and {bound} may be"] if again > bound else []


def i12_liveness(history: History) -> list[str]:
    """Everything ended, and every living worker ran the job that was meant for it alone."""
    wrong = [
        f"I12: {row.id} is still {row.status}"
        for row in history.rows.values()
        if row.status not in FINAL
    ]
    ran = {(fact.job, fact.worker) for fact in history.of(Kind.FINISHED)}
    wrong += [
        f"I12: worker {worker} did not run its canary"
        for job, worker in history.canaries.items()
        if (job, worker) not in ran
    ]
    return wrong


def i15_fence_exercised(history: History) -> list[str]:
    """At least one outcome came too late and was refused: else the fence was not put to the test."""
    return [] if any(history.of(Kind.STALE)) else ["I15: no outcome came too late"]


def poison_contained(history: History, bad: Collection[str], *, extra: int = 2) -> list[str]:
    """Jobs that kill their worker fail for that reason after three charges; all others complete, and
    start at most *extra* times more than once."""
    wrong = []
    starts = Counter(fact.job for fact in history.of(Kind.STARTED))
    for row in history.rows.values():
        if row.id in bad:
            if (row.status, row.reason, row.charges) != (Status.FAILED, "crashed its worker", 3):
                wrong.append(
                    f"poison {row.id} is {row.status} ({row.reason}), {row.charges} charges"
                )
        elif row.status is not Status.COMPLETED:
            wrong.append(f"innocent {row.id} is {row.status} ({row.reason})")
        elif starts[row.id] > 1 + extra:
            wrong.append(f"innocent {row.id} was started {starts[row.id]} times")
    return wrong


def cleanly_stopped(history: History) -> list[str]:
    """What finished was recorded and nothing else was, nothing had to be taken from anybody, and
    nothing ran again but what its holder handed back."""
    finished = {(fact.job, fact.fence) for fact in history.of(Kind.FINISHED)}
    recorded = {
        (change.job, change.fence) for change in history.journal if change.after is Status.COMPLETED
    }
    wrong = [f"{job}, hand-out {fence}, got through in vain" for job, fence in finished - recorded]
    wrong += [f"{job}, hand-out {fence}, did not get through" for job, fence in recorded - finished]
    wrong += [f"{c.job}, hand-out {c.fence}, was taken" for c in history.journal if _is_loss(c)]
    if again := _again(history):
        wrong.append(f"{again} runs were repeated")
    return wrong


INVARIANTS: tuple[Invariant, ...] = (
    i1_no_loss, i2_no_phantom, i3_one_final_status, i4_executed, i5_outcome_once,
    i6_no_double_start, i7_overlap_only_when_lost, i8_bounded_duplicates, i12_liveness,
)  # fmt: skip
"""What must hold of every history, however much was done to the workers."""


def check(history: History) -> list[str]:
    """Everything that is wrong with it."""
    return [sentence for invariant in INVARIANTS for sentence in invariant(history)]


class Counts(NamedTuple):
    """A history in numbers, for reports."""

    jobs: int
    starts: int
    again: int
    """Runs that had to be repeated, and not because of what they said themselves."""
    kills: int
    freezes: int
    stale: int
    """Outcomes that came too late and were refused."""
    lost: int
    """Claims that were taken from their holder."""


def count(history: History) -> Counts:
    """The numbers of a history."""
    kinds = Counter(fact.kind for fact in history.facts)
    return Counts(
        jobs=len(history.rows), starts=kinds[Kind.STARTED], again=_again(history),
        kills=kinds[Kind.KILLED], freezes=kinds[Kind.STOPPED], stale=kinds[Kind.STALE],
        lost=sum(map(_is_loss, history.journal)),
    )  # fmt: skip


_MAY_FOLLOW: dict[Status | None, frozenset[Status | None]] = {
    before: frozenset().union(*(arrows.get(before, frozenset()) for arrows in TRANSITIONS.values()))
    for before in (None, *Status)
}
"""Status → what any verb may make of it."""


def _is_loss(change: Change) -> bool:
    """Somebody else than the holder ended the claim."""
    return change.before is Status.PROCESSING and change.token is None


def _starts_by_job(history: History) -> dict[str, list[Fact]]:
    starts: dict[str, list[Fact]] = defaultdict(list)
    for fact in history.of(Kind.STARTED):
        starts[fact.job].append(fact)
    for runs in starts.values():
        runs.sort(key=lambda fact: fact.fence)
    return starts


def _again(history: History) -> int:
    """Runs that another had to follow, although their holder did not ask for that."""
    given_back = {
        (change.job, change.fence)
        for change in history.journal
        if change.before is Status.PROCESSING and change.token is not None
        if change.after not in FINAL
    }
    return sum(
        (run.job, run.fence) not in given_back
        for runs in _starts_by_job(history).values()
        for run in runs[:-1]
    )


def _ends(history: History) -> dict[tuple[str, int], float]:
    """When each run ended: when its function did, or its worker."""
    killed = {fact.worker: fact.at for fact in history.of(Kind.KILLED)}
    ends = {
        (fact.job, fact.fence): killed.get(fact.worker, inf) for fact in history.of(Kind.STARTED)
    }
    for fact in history.of(Kind.FINISHED, Kind.BROKEN_OFF):
        ends[fact.job, fact.fence] = fact.at
    return ends


class _InFlight:
    """How many jobs were started and not yet settled, at any moment."""

    def __init__(self, history: History) -> None:
        settled = {
            (change.job, change.fence): change.at
            for change in reversed(history.journal)
            if change.before is Status.PROCESSING
        }
        self._spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for fact in history.of(Kind.STARTED):
            end = settled.get((fact.job, fact.fence), inf)
            self._spans[fact.worker].append((fact.at, end))

    def during(self, since: float, until: float, worker: str | None) -> int:
        """At any moment of this time; of one worker, or of all."""
        return sum(
            start <= until and end > since
            for of in (self._spans if worker is None else (worker,))
            for start, end in self._spans.get(of, ())
        )

"""Why a job is not running (or how it ended), in plain words and with the next step.

:func:`explain` is a pure function of what the store says at one moment: the job, queues, limits,
workers and counts. It looks for reasons in the order in which a claim would meet them; the first one
is the answer, the others are told as details, because removing one may only uncover the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec

from windlass.durations import format_duration
from windlass.job import FINAL, Job, Limit, QueueInfo, Stats, Status, WorkerInfo
from windlass.lifecycle import MAX_CHARGES

__all__ = ["Ahead", "Situation", "Why", "explain", "span"]


class Ahead(msgspec.Struct, frozen=True):
    """How many pending jobs of the same queue come first by rank; ``exact`` unless counting ended."""

    count: int
    exact: bool = True


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an explanation is made from. ``now`` is the store's (``stats.at``)."""

    job: Job
    queues: Sequence[QueueInfo] = ()
    limits: Sequence[Limit] = ()
    workers: Sequence[WorkerInfo] = ()
    stats: Stats
    ahead: Ahead | None = None
    near: tuple[str, ...] = ()
    """Registered types that look like the job's, when its own is unknown."""

    @property
    def now(self) -> datetime:
        return self.stats.at


class Why(msgspec.Struct, frozen=True):
    """The answer: one sentence, what else is true, and what to do (None: nothing needs doing)."""

    job: Job
    sentence: str
    details: list[str]
    next_step: str | None


class _Reason(msgspec.Struct, frozen=True):
    sentence: str
    next_step: str | None = None


def explain(at: Situation) -> Why:
    """Why ``at.job`` stands where it stands."""
    match at.job.status:
        case Status.SCHEDULED:
            reasons = [_scheduled(at), *_blockers(at, _LASTING)]
        case Status.PENDING:
            reasons = list(_blockers(at, _LASTING + _PASSING)) or [_soon(at)]
        case Status.PROCESSING:
            reasons = [_processing(at)]
        case _:
            reasons = [_final(at)]
    first, *others = reasons
    details = [reason.sentence for reason in others] + _facts(at)
    step = first.next_step or next((r.next_step for r in others if r.next_step), None)
    return Why(at.job, first.sentence, details, step)


def span(value: timedelta) -> str:
    """A duration for people: two units at most, no more exact than they would say it."""
    seconds = abs(value.total_seconds())
    if seconds < 10:
        return f"{seconds:.1f} s".replace(".0 ", " ")
    coarse = 1 if seconds < 3600 else 60 if seconds < 86_400 else 3600
    text = format_duration(timedelta(seconds=round(seconds / coarse) * coarse))
    return (
        text.replace("d", " d ")
        .replace("h", " h ")
        .replace("m", " min ")
        .replace("s", " s")
        .strip()
    )


# ------------------------------------------------------------------ by status


def _scheduled(at: Situation) -> _Reason:
    job = at.job
    if job.ready_at <= at.now:
        if not at.workers:
            return _Reason(
                f"It was due at {_when(job.ready_at, at)} and no worker is running to notice.",
                "Start a worker: windlass worker",
            )
        return _Reason("It is due, and becomes pending within the next moment.")
    until = f"until {_when(job.ready_at, at)}"
    hurry = f"To run it now: windlass retry {job.id}"
    last = job.errors[-1] if job.errors else None
    if last is None or not _by_last_run(job):
        if job.fence:
            return _Reason(f"Its task put it off {until}.", hurry)
        return _Reason(f"It is scheduled: it waits {until}.", hurry)
    if last.kind in ("lost", "crash"):
        return _Reason(f"The worker that ran it died; it waits for its next run {until}.", hurry)
    return _Reason(
        f"It waits for a retry {until}: attempt {job.failures} of {job.max_attempts} failed"
        f" with {last.type}{': ' + _line(last.message).rstrip('.') if last.message else ''}.",
        hurry,
    )


def _by_last_run(job: Job) -> bool:
    """Whether the latest error belongs to the latest run, and not to one before a snooze."""
    at = job.errors[-1].at
    return at is None or job.started_at is None or at >= job.started_at


def _soon(at: Situation) -> _Reason:
    if at.ahead is not None and at.ahead.count:
        return _Reason(f"It is in line: {_first(at.ahead, ' of its queue')}.")
    return _Reason("Nothing holds it back: a worker should take it within a second.")


def _processing(at: Situation) -> _Reason:
    job = at.job
    worker = next((w for w in at.workers if w.id == job.worker), None)
    since = _when(job.started_at, at) if job.started_at else "a moment ago"
    if worker is None:
        step = None if at.workers else "Start a worker: windlass worker"
        return _Reason(
            f"It was running since {since}, but its worker {job.worker} is gone: "
            "a healthy worker takes it back within seconds.",
            step,
        )
    if worker.lease_until is not None and worker.lease_until < at.now:
        return _Reason(
            f"It was running since {since}, but its worker {_where(worker)} has not been heard of "
            f"{_since(worker.seen_at, at)}: it is taken back as soon as that worker counts as dead.",
            None if len(at.workers) > 1 else "Start another worker: windlass worker",
        )
    if job.cancel_requested:
        return _Reason(
            f"Its cancellation was requested; it has been running since {since} on worker "
            f"{_where(worker)} and has not ended yet.",
        )
    return _Reason(
        f"It has been running since {since} on worker {_where(worker)}, "
        f"attempt {job.attempt} of {job.max_attempts}.",
        f"To end it: windlass cancel {job.id}",
    )


def _final(at: Situation) -> _Reason:
    job = at.job
    ended = f"at {_when(job.finished_at, at)}" if job.finished_at else "before"
    reason = f": {job.reason}" if job.reason else ""
    again = f"To run it again: windlass retry {job.id}"
    if job.status is Status.COMPLETED:
        return _Reason(f"It completed {ended}.")
    if job.status is Status.CANCELLED:
        return _Reason(f"It was cancelled {ended}{reason}.", again)
    return _Reason(f"It failed {ended}{reason}.", again)


# ------------------------------------------------------------------ what keeps a claim from it


_Check = Callable[[Situation], "_Reason | None"]


def _blockers(at: Situation, checks: Sequence[_Check]) -> Iterator[_Reason]:
    for check in checks:
        reason = check(at)
        if reason is not None:
            yield reason
            if check in _CONCLUSIVE:
                return


def _expired(at: Situation) -> _Reason | None:
    expires = at.job.expires_at
    if expires is None or expires > at.now:
        return None
    return _Reason(f"It expired at {_when(expires, at)} and is about to be cancelled.")


def _paused(at: Situation) -> _Reason | None:
    queue = next((q for q in at.queues if q.name == at.job.queue), None)
    if queue is None or not queue.paused:
        return None
    why = f" ({queue.reason})" if queue.reason else ""
    return _Reason(
        f"Queue {queue.name!r} is paused{why}.",
        f"To let it go on: windlass queues resume {queue.name}",
    )


def _no_worker(at: Situation) -> _Reason | None:
    if _usual(at):
        return None
    return _Reason("No worker is running.", "Start a worker: windlass worker")


def _not_served(at: Situation) -> _Reason | None:
    if any(_serves(w, at.job) for w in _usual(at)):
        return None
    served = sorted({q for w in _usual(at) for q in w.queues or ()})
    return _Reason(
        f"No worker serves queue {at.job.queue!r}: "
        f"those that run ({len(_usual(at))}) serve only {_list(served)}.",
        f"Start a worker for it: windlass worker --queues {at.job.queue}",
    )


def _unknown_type(at: Situation) -> _Reason | None:
    serving = [w for w in _usual(at) if _serves(w, at.job)]
    if any(at.job.type in w.types for w in serving):
        return None
    known = sorted({t for w in serving for t in w.types})
    where = f" that serve queue {at.job.queue!r}" if len(serving) < len(_usual(at)) else ""
    near = f" Near: {_list(at.near)}." if at.near else ""
    return _Reason(
        f"It is parked: none of the workers{where} knows task type {at.job.type!r}; "
        f"they know {_list(known)}.{near}",
        "Start a worker whose app has this task, or give the renamed task this name as an alias.",
    )


def _not_taking(at: Situation) -> _Reason | None:
    able = _able(at)
    if any(w.state == "running" for w in able):
        return None
    states = ", ".join(f"{_where(w)} is {w.state}" for w in able)
    return _Reason(
        f"The workers that could run it take no new jobs: {states}.",
        "Start a worker: windlass worker",
    )


def _suspect(at: Situation) -> _Reason | None:
    if not at.job.suspect:
        return None
    waiting = (
        "is running" if any(w.quarantine for w in at.workers) else "starts when a slot is free"
    )
    return _Reason(
        f"It is a suspect: workers died with it {at.job.crashes} times, so it runs only in "
        f"quarantine, alone in a process of its own, which {waiting}.",
    )


def _at_concurrency(at: Situation) -> _Reason | None:
    for limit in _limits(at):
        running = _running(at, limit)
        if limit.concurrency is not None and running >= limit.concurrency:
            return _Reason(
                f"{_scope(limit)} is at its concurrency limit: {running} of at most "
                f"{limit.concurrency} are running."
            )
    return None


def _slots_busy(at: Situation) -> _Reason | None:
    taking = [w for w in _able(at) if w.state == "running"]
    slots, busy = sum(w.slots for w in taking), sum(w.busy for w in taking)
    if busy < slots or at.job.suspect:
        return None
    return _Reason(
        f"All {_count(slots, 'slot')} of the {_count(len(taking), 'worker')} that can run it are busy."
        + (f" {_first(at.ahead)}." if at.ahead and at.ahead.count else ""),
        "To run more at once, start another worker: windlass worker",
    )


def _at_rate(at: Situation) -> _Reason | None:
    """The store keeps the charge of a rate to itself: this is the pace, and what follows from it."""
    rated = [limit for limit in _limits(at) if limit.rate is not None]
    if not rated:
        return None
    limit = max(rated, key=lambda each: each.rate.interval if each.rate else 0.0)
    assert limit.rate is not None
    pace = timedelta(seconds=limit.rate.interval)
    turn = at.now + pace * (1 + (at.ahead.count if at.ahead else 0))
    line = f" and {_first(at.ahead)}" if at.ahead and at.ahead.count else ""
    return _Reason(
        f"{_scope(limit)} has a rate limit of {limit.rate}: one may start every {span(pace)}{line}, "
        f"so its turn comes until about {_when(turn, at)}.",
    )


_LASTING: tuple[_Check, ...] = (
    _expired, _paused, _no_worker, _not_served, _unknown_type, _not_taking, _suspect,
)  # fmt: skip
_PASSING: tuple[_Check, ...] = (_at_concurrency, _slots_busy, _at_rate)
"""Said of pending jobs only: by the time a scheduled one is due, they will have changed."""
_CONCLUSIVE = frozenset({_no_worker, _not_served, _unknown_type, _not_taking})
"""With no worker to look at, the checks after these have nothing to say."""


# ------------------------------------------------------------------ what else is worth knowing


def _facts(at: Situation) -> list[str]:
    job, facts = at.job, list[str]()
    if job.status is Status.PROCESSING:
        if job.progress is not None:
            facts.append(f"Progress {job.progress:.0%}{': ' + job.note if job.note else ''}.")
        if job.timeout is not None and job.started_at is not None:
            facts.append(f"It times out at {_when(job.started_at + job.timeout, at)}.")
    if job.status is Status.PENDING:
        facts.append(f"Ready since {_when(job.ready_at, at)}.")
    if job.status not in FINAL:
        if job.expires_at is not None and job.expires_at > at.now and not job.fence:
            facts.append(f"It is cancelled unless it starts before {_when(job.expires_at, at)}.")
        if job.charges:
            facts.append(f"It crashed {job.charges} of {MAX_CHARGES} times in quarantine.")
    if job.errors and job.status in {Status.PENDING, Status.PROCESSING, Status.FAILED}:
        last = job.errors[-1]
        facts.append(f"Last error (attempt {last.attempt}): {last.type}: {_line(last.message)}")
    if job.generation:
        facts.append(f"It was run again by an operator {_count(job.generation, 'time')}.")
    return facts


def _usual(at: Situation) -> list[WorkerInfo]:
    """Workers that take anything but suspects."""
    return [w for w in at.workers if not w.quarantine]


def _able(at: Situation) -> list[WorkerInfo]:
    return [w for w in _usual(at) if _serves(w, at.job) and at.job.type in w.types]


def _serves(worker: WorkerInfo, job: Job) -> bool:
    return worker.queues is None or job.queue in worker.queues


def _limits(at: Situation) -> list[Limit]:
    names = {"queue": at.job.queue, "type": at.job.type}
    return [limit for limit in at.limits if limit.name == names[limit.scope]]


def _running(at: Situation, limit: Limit) -> int:
    return sum(
        lane.counts.get(Status.PROCESSING, 0)
        for lane in at.stats.lanes
        if (lane.queue if limit.scope == "queue" else lane.type) == limit.name
    )


# ------------------------------------------------------------------ words


def _scope(limit: Limit) -> str:
    return f"Queue {limit.name!r}" if limit.scope == "queue" else f"Task type {limit.name!r}"


def _when(moment: datetime, at: Situation) -> str:
    """The clock time in UTC, and how far off; the date too when it is another day."""
    form = "%H:%M:%S" if moment.date() == at.now.date() else "%Y-%m-%d %H:%M"
    off = moment - at.now
    relative = f"in {span(off)}" if off > timedelta(0) else f"{span(off)} ago"
    return f"{moment.strftime(form)} UTC ({relative})"


def _since(moment: datetime | None, at: Situation) -> str:
    return "for a while" if moment is None else f"for {span(at.now - moment)}"


def _where(worker: WorkerInfo) -> str:
    return f"{worker.id} ({worker.host}, process {worker.pid})"


def _first(ahead: Ahead, of: str = "") -> str:
    least = "" if ahead.exact else "at least "
    return f"{least}{_count(ahead.count, 'job')}{of} come{'s' if ahead.count == 1 else ''} first"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _list(names: Sequence[str], most: int = 8) -> str:
    if not names:
        return "none"
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def _line(text: str, longest: int = 200) -> str:
    """The first line of what a task said, cut to fit."""
    line = text.strip().splitlines()[0] if text.strip() else ""
    return line if len(line) <= longest else line[: longest - 1] + "…"

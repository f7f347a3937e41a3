"""The port: what a store promises. Every sentence here is a conformance test.

A store keeps jobs and applies changes; it decides nothing about them. Each operation is a batch and
atomic. None takes "now": the store's own clock decides, so that workers with wrong clocks agree.
Three narrow protocols, one for each kind of caller; :class:`Store` is all of them.

* :class:`JobStore`: enqueueing and running work (client and worker).
* :class:`ControlStore`: looking and intervening (people, through ``control``).
* :class:`Store`: both, and opening and closing.

A time has come from its very instant on (now ≥ it): due, expired, lease run out, kept long enough.
A unique key is released by whatever ends its hold, and taken only by insert, ack and retry; the job's
``unique_key`` is the key that it holds now.

Stores raise :class:`~windlass.errors.StoreError` and nothing else for their own troubles. After
``StoreUnavailable`` a write may or may not have happened: every write can be repeated as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Literal, Protocol

import msgspec

from windlass.job import (
    Claim,
    Job,
    JobFilter,
    JobId,
    Limit,
    LogLine,
    NewJob,
    Page,
    QueueInfo,
    Retention,
    Stats,
    StoreInfo,
    Token,
    WorkerId,
    WorkerInfo,
)
from windlass.lifecycle import Ack

__all__ = [
    "AckAnswer",
    "Beat",
    "ControlStore",
    "HandOut",
    "Held",
    "Inserted",
    "JobStore",
    "Notice",
    "NoticeKind",
    "Promotion",
    "Retried",
    "Store",
    "Want",
]

DEFAULT_CAPACITY = 100_000
"""Jobs of one queue that may wait, where the queue has no capacity of its own."""


class Inserted(msgspec.Struct, frozen=True):
    """The job that stands for a given NewJob; ``duplicate`` when it stood already."""

    job: Job
    duplicate: bool = False


class Want(msgspec.Struct, frozen=True):
    """Which work a worker asks for: the product of queues and types."""

    queues: frozenset[str] | None
    """None: every queue."""
    types: frozenset[str]
    suspects: bool = False
    """Quarantine: suspects and nothing else. Otherwise: anything but suspects."""


class HandOut(msgspec.Struct, frozen=True):
    """What a claim got. ``opens_in``: a rate limit holds work back until then (None: none does)."""

    jobs: list[Job]
    opens_in: timedelta | None = None


AckAnswer = Literal["applied", "stale", "gone"]
"""``applied``: now or by an earlier call with the same token. ``stale``: another holds or changed the
job; nothing was written. ``gone``: there is no such row any more."""


class Held(msgspec.Struct, frozen=True):
    """A row that the store believes a worker to be processing."""

    claim: Claim
    cancel_requested: bool


class Beat(msgspec.Struct, frozen=True):
    """Answer to a heartbeat. A worker that is not ``alive`` must end everything it holds."""

    alive: bool
    held: list[Held]


class Promotion(msgspec.Struct, frozen=True):
    """What a promote did: ``promoted`` jobs became pending, ``expired`` were cancelled.

    ``next_due``: how long until the next scheduled job is due; zero when the limit left some
    undone; None when none is scheduled. ``suspects``: whether suspects are pending.
    """

    promoted: int
    expired: int
    next_due: timedelta | None
    suspects: bool


class Retried(msgspec.Struct, frozen=True):
    """Answer to an operator's retry, for one job. ``skipped`` says why nothing was done."""

    id: JobId
    job: Job | None
    skipped: Literal["processing", "pending", "key taken", "not found"] | None = None


NoticeKind = Literal["ready", "cancel", "changed"]


class Notice(msgspec.Struct, frozen=True):
    """A hint. ``ready``: the queues may have pending jobs. ``cancel``: these running jobs shall end.
    ``changed``: these jobs are no longer as they were (status, progress, log)."""

    kind: NoticeKind
    queues: tuple[str, ...] = ()
    ids: tuple[JobId, ...] = ()


class JobStore(Protocol):
    """What enqueueing and running need."""

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Accept *jobs*: all of them or, when anything is raised, none.

        Answers in order, after the commit that makes them durable. A job is ``scheduled`` when its
        ``delay`` or ``run_at`` lies ahead by the store's clock, else ``pending`` and ready now, so
        that a time long past is no head start. ``expires_at`` = ready_at + expires.
        Same id again: the stored job, as duplicate, if the body is the same (type, payload and
        options, by ``job.fingerprint``; a job that is not ``keyed`` is not compared); else
        :class:`~windlass.errors.IdConflict`.
        Unique key held by a job in one of the statuses chosen *by the holder*: by
        ``on_conflict`` of the new one: the holder as duplicate; or the waiting holder is cancelled
        ("replaced by …") and the new one accepted; or :class:`~windlass.errors.DuplicateJob`.
        Two callers at once with one key or id: exactly one is accepted.
        Over the capacity of a queue: :class:`~windlass.errors.QueueFull` at once. Duplicates need no
        room. Ids and keys are checked first, within the batch too.
        """

    async def claim(self, want: Want, limit: int, worker: WorkerId, token: Token) -> HandOut:
        """Hand out at most *limit* pending jobs of the wanted lanes, lowest rank first.

        Rank = ready_at − 60 s × priority; ties by ``seq``. Not handed out: lanes of paused queues;
        suspects unless wanted; jobs past ``expires_at``; what would exceed a concurrency limit of
        the queue or the type (counted over all ``processing`` jobs) or has no room in a rate. Rates
        are charged per job handed out. Each becomes ``processing`` with this token and worker,
        fence + 1, started_at now, no progress and no note; ``errors`` are left out of the answer.
        ``opens_in`` is of use, and exact, when fewer than *limit* jobs were handed out.
        Two calls at once never hand out the same job. A worker that is unknown or dead gets
        nothing. The hand-out need not be durable when answered: a lost one is found as pending.
        """

    async def ack(self, acks: Sequence[Ack]) -> list[AckAnswer]:
        """Apply each Ack whose job is ``processing`` under its token, one after the other; answer in
        order.

        ``then`` is applied, or ``if_cancel_requested`` when a cancellation was requested. The token
        stays on the row, so that the same Ack repeated answers ``applied`` and changes nothing; a
        ``reclaimed`` Ack clears it, so that the dead worker's own, should it still come, is stale.
        ``scheduled``: ready_at = now + delay. ``pending`` (hand-back): ready_at as it was; not
        ``started``: the rate is refunded. Final: finished_at now, result, reason, unique key
        released unless chosen for that status. A status in which the key counts, when another has
        taken the key meanwhile: the job goes on without it. A job that has started expires no more:
        ``expires_at`` is cleared unless the change is ``unstarted``. failures, crashes, charges rise as
        the change says; a failure is appended to errors (the last 20 are kept). Durable when
        answered. One Ack that cannot be applied never hinders another.
        """

    async def progress(self, claim: Claim, fraction: float | None, note: str | None) -> bool:
        """Note progress, iff *claim* holds; False when it does not. Need not be durable.

        None leaves the fraction, or the note, as it was."""

    async def log(self, claim: Claim, lines: Sequence[LogLine]) -> bool:
        """Append lines to the job's log (the last 1,000 are kept), iff *claim* holds."""

    async def heartbeat(self, worker: WorkerInfo) -> Beat:
        """Renew the worker's lease, and answer the rows it is believed to be processing.

        ``beat == 0`` registers; the same beat repeated is harmless. A worker that was declared dead,
        or that is not known and does not register, is answered ``alive=False`` and changes nothing:
        an incarnation never returns.
        """

    async def promote(self, limit: int) -> Promotion:
        """Up to *limit* due ``scheduled`` jobs become ``pending``, earliest first; as many waiting
        jobs past their ``expires_at`` become ``cancelled`` (reason "expired before it started"), and
        these first. The token stays on what was promoted, and is cleared on what expired.
        Any number may call at once; each job moves once."""

    async def reclaim(
        self, suspected: Sequence[tuple[WorkerId, int]], limit: int, *, by: WorkerId | None
    ) -> list[Job]:
        """Declare dead, and answer up to *limit* jobs of dead or unknown workers, unchanged.

        Of *suspected* (worker, beat), those are declared dead whose lease has run out, whose beat
        is still the one given, and who are not *by*. The jobs come back as they stand, with their
        tokens: the caller settles them ``Expired`` and acks with the old token, so that of two
        reclaimers, or a reclaimer and the late owner, one wins.
        """

    async def leave(self, worker: WorkerId, *, died: bool = False) -> bool:
        """Clean: forget the worker if none of its jobs is ``processing``; whether that was so.
        *died*: declare it dead, no more (for the parent that saw it die). Unknown: True."""

    def listen(
        self, kinds: frozenset[NoticeKind], callback: Callable[[Notice], None]
    ) -> Callable[[], None]:
        """Call *callback*, in the event loop that listens, with hints of these kinds from any process.

        Hints may be late, doubled or lost; whoever listens polls as well. The answer ends it.
        """


class ControlStore(Protocol):
    """What people and their tools need."""

    async def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        """The jobs, whole, in order; None where there is none."""

    async def find(
        self,
        where: JobFilter,
        limit: int,
        *,
        after: int | None = None,
        oldest_first: bool = False,
    ) -> Page:
        """A page of matching jobs by falling (or rising) ``seq``, beyond the key *after*.

        Jobs neither appear twice nor are skipped by inserts and prunes between two pages."""

    async def logs(self, id: JobId, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """The lines a job's runs wrote, in order, with ``seq`` > *after*."""

    async def stats(self) -> Stats:
        """The counts per lane; cheap at any number of jobs."""

    async def cancel(self, ids: Sequence[JobId], *, reason: str) -> list[Job | None]:
        """Waiting jobs become ``cancelled`` with the *reason*; running ones get
        ``cancel_requested``; final ones are left alone. Waiting ones lose their token. Answers the
        jobs as they then are."""

    async def retry(self, ids: Sequence[JobId]) -> list[Retried]:
        """Final jobs become ``pending`` now, in a new generation: failures, crashes and charges 0,
        no cancellation request, no result, reason, finished_at or progress, token cleared; errors
        are kept. ``scheduled`` ones become ``pending`` now, lose their token and keep their counts.
        Both are ready now and expire no more. Skipped, saying why: ``processing``,
        ``pending``, a unique key that another holds, no such job. Capacity does not count here."""

    async def prune(self, retention: Retention, limit: int) -> int:
        """Delete up to *limit* jobs (and their logs) whose status is final for longer than it is
        kept; answers how many. Rows whose id the caller chose stay at least ``keyed``."""

    async def queues(self) -> list[QueueInfo]:
        """Every queue that holds jobs or was configured, by name."""

    async def pause(self, queue: str, paused: bool, *, reason: str | None = None) -> None:
        """Stop or go on claiming from *queue*; survives restarts. Running jobs are not touched."""

    async def limits(self) -> list[Limit]:
        """All limits, declared and operator's."""

    async def set_limits(self, limits: Sequence[Limit]) -> None:
        """Set each limit whole, by (scope, name). A declared one (``operator=False``) leaves an
        operator's in place, and leaves the rate's accumulated charge as it is; an operator's
        starts with no charge."""

    async def workers(self) -> list[WorkerInfo]:
        """Workers not declared dead, oldest first; ``seen_at`` and ``lease_until`` tell how fresh."""


class Store(JobStore, ControlStore, Protocol):
    """A place where jobs live."""

    async def open(self) -> None:
        """Make it ready: create or migrate what is needed, check that it is sound. Idempotent.

        Raises :class:`~windlass.errors.StoreError` saying what to do."""

    async def close(self) -> None:
        """Finish what was accepted, then release everything. Idempotent; usable again by open()."""

    async def info(self) -> StoreInfo:
        """What it is; raises StoreUnavailable when it does not answer."""

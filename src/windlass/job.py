"""The values everything else speaks in: jobs, claims, queues, workers.

All are frozen. A :class:`NewJob` is what a caller wants done, a :class:`Job` is the row as the store
keeps it, a :class:`Claim` is the right to finish one hand-out of it. Times are aware datetimes in
UTC, taken from the store's clock; payloads and results are JSON text that is encoded once, by the
client or the worker, and carried as bytes ever after.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal, NamedTuple, NewType

import msgspec

from windlass.errors import ConfigError
from windlass.limits import Rate

__all__ = [
    "ACTIVE",
    "DEFAULT_QUEUE",
    "FINAL",
    "WAITING",
    "Claim",
    "Failure",
    "Job",
    "JobFilter",
    "JobId",
    "JobOptions",
    "Lane",
    "LaneStats",
    "Limit",
    "LogLine",
    "NewJob",
    "Page",
    "QueueInfo",
    "Retention",
    "Stats",
    "Status",
    "StoreInfo",
    "Token",
    "Unique",
    "WorkerId",
    "WorkerInfo",
    "fingerprint",
]

JobId = NewType("JobId", str)
"""A UUID (version 7) in its canonical text form, made by the client."""

Token = NewType("Token", str)
"""A UUID in hex, made by the worker for each claim call."""

WorkerId = NewType("WorkerId", str)
"""A worker's incarnation: random, made anew at each start, never used twice."""

DEFAULT_QUEUE = "default"


class Status(StrEnum):
    """Where a job stands. See ``lifecycle.TRANSITIONS`` for the arrows between them."""

    SCHEDULED = "scheduled"
    """Waits for its time (a delay, a retry's back-off, a snooze)."""
    PENDING = "pending"
    """May be claimed now."""
    PROCESSING = "processing"
    """Is claimed by a worker."""
    COMPLETED = "completed"
    """Ended well. Final."""
    FAILED = "failed"
    """Ended badly: attempts used up, or a retry was ruled out. Final; this is the dead letter."""
    CANCELLED = "cancelled"
    """Ended by request, or expired before it started. Final."""


WAITING = frozenset({Status.SCHEDULED, Status.PENDING})
"""Has not started: counts towards its queue's capacity."""
ACTIVE = WAITING | {Status.PROCESSING}
FINAL = frozenset({Status.COMPLETED, Status.FAILED, Status.CANCELLED})


class Lane(NamedTuple):
    """A queue and a type: the unit in which waiting jobs are counted, limited and claimed."""

    queue: str
    type: str


class Unique(msgspec.Struct, frozen=True):
    """At most one job with this ``key`` among those in the statuses ``within``.

    ``on_conflict`` says what an enqueue that meets a holder does: ``return`` the holder, flagged as a
    duplicate; ``replace`` the holder if it has not started (it is cancelled; one that has started is
    returned as a duplicate); ``reject`` raises :class:`~windlass.errors.DuplicateJob`.
    """

    key: str
    within: frozenset[Status] = ACTIVE
    on_conflict: Literal["return", "replace", "reject"] = "return"

    @classmethod
    def while_waiting(
        cls, key: str, on_conflict: Literal["return", "replace", "reject"] = "return"
    ) -> Unique:
        """The key counts until the job starts: one may wait while another runs."""
        return cls(key, WAITING, on_conflict)


class JobOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a job shall be run. One object may serve many jobs; the client validates it once."""

    queue: str = DEFAULT_QUEUE
    priority: int = 0
    """−100…100, higher first: each step is a head start of one minute."""
    delay: timedelta | None = None
    """Wait this long first, by the store's clock. Excludes ``run_at``."""
    run_at: datetime | None = None
    """Do not start before this instant."""
    max_attempts: int = 15
    timeout: timedelta | None = timedelta(hours=1)
    """How long one run may take; None: as long as it likes."""
    expires: timedelta | None = None
    """Cancel the job if it has not started this long after it could first have started."""
    unique: Unique | None = None
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = {}
    """Small texts kept with the job for people and for tracing; never passed to the task."""
    on_lost: Literal["retry", "fail"] = "retry"
    """``fail``: never run again after a worker died with it (at most once)."""


class NewJob(msgspec.Struct, frozen=True):
    """One call of a task that a caller wants to be made."""

    id: JobId
    type: str
    payload: bytes
    """A JSON object: the keyword arguments."""
    options: JobOptions
    keyed: bool = False
    """The caller chose the id (or an idempotency key): another body under it is a conflict, and the
    row is kept for at least a day."""

    @property
    def lane(self) -> Lane:
        return Lane(self.options.queue, self.type)


class Claim(NamedTuple):
    """The right to finish one hand-out of a job. Every write by the holder is checked against it."""

    id: JobId
    token: Token


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why one attempt did not succeed."""

    attempt: int
    kind: Literal["error", "timeout", "lost", "crash"]
    """``lost``: its worker died; ``crash``: its own process (executor child, quarantine) died."""
    type: str
    """Name of the exception's class, or a short name for what happened."""
    message: str
    traceback: str | None = None
    at: datetime | None = None
    """Set by the store when the failure is recorded."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job as the store keeps it."""

    id: JobId
    seq: int
    """Rising number given at insertion: the key by which listings are paged."""
    type: str
    queue: str
    status: Status
    payload: msgspec.Raw
    priority: int = 0
    created_at: datetime
    ready_at: datetime
    """When it may (or might have) become pending: the due time of a scheduled job."""
    started_at: datetime | None = None
    """Start of the latest hand-out."""
    finished_at: datetime | None = None
    failures: int = 0
    """Attempts that failed in this generation; what the retry policy counts."""
    max_attempts: int = 15
    crashes: int = 0
    """Deaths of workers while they held it; from the second on it is a suspect."""
    charges: int = 0
    """Crashes for which it alone can be to blame; the third fails it."""
    fence: int = 0
    """Hand-outs so far; rises for ever. For fencing in users' own systems."""
    generation: int = 0
    """Operator's retries so far."""
    token: Token | None = None
    """Of the present or latest hand-out; None after anyone but the holder changed the job."""
    worker: WorkerId | None = None
    """Of the present or latest hand-out."""
    timeout: timedelta | None = None
    expires_at: datetime | None = None
    unique_key: str | None = None
    """The key that it holds now; None while its status is not among those chosen for the key."""
    cancel_requested: bool = False
    on_lost: Literal["retry", "fail"] = "retry"
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = {}
    progress: float | None = None
    """0…1."""
    note: str | None = None
    """What the task last said about its progress."""
    result: msgspec.Raw | None = None
    reason: str | None = None
    """Why it ended ``failed`` or ``cancelled``, in words."""
    errors: tuple[Failure, ...] = ()
    """The latest failures (at most 20), oldest first. A claim leaves them out."""

    @property
    def attempt(self) -> int:
        """Number of the present or next attempt, from 1. Snoozes and interruptions do not count."""
        return self.failures + 1

    @property
    def suspect(self) -> bool:
        """Two workers died with it: it runs only in quarantine."""
        return self.crashes >= 2

    @property
    def lane(self) -> Lane:
        return Lane(self.queue, self.type)

    @property
    def claim(self) -> Claim:
        """The claim of the present hand-out. Raises :class:`ValueError` when there is none."""
        if self.token is None:
            raise ValueError(f"Job {self.id} is {self.status} and held by nobody.")
        return Claim(self.id, self.token)


class LogLine(msgspec.Struct, frozen=True):
    """A line that a running task wrote with ``ctx.log``."""

    level: Literal["debug", "info", "warning", "error"]
    message: str
    attempt: int
    seq: int = 0
    at: datetime | None = None
    """``seq`` and ``at`` are set by the store."""


class JobFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which jobs; an empty field does not restrict. Fields are ANDed, values of one field ORed."""

    status: frozenset[Status] = frozenset()
    type: frozenset[str] = frozenset()
    queue: frozenset[str] = frozenset()
    tag: frozenset[str] = frozenset()
    worker: frozenset[str] = frozenset()
    created_from: datetime | None = None
    """Inclusive."""
    created_to: datetime | None = None
    """Exclusive."""
    text: str | None = None
    """Occurs in the payload's JSON text (case matters not for ASCII letters)."""
    unique_key: str | None = None
    id_suffix: str | None = None
    """End of the id, at least 6 characters: what people copy from a table."""


class Page(msgspec.Struct, frozen=True):
    """A page of jobs, newest first unless asked otherwise; ``next`` is the key of the page after."""

    jobs: list[Job]
    next: int | None = None


class LaneStats(msgspec.Struct, frozen=True):
    """How many jobs of a lane stand in each status, and how long the oldest pending one waits."""

    queue: str
    type: str
    counts: Mapping[Status, int]
    oldest_ready_at: datetime | None = None


class Stats(msgspec.Struct, frozen=True):
    """The counts of every lane at one moment of the store's clock."""

    at: datetime
    lanes: list[LaneStats]

    def count(self, *statuses: Status, queue: str | None = None) -> int:
        """Jobs in these statuses (all when none is named), of one queue or of all."""
        chosen = statuses or tuple(Status)
        return sum(
            lane.counts.get(status, 0)
            for lane in self.lanes
            if queue is None or lane.queue == queue
            for status in chosen
        )


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """What all workers together may do with a queue or a task type; None: no limit.

    ``operator`` limits were set by a person and are not overwritten by what code declares.
    """

    scope: Literal["queue", "type"]
    name: str
    concurrency: int | None = None
    rate: Rate | None = None
    capacity: int | None = None
    """Queues only: jobs that may wait; None: the store's default."""
    operator: bool = False


class QueueInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as people see it."""

    name: str
    paused: bool
    reason: str | None
    capacity: int
    limit: Limit | None
    counts: Mapping[Status, int]
    oldest_ready_at: datetime | None = None


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A worker as it reports itself with each beat, and as people see it."""

    id: WorkerId
    host: str
    pid: int
    version: str
    queues: tuple[str, ...] | None
    """None: all queues."""
    types: tuple[str, ...]
    """Task types it can run, aliases included."""
    slots: int
    busy: int = 0
    state: Literal["running", "quiet", "stopping", "stalled"] = "running"
    quarantine: bool = False
    lease: timedelta = timedelta(seconds=12)
    beat: int = 0
    """0 at registration, then rising by one."""
    started_at: datetime | None = None
    seen_at: datetime | None = None
    lease_until: datetime | None = None
    """The three times are the store's. A worker that was declared dead is not listed."""


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long ended jobs are kept."""

    completed: timedelta = timedelta(days=1)
    cancelled: timedelta = timedelta(days=7)
    failed: timedelta = timedelta(days=30)
    keyed: timedelta = timedelta(hours=24)
    """At least, for rows whose id or key the caller chose: so long idempotency holds."""
    least: timedelta = timedelta(seconds=60)
    """At least, for any row: so long ``result()`` finds it."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            span = getattr(self, name)
            if not isinstance(span, timedelta) or span < timedelta(0):
                raise ConfigError(
                    f"A retention's {name} is a timedelta of 0 or more, such as timedelta(days=7), "
                    f"not {span!r:.80}."
                )


class StoreInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a store is and what it can promise; shown by ``/health`` and ``windlass doctor``."""

    kind: str
    version: str
    """Of the engine underneath, such as SQLite's."""
    schema: int
    durability: Literal["host", "process", "none"]
    """What an accepted job survives: loss of power, SIGKILL, or nothing."""
    location: str
    """Where it lives, with no secret in it."""
    size_bytes: int | None = None
    free_bytes: int | None = None
    warnings: tuple[str, ...] = ()


def fingerprint(job: NewJob) -> str:
    """A short digest of everything about *job* but its id: equal bodies have equal fingerprints."""
    body = msgspec.json.encode((job.type, job.options), order="deterministic")
    return hashlib.blake2b(body + b"\0" + job.payload, digest_size=16).hexdigest()

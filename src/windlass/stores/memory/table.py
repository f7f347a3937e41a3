"""The rows, and everything that is kept in step with them: counts, unique keys, order, hints.

A job that is stored moves through one door, :meth:`Table.change`. Heaps are cleaned lazily: an entry
that no longer holds is dropped when it comes up.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from msgspec.structs import replace

from windlass.job import (
    WAITING,
    Job,
    JobId,
    Lane,
    LogLine,
    NewJob,
    Status,
    Unique,
    WorkerId,
    fingerprint,
)
from windlass.store import NoticeKind

__all__ = ["Bucket", "Heap", "Row", "Scope", "Table", "bucket_of"]

Scope = Literal["queue", "type"]


class Row:
    """A job and what the store remembers beside it."""

    __slots__ = ("digest", "job", "keyed", "lines", "unique", "written")

    def __init__(self, new: NewJob, job: Job) -> None:
        self.job = job
        self.unique: Unique | None = new.options.unique
        self.keyed = new.keyed
        self.digest = fingerprint(new) if new.keyed else ""
        self.lines: list[LogLine] = []
        self.written = 0


class Bucket(NamedTuple):
    """Pending jobs of equal priority: among them, the order of ``ready_at`` is that of the rank."""

    queue: str
    type: str
    suspect: bool
    priority: int

    @property
    def head_start(self) -> timedelta:
        return timedelta(minutes=self.priority)


def bucket_of(job: Job) -> Bucket:
    """Where the job stands while it is pending."""
    return Bucket(job.queue, job.type, job.suspect, job.priority)


class Heap:
    """Jobs by an instant, earliest first; ``when`` tells a job's instant, None: it is not in here."""

    def __init__(self, rows: dict[JobId, Row], when: Callable[[Job], datetime | None]) -> None:
        self._rows = rows
        self._when = when
        self._entries: list[tuple[datetime, int, JobId]] = []
        self._compact_at = 64

    def push(self, job: Job) -> None:
        """Add *job*, which belongs in here."""
        at = self._when(job)
        assert at is not None
        if len(self._entries) >= self._compact_at:
            self._entries = sorted(set(filter(self._holds, self._entries)))
            self._compact_at = 64 + 2 * len(self._entries)
        heapq.heappush(self._entries, (at, job.seq, job.id))

    def first(self) -> Row | None:
        """The earliest; None when there is none."""
        while self._entries:
            if self._holds(self._entries[0]):
                return self._rows[self._entries[0][2]]
            heapq.heappop(self._entries)
        return None

    def pop(self) -> None:
        """Remove what :meth:`first` answered."""
        heapq.heappop(self._entries)

    def until(self, now: datetime, limit: int) -> Iterator[Row]:
        """Up to *limit* rows whose instant has come; the caller changes each, and so removes it."""
        for _ in range(limit):
            row = self.first()
            if row is None or self._entries[0][0] > now:
                return
            yield row

    def _holds(self, entry: tuple[datetime, int, JobId]) -> bool:
        row = self._rows.get(entry[2])
        return row is not None and row.job.seq == entry[1] and self._when(row.job) == entry[0]


class Table:
    """All jobs of a store."""

    def __init__(self) -> None:
        self._seq = 0
        self.rows: dict[JobId, Row] = {}
        """In order of ``seq``."""
        self.holders: dict[str, Row] = {}
        """Unique key → the row that holds it."""
        self.counts: defaultdict[Lane, Counter[Status]] = defaultdict(Counter)
        self.sums: Counter[tuple[Scope, str, Status]] = Counter()
        """The counts again, by queue and by type."""
        self.ready: dict[Bucket, Heap] = {}
        self.scheduled = Heap(self.rows, _due)
        self.expiring = Heap(self.rows, _expiry)
        self.ended: dict[tuple[Status, bool], Heap] = {}
        """By status and whether the caller chose the id: what decides how long they are kept."""
        self.held: defaultdict[WorkerId, dict[JobId, Row]] = defaultdict(dict)
        self.told: dict[NoticeKind, dict[str, None]] = {"ready": {}, "cancel": {}, "changed": {}}
        """What the operation has to tell when it ends: queues, or ids of jobs, in order."""

    # ------------------------------------------------------------------ changes

    def add(self, row: Row) -> None:
        """A new job, with the next ``seq``; its ``unique_key`` is known to be free."""
        self._seq += 1
        row.job = replace(row.job, seq=self._seq)
        if row.job.unique_key is not None:
            self.holders[row.job.unique_key] = row
        self.rows[row.job.id] = row
        self._count(row.job, 1)
        self._index(row)

    def change(self, row: Row, status: Status, *, take: bool = False, **fields: object) -> None:
        """Move *row* to *status*: the only way a job that is stored changes its status."""
        before = row.job
        key = self._key(row, status, take)
        row.job = replace(before, status=status, unique_key=key, **fields)
        if before.status is Status.PROCESSING and before.worker is not None:
            self._let_go(before.worker, before.id)
        self._count(before, -1)
        self._count(row.job, 1)
        self._index(row)

    def cancel(self, row: Row, reason: str, now: datetime) -> None:
        """End a job that waits, in the name of someone other than its holder."""
        self.change(row, Status.CANCELLED, finished_at=now, reason=reason, token=None)

    def release(self, row: Row) -> None:
        """Give the key up, whatever statuses it was chosen for: another takes it over."""
        if row.job.unique_key is not None:
            del self.holders[row.job.unique_key]
            row.job = replace(row.job, unique_key=None)

    def forget(self, row: Row) -> None:
        """The job is no more."""
        self._count(row.job, -1)
        self.release(row)
        del self.rows[row.job.id]
        self.told["changed"][row.job.id] = None

    def forget_told(self) -> None:
        """All has been told."""
        for names in self.told.values():
            names.clear()

    # ------------------------------------------------------------------ questions

    def job(self, id: JobId) -> Job | None:
        """The job of this id."""
        row = self.rows.get(id)
        return None if row is None else row.job

    def waiting(self, queue: str) -> int:
        """How many of the queue have not started."""
        return sum(self.sums["queue", queue, status] for status in WAITING)

    def oldest(self, queue: str, type: str | None = None) -> datetime | None:
        """Since when the oldest pending job of the queue (or of one of its lanes) is ready."""
        firsts = [
            heap.first()
            for bucket, heap in self.ready.items()
            if bucket.queue == queue and type in (None, bucket.type)
        ]
        return min((row.job.ready_at for row in firsts if row is not None), default=None)

    def key_is_taken(self, row: Row, status: Status) -> bool:
        """Whether the key would count in *status*, and another row holds it."""
        if row.unique is None or status not in row.unique.within:
            return False
        return self.holders.get(row.unique.key, row) is not row

    # ------------------------------------------------------------------ what is kept in step

    def _key(self, row: Row, status: Status, take: bool) -> str | None:
        """The key that *row* holds in *status*; a free one is taken only if *take*."""
        if row.unique is None:
            return None
        key, holder = row.unique.key, self.holders.get(row.unique.key)
        counts = status in row.unique.within
        if counts and (holder is row or (holder is None and take)):
            self.holders[key] = row
            return key
        if holder is row:
            del self.holders[key]
        return None

    def _count(self, job: Job, by: int) -> None:
        self.counts[job.lane][job.status] += by
        self.sums["queue", job.queue, job.status] += by
        self.sums["type", job.type, job.status] += by

    def _index(self, row: Row) -> None:
        job = row.job
        self.told["changed"][job.id] = None
        if job.status is Status.PENDING:
            bucket = bucket_of(job)
            if bucket not in self.ready:
                self.ready[bucket] = Heap(self.rows, _pending_since)
            self.ready[bucket].push(job)
            self.told["ready"][job.queue] = None
        elif job.status is Status.SCHEDULED:
            self.scheduled.push(job)
        elif job.status is Status.PROCESSING:
            assert job.worker is not None
            self.held[job.worker][job.id] = row
        else:
            place = (job.status, row.keyed)
            if place not in self.ended:
                self.ended[place] = Heap(self.rows, _ended_as(job.status))
            self.ended[place].push(job)
        if _expiry(job) is not None:
            self.expiring.push(job)

    def _let_go(self, worker: WorkerId, id: JobId) -> None:
        held = self.held[worker]
        del held[id]
        if not held:
            del self.held[worker]


def _pending_since(job: Job) -> datetime | None:
    return job.ready_at if job.status is Status.PENDING else None


def _due(job: Job) -> datetime | None:
    return job.ready_at if job.status is Status.SCHEDULED else None


def _expiry(job: Job) -> datetime | None:
    return job.expires_at if job.status in WAITING else None


def _ended_as(status: Status) -> Callable[[Job], datetime | None]:
    return lambda job: job.finished_at if job.status is status else None

"""The memory store: jobs in dictionaries of this process, gone when it ends.

It is the reference: what the port promises in words, this file says in plain code, and every other
store is tested against it, step by step. It also carries ``windlass.testing`` and programs that need
no durability. Each operation runs from start to end under one lock and never awaits, so it is atomic
even when event loops in several threads share the store.

A job moves through one door, :meth:`MemoryStore._change`, which keeps counts, unique keys and the
heaps in step. Heaps are cleaned lazily: an entry that no longer holds is dropped when it comes up.
"""

from __future__ import annotations

import asyncio
import heapq
import platform
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from windlass.clock import Clock, SystemClock
from windlass.errors import DuplicateJob, IdConflict, QueueFull
from windlass.job import (
    FINAL,
    WAITING,
    Claim,
    Job,
    JobFilter,
    JobId,
    Lane,
    LaneStats,
    Limit,
    LogLine,
    NewJob,
    Page,
    QueueInfo,
    Retention,
    Stats,
    Status,
    StoreInfo,
    Token,
    Unique,
    WorkerId,
    WorkerInfo,
    fingerprint,
)
from windlass.lifecycle import Ack
from windlass.limits import opens_in, refund, room, take
from windlass.store import (
    DEFAULT_CAPACITY,
    AckAnswer,
    Beat,
    HandOut,
    Held,
    Inserted,
    Notice,
    NoticeKind,
    Promotion,
    Retried,
    Want,
)

__all__ = ["MemoryStore"]

_KEPT_ERRORS = 20
_KEPT_LINES = 1000

_Scope = Literal["queue", "type"]


class _Row:
    """A job and what the store remembers beside it."""

    __slots__ = ("digest", "job", "keyed", "lines", "unique", "written")

    def __init__(self, new: NewJob, job: Job) -> None:
        self.job = job
        self.unique: Unique | None = new.options.unique
        self.keyed = new.keyed
        self.digest = fingerprint(new) if new.keyed else ""
        self.lines: list[LogLine] = []
        self.written = 0


class _Bucket(NamedTuple):
    """Pending jobs of equal priority: among them, the order of ``ready_at`` is that of the rank."""

    queue: str
    type: str
    suspect: bool
    priority: int

    @property
    def head_start(self) -> timedelta:
        return timedelta(minutes=self.priority)


class _Heap:
    """Jobs by an instant, earliest first; ``when`` tells a job's instant, None: it is not in here."""

    def __init__(self, rows: dict[JobId, _Row], when: Callable[[Job], datetime | None]) -> None:
        self._rows = rows
        self._when = when
        self._entries: list[tuple[datetime, int, JobId]] = []
        self._compact_at = 64

    def push(self, job: Job) -> None:
        at = self._when(job)
        assert at is not None
        if len(self._entries) >= self._compact_at:
            self._entries = sorted(set(filter(self._holds, self._entries)))
            self._compact_at = 64 + 2 * len(self._entries)
        heapq.heappush(self._entries, (at, job.seq, job.id))

    def first(self) -> _Row | None:
        """The earliest; None when there is none."""
        while self._entries:
            if self._holds(self._entries[0]):
                return self._rows[self._entries[0][2]]
            heapq.heappop(self._entries)
        return None

    def pop(self) -> None:
        """Remove what :meth:`first` answered."""
        heapq.heappop(self._entries)

    def until(self, now: datetime, limit: int) -> Iterator[_Row]:
        """Up to *limit* rows whose instant has come; the caller changes each, and so removes it."""
        for _ in range(limit):
            row = self.first()
            if row is None or self._entries[0][0] > now:
                return
            yield row

    def _holds(self, entry: tuple[datetime, int, JobId]) -> bool:
        row = self._rows.get(entry[2])
        return row is not None and row.job.seq == entry[1] and self._when(row.job) == entry[0]


def _pending_since(job: Job) -> datetime | None:
    return job.ready_at if job.status is Status.PENDING else None


def _due(job: Job) -> datetime | None:
    return job.ready_at if job.status is Status.SCHEDULED else None


def _expiry(job: Job) -> datetime | None:
    return job.expires_at if job.status in WAITING else None


class MemoryStore:
    """Implements :class:`windlass.store.Store` in this process's memory."""

    def __init__(self, *, capacity: int = DEFAULT_CAPACITY, clock: Clock | None = None) -> None:
        self._capacity = capacity
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._seq = 0
        self._rows: dict[JobId, _Row] = {}  # in order of seq
        self._holders: dict[str, _Row] = {}
        self._counts: defaultdict[Lane, Counter[Status]] = defaultdict(Counter)
        self._sums: Counter[tuple[_Scope, str, Status]] = Counter()
        self._ready: dict[_Bucket, _Heap] = {}
        self._scheduled = _Heap(self._rows, _due)
        self._expiring = _Heap(self._rows, _expiry)
        self._ended: dict[tuple[Status, bool], _Heap] = {}
        self._held: defaultdict[WorkerId, dict[JobId, _Row]] = defaultdict(dict)
        self._workers: dict[WorkerId, WorkerInfo] = {}
        self._dead: set[WorkerId] = set()
        self._limits: dict[tuple[_Scope, str], Limit] = {}
        self._tats: dict[tuple[_Scope, str], float] = {}
        self._paused: dict[str, tuple[bool, str | None]] = {}
        self._listeners: list[_Listener] = []
        self._told: dict[NoticeKind, dict[str, None]] = {"ready": {}, "cancel": {}, "changed": {}}

    @contextmanager
    def _operation(self) -> Iterator[datetime]:
        """One atomic operation at one moment of the clock; hints go out when it has ended."""
        with self._lock:
            try:
                yield self._clock.now()
            finally:
                self._send_notices()

    # ------------------------------------------------------------------ enqueueing and running

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        with self._operation() as now:
            plan = _Plan(self._rows, self._holders, now)
            answers = [plan.place(new) for new in jobs]
            self._check_capacity(plan)
            for row, replaced_by in plan.steps:
                if replaced_by is None:
                    self._add(row)
                else:
                    self._release(row)
                    self._cancel(row, f"replaced by {replaced_by}", now)
            return [Inserted(row.job, duplicate) for row, duplicate in answers]

    def _check_capacity(self, plan: _Plan) -> None:
        for queue, more in plan.growth().items():
            waiting = sum(self._sums["queue", queue, status] for status in WAITING)
            capacity = self._capacity_of(queue)
            if waiting + more > capacity:
                raise QueueFull(queue, capacity)

    def _add(self, row: _Row) -> None:
        self._seq += 1
        row.job = replace(row.job, seq=self._seq)
        if row.job.unique_key is not None:
            self._holders[row.job.unique_key] = row
        self._rows[row.job.id] = row
        self._count(row.job, 1)
        self._index(row)

    async def claim(self, want: Want, limit: int, worker: WorkerId, token: Token) -> HandOut:
        with self._operation() as now:
            if worker not in self._workers:
                return HandOut([])
            taken: list[Job] = []
            too_late: list[Job] = []
            shut: list[_Bucket] = []
            line = self._line(want)
            while line and len(taken) < limit:
                *_, bucket = heapq.heappop(line)
                row = self._ready[bucket].first()
                assert row is not None
                if row.job.expires_at is not None and row.job.expires_at <= now:
                    too_late.append(row.job)
                elif not self._has_room(bucket, now):
                    shut.append(bucket)
                    continue
                else:
                    taken.append(self._hand_out(row, worker, token, now))
                self._ready[bucket].pop()
                self._line_up(line, bucket)
            for job in too_late:
                self._ready[_bucket(job)].push(job)
            shut.extend(bucket for *_, bucket in line)
            return HandOut(taken, self._opens_in(shut, now))

    def _line(self, want: Want) -> list[tuple[datetime, int, _Bucket]]:
        """The buckets that may be claimed from, by the rank of their first job."""
        line: list[tuple[datetime, int, _Bucket]] = []
        for bucket in self._ready:
            if (
                bucket.type in want.types
                and bucket.suspect == want.suspects
                and (want.queues is None or bucket.queue in want.queues)
                and not self._is_paused(bucket.queue)
            ):
                self._line_up(line, bucket)
        return line

    def _line_up(self, line: list[tuple[datetime, int, _Bucket]], bucket: _Bucket) -> None:
        row = self._ready[bucket].first()
        if row is not None:
            rank = row.job.ready_at - bucket.head_start
            heapq.heappush(line, (rank, row.job.seq, bucket))

    def _has_room(self, bucket: _Bucket, now: datetime) -> bool:
        for limit in self._limits_of(bucket):
            running = self._sums[limit.scope, limit.name, Status.PROCESSING]
            if limit.concurrency is not None and running >= limit.concurrency:
                return False
            if limit.rate is not None and not room(limit.rate, self._tat(limit), now.timestamp()):
                return False
        return True

    def _hand_out(self, row: _Row, worker: WorkerId, token: Token, now: datetime) -> Job:
        self._change(
            row, Status.PROCESSING, token=token, worker=worker, started_at=now,
            fence=row.job.fence + 1, progress=None, note=None,
        )  # fmt: skip
        for limit in self._limits_of(row.job.lane):
            if limit.rate is not None:
                tat = take(limit.rate, self._tat(limit), now.timestamp(), 1)
                self._tats[limit.scope, limit.name] = tat
        return replace(row.job, errors=())

    def _opens_in(self, buckets: list[_Bucket], now: datetime) -> timedelta | None:
        """When the first of the *buckets* that a rate holds back may go on."""
        waits = [
            max(
                (
                    opens_in(limit.rate, self._tat(limit), now.timestamp())
                    for limit in self._limits_of(bucket)
                    if limit.rate is not None
                ),
                default=0.0,
            )
            for bucket in buckets
        ]
        held_back = [wait for wait in waits if wait > 0]
        return timedelta(seconds=min(held_back)) if held_back else None

    async def ack(self, acks: Sequence[Ack]) -> list[AckAnswer]:
        with self._operation() as now:
            return [self._ack(ack, now) for ack in acks]

    def _ack(self, ack: Ack, now: datetime) -> AckAnswer:
        row = self._rows.get(ack.claim.id)
        if row is None:
            return "gone"
        if row.job.token != ack.claim.token:
            return "stale"
        if row.job.status is Status.PROCESSING:
            self._apply(row, ack, now)
        return "applied"

    def _apply(self, row: _Row, ack: Ack, now: datetime) -> None:
        job = row.job
        change = ack.if_cancel_requested if job.cancel_requested else ack.then
        ends = change.status in FINAL
        failures = () if change.failure is None else (replace(change.failure, at=now),)
        if change.unstarted:
            self._refund(job.lane)
        self._free(job.lane)
        self._change(
            row,
            change.status,
            take=True,
            token=None if ack.reclaimed else job.token,
            ready_at=now + change.delay if change.status is Status.SCHEDULED else job.ready_at,
            expires_at=job.expires_at if change.unstarted else None,
            finished_at=now if ends else None,
            result=msgspec.Raw(change.result) if ends and change.result is not None else None,
            reason=change.reason if ends else None,
            failures=job.failures + change.counted,
            crashes=job.crashes + change.crashed,
            charges=job.charges + change.charged,
            errors=(*job.errors, *failures)[-_KEPT_ERRORS:],
        )

    def _refund(self, lane: Lane) -> None:
        for limit in self._limits_of(lane):
            if limit.rate is not None:
                self._tats[limit.scope, limit.name] = refund(limit.rate, self._tat(limit), 1)

    def _free(self, lane: Lane) -> None:
        """Where concurrency is limited, the end of one run is what the next one waits for."""
        if any(limit.concurrency is not None for limit in self._limits_of(lane)):
            self._told["ready"][lane.queue] = None

    async def progress(self, claim: Claim, fraction: float | None, note: str | None) -> bool:
        with self._operation():
            row = self._claimed(claim)
            if row is None:
                return False
            job = row.job
            row.job = replace(
                job,
                progress=job.progress if fraction is None else fraction,
                note=job.note if note is None else note,
            )
            self._told["changed"][claim.id] = None
            return True

    async def log(self, claim: Claim, lines: Sequence[LogLine]) -> bool:
        with self._operation() as now:
            row = self._claimed(claim)
            if row is None:
                return False
            for line in lines:
                row.written += 1
                row.lines.append(replace(line, seq=row.written, at=now))
            del row.lines[:-_KEPT_LINES]
            self._told["changed"][claim.id] = None
            return True

    def _claimed(self, claim: Claim) -> _Row | None:
        row = self._rows.get(claim.id)
        if row is None or row.job.status is not Status.PROCESSING or row.job.token != claim.token:
            return None
        return row

    # ------------------------------------------------------------------ workers

    async def heartbeat(self, worker: WorkerInfo) -> Beat:
        with self._operation() as now:
            known = self._workers.get(worker.id)
            if worker.id in self._dead or (known is None and worker.beat != 0):
                return Beat(alive=False, held=[])
            self._workers[worker.id] = replace(
                worker,
                started_at=known.started_at if known else now,
                seen_at=now,
                lease_until=now + worker.lease,
            )
            rows = self._held.get(worker.id, {}).values()
            return Beat(True, [Held(row.job.claim, row.job.cancel_requested) for row in rows])

    async def promote(self, limit: int) -> Promotion:
        with self._operation() as now:
            expired = promoted = 0
            for row in self._expiring.until(now, limit):
                self._cancel(row, "expired before it started", now)
                expired += 1
            for row in self._scheduled.until(now, limit):
                self._change(row, Status.PENDING)
                promoted += 1
            return Promotion(promoted, expired, self._next_due(now), self._suspects_pending())

    def _next_due(self, now: datetime) -> timedelta | None:
        late = self._expiring.first()
        if late is not None and late.job.expires_at is not None and late.job.expires_at <= now:
            return timedelta(0)
        row = self._scheduled.first()
        return None if row is None else max(row.job.ready_at - now, timedelta(0))

    def _suspects_pending(self) -> bool:
        return any(heap.first() for bucket, heap in self._ready.items() if bucket.suspect)

    async def reclaim(
        self, suspected: Sequence[tuple[WorkerId, int]], limit: int, *, by: WorkerId | None
    ) -> list[Job]:
        with self._operation() as now:
            for worker, beat in suspected:
                known = self._workers.get(worker)
                if known is None or known.lease_until is None or worker == by:
                    continue
                if known.beat == beat and known.lease_until <= now:
                    self._declare_dead(worker)
            orphans = (
                row.job
                for worker, rows in self._held.items()
                if worker not in self._workers
                for row in rows.values()
            )
            return list(islice(orphans, limit))

    async def leave(self, worker: WorkerId, *, died: bool = False) -> bool:
        with self._operation():
            if worker not in self._workers and worker not in self._dead:
                return True
            if died:
                self._declare_dead(worker)
                return True
            if self._held.get(worker):
                return False
            self._workers.pop(worker, None)
            self._dead.discard(worker)
            return True

    def _declare_dead(self, worker: WorkerId) -> None:
        self._workers.pop(worker, None)
        self._dead.add(worker)

    def listen(
        self, kinds: frozenset[NoticeKind], callback: Callable[[Notice], None]
    ) -> Callable[[], None]:
        listener = _Listener(kinds, callback, asyncio.get_running_loop())
        with self._lock:
            self._listeners.append(listener)

        def end() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return end

    # ------------------------------------------------------------------ people and their tools

    async def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        with self._operation():
            return [self._job(each) for each in ids]

    async def find(
        self,
        where: JobFilter,
        limit: int,
        *,
        after: int | None = None,
        oldest_first: bool = False,
    ) -> Page:
        with self._operation():
            rows = self._rows.values() if oldest_first else reversed(self._rows.values())
            found = (
                row.job
                for row in rows
                if (after is None or (row.job.seq > after if oldest_first else row.job.seq < after))
                and _matches(row.job, where)
            )
            jobs = list(islice(found, limit + 1))
            more = len(jobs) > limit
            return Page(jobs[:limit], jobs[limit - 1].seq if more and limit > 0 else None)

    async def logs(self, id: JobId, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        with self._operation():
            row = self._rows.get(id)
            lines = row.lines if row is not None else []
            return [line for line in lines if line.seq > after][:limit]

    async def stats(self) -> Stats:
        with self._operation() as now:
            lanes = [
                LaneStats(lane.queue, lane.type, dict(+counts), self._oldest(lane.queue, lane.type))
                for lane, counts in sorted(self._counts.items())
                if counts.total()
            ]
            return Stats(now, lanes)

    async def cancel(self, ids: Sequence[JobId], *, reason: str) -> list[Job | None]:
        with self._operation() as now:
            for each in ids:
                row = self._rows.get(each)
                if row is None or row.job.status in FINAL:
                    continue
                if row.job.status is Status.PROCESSING:
                    row.job = replace(row.job, cancel_requested=True)
                    self._told["cancel"][each] = self._told["changed"][each] = None
                else:
                    self._cancel(row, reason, now)
            return [self._job(each) for each in ids]

    async def retry(self, ids: Sequence[JobId]) -> list[Retried]:
        with self._operation() as now:
            return [self._retry(each, now) for each in ids]

    def _retry(self, id: JobId, now: datetime) -> Retried:
        row = self._rows.get(id)
        if row is None:
            return Retried(id, None, "not found")
        if row.job.status is Status.PROCESSING:
            return Retried(id, row.job, "processing")
        if row.job.status is Status.PENDING:
            return Retried(id, row.job, "pending")
        if self._key_is_taken(row, Status.PENDING):
            return Retried(id, row.job, "key taken")
        if row.job.status in FINAL:
            self._change(
                row, Status.PENDING, take=True, ready_at=now, expires_at=None, token=None,
                generation=row.job.generation + 1, failures=0, crashes=0, charges=0,
                cancel_requested=False, finished_at=None, result=None, reason=None,
                progress=None, note=None,
            )  # fmt: skip
        else:
            self._change(row, Status.PENDING, take=True, ready_at=now, expires_at=None, token=None)
        return Retried(id, row.job)

    async def prune(self, retention: Retention, limit: int) -> int:
        with self._operation() as now:
            pruned = 0
            for (status, keyed), heap in self._ended.items():
                kept = _kept_for(status, keyed, retention)
                for row in heap.until(now - kept, limit - pruned):
                    self._forget(row)
                    pruned += 1
            return pruned

    def _forget(self, row: _Row) -> None:
        self._count(row.job, -1)
        self._release(row)
        del self._rows[row.job.id]
        self._told["changed"][row.job.id] = None

    async def queues(self) -> list[QueueInfo]:
        with self._operation():
            names = {lane.queue for lane, counts in self._counts.items() if counts.total()}
            names |= {name for scope, name in self._limits if scope == "queue"}
            return [self._queue_info(name) for name in sorted(names | self._paused.keys())]

    def _queue_info(self, name: str) -> QueueInfo:
        paused, reason = self._paused.get(name, (False, None))
        counts: Counter[Status] = Counter()
        for lane in self._counts:
            if lane.queue == name:
                counts += self._counts[lane]
        return QueueInfo(
            name=name,
            paused=paused,
            reason=reason,
            capacity=self._capacity_of(name),
            limit=self._limits.get(("queue", name)),
            counts=dict(counts),
            oldest_ready_at=self._oldest(name),
        )

    async def pause(self, queue: str, paused: bool, *, reason: str | None = None) -> None:
        with self._operation():
            self._paused[queue] = (paused, reason if paused else None)
            if not paused:
                self._told["ready"][queue] = None

    async def limits(self) -> list[Limit]:
        with self._operation():
            return [self._limits[key] for key in sorted(self._limits)]

    async def set_limits(self, limits: Sequence[Limit]) -> None:
        with self._operation():
            for limit in limits:
                key = (limit.scope, limit.name)
                present = self._limits.get(key)
                if present is not None and present.operator and not limit.operator:
                    continue
                self._limits[key] = limit
                if limit.operator:
                    self._tats.pop(key, None)
            self._told["ready"].update(dict.fromkeys(bucket.queue for bucket in self._ready))

    async def workers(self) -> list[WorkerInfo]:
        with self._operation():
            # Registration order is the order of `started_at`, even when the clock was set back.
            return list(self._workers.values())

    # ------------------------------------------------------------------ the store itself

    async def open(self) -> None:
        """Nothing is needed."""

    async def close(self) -> None:
        """The jobs stay for as long as this object does."""
        with self._lock:
            self._listeners.clear()

    async def info(self) -> StoreInfo:
        return StoreInfo(
            kind="memory",
            version=platform.python_version(),
            schema=1,
            durability="none",
            location="memory:",
            warnings=("Jobs are lost when this process ends.",),
        )

    # ------------------------------------------------------------------ one job's change

    def _change(self, row: _Row, status: Status, *, take: bool = False, **fields: object) -> None:
        """Move *row* to *status*: the only way a job that is stored changes its status."""
        before = row.job
        key = self._key(row, status, take)
        row.job = replace(before, status=status, unique_key=key, **fields)
        if before.status is Status.PROCESSING and before.worker is not None:
            self._let_go(before.worker, before.id)
        self._count(before, -1)
        self._count(row.job, 1)
        self._index(row)

    def _cancel(self, row: _Row, reason: str, now: datetime) -> None:
        self._change(row, Status.CANCELLED, finished_at=now, reason=reason, token=None)

    def _release(self, row: _Row) -> None:
        """Give the key up, whatever statuses it was chosen for: another takes it over."""
        if row.job.unique_key is not None:
            del self._holders[row.job.unique_key]
            row.job = replace(row.job, unique_key=None)

    def _key(self, row: _Row, status: Status, take: bool) -> str | None:
        """The key that *row* holds in *status*; a free one is taken only if *take*."""
        if row.unique is None:
            return None
        key, holder = row.unique.key, self._holders.get(row.unique.key)
        counts = status in row.unique.within
        if counts and (holder is row or (holder is None and take)):
            self._holders[key] = row
            return key
        if holder is row:
            del self._holders[key]
        return None

    def _key_is_taken(self, row: _Row, status: Status) -> bool:
        """Whether the key would count in *status*, and another row holds it."""
        if row.unique is None or status not in row.unique.within:
            return False
        return self._holders.get(row.unique.key, row) is not row

    def _count(self, job: Job, by: int) -> None:
        self._counts[job.lane][job.status] += by
        self._sums["queue", job.queue, job.status] += by
        self._sums["type", job.type, job.status] += by

    def _index(self, row: _Row) -> None:
        job = row.job
        self._told["changed"][job.id] = None
        if job.status is Status.PENDING:
            bucket = _bucket(job)
            if bucket not in self._ready:
                self._ready[bucket] = _Heap(self._rows, _pending_since)
            self._ready[bucket].push(job)
            self._told["ready"][job.queue] = None
        elif job.status is Status.SCHEDULED:
            self._scheduled.push(job)
        elif job.status is Status.PROCESSING:
            assert job.worker is not None
            self._held[job.worker][job.id] = row
        else:
            place = (job.status, row.keyed)
            if place not in self._ended:
                self._ended[place] = _Heap(self._rows, _ended_as(job.status))
            self._ended[place].push(job)
        if _expiry(job) is not None:
            self._expiring.push(job)

    def _let_go(self, worker: WorkerId, id: JobId) -> None:
        held = self._held[worker]
        del held[id]
        if not held:
            del self._held[worker]

    # ------------------------------------------------------------------ small questions

    def _job(self, id: JobId) -> Job | None:
        row = self._rows.get(id)
        return None if row is None else row.job

    def _limits_of(self, lane: Lane | _Bucket) -> list[Limit]:
        if not self._limits:
            return []
        both = self._limits.get(("queue", lane.queue)), self._limits.get(("type", lane.type))
        return [limit for limit in both if limit is not None]

    def _tat(self, limit: Limit) -> float:
        return self._tats.get((limit.scope, limit.name), 0.0)

    def _capacity_of(self, queue: str) -> int:
        limit = self._limits.get(("queue", queue))
        return self._capacity if limit is None or limit.capacity is None else limit.capacity

    def _is_paused(self, queue: str) -> bool:
        return self._paused.get(queue, (False, None))[0]

    def _oldest(self, queue: str, type: str | None = None) -> datetime | None:
        firsts = [
            heap.first()
            for bucket, heap in self._ready.items()
            if bucket.queue == queue and type in (None, bucket.type)
        ]
        return min((row.job.ready_at for row in firsts if row is not None), default=None)

    def _send_notices(self) -> None:
        for kind, names in self._told.items():
            if not names:
                continue
            told = tuple(names)
            names.clear()
            if any(kind in listener.kinds for listener in self._listeners):
                notice = _notice(kind, told)
                self._listeners = [each for each in self._listeners if each.tell(notice)]


class _Plan:
    """What an insert would do, worked out before anything is done: all or nothing."""

    def __init__(self, rows: dict[JobId, _Row], holders: dict[str, _Row], now: datetime) -> None:
        self._rows = rows
        self._holders = holders
        self._now = now
        self._new: dict[JobId, _Row] = {}
        self._new_holders: dict[str, _Row | None] = {}
        self.steps: list[tuple[_Row, JobId | None]] = []
        """In order: rows to add (None), and rows to cancel, with the id that replaces them."""

    def place(self, new: NewJob) -> tuple[_Row, bool]:
        """The row that stands for *new*, and whether it stood before."""
        same = self._new.get(new.id) or self._rows.get(new.id)
        if same is not None:
            if new.keyed and same.digest != fingerprint(new):
                raise IdConflict(new.id)
            return same, True
        unique = new.options.unique
        holder = self._holder(unique.key) if unique is not None else None
        if unique is not None and holder is not None:
            if unique.on_conflict == "reject":
                raise DuplicateJob(holder.job)
            if unique.on_conflict == "return" or holder.job.status not in WAITING:
                return holder, True
            self.steps.append((holder, new.id))
            self._new_holders[unique.key] = None
        return self._add(new), False

    def _holder(self, key: str) -> _Row | None:
        if key in self._new_holders:
            return self._new_holders[key]
        return self._holders.get(key)

    def _add(self, new: NewJob) -> _Row:
        row = _Row(new, _first_state(new, self._now))
        self._new[new.id] = row
        if row.job.unique_key is not None:
            self._new_holders[row.job.unique_key] = row
        self.steps.append((row, None))
        return row

    def growth(self) -> dict[str, int]:
        """By how much each queue that gets new jobs would grow."""
        growth = dict.fromkeys((row.job.queue for row, by in self.steps if by is None), 0)
        for row, replaced_by in self.steps:
            if row.job.queue in growth:
                growth[row.job.queue] += 1 if replaced_by is None else -1
        return growth


class _Listener(NamedTuple):
    kinds: frozenset[NoticeKind]
    callback: Callable[[Notice], None]
    loop: asyncio.AbstractEventLoop

    def tell(self, notice: Notice) -> bool:
        """Pass *notice* on if it is wanted; False when the listening loop is gone."""
        if notice.kind in self.kinds:
            try:
                self.loop.call_soon_threadsafe(self.callback, notice)
            except RuntimeError:
                return False
        return True


def _first_state(new: NewJob, now: datetime) -> Job:
    options = new.options
    asked = options.run_at if options.delay is None else now + options.delay
    ready_at = now if asked is None else max(now, asked.astimezone(UTC))
    status = Status.SCHEDULED if ready_at > now else Status.PENDING
    unique = options.unique
    return Job(
        id=new.id,
        seq=0,
        type=new.type,
        queue=options.queue,
        status=status,
        payload=msgspec.Raw(new.payload),
        priority=options.priority,
        created_at=now,
        ready_at=ready_at,
        max_attempts=options.max_attempts,
        timeout=options.timeout,
        expires_at=None if options.expires is None else ready_at + options.expires,
        unique_key=unique.key if unique is not None and status in unique.within else None,
        on_lost=options.on_lost,
        tags=options.tags,
        meta=options.meta,
    )


def _bucket(job: Job) -> _Bucket:
    return _Bucket(job.queue, job.type, job.suspect, job.priority)


def _ended_as(status: Status) -> Callable[[Job], datetime | None]:
    return lambda job: job.finished_at if job.status is status else None


def _kept_for(status: Status, keyed: bool, retention: Retention) -> timedelta:
    asked = {
        Status.COMPLETED: retention.completed,
        Status.CANCELLED: retention.cancelled,
        Status.FAILED: retention.failed,
    }[status]
    return max(asked, retention.least, retention.keyed if keyed else timedelta(0))


def _matches(job: Job, where: JobFilter) -> bool:
    return (
        (not where.status or job.status in where.status)
        and (not where.type or job.type in where.type)
        and (not where.queue or job.queue in where.queue)
        and (not where.tag or not where.tag.isdisjoint(job.tags))
        and (not where.worker or job.worker in where.worker)
        and (where.created_from is None or job.created_at >= where.created_from)
        and (where.created_to is None or job.created_at < where.created_to)
        and (where.unique_key is None or job.unique_key == where.unique_key)
        and (where.id_suffix is None or job.id.endswith(where.id_suffix))
        # bytes.lower() folds ASCII letters and nothing else, which is what is promised
        and (where.text is None or where.text.encode().lower() in bytes(job.payload).lower())
    )


def _notice(kind: NoticeKind, told: tuple[str, ...]) -> Notice:
    if kind == "ready":
        return Notice(kind, queues=told)
    return Notice(kind, ids=tuple(JobId(name) for name in told))

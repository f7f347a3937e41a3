"""The memory store: jobs in dictionaries of this process, gone when it ends.

It is the reference: what the port promises in words, this file says in plain code, and every other
store is tested against it, step by step. It also carries ``windlass.testing`` and programs that need
no durability. Each operation runs from start to end under one lock and never awaits, so it is atomic
even when event loops in several threads share the store.
"""

from __future__ import annotations

import asyncio
import heapq
import platform
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from windlass.clock import Clock, SystemClock
from windlass.errors import QueueFull
from windlass.job import (
    FINAL,
    Claim,
    Job,
    JobFilter,
    JobId,
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
    WorkerId,
    WorkerInfo,
)
from windlass.lifecycle import Ack
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
from windlass.stores.memory.gates import Gates
from windlass.stores.memory.plan import Plan
from windlass.stores.memory.table import Bucket, Row, Table, bucket_of

__all__ = ["MemoryStore"]

_KEPT_ERRORS = 20
_KEPT_LINES = 1000


class MemoryStore:
    """Implements :class:`windlass.store.Store` in this process's memory."""

    def __init__(self, *, capacity: int = DEFAULT_CAPACITY, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._table = Table()
        self._gates = Gates(self._table, capacity)
        self._workers: dict[WorkerId, WorkerInfo] = {}
        self._dead: set[WorkerId] = set()
        self._listeners: list[_Listener] = []

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
            plan = Plan(self._table, now)
            answers = [plan.place(new) for new in jobs]
            self._check_capacity(plan)
            for row, replaced_by in plan.steps:
                if replaced_by is None:
                    self._table.add(row)
                else:
                    self._table.release(row)
                    self._table.cancel(row, f"replaced by {replaced_by}", now)
            return [Inserted(row.job, duplicate) for row, duplicate in answers]

    def _check_capacity(self, plan: Plan) -> None:
        for queue, more in plan.growth().items():
            capacity = self._gates.capacity(queue)
            if self._table.waiting(queue) + more > capacity:
                raise QueueFull(queue, capacity)

    async def claim(self, want: Want, limit: int, worker: WorkerId, token: Token) -> HandOut:
        with self._operation() as now:
            if worker not in self._workers:
                return HandOut([])
            taken: list[Job] = []
            too_late: list[Job] = []
            shut: list[Bucket] = []
            line = self._line(want)
            while line and len(taken) < limit:
                *_, bucket = heapq.heappop(line)
                row = self._table.ready[bucket].first()
                assert row is not None
                if row.job.expires_at is not None and row.job.expires_at <= now:
                    too_late.append(row.job)
                elif not self._gates.has_room(bucket, now):
                    shut.append(bucket)
                    continue
                else:
                    taken.append(self._hand_out(row, worker, token, now))
                self._table.ready[bucket].pop()
                self._line_up(line, bucket)
            for job in too_late:
                self._table.ready[bucket_of(job)].push(job)
            shut.extend(bucket for *_, bucket in line)
            return HandOut(taken, self._gates.opens_in(shut, now))

    def _line(self, want: Want) -> list[tuple[datetime, int, Bucket]]:
        """The buckets that may be claimed from, by the rank of their first job."""
        line: list[tuple[datetime, int, Bucket]] = []
        for bucket in self._table.ready:
            if (
                bucket.type in want.types
                and bucket.suspect == want.suspects
                and (want.queues is None or bucket.queue in want.queues)
                and not self._gates.is_paused(bucket.queue)
            ):
                self._line_up(line, bucket)
        return line

    def _line_up(self, line: list[tuple[datetime, int, Bucket]], bucket: Bucket) -> None:
        row = self._table.ready[bucket].first()
        if row is not None:
            rank = row.job.ready_at - bucket.head_start
            heapq.heappush(line, (rank, row.job.seq, bucket))

    def _hand_out(self, row: Row, worker: WorkerId, token: Token, now: datetime) -> Job:
        self._table.change(
            row, Status.PROCESSING, token=token, worker=worker, started_at=now,
            fence=row.job.fence + 1, progress=None, note=None,
        )  # fmt: skip
        self._gates.charge(row.job.lane, now)
        return replace(row.job, errors=())

    async def ack(self, acks: Sequence[Ack]) -> list[AckAnswer]:
        with self._operation() as now:
            return [self._ack(ack, now) for ack in acks]

    def _ack(self, ack: Ack, now: datetime) -> AckAnswer:
        row = self._table.rows.get(ack.claim.id)
        if row is None:
            return "gone"
        if row.job.token != ack.claim.token:
            return "stale"
        if row.job.status is Status.PROCESSING:
            self._apply(row, ack, now)
        return "applied"

    def _apply(self, row: Row, ack: Ack, now: datetime) -> None:
        job = row.job
        change = ack.if_cancel_requested if job.cancel_requested else ack.then
        ends = change.status in FINAL
        failures = () if change.failure is None else (replace(change.failure, at=now),)
        if change.unstarted:
            self._gates.refund(job.lane)
        if self._gates.may_open(job.lane):
            self._table.told["ready"][job.queue] = None
        self._table.change(
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
            self._table.told["changed"][claim.id] = None
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
            self._table.told["changed"][claim.id] = None
            return True

    def _claimed(self, claim: Claim) -> Row | None:
        row = self._table.rows.get(claim.id)
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
            rows = self._table.held.get(worker.id, {}).values()
            return Beat(True, [Held(row.job.claim, row.job.cancel_requested) for row in rows])

    async def promote(self, limit: int) -> Promotion:
        with self._operation() as now:
            expired = promoted = 0
            for row in self._table.expiring.until(now, limit):
                self._table.cancel(row, "expired before it started", now)
                expired += 1
            for row in self._table.scheduled.until(now, limit):
                self._table.change(row, Status.PENDING)
                promoted += 1
            return Promotion(promoted, expired, self._next_due(now), self._suspects_pending())

    def _next_due(self, now: datetime) -> timedelta | None:
        late = self._table.expiring.first()
        if late is not None and late.job.expires_at is not None and late.job.expires_at <= now:
            return timedelta(0)
        row = self._table.scheduled.first()
        return None if row is None else max(row.job.ready_at - now, timedelta(0))

    def _suspects_pending(self) -> bool:
        return any(heap.first() for bucket, heap in self._table.ready.items() if bucket.suspect)

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
                for worker, rows in self._table.held.items()
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
            if self._table.held.get(worker):
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
            return [self._table.job(each) for each in ids]

    async def find(
        self,
        where: JobFilter,
        limit: int,
        *,
        after: int | None = None,
        oldest_first: bool = False,
    ) -> Page:
        with self._operation():
            rows = (
                self._table.rows.values() if oldest_first else reversed(self._table.rows.values())
            )
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
            row = self._table.rows.get(id)
            lines = row.lines if row is not None else []
            return [line for line in lines if line.seq > after][:limit]

    async def stats(self) -> Stats:
        with self._operation() as now:
            lanes = [
                LaneStats(
                    lane.queue, lane.type, dict(+counts), self._table.oldest(lane.queue, lane.type)
                )
                for lane, counts in sorted(self._table.counts.items())
                if counts.total()
            ]
            return Stats(now, lanes)

    async def cancel(self, ids: Sequence[JobId], *, reason: str) -> list[Job | None]:
        with self._operation() as now:
            for each in ids:
                row = self._table.rows.get(each)
                if row is None or row.job.status in FINAL:
                    continue
                if row.job.status is Status.PROCESSING:
                    row.job = replace(row.job, cancel_requested=True)
                    self._table.told["cancel"][each] = self._table.told["changed"][each] = None
                else:
                    self._table.cancel(row, reason, now)
            return [self._table.job(each) for each in ids]

    async def retry(self, ids: Sequence[JobId]) -> list[Retried]:
        with self._operation() as now:
            return [self._retry(each, now) for each in ids]

    def _retry(self, id: JobId, now: datetime) -> Retried:
        row = self._table.rows.get(id)
        if row is None:
            return Retried(id, None, "not found")
        if row.job.status is Status.PROCESSING:
            return Retried(id, row.job, "processing")
        if row.job.status is Status.PENDING:
            return Retried(id, row.job, "pending")
        if self._table.key_is_taken(row, Status.PENDING):
            return Retried(id, row.job, "key taken")
        if row.job.status in FINAL:
            self._table.change(
                row, Status.PENDING, take=True, ready_at=now, expires_at=None, token=None,
                generation=row.job.generation + 1, failures=0, crashes=0, charges=0,
                cancel_requested=False, finished_at=None, result=None, reason=None,
                progress=None, note=None,
            )  # fmt: skip
        else:
            self._table.change(
                row, Status.PENDING, take=True, ready_at=now, expires_at=None, token=None
            )
        return Retried(id, row.job)

    async def prune(self, retention: Retention, limit: int) -> int:
        with self._operation() as now:
            pruned = 0
            for (status, keyed), heap in self._table.ended.items():
                kept = _kept_for(status, keyed, retention)
                for row in heap.until(now - kept, limit - pruned):
                    self._table.forget(row)
                    pruned += 1
            return pruned

    async def queues(self) -> list[QueueInfo]:
        with self._operation():
            names = {lane.queue for lane, counts in self._table.counts.items() if counts.total()}
            names |= {name for scope, name in self._gates.limits if scope == "queue"}
            return [self._queue_info(name) for name in sorted(names | self._gates.paused.keys())]

    def _queue_info(self, name: str) -> QueueInfo:
        paused, reason = self._gates.paused.get(name, (False, None))
        counts: Counter[Status] = Counter()
        for lane in self._table.counts:
            if lane.queue == name:
                counts += self._table.counts[lane]
        return QueueInfo(
            name=name,
            paused=paused,
            reason=reason,
            capacity=self._gates.capacity(name),
            limit=self._gates.limits.get(("queue", name)),
            counts=dict(counts),
            oldest_ready_at=self._table.oldest(name),
        )

    async def pause(self, queue: str, paused: bool, *, reason: str | None = None) -> None:
        with self._operation():
            self._gates.paused[queue] = (paused, reason if paused else None)
            if not paused:
                self._table.told["ready"][queue] = None

    async def limits(self) -> list[Limit]:
        with self._operation():
            return [self._gates.limits[key] for key in sorted(self._gates.limits)]

    async def set_limits(self, limits: Sequence[Limit]) -> None:
        with self._operation():
            for limit in limits:
                self._gates.set(limit)
            self._table.told["ready"].update(
                dict.fromkeys(bucket.queue for bucket in self._table.ready)
            )

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

    def _send_notices(self) -> None:
        for kind, names in self._table.told.items():
            if names and any(kind in listener.kinds for listener in self._listeners):
                notice = _notice(kind, tuple(names))
                self._listeners = [each for each in self._listeners if each.tell(notice)]
        self._table.forget_told()


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

"""Accepting jobs.

Most jobs are plain: an id that was just made and no unique key. They are written at once, those of
all callers together, and a conflict is a reason to start over with care. With care means: look first
which jobs stand under these ids and keys, work out what to do, check the capacity, then write.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from windlass.errors import DuplicateJob, IdConflict, QueueFull, WindlassError
from windlass.job import WAITING, Job, JobId, JobOptions, NewJob, Status, fingerprint
from windlass.store import Inserted
from windlass.stores.sqlite.request import Request
from windlass.stores.sqlite.rows import (
    CANCELLED,
    CODES,
    STATUSES,
    Whole,
    from_micros,
    head_start,
    json_text,
    mask,
    micros,
    to_micros,
)
from windlass.stores.sqlite.sql import INSERT_SIZES, SQL
from windlass.stores.sqlite.transaction import Transaction

__all__ = ["insert"]

_INSERTS = tuple((size, SQL[f"insert_{size}"]) for size in INSERT_SIZES)

_decode_standing = msgspec.json.Decoder(
    list[tuple[str | None, str | None, Whole]], strict=False
).decode


def insert(tx: Transaction, requests: list[Request]) -> None:
    """Serve inserts; each request's argument is its sequence of jobs."""
    batch = _Batch(tx)
    rest: list[Request] = []
    for request in requests:
        [jobs] = request.arguments
        if not tx.careful and _are_plain(jobs) and batch.has_room(jobs):
            request.answer = [Inserted(batch.add(job)) for job in jobs]
        else:
            rest.append(request)
    batch.write()
    for request in rest:
        try:
            request.answer = _insert_carefully(tx, *request.arguments)
        except WindlassError as error:
            request.error = error


def _are_plain(jobs: Sequence[NewJob]) -> bool:
    return not any(job.keyed or job.options.unique for job in jobs)


class _Plan:
    """What all jobs with the same type and options share."""

    __slots__ = ("count", "fields", "lane", "queue", "rows", "shared", "status")

    def __init__(self, tx: Transaction, new: NewJob) -> None:
        options = new.options
        now = from_micros(tx.now)
        ready_at = _ready_at(options, now)
        status = Status.SCHEDULED if ready_at > now else Status.PENDING
        expires_at = None if options.expires is None else ready_at + options.expires
        unique = options.unique
        key = unique.key if unique is not None and status in unique.within else None
        self.lane = tx.book.lane(tx.db, new.lane).id
        self.queue = options.queue
        self.status = CODES[status]
        self.rows: list[Any] = []
        self.count = 0
        ready = to_micros(ready_at)
        self.shared: list[Any] = [
            self.lane, self.status, ready - head_start(options.priority), ready, tx.now,
            None if expires_at is None else to_micros(expires_at), options.priority,
            options.max_attempts, micros(options.timeout), options.on_lost == "fail",
            json_text(options.tags) if options.tags else None,
            json_text(options.meta) if options.meta else None,
            new.keyed,
            None if unique is None else mask(unique.within),
            None if unique is None else unique.key,
            key,
            fingerprint(new) if new.keyed else None,
        ]  # fmt: skip
        self.fields: dict[str, Any] = {
            "type": new.type, "queue": options.queue, "status": status,
            "priority": options.priority, "created_at": now, "ready_at": ready_at,
            "max_attempts": options.max_attempts, "timeout": options.timeout,
            "expires_at": expires_at, "unique_key": key, "on_lost": options.on_lost,
            "tags": options.tags, "meta": options.meta,
        }  # fmt: skip


def _ready_at(options: JobOptions, now: datetime) -> datetime:
    asked = options.run_at if options.delay is None else now + options.delay
    return now if asked is None else max(now, asked.astimezone(UTC))


class _Batch:
    """Jobs to be written together, by plan: what they share is computed and bound once."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._plans: dict[tuple[int, str], _Plan] = {}
        self._alike: dict[object, _Plan] = {}
        self._singles: list[_Plan] = []
        self._growth: Counter[str] = Counter()
        self._kept: list[JobOptions] = []

    def has_room(self, jobs: Sequence[NewJob]) -> bool:
        if len(jobs) == 1:
            queue = jobs[0].options.queue
            return self._tx.book.room(queue) > self._growth[queue]
        more = Counter(job.options.queue for job in jobs)
        return all(
            self._tx.book.room(queue) >= self._growth[queue] + count
            for queue, count in more.items()
        )

    def add(self, new: NewJob) -> Job:
        plan = self._plans.get((id(new.options), new.type)) or self._plan(new)
        self._growth[plan.queue] += 1
        book = self._tx.book
        seq = book.seq = book.seq + 1
        plan.rows += (seq, new.id, new.payload)
        return Job(id=new.id, seq=seq, payload=msgspec.Raw(new.payload), **plan.fields)

    def _plan(self, new: NewJob) -> _Plan:
        if new.keyed or new.options.unique is not None:
            plan = _Plan(self._tx, new)
            self._singles.append(plan)
            return plan
        options = new.options
        alike = (
            new.type, options.queue, options.priority, options.delay, options.run_at,
            options.max_attempts, options.timeout, options.expires, options.on_lost, options.tags,
            tuple(options.meta.items()),
        )  # fmt: skip
        plan = self._alike.get(alike) or _Plan(self._tx, new)
        self._alike[alike] = self._plans[id(options), new.type] = plan
        self._kept.append(options)  # its id() is a key: it must not be given to another meanwhile
        return plan

    def write(self) -> None:
        for plan in (*self._alike.values(), *self._singles):
            self._write(plan)
        self._plans.clear()
        self._alike.clear()
        self._singles.clear()
        self._growth.clear()

    def _write(self, plan: _Plan) -> None:
        tx, rows, shared = self._tx, plan.rows, plan.shared
        start, left = 0, len(rows) // 3
        tx.moved(plan.lane, None, plan.status, left)
        if tx.tells_changes:
            tx.changed(rows[1::3])
        for size, statement in _INSERTS:
            while left >= size:
                end = start + 3 * size
                tx.db.execute(statement, shared + rows[start:end])
                start, left = end, left - size


def _insert_carefully(tx: Transaction, jobs: Sequence[NewJob]) -> list[Inserted]:
    placing = _Placing(tx, jobs)
    answers = [placing.place(new) for new in jobs]
    placing.check_capacity()
    placing.act()
    return [Inserted(entry.job, duplicate) for entry, duplicate in answers]


class _Entry:
    """A job that stands, or will: ``new`` until it is written."""

    __slots__ = ("_job", "digest", "new", "queue", "waits")

    def __init__(self, job: Job | None, new: NewJob | None, digest: str | None) -> None:
        self._job = job
        self.new = new
        self.digest = digest
        self.waits = True if job is None else job.status in WAITING
        if job is not None:
            self.queue = job.queue
        elif new is not None:
            self.queue = new.options.queue

    @property
    def job(self) -> Job:
        assert self._job is not None
        return self._job

    @job.setter
    def job(self, job: Job) -> None:
        self._job = job


class _Placing:
    """What an insert would do, worked out before anything is written: all or nothing."""

    def __init__(self, tx: Transaction, jobs: Sequence[NewJob]) -> None:
        self._tx = tx
        self._by_id: dict[JobId, _Entry] = {}
        self._holders: dict[str, _Entry] = {}
        self._steps: list[tuple[_Entry, JobId | None]] = []
        ids = [job.id for job in jobs]
        keys = [job.options.unique.key for job in jobs if job.options.unique is not None]
        text = tx.text(SQL["standing"], json_text(ids), json_text(keys))
        for key, digest, row in _decode_standing(text) if text is not None else ():
            entry = _Entry(row.whole(), None, digest)
            self._by_id[row.job.id] = entry
            if key is not None:
                self._holders[key] = entry
        self._now = from_micros(tx.now)

    def place(self, new: NewJob) -> tuple[_Entry, bool]:
        """The entry that stands for *new*, and whether it stood before."""
        same = self._by_id.get(new.id)
        if same is not None:
            if new.keyed and same.digest != fingerprint(new):
                raise IdConflict(new.id)
            return same, True
        unique = new.options.unique
        holder = self._holders.get(unique.key) if unique is not None else None
        if unique is not None and holder is not None:
            if unique.on_conflict == "reject":
                raise DuplicateJob(self._shown(holder))
            if unique.on_conflict == "return" or not holder.waits:
                return holder, True
            self._steps.append((holder, new.id))
            del self._holders[unique.key]
        entry = _Entry(None, new, fingerprint(new) if new.keyed else None)
        self._by_id[new.id] = entry
        self._steps.append((entry, None))
        if unique is not None and self._status(new) in unique.within:
            self._holders[unique.key] = entry
        return entry, False

    def _status(self, new: NewJob) -> Status:
        return Status.SCHEDULED if _ready_at(new.options, self._now) > self._now else Status.PENDING

    def _shown(self, holder: _Entry) -> Job:
        """The holder, for an error message; it may be one of the jobs that will not be written."""
        if holder.new is None:
            return holder.job
        plan = _Plan(self._tx, holder.new)
        payload = msgspec.Raw(holder.new.payload)
        return Job(id=holder.new.id, seq=0, payload=payload, **plan.fields)

    def check_capacity(self) -> None:
        growth = Counter({entry.queue: 0 for entry, by in self._steps if by is None})
        for entry, replaced_by in self._steps:
            if entry.queue in growth:
                growth[entry.queue] += 1 if replaced_by is None else -1
        for queue, more in growth.items():
            if more > self._tx.book.room(queue):
                raise QueueFull(queue, self._tx.book.capacity(queue))

    def act(self) -> None:
        batch = _Batch(self._tx)
        for entry, replaced_by in self._steps:
            if replaced_by is None:
                assert entry.new is not None
                entry.job = batch.add(entry.new)
            else:
                batch.write()
                self._replace(entry, f"replaced by {replaced_by}")
        batch.write()

    def _replace(self, entry: _Entry, reason: str) -> None:
        tx, job = self._tx, entry.job
        tx.db.execute(SQL["replace"], (job.id, tx.now, reason))
        lane = tx.book.lane(tx.db, job.lane)
        tx.moved(lane.id, CODES[job.status], CANCELLED)
        tx.changed([job.id])
        entry.job = replace(
            job, status=STATUSES[CANCELLED], finished_at=self._now, reason=reason, token=None,
            unique_key=None,
        )  # fmt: skip

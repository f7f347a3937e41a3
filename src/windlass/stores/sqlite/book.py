"""What a writer knows between transactions: counts per lane, limits, pauses, living workers.

With it, claiming skips empty, paused and limited lanes without a look into the file, and capacity is
an addition. It is a copy: when anyone else has written, or a transaction was rolled back, it is read
anew at the start of the next (:meth:`Book.read`). What a transaction changes here is written to the
file in the same transaction (:meth:`Book.write`), once per lane however many jobs moved.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import msgspec

from windlass import limits as gcra
from windlass.job import Lane, Limit
from windlass.stores.sqlite.rows import PENDING, PROCESSING, SCHEDULED
from windlass.stores.sqlite.sql import SQL

__all__ = ["Book", "LaneRow", "LimitRow", "SettingsRow"]

Scope = Literal["queue", "type"]


class LaneRow(msgspec.Struct, array_like=True):
    """A lane; ``counts`` by status code."""

    id: int
    queue: str
    type: str
    counts: list[int]
    oldest: int | None = None


class LimitRow(msgspec.Struct, array_like=True):
    """A row of ``limits``."""

    scope: Scope
    name: str
    concurrency: int | None
    count: int | None
    period: float | None
    burst: int | None
    capacity: int | None
    operator: int
    tat: float = 0.0

    @classmethod
    def of(cls, limit: Limit, tat: float) -> LimitRow:
        rate = limit.rate
        return cls(
            limit.scope,
            limit.name,
            limit.concurrency,
            None if rate is None else rate.count,
            None if rate is None else rate.period,
            None if rate is None else rate.burst,
            limit.capacity,
            limit.operator,
            tat,
        )

    def limit(self) -> Limit:
        rate = None
        if self.count is not None and self.period is not None and self.burst is not None:
            rate = gcra.Rate(self.count, self.period, self.burst)
        return Limit(
            scope=self.scope, name=self.name, concurrency=self.concurrency, rate=rate,
            capacity=self.capacity, operator=bool(self.operator),
        )  # fmt: skip


class SettingsRow(msgspec.Struct):
    """What people and code have set."""

    limits: list[LimitRow]
    queues: list[tuple[str, int, str | None]]


class _BookRow(SettingsRow):
    lanes: list[LaneRow]
    workers: list[str]
    seq: int


class _Charged:
    """A limit with the accumulated charge of its rate."""

    __slots__ = ("limit", "tat")

    def __init__(self, limit: Limit, tat: float) -> None:
        self.limit = limit
        self.tat = tat


_decode = msgspec.json.Decoder(_BookRow).decode


class Book:
    """See the module. Times are Unix seconds, as in :mod:`windlass.limits`."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._version: int | None = None

    def read(self, db: sqlite3.Connection) -> None:
        """Within a transaction: be as the file is."""
        [(version,)] = db.execute("PRAGMA data_version").fetchall()
        if version == self._version:
            return
        [(text,)] = db.execute(SQL["book"]).fetchall()
        row = _decode(text)
        self.lanes = {lane.id: lane for lane in row.lanes}
        self.ids = {Lane(lane.queue, lane.type): lane.id for lane in row.lanes}
        self.workers = set(row.workers)
        self.seq = row.seq
        self._paused = {name for name, paused, _ in row.queues if paused}
        self._limits = {
            (each.scope, each.name): _Charged(each.limit(), each.tat) for each in row.limits
        }
        self._waiting: Counter[str] = Counter()
        self._running: Counter[tuple[Scope, str]] = Counter()
        for lane in row.lanes:
            self._waiting[lane.queue] += lane.counts[SCHEDULED] + lane.counts[PENDING]
            self._running["queue", lane.queue] += lane.counts[PROCESSING]
            self._running["type", lane.type] += lane.counts[PROCESSING]
        self._moved: set[int] = set()
        self._charged: set[tuple[Scope, str]] = set()
        self._version = version

    def forget(self) -> None:
        """The transaction was rolled back: what is known here never was."""
        self._version = None

    def write(self, db: sqlite3.Connection) -> None:
        """Within the transaction: make the file as this is."""
        if self._moved:
            rows = [(*self.lanes[number].counts, number) for number in self._moved]
            db.executemany(SQL["count"], rows)
            self._moved.clear()
        if self._charged:
            db.executemany(SQL["charge"], [(self._limits[key].tat, *key) for key in self._charged])
            self._charged.clear()

    # ------------------------------------------------------------------ lanes

    def lane(self, db: sqlite3.Connection, lane: Lane) -> LaneRow:
        """The lane's row, made when it is new."""
        number = self.ids.get(lane)
        if number is None:
            number = db.execute(SQL["add_lane"], lane).lastrowid
            assert number is not None
            self.ids[lane] = number
            self.lanes[number] = LaneRow(number, lane.queue, lane.type, [0] * 6)
        return self.lanes[number]

    def move(self, lane: LaneRow, before: int | None, after: int | None, count: int = 1) -> None:
        """*count* jobs of a lane went from one status to another; None: outside the store."""
        if before is not None:
            self._add(lane, before, -count)
        if after is not None:
            self._add(lane, after, count)
        self._moved.add(lane.id)

    def _add(self, lane: LaneRow, status: int, count: int) -> None:
        lane.counts[status] += count
        if status <= PENDING:
            self._waiting[lane.queue] += count
        elif status == PROCESSING:
            self._running["queue", lane.queue] += count
            self._running["type", lane.type] += count

    def room(self, queue: str) -> int:
        """How many more jobs the queue takes; negative when it is over its capacity."""
        return self.capacity(queue) - self._waiting[queue]

    def capacity(self, queue: str) -> int:
        charged = self._limits.get(("queue", queue))
        if charged is None or charged.limit.capacity is None:
            return self._capacity
        return charged.limit.capacity

    # ------------------------------------------------------------------ limits

    def is_paused(self, queue: str) -> bool:
        return queue in self._paused

    def set_paused(self, queue: str, paused: bool) -> None:
        (self._paused.add if paused else self._paused.discard)(queue)

    def limit(self, scope: Scope, name: str) -> Limit | None:
        charged = self._limits.get((scope, name))
        return None if charged is None else charged.limit

    def set_limit(self, limit: Limit) -> LimitRow:
        """Take it on; the row as it is to be stored."""
        key = (limit.scope, limit.name)
        before = self._limits.get(key)
        tat = 0.0 if before is None or limit.operator else before.tat
        self._limits[key] = _Charged(limit, tat)
        return LimitRow.of(limit, tat)

    def _limits_of(self, lane: LaneRow) -> Iterator[tuple[tuple[Scope, str], _Charged]]:
        if self._limits:
            keys: tuple[tuple[Scope, str], ...] = (("queue", lane.queue), ("type", lane.type))
            for key in keys:
                if key in self._limits:
                    yield key, self._limits[key]

    def is_limited(self, lane: LaneRow) -> bool:
        """Whether a limit on claiming concerns the lane."""
        return any(
            charged.limit.concurrency is not None or charged.limit.rate is not None
            for _, charged in self._limits_of(lane)
        )

    def has_concurrency(self, lane: LaneRow) -> bool:
        """Whether the end of one of its runs may let another start."""
        return any(each.limit.concurrency is not None for _, each in self._limits_of(lane))

    def openings(self, lane: LaneRow, now: float, most: int) -> int:
        """How many of the lane may start now, at most *most*."""
        for key, charged in self._limits_of(lane):
            limit = charged.limit
            if limit.concurrency is not None:
                most = min(most, limit.concurrency - self._running[key])
            if limit.rate is not None and most > 0:
                most = min(most, gcra.room(limit.rate, charged.tat, now))
        return max(most, 0)

    def charge(self, lane: LaneRow, now: float) -> None:
        """One of the lane starts."""
        for key, charged in self._limits_of(lane):
            if charged.limit.rate is not None:
                charged.tat = gcra.take(charged.limit.rate, charged.tat, now, 1)
                self._charged.add(key)

    def refund(self, lane: LaneRow) -> None:
        """One that was charged did not start after all."""
        for key, charged in self._limits_of(lane):
            if charged.limit.rate is not None:
                charged.tat = gcra.refund(charged.limit.rate, charged.tat, 1)
                self._charged.add(key)

    def opens_in(self, lane: LaneRow, now: float) -> float:
        """Seconds until no rate holds the lane back."""
        return max(
            (
                gcra.opens_in(charged.limit.rate, charged.tat, now)
                for _, charged in self._limits_of(lane)
                if charged.limit.rate is not None
            ),
            default=0.0,
        )

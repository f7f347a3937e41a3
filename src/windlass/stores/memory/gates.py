"""What holds work back: paused queues, concurrency, rates; and the capacity of queues."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from windlass.job import Lane, Limit, Status
from windlass.limits import opens_in, refund, room, take
from windlass.stores.memory.table import Bucket, Scope, Table

__all__ = ["Gates"]


class Gates:
    """The limits and pauses of a store, with what its rates have been charged."""

    def __init__(self, table: Table, capacity: int) -> None:
        self._table = table
        self._capacity = capacity
        self.limits: dict[tuple[Scope, str], Limit] = {}
        self.paused: dict[str, tuple[bool, str | None]] = {}
        """Every queue that ever was paused: whether it is, and why."""
        self._tats: dict[tuple[Scope, str], float] = {}

    def set(self, limit: Limit) -> None:
        """Set *limit*, unless code declares it where an operator has set one."""
        key = (limit.scope, limit.name)
        present = self.limits.get(key)
        if present is not None and present.operator and not limit.operator:
            return
        self.limits[key] = limit
        if limit.operator:
            self._tats.pop(key, None)

    def is_paused(self, queue: str) -> bool:
        """Whether nothing of the queue is handed out."""
        return self.paused.get(queue, (False, None))[0]

    def capacity(self, queue: str) -> int:
        """How many of the queue may wait."""
        limit = self.limits.get(("queue", queue))
        return self._capacity if limit is None or limit.capacity is None else limit.capacity

    def has_room(self, lane: Lane | Bucket, now: datetime) -> bool:
        """Whether one more of the lane may start."""
        for limit in self._limits_of(lane):
            running = self._table.sums[limit.scope, limit.name, Status.PROCESSING]
            if limit.concurrency is not None and running >= limit.concurrency:
                return False
            if limit.rate is not None and not room(limit.rate, self._tat(limit), now.timestamp()):
                return False
        return True

    def charge(self, lane: Lane, now: datetime) -> None:
        """One of the lane starts."""
        for limit in self._limits_of(lane):
            if limit.rate is not None:
                tat = take(limit.rate, self._tat(limit), now.timestamp(), 1)
                self._tats[limit.scope, limit.name] = tat

    def refund(self, lane: Lane) -> None:
        """One of the lane was charged and did not start after all."""
        for limit in self._limits_of(lane):
            if limit.rate is not None:
                self._tats[limit.scope, limit.name] = refund(limit.rate, self._tat(limit), 1)

    def may_open(self, lane: Lane) -> bool:
        """Whether the end of one run is what another of the lane may wait for."""
        return any(limit.concurrency is not None for limit in self._limits_of(lane))

    def opens_in(self, lanes: Iterable[Lane | Bucket], now: datetime) -> timedelta | None:
        """When the first of the *lanes* that a rate holds back may go on."""
        waits = [self._wait(lane, now.timestamp()) for lane in lanes]
        held_back = [wait for wait in waits if wait > 0]
        return timedelta(seconds=min(held_back)) if held_back else None

    def _wait(self, lane: Lane | Bucket, now: float) -> float:
        """Until all rates of the lane have room."""
        waits = (
            opens_in(limit.rate, self._tat(limit), now)
            for limit in self._limits_of(lane)
            if limit.rate is not None
        )
        return max(waits, default=0.0)

    def _limits_of(self, lane: Lane | Bucket) -> list[Limit]:
        if not self.limits:
            return []
        both = self.limits.get(("queue", lane.queue)), self.limits.get(("type", lane.type))
        return [limit for limit in both if limit is not None]

    def _tat(self, limit: Limit) -> float:
        return self._tats.get((limit.scope, limit.name), 0.0)

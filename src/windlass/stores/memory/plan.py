"""What an insert would do, worked out before anything is done: all of it, or nothing."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from windlass.errors import DuplicateJob, IdConflict
from windlass.job import WAITING, Job, JobId, NewJob, Status, fingerprint
from windlass.stores.memory.table import Row, Table

__all__ = ["Plan"]


class Plan:
    """Places new jobs one after the other beside those of the table, which it leaves alone."""

    def __init__(self, table: Table, now: datetime) -> None:
        self._table = table
        self._now = now
        self._new: dict[JobId, Row] = {}
        self._new_holders: dict[str, Row | None] = {}
        self.steps: list[tuple[Row, JobId | None]] = []
        """In order: rows to add (None), and rows to cancel, with the id that replaces them."""

    def place(self, new: NewJob) -> tuple[Row, bool]:
        """The row that stands for *new*, and whether it stood before."""
        same = self._new.get(new.id) or self._table.rows.get(new.id)
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

    def _holder(self, key: str) -> Row | None:
        if key in self._new_holders:
            return self._new_holders[key]
        return self._table.holders.get(key)

    def _add(self, new: NewJob) -> Row:
        row = Row(new, _first_state(new, self._now))
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

"""Questions of people and their tools, as functions of a reading connection."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec.structs import replace

from windlass.clock import Clock
from windlass.errors import ConfigError
from windlass.job import (
    Job,
    JobFilter,
    JobId,
    LaneStats,
    Limit,
    LogLine,
    Page,
    QueueInfo,
    Stats,
    Status,
    WorkerInfo,
)
from windlass.stores.sqlite.book import LaneRow, SettingsRow
from windlass.stores.sqlite.reader import cut_off
from windlass.stores.sqlite.rows import (
    CANCELLED,
    CODES,
    COMPLETED,
    FAILED,
    PENDING,
    PROCESSING,
    SCHEDULED,
    STATUSES,
    from_micros,
    jobs_of,
    json_text,
    to_micros,
)
from windlass.stores.sqlite.sql import SQL

__all__ = ["find", "get", "in_order", "limits", "logs", "query", "queues", "stats", "workers"]

_TEXT_SECONDS = 0.25
_OTHER_SECONDS = 2.0
"""How long a search may take: it holds a snapshot meanwhile."""

_FEW = 20_000
"""So many jobs, or fewer, are found by the indexes of their statuses; more by walking back from the
end, where every so-many-th is one."""

_BY_STATUS = {
    SCHEDULED: "SELECT seq FROM jobs INDEXED BY jobs_scheduled WHERE status = 0",
    PENDING: "SELECT seq FROM jobs INDEXED BY jobs_oldest WHERE status = 1",
    PROCESSING: "SELECT seq FROM jobs INDEXED BY jobs_processing WHERE status = 2",
    COMPLETED: "SELECT seq FROM jobs INDEXED BY jobs_final WHERE status > 2 AND status = 3",
    FAILED: "SELECT seq FROM jobs INDEXED BY jobs_final WHERE status > 2 AND status = 4",
    CANCELLED: "SELECT seq FROM jobs INDEXED BY jobs_final WHERE status > 2 AND status = 5",
}

_decode_lanes = msgspec.json.Decoder(list[LaneRow]).decode
_decode_settings = msgspec.json.Decoder(SettingsRow).decode
_decode_workers = msgspec.json.Decoder(list[tuple[WorkerInfo, int, int, int]]).decode
_decode_lines = msgspec.json.Decoder(list[LogLine], strict=False).decode


def _text(db: sqlite3.Connection, statement: str, *parameters: object) -> Any:
    [(text,)] = db.execute(statement, parameters).fetchall()
    return text


def get(db: sqlite3.Connection, ids: Sequence[JobId]) -> str | None:
    """The jobs as JSON, in any order."""
    text: str | None = _text(db, SQL["get"], json_text(list(dict.fromkeys(ids))))
    return text


def find(
    db: sqlite3.Connection, where: JobFilter, limit: int, after: int | None, oldest_first: bool
) -> Page:
    """See :meth:`windlass.store.ControlStore.find`."""
    if limit <= 0:
        return Page([])
    lanes = _decode_lanes(_text(db, SQL["lanes"]))
    statement, parameters = query(where, lanes, after, oldest_first)
    seconds = _OTHER_SECONDS if where.text is None else _TEXT_SECONDS
    narrow = ConfigError(
        f"The search took longer than {seconds:g} s: narrow the filter, by status, type, queue or "
        "time of creation."
    )
    with cut_off(db, seconds, narrow):
        jobs = jobs_of(_text(db, statement, *parameters, limit + 1))
    more = len(jobs) > limit
    return Page(jobs[:limit], jobs[limit - 1].seq if more else None)


def query(
    where: JobFilter, lanes: Sequence[LaneRow], after: int | None, oldest_first: bool
) -> tuple[str, list[object]]:
    """The statement for a filter, and its parameters but the last, the limit."""
    conditions: list[str] = []
    parameters: list[object] = []

    def add(condition: str, *values: object) -> None:
        conditions.append(condition)
        parameters.extend(values)

    if after is not None:
        add("j.seq > ?" if oldest_first else "j.seq < ?", after)
    conditions.extend(_places(where, lanes))
    if where.tag:
        add(
            "j.tags IS NOT NULL AND EXISTS (SELECT 1 FROM json_each(j.tags) AS t"
            " JOIN json_each(?) AS w ON w.value = t.value)",
            json_text(sorted(where.tag)),
        )
    if where.worker:
        add("j.worker IN (SELECT value FROM json_each(?))", json_text(sorted(where.worker)))
    if where.created_from is not None:
        add("j.created_at >= ?", to_micros(where.created_from))
    if where.created_to is not None:
        add("j.created_at < ?", to_micros(where.created_to))
    if where.unique_key is not None:
        add("j.unique_key = ?", where.unique_key)
    if where.id_suffix is not None:
        add("substr(j.id, -length(?)) = ?", where.id_suffix, where.id_suffix)
    if where.text is not None:
        add("instr(lower(j.payload), lower(?)) > 0", where.text)
    wanted = " AND ".join(conditions) or "1"
    order = "ASC" if oldest_first else "DESC"
    return SQL["find"].replace("%where", wanted).replace("%order", order), parameters


def _places(where: JobFilter, lanes: Sequence[LaneRow]) -> list[str]:
    """The conditions on status and lane: by the indexes of the statuses where they leave few jobs."""
    if not (where.status or where.type or where.queue):
        return []
    chosen = [lane for lane in lanes if _is_lane(lane, where)]
    codes = sorted(CODES[status] for status in where.status or STATUSES)
    counts = {code: sum(lane.counts[code] for lane in chosen) for code in codes}
    among = f"lane IN ({','.join(str(lane.id) for lane in chosen)})"
    if sum(counts.values()) > _FEW:
        return [f"j.status IN ({','.join(map(str, codes))})", f"j.{among}"]
    parts = [f"{_BY_STATUS[code]} AND {among}" for code in codes if counts[code]]
    return [f"j.seq IN ({' UNION ALL '.join(parts)})"] if parts else ["0"]


def _is_lane(lane: LaneRow, where: JobFilter) -> bool:
    return (not where.type or lane.type in where.type) and (
        not where.queue or lane.queue in where.queue
    )


def logs(db: sqlite3.Connection, id: JobId, after: int, limit: int) -> list[LogLine]:
    """See :meth:`windlass.store.ControlStore.logs`."""
    return _decode_lines(_text(db, SQL["logs"], id, after, limit))


def stats(db: sqlite3.Connection, clock: Clock) -> Stats:
    """See :meth:`windlass.store.ControlStore.stats`."""
    lanes = sorted(
        (lane for lane in _decode_lanes(_text(db, SQL["lanes"])) if any(lane.counts)),
        key=lambda lane: (lane.queue, lane.type),
    )
    return Stats(
        clock.now(),
        [
            LaneStats(lane.queue, lane.type, _counts(lane.counts), _moment(lane.oldest))
            for lane in lanes
        ],
    )


def queues(db: sqlite3.Connection, capacity: int) -> list[QueueInfo]:
    """See :meth:`windlass.store.ControlStore.queues`."""
    lanes = [lane for lane in _decode_lanes(_text(db, SQL["lanes"])) if any(lane.counts)]
    settings = _decode_settings(_text(db, SQL["settings"]))
    limits = {row.name: row.limit() for row in settings.limits if row.scope == "queue"}
    pauses = {name: (bool(paused), reason) for name, paused, reason in settings.queues}
    names = {lane.queue for lane in lanes} | limits.keys() | pauses.keys()
    return [_queue(name, lanes, limits.get(name), pauses, capacity) for name in sorted(names)]


def _queue(
    name: str,
    lanes: Sequence[LaneRow],
    limit: Limit | None,
    pauses: dict[str, tuple[bool, str | None]],
    capacity: int,
) -> QueueInfo:
    own = [lane for lane in lanes if lane.queue == name]
    counts: Counter[int] = Counter()
    for lane in own:
        counts.update(dict(enumerate(lane.counts)))
    paused, reason = pauses.get(name, (False, None))
    return QueueInfo(
        name=name,
        paused=paused,
        reason=reason,
        capacity=capacity if limit is None or limit.capacity is None else limit.capacity,
        limit=limit,
        counts=_counts([counts[code] for code in range(len(STATUSES))]),
        oldest_ready_at=_moment(
            min((lane.oldest for lane in own if lane.oldest is not None), default=None)
        ),
    )


def _counts(counts: Sequence[int]) -> dict[Status, int]:
    return {status: count for status, count in zip(STATUSES, counts, strict=True) if count}


def _moment(at: int | None) -> datetime | None:
    return None if at is None else from_micros(at)


def limits(db: sqlite3.Connection) -> list[Limit]:
    """See :meth:`windlass.store.ControlStore.limits`."""
    rows = _decode_settings(_text(db, SQL["settings"])).limits
    return [row.limit() for row in sorted(rows, key=lambda row: (row.scope, row.name))]


def workers(db: sqlite3.Connection) -> list[WorkerInfo]:
    """See :meth:`windlass.store.ControlStore.workers`."""
    return [
        replace(
            info,
            started_at=from_micros(started_at),
            seen_at=from_micros(seen_at),
            lease_until=from_micros(lease_until),
        )
        for info, started_at, seen_at, lease_until in _decode_workers(_text(db, SQL["workers"]))
    ]


def in_order(ids: Sequence[JobId], text: str | None) -> list[Job | None]:
    """The jobs of an answer, as they were asked for."""
    by_id = {job.id: job for job in jobs_of(text)}
    return [by_id.get(each) for each in ids]

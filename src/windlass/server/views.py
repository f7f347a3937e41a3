"""What the API shows of Windlass's values: each view is a struct, and so a schema of OpenAPI.

A view names every field that clients may rely on, so that a change inside does not change the API
unseen. Times are RFC 3339 in UTC, durations seconds. A claim's token is nobody's business and is
not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from windlass.calls import Task
from windlass.control import Why
from windlass.job import (
    Failure,
    Job,
    LaneStats,
    Limit,
    LogLine,
    QueueInfo,
    Stats,
    Status,
    StoreInfo,
    WorkerInfo,
)

__all__ = [
    "HealthView",
    "IndexView",
    "JobEvent",
    "JobView",
    "LaneView",
    "LimitView",
    "LiveView",
    "LogLineView",
    "QueueView",
    "RateView",
    "StatsView",
    "StoreView",
    "TaskView",
    "WhyView",
    "WorkerView",
    "encode",
]

encode = msgspec.json.Encoder().encode

_NULL = msgspec.Raw(b"null")


class JobView(msgspec.Struct, frozen=True, kw_only=True):
    """A job, whole."""

    id: str
    type: str
    status: Status
    queue: str
    payload: msgspec.Raw
    priority: int
    attempt: int
    """Number of the present or next attempt, from 1."""
    max_attempts: int
    created_at: datetime
    ready_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    timeout: float | None
    """Seconds that one run may take."""
    progress: float | None
    note: str | None
    result: msgspec.Raw
    reason: str | None
    errors: tuple[Failure, ...]
    failures: int
    crashes: int
    suspect: bool
    fence: int
    generation: int
    worker: str | None
    unique_key: str | None
    cancel_requested: bool
    on_lost: Literal["retry", "fail"]
    tags: tuple[str, ...]
    meta: Mapping[str, str]
    duplicate: bool | msgspec.UnsetType = msgspec.UNSET
    """Only in answers to an enqueue: the job stood already."""

    @classmethod
    def of(cls, job: Job, *, duplicate: bool | msgspec.UnsetType = msgspec.UNSET) -> JobView:
        return cls(
            id=job.id,
            type=job.type,
            status=job.status,
            queue=job.queue,
            payload=job.payload,
            priority=job.priority,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            created_at=job.created_at,
            ready_at=job.ready_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            expires_at=job.expires_at,
            timeout=None if job.timeout is None else job.timeout.total_seconds(),
            progress=job.progress,
            note=job.note,
            result=_NULL if job.result is None else job.result,
            reason=job.reason,
            errors=job.errors,
            failures=job.failures,
            crashes=job.crashes,
            suspect=job.suspect,
            fence=job.fence,
            generation=job.generation,
            worker=job.worker,
            unique_key=job.unique_key,
            cancel_requested=job.cancel_requested,
            on_lost=job.on_lost,
            tags=job.tags,
            meta=job.meta,
            duplicate=duplicate,
        )


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A job as the event stream tells of it: where it stands, and none of its data."""

    id: str
    type: str
    status: Status
    queue: str
    priority: int
    attempt: int
    max_attempts: int
    created_at: datetime
    ready_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: float | None
    note: str | None
    reason: str | None
    worker: str | None
    cancel_requested: bool
    tags: tuple[str, ...]

    @classmethod
    def of(cls, job: Job) -> JobEvent:
        return cls(
            id=job.id,
            type=job.type,
            status=job.status,
            queue=job.queue,
            priority=job.priority,
            attempt=job.attempt,
            max_attempts=job.max_attempts,
            created_at=job.created_at,
            ready_at=job.ready_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            progress=job.progress,
            note=job.note,
            reason=job.reason,
            worker=job.worker,
            cancel_requested=job.cancel_requested,
            tags=job.tags,
        )


class LogLineView(msgspec.Struct, frozen=True):
    """A line that a run wrote."""

    seq: int
    at: datetime | None
    level: str
    message: str
    attempt: int

    @classmethod
    def of(cls, line: LogLine) -> LogLineView:
        return cls(line.seq, line.at, line.level, line.message, line.attempt)


class RateView(msgspec.Struct, frozen=True):
    """``count`` starts per ``period`` seconds, at most ``burst`` at one moment."""

    count: int
    period: float
    burst: int


class LimitView(msgspec.Struct, frozen=True):
    """What all workers together may do with a queue or a task type; null: no limit."""

    scope: Literal["queue", "type"]
    name: str
    concurrency: int | None
    rate: RateView | None
    capacity: int | None
    operator: bool
    """Set by a person, and not overwritten by what code declares."""

    @classmethod
    def of(cls, limit: Limit) -> LimitView:
        rate = (
            None
            if limit.rate is None
            else RateView(limit.rate.count, limit.rate.period, limit.rate.burst)
        )
        return cls(limit.scope, limit.name, limit.concurrency, rate, limit.capacity, limit.operator)


class QueueView(msgspec.Struct, frozen=True):
    """A queue and how many of its jobs stand where."""

    name: str
    paused: bool
    reason: str | None
    capacity: int
    counts: Mapping[Status, int]
    oldest_ready_at: datetime | None
    limit: LimitView | None

    @classmethod
    def of(cls, queue: QueueInfo) -> QueueView:
        return cls(
            queue.name,
            queue.paused,
            queue.reason,
            queue.capacity,
            _all_counts(queue.counts),
            queue.oldest_ready_at,
            None if queue.limit is None else LimitView.of(queue.limit),
        )


class LaneView(msgspec.Struct, frozen=True):
    """A queue and a type, and how many jobs stand where."""

    queue: str
    type: str
    counts: Mapping[Status, int]
    oldest_ready_at: datetime | None

    @classmethod
    def of(cls, lane: LaneStats) -> LaneView:
        return cls(lane.queue, lane.type, _all_counts(lane.counts), lane.oldest_ready_at)


class StatsView(msgspec.Struct, frozen=True):
    """All counts at one moment."""

    at: datetime
    counts: Mapping[Status, int]
    lanes: list[LaneView]

    @classmethod
    def of(cls, stats: Stats) -> StatsView:
        totals = {status: stats.count(status) for status in Status}
        return cls(stats.at, totals, [LaneView.of(lane) for lane in stats.lanes])


class WorkerView(msgspec.Struct, frozen=True):
    """A worker as it last reported itself."""

    id: str
    host: str
    pid: int
    version: str
    state: str
    queues: tuple[str, ...] | None
    types: tuple[str, ...]
    slots: int
    busy: int
    quarantine: bool
    started_at: datetime | None
    seen_at: datetime | None
    lease_until: datetime | None

    @classmethod
    def of(cls, worker: WorkerInfo) -> WorkerView:
        return cls(
            worker.id,
            worker.host,
            worker.pid,
            worker.version,
            worker.state,
            worker.queues,
            worker.types,
            worker.slots,
            worker.busy,
            worker.quarantine,
            worker.started_at,
            worker.seen_at,
            worker.lease_until,
        )


class StoreView(msgspec.Struct, frozen=True):
    """What the store is and what it can promise."""

    kind: str
    version: str
    schema: int
    durability: str
    location: str
    size_bytes: int | None
    free_bytes: int | None
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, info: StoreInfo) -> StoreView:
        return cls(
            info.kind,
            info.version,
            info.schema,
            info.durability,
            info.location,
            info.size_bytes,
            info.free_bytes,
            info.warnings,
        )


class HealthView(msgspec.Struct, frozen=True):
    """That the service is well, and what it stands on."""

    status: Literal["ok"]
    version: str
    store: StoreView
    counts: Mapping[Status, int]
    workers: int


class WhyView(msgspec.Struct, frozen=True):
    """Why a job is not running, or how it ended, in words."""

    id: str
    status: Status
    sentence: str
    details: list[str]
    next_step: str | None

    @classmethod
    def of(cls, why: Why) -> WhyView:
        return cls(why.job.id, why.job.status, why.sentence, why.details, why.next_step)


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """A task that can be enqueued here, and what its payload and result look like."""

    type: str
    aliases: tuple[str, ...]
    doc: str | None
    run_in: str
    queue: str
    priority: int
    max_attempts: int
    timeout: float | None
    payload_schema: dict[str, Any]
    """JSON Schema 2020-12."""
    result_schema: dict[str, Any]

    @classmethod
    def of(cls, task: Task[..., Any]) -> TaskView:
        defaults = task.defaults
        return cls(
            type=task.type,
            aliases=task.aliases,
            doc=task.__doc__,
            run_in=task.run_in,
            queue=defaults.queue,
            priority=defaults.priority,
            max_attempts=defaults.max_attempts,
            timeout=None if defaults.timeout is None else defaults.timeout.total_seconds(),
            payload_schema=task.signature.schema(),
            result_schema=task.signature.result_schema(),
        )


class IndexView(msgspec.Struct, frozen=True):
    """Where everything is."""

    name: str
    version: str
    links: dict[str, str]


class LiveView(msgspec.Struct, frozen=True):
    """The server's loop turns."""

    status: Literal["ok"] = "ok"


def _all_counts(counts: Mapping[Status, int]) -> dict[Status, int]:
    return {status: counts.get(status, 0) for status in Status}

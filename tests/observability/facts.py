"""Events as a worker would emit them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec

from windlass.events import JobEnded, JobEnqueued, JobStarted
from windlass.job import Failure, Job, JobId, Status, WorkerId

W1 = WorkerId("w1")
SECRET = "hunter2"


def a_job(type: str = "email", queue: str = "mail") -> Job:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    return Job(
        id=JobId("01890000-0000-7000-8000-000000abcdef"),
        seq=1,
        type=type,
        queue=queue,
        status=Status.PROCESSING,
        payload=msgspec.Raw(f'{{"password":"{SECRET}"}}'.encode()),
        result=msgspec.Raw(f'"{SECRET}"'.encode()),
        created_at=at,
        ready_at=at,
    )


def enqueued(job: Job | None = None, *, duplicate: bool = False) -> JobEnqueued:
    return JobEnqueued(job or a_job(), duplicate)


def started(job: Job | None = None) -> JobStarted:
    return JobStarted(job or a_job(), W1, timedelta(seconds=2))


def ended(
    status: Status = Status.COMPLETED,
    *,
    error: str | None = None,
    job: Job | None = None,
    reason: str | None = None,
) -> JobEnded:
    failure = None if error is None else Failure(1, "error", "ValueError", error)
    return JobEnded(job or a_job(), W1, status, timedelta(seconds=0.25), failure, reason)

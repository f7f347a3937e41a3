"""Between rows and values: status codes, microseconds, and JSON texts as SQLite answers them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import msgspec
from msgspec.structs import replace

from windlass.job import Job, JobId, Status
from windlass.stores.sqlite.sql import SQL

__all__ = [
    "CANCELLED", "CODES", "COMPLETED", "FAILED", "PENDING", "PROCESSING", "SCHEDULED", "STATUSES",
    "State", "Whole", "brief_jobs_of", "from_micros", "head_start", "jobs_of", "json_text", "mask",
    "micros", "read_states", "to_micros",
]  # fmt: skip

STATUSES = tuple(Status)
"""By code, as the column ``status`` holds it."""
CODES = {status: code for code, status in enumerate(STATUSES)}
SCHEDULED, PENDING, PROCESSING, COMPLETED, FAILED, CANCELLED = range(6)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO = timedelta(microseconds=1)
_MINUTE = 60_000_000


def to_micros(at: datetime) -> int:
    """Microseconds since 1970."""
    return (at - _EPOCH) // _MICRO


def from_micros(at: int) -> datetime:
    """The other way."""
    return _EPOCH + timedelta(microseconds=at)


def micros(span: timedelta | None) -> int | None:
    """A duration in microseconds."""
    return None if span is None else span // _MICRO


def head_start(priority: int) -> int:
    """By how many microseconds a priority lowers the rank."""
    return priority * _MINUTE


def mask(statuses: Iterable[Status]) -> int:
    """A set of statuses as bits."""
    return sum(1 << CODES[status] for status in statuses)


class Whole(msgspec.Struct, array_like=True):
    """A job as the statements answer it to people; ``result`` is empty when there is none."""

    job: Job
    result: msgspec.Raw = msgspec.Raw()

    def whole(self) -> Job:
        if not memoryview(self.result):
            return self.job
        return replace(self.job, result=self.result)


# Lax, because SQLite writes times as numbers: Unix seconds, exact to the microsecond.
_decode_jobs = msgspec.json.Decoder(list[Whole], strict=False).decode
_decode_brief_jobs = msgspec.json.Decoder(list[Job], strict=False).decode


def jobs_of(text: str | None) -> list[Job]:
    """Jobs from the answer of a statement; None: no row."""
    return [] if text is None else [each.whole() for each in _decode_jobs(text)]


def brief_jobs_of(text: str | None) -> list[Job]:
    """The same for what a claim hands out."""
    return [] if text is None else _decode_brief_jobs(text)


def json_text(value: object) -> str:
    """*value* as a parameter for ``json_each``."""
    return msgspec.json.encode(value).decode()


class State(msgspec.Struct, array_like=True):
    """A row as far as a change depends on it; ``status`` and ``token`` follow the changes made."""

    seq: int
    id: JobId
    lane: int
    status: int
    token: str | None
    ready_at: int
    priority: int
    expires_at: int | None
    failures: int
    crashes: int
    charges: int
    cancel_requested: int
    unique_within: int | None
    unique_name: str | None
    unique_key: str | None
    errors: str | None

    def counts_in(self, status: int) -> bool:
        """Whether its unique key, if it has one, counts in this status."""
        return bool(self.unique_within and self.unique_within >> status & 1)


_decode_states = msgspec.json.Decoder(list[State]).decode


def read_states(db: sqlite3.Connection, ids: Iterable[JobId]) -> dict[JobId, State]:
    """The rows with these ids, where there are any."""
    [(text,)] = db.execute(SQL["states"], (json_text(list(ids)),)).fetchall()
    return {state.id: state for state in _decode_states(text)}

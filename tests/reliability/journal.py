"""What the database itself saw: every change of a job's status, noted by triggers.

The triggers belong to the test and run within the transactions of whoever writes, so that the journal
knows exactly what was committed, whatever the code under test believes. Final rows are read by a plain
``sqlite3`` connection, not by the store.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from windlass.job import Status

__all__ = [
    "Change",
    "Row",
    "attach",
    "changes",
    "connect",
    "rows",
    "states",
    "unfinished",
    "unsound",
]

_STATUSES = tuple(Status)
"""By the code in the column ``status``."""

_ATTACH = """
CREATE TABLE IF NOT EXISTS witness (
  n INTEGER PRIMARY KEY, job TEXT, before INTEGER, after INTEGER, fence INTEGER,
  generation INTEGER, worker TEXT, token TEXT, result TEXT, at REAL
);
CREATE TRIGGER IF NOT EXISTS witness_insert AFTER INSERT ON jobs BEGIN
  INSERT INTO witness (job, before, after, fence, generation, worker, token, result, at)
  VALUES (NEW.id, NULL, NEW.status, NEW.fence, NEW.generation, NEW.worker, NEW.token, NEW.result,
          (julianday('now') - 2440587.5) * 86400.0);
END;
CREATE TRIGGER IF NOT EXISTS witness_update AFTER UPDATE OF status ON jobs BEGIN
  INSERT INTO witness (job, before, after, fence, generation, worker, token, result, at)
  VALUES (NEW.id, OLD.status, NEW.status, NEW.fence, NEW.generation, NEW.worker, NEW.token,
          NEW.result, (julianday('now') - 2440587.5) * 86400.0);
END;
"""


class Change(NamedTuple):
    """One committed write of a job's status, in the order of commits."""

    job: str
    before: Status | None
    after: Status
    fence: int
    generation: int = 0
    token: str | None = None
    """After the change. None: somebody else than the holder made it."""
    result: str | None = None
    at: float = 0.0
    """Seconds on the monotonic clock, exact to some milliseconds."""


class Row(NamedTuple):
    """A job as it stands in the end."""

    id: str
    status: Status
    fence: int
    generation: int = 0
    crashes: int = 0
    charges: int = 0
    failures: int = 0
    max_attempts: int = 15
    reason: str | None = None
    result: str | None = None


@contextmanager
def connect(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of the harness's own, closed in the end."""
    with closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as db:
        yield db


def attach(path: Path) -> None:
    """Begin to note. The store must have made its tables."""
    with connect(path) as db:
        db.executescript(_ATTACH)


def changes(path: Path) -> list[Change]:
    """The journal so far."""
    ahead = time.monotonic() - time.time()
    with connect(path) as db:
        found = db.execute(
            "SELECT job, before, after, fence, generation, token, result, at FROM witness ORDER BY n"
        ).fetchall()
    return [
        Change(
            job, None if before is None else _STATUSES[before], _STATUSES[after], fence,
            generation, token, result, at + ahead,
        )
        for job, before, after, fence, generation, token, result, at in found
    ]  # fmt: skip


def rows(path: Path) -> dict[str, Row]:
    """Every job, by id."""
    with connect(path) as db:
        found = db.execute(
            "SELECT id, status, fence, generation, crashes, charges, failures, max_attempts, reason,"
            " result FROM jobs"
        ).fetchall()
    return {job: Row(job, _STATUSES[status], *rest) for job, status, *rest in found}


def unfinished(path: Path) -> set[str]:
    """The jobs that have not ended."""
    with connect(path) as db:
        return {job for (job,) in db.execute("SELECT id FROM jobs WHERE status < 3")}


def states(path: Path) -> dict[int, str]:
    """What the workers that live said of themselves with their latest beat, by process id."""
    with connect(path) as db:
        return dict(
            db.execute(
                "SELECT json_extract(info, '$.pid'), json_extract(info, '$.state') FROM workers"
                " WHERE dead = 0"
            ).fetchall()
        )


def unsound(path: Path) -> list[str]:
    """What is wrong with the file, or with the counts that the store keeps beside the jobs."""
    with connect(path) as db:
        found = [text for (text,) in db.execute("PRAGMA integrity_check") if text != "ok"]
        for code, status in enumerate(_STATUSES):
            found += [
                f"lane {lane} counts {kept} {status}, and there are {true}"
                for lane, kept, true in db.execute(
                    f"SELECT id, {status.value}, (SELECT count(*) FROM jobs"
                    " WHERE jobs.lane = lanes.id AND jobs.status = ?) FROM lanes",
                    (code,),
                )
                if kept != true
            ]
    return found

"""What really happened, noted outside of the store: one line by one ``write`` for each fact.

Workers, producers and the harness append to one file. A line that was written survives the SIGKILL
of its writer, and none is torn, because each is a single ``O_APPEND`` write. Times are on the host's
monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import os
import time
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

__all__ = ["Fact", "Kind", "Ledger", "Reader", "read"]

NOBODY = "-"


class Kind(StrEnum):
    """What a line tells."""

    TRIED = "T"
    """A producer is about to enqueue the job."""
    ACCEPTED = "A"
    """The enqueue was answered."""
    STARTED = "S"
    """The job's function begins."""
    FINISHED = "F"
    """It got through and is about to return."""
    BROKEN_OFF = "E"
    """It was ended before it got through."""
    STALE = "X"
    """A worker was told that what it wanted to write came too late."""
    KILLED = "K"
    """The harness killed a worker, or a worker's own task did."""
    STOPPED = "Z"
    """The harness is about to freeze a worker."""
    THAWED = "C"
    """The harness let it go on."""


class Fact(NamedTuple):
    """One line. ``worker`` is a label that no two processes share."""

    kind: Kind
    worker: str
    at: float
    """Seconds, monotonic."""
    job: str = NOBODY
    fence: int = 0


class Ledger:
    """Appends the facts of one process to a file."""

    def __init__(self, path: Path, worker: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.worker = worker

    def note(
        self, kind: Kind, job: str = NOBODY, fence: int = 0, *, worker: str | None = None
    ) -> None:
        """Append a fact about this worker, or about another one."""
        line = f"{kind} {job} {fence} {worker or self.worker} {time.monotonic():.6f}\n"
        os.write(self._fd, line.encode())

    def close(self) -> None:
        os.close(self._fd)


class Reader:
    """Reads a ledger that grows; each call parses only what is new."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._facts: list[Fact] = []

    def facts(self) -> list[Fact]:
        """All facts so far, in the order in which they were written."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read += len(new)
            self._facts += [_parse(line) for line in new.decode().splitlines()]
        return self._facts


def read(path: Path) -> list[Fact]:
    """All facts, in the order in which they were written."""
    return Reader(path).facts()


def _parse(line: str) -> Fact:
    kind, job, fence, worker, at = line.split(" ")
    return Fact(Kind(kind), worker, float(at), job, int(fence))

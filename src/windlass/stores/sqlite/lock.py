"""The lock between processes: held around every write transaction and every checkpoint.

SQLite's own write lock is enough for safety, with one exception: up to 3.51.2 a checkpoint and a
writer that start at the same instant can lose pages ("WAL-reset bug"). One writer or checkpointer at
a time rules that out. It also makes waiting fair: SQLite's busy handler sleeps and tries, so that a
process that writes all the time would lock the others out.

``flock`` on a file of its own, because POSIX locks end when *any* descriptor of the file is closed in
the process. Waiting is polling, because a wait must end: the holder may be a stopped process. Who
waits holds the *gate* (a POSIX lock on the same file), and whoever wants the lock passes the gate
first; so a process that has just released the lock queues behind those that waited.
"""

from __future__ import annotations

import fcntl
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from windlass.errors import StoreUnavailable

__all__ = ["ProcessLock"]

_FIRST_NAP = 0.0001
_LONGEST_NAP = 0.005

# Where flock and POSIX locks are one kind (BSD, macOS), the gate would shut out its own holder.
_HAS_GATE = sys.platform == "linux"


class ProcessLock:
    """A lock on *path* that one thread of all processes holds; dies with its holder."""

    def __init__(self, path: str, patience: float) -> None:
        self.path = path
        self._patience = patience
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Raises :class:`StoreUnavailable` when others hold it for too long."""
        self._acquire()
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _acquire(self) -> None:
        if not _HAS_GATE:
            self._poll(self._try_lock)
            return
        self._poll(self._try_gate)
        try:
            self._poll(self._try_lock)
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN, 1)

    def _try_gate(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)

    def _try_lock(self) -> None:
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _poll(self, attempt: Callable[[], None]) -> None:
        give_up = None
        nap = _FIRST_NAP
        while True:
            try:
                return attempt()
            except (BlockingIOError, PermissionError):
                pass
            now = time.monotonic()
            give_up = give_up or now + self._patience
            if now > give_up:
                raise StoreUnavailable(
                    f"Another process has kept {self.path!r} locked for {self._patience:g} s: "
                    "look for a stopped or hanging process that uses this store."
                )
            time.sleep(nap * random.uniform(0.5, 1.5))
            nap = min(nap * 1.3, _LONGEST_NAP)

    def close(self) -> None:
        """Release the file; the lock must not be held."""
        os.close(self._fd)

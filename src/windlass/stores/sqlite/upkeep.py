"""What an operator does to the file as a whole: copy it, and check that it is sound."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from windlass.errors import ConfigError
from windlass.stores.sqlite.rows import STATUSES

__all__ = ["backup", "check"]


def backup(db: sqlite3.Connection, path: str) -> None:
    """Copy the database, as it is at one moment, to a new file at *path*; nobody waits for it.

    The copy appears under its name when it is whole and on the disk.
    """
    if os.path.exists(path):
        raise ConfigError(f"{path!r} exists: choose a new name for the backup.")
    partial = f"{path}.partial"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(partial)
    os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            # All pages in one step: in several, every commit of a writer would start it anew.
            db.backup(copy)
            # A single file: without a log of its own beside it.
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
        os.rename(partial, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def check(db: sqlite3.Connection) -> list[str]:
    """What is wrong with the file, in sentences; reads all of it. Nothing: it is sound."""
    problems = [row[0] for row in db.execute("PRAGMA integrity_check(20)") if row[0] != "ok"]
    return problems or _miscounts(db)


def _miscounts(db: sqlite3.Connection) -> list[str]:
    problems = []
    db.execute("BEGIN")
    try:
        counted = {
            (lane, status): count
            for lane, status, count in db.execute(
                "SELECT lane, status, count(*) FROM jobs GROUP BY lane, status"
            )
        }
        columns = ", ".join(STATUSES)
        lanes = db.execute(f"SELECT id, queue, type, {columns} FROM lanes")  # noqa: S608
        for number, queue, kind, *counts in lanes:
            for code, count in enumerate(counts):
                found = counted.pop((number, code), 0)
                if found != count:
                    problems.append(
                        f"Queue {queue!r}, type {kind!r}: {found} jobs are {STATUSES[code]}, but "
                        f"{count} are counted."
                    )
        problems += [f"Jobs of an unknown lane ({lane})." for lane, _ in counted]
    finally:
        db.execute("ROLLBACK")
    return problems

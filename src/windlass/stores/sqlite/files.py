"""The file: where it may lie, how it is opened and migrated, and the room around it.

The database file is never opened or closed outside SQLite once it exists: closing any descriptor of
it would drop the POSIX locks that this process, and a user's connections in it, hold on it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from windlass.crashpoints import crash_point
from windlass.errors import SchemaMismatch, StoreInvalid, StoreUnavailable
from windlass.stores.sqlite.sql import migrations

__all__ = [
    "SCHEMA", "Space", "connect", "connect_reader", "file_system", "identity", "is_new", "migrate",
    "must_be_in_place", "prepare", "wal_bytes",
]  # fmt: skip

SCHEMA: Final = len(migrations())
"""The schema that this code writes."""

_APPLICATION: Final = 0x57494E44  # "WIND"

_REMOTE = (
    "nfs", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre",
    "ncpfs", "fuse.sshfs", "fuse.glusterfs", "fuse.davfs2", "fuse.rclone", "fuse.s3fs",
)  # fmt: skip

_STATEMENTS_KEPT = 200
_LOOK_EVERY = 1.0
"""Seconds between two looks at the room on the disk."""


def file_system(directory: str) -> str | None:
    """The type of the file system that holds *directory*; None where the system does not tell."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8") as lines:
            mounts = [line.split(" - ", 1) for line in lines]
    except OSError:
        return None
    best, kind = "", None
    for left, right in mounts:
        point = left.split()[4].encode().decode("unicode_escape")  # blanks are written \040
        inside = directory == point or directory.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def prepare(path: str, file_system: Callable[[str], str | None]) -> None:
    """Check the place, and make an empty file, readable by this user alone, where there is none."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        raise StoreUnavailable(
            f"There is no directory {directory!r}: create it, or choose another."
        )
    kind = file_system(directory)
    if kind in _REMOTE:
        raise StoreInvalid(
            f"{path!r} lies on a network file system ({kind}), where SQLite cannot lock safely: "
            "put it on a local disk."
        )
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        _check_present(path)
    except OSError as error:
        raise StoreUnavailable(
            f"{path!r} cannot be created: {error.strerror}. Check the directory's permissions."
        ) from None


def _check_present(path: str) -> None:
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise StoreInvalid(f"{path!r} is not a file: choose the path of a file.")
    if not os.access(path, os.R_OK | os.W_OK):
        raise StoreUnavailable(
            f"{path!r} may not be read and written by this user: change its owner or its mode."
        )


def identity(path: str) -> tuple[int, int] | None:
    """Which file it is that bears the name *path* now; None when there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def must_be_in_place(path: str, opened: tuple[int, int] | None) -> None:
    """SQLite goes on with a file that was deleted or replaced, and what it writes there is lost."""
    if identity(path) != opened:
        raise StoreUnavailable(
            f"{path!r} was deleted or replaced while it was in use: stop all programs that use it, "
            "put the right file in its place, then start them again."
        )


def connect(path: str) -> sqlite3.Connection:
    """The connection that writes; to be used by one thread, with the process lock held."""
    return _connect(
        path,
        "rw",
        # The writer waits for others on its own (fairly, and for as long as it likes); this is for
        # the short moments in which another connection recovers or closes.
        "busy_timeout = 1000",
        "wal_autocheckpoint = 0",
        "journal_size_limit = 16777216",
    )


def connect_reader(path: str) -> sqlite3.Connection:
    """A connection that cannot write."""
    return _connect(path, "ro", "busy_timeout = 5000", "query_only = ON")


def _connect(path: str, mode: str, *settings: str) -> sqlite3.Connection:
    db = sqlite3.connect(
        f"file:{quote(path)}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=_STATEMENTS_KEPT,
    )
    try:
        for setting in (*settings, "mmap_size = 0", "foreign_keys = ON"):
            db.execute(f"PRAGMA {setting}").fetchall()
    except BaseException:
        db.close()
        raise
    return db


def migrate(db: sqlite3.Connection, path: str) -> None:
    """Make the schema what this code needs: all of it in one transaction, or none."""
    version = _identify(db, path)
    db.execute("PRAGMA journal_mode = WAL").fetchall()
    if version >= SCHEMA:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # Once more: another process may have been here before this transaction began.
        for script in migrations()[_identify(db, path) :]:
            for statement in _split(script):
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {_APPLICATION}")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        crash_point("mid-migration")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def is_new(db: sqlite3.Connection, path: str) -> bool:
    """Whether the file is empty; refuses one of another program."""
    [(application,)] = db.execute("PRAGMA application_id").fetchall()
    [(tables,)] = db.execute("SELECT count(*) FROM sqlite_master").fetchall()
    if application == _APPLICATION:
        return False
    if tables or application:
        raise StoreInvalid(
            f"{path!r} is a database of another program: give Windlass a file of its own."
        )
    return True


def _identify(db: sqlite3.Connection, path: str) -> int:
    """The schema version of the file, 0 for a new one; refuses what is not ours or too new."""
    if is_new(db, path):
        return 0
    [(version,)] = db.execute("PRAGMA user_version").fetchall()
    [(least,)] = db.execute("SELECT value FROM meta WHERE key = 'min_code'").fetchall()
    if least > SCHEMA:
        raise SchemaMismatch(
            f"{path!r} has schema {version} and needs a Windlass that knows schema {least}; this one "
            f"knows {SCHEMA}: upgrade Windlass here."
        )
    return int(version)


def _split(script: str) -> list[str]:
    statements, rest = [], ""
    for line in script.splitlines(keepends=True):
        rest += line
        if sqlite3.complete_statement(rest):
            statements.append(rest)
            rest = ""
    return statements


def wal_bytes(path: str) -> int:
    """Size of the log beside the database."""
    try:
        return os.stat(f"{path}-wal").st_size
    except FileNotFoundError:
        return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class Space:
    """Room on the disk. When it runs out, the store stops accepting and claiming, so that what was
    begun can still be finished: the *ballast*, a file of some megabytes that holds nothing, is
    deleted to make room for that. All comes back by itself when there is room again."""

    def __init__(self, path: str, ballast: int, low_water: int) -> None:
        self._directory = os.path.dirname(path)
        self._ballast = f"{path}-ballast"
        self._size = ballast
        self._low_water = low_water
        self._looked = float("-inf")
        self.is_low = False

    def free(self) -> int:
        """Bytes that this user may still write."""
        stats = os.statvfs(self._directory)
        return stats.f_bavail * stats.f_frsize

    def look(self) -> None:
        """See how much room there is, if the last look is old."""
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = time.monotonic()
        try:
            free = self.free()
        except OSError:
            return  # the transaction will tell what is wrong
        if free < self._low_water:
            self.is_low = True
        elif self._has_ballast() or free >= self._low_water + self._size:
            self._fill()
            self.is_low = False

    def ran_out(self) -> bool:
        """A write found no room: whether giving up the ballast may have made some."""
        self.is_low = True
        self._looked = time.monotonic()
        try:
            os.unlink(self._ballast)
        except FileNotFoundError:
            return False
        return True

    def _has_ballast(self) -> bool:
        return self._size == 0 or os.path.exists(self._ballast)

    def _fill(self) -> None:
        if self._has_ballast():
            return
        # Another process may be at it: "x" lets one of them win.
        try:
            with open(self._ballast, "xb", opener=_private) as ballast:
                # Blocks, not a hole: where the system cannot allocate them, they are written.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(ballast.fileno(), 0, self._size)
                else:
                    ballast.write(bytes(self._size))
        except FileExistsError:
            return
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(self._ballast)

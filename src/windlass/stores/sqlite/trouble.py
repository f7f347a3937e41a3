"""SQLite's troubles in Windlass's words: what is wrong, and what to do next."""

from __future__ import annotations

import sqlite3

from windlass.errors import StoreError, StoreFull, StoreInvalid, StoreUnavailable

__all__ = ["as_store_error", "is_busy", "is_full"]

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT}


def _code(error: BaseException) -> int:
    # The low byte is the primary code; errors made by the module itself have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: BaseException) -> bool:
    """Another connection holds what was needed."""
    return _code(error) in _BUSY


def is_full(error: BaseException) -> bool:
    """No room on the disk, or in the file."""
    return _code(error) == sqlite3.SQLITE_FULL


def as_store_error(error: Exception, path: str) -> Exception:
    """What *error*, raised by sqlite3 or the system, means for the store at *path*: a new exception
    each time. Others (a value that cannot be stored at all) are the caller's own, and stay."""
    if isinstance(error, StoreError):
        return type(error)(*error.args)
    if not isinstance(error, sqlite3.Error | OSError):
        return error
    code = _code(error)
    if is_full(error):
        return StoreFull(
            f"The disk of {path!r} is full: free some space, Windlass goes on by itself."
        )
    if code == sqlite3.SQLITE_NOTADB:
        return StoreInvalid(f"{path!r} is not an SQLite database: choose another file.")
    if code in _DAMAGED:
        return StoreInvalid(
            f"{path!r} is damaged ({error}): stop all workers, then restore a backup or save what "
            "can be read with `sqlite3 FILE .recover`."
        )
    if is_busy(error):
        return StoreUnavailable(
            f"Another connection keeps {path!r} locked: look for a program with a long write "
            "transaction on this file, then try again."
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreUnavailable(
            f"{path!r} cannot be opened for writing ({error}): check that this user may write the "
            "file and its directory."
        )
    return StoreUnavailable(f"{path!r} does not work now: {error}. Check disk and permissions.")

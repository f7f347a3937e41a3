"""The face of the SQLite store: each operation of the port becomes a request to a thread.

One writer thread owns the only connection that writes; two readers look, one for quick questions and
one for searches. Any event loop of any thread may call. After a fork the child opens its own.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from ctypes import py_object, pythonapi
from datetime import timedelta
from typing import Any, Literal

from windlass.clock import Clock, SystemClock
from windlass.errors import Closed, ConfigError
from windlass.job import (
    Claim,
    Job,
    JobFilter,
    JobId,
    Limit,
    LogLine,
    NewJob,
    Page,
    QueueInfo,
    Retention,
    Stats,
    StoreInfo,
    Token,
    WorkerId,
    WorkerInfo,
)
from windlass.lifecycle import Ack
from windlass.store import (
    DEFAULT_CAPACITY,
    AckAnswer,
    Beat,
    HandOut,
    Inserted,
    Notice,
    NoticeKind,
    Promotion,
    Retried,
    Want,
)
from windlass.stores.sqlite import ack, claim, control, files, find, fork, presence, upkeep
from windlass.stores.sqlite.insert import insert
from windlass.stores.sqlite.reader import Reader
from windlass.stores.sqlite.request import Request, Turn
from windlass.stores.sqlite.rows import brief_jobs_of, jobs_of
from windlass.stores.sqlite.transaction import Handler, each
from windlass.stores.sqlite.wake import Wake
from windlass.stores.sqlite.writer import Writer

__all__ = ["SQLiteStore"]

_CLAIM = each(claim.claim)
_PROGRESS = each(ack.progress)
_LOG = each(ack.log)
_HEARTBEAT = each(presence.heartbeat)
_RECLAIM = each(presence.reclaim)
_LEAVE = each(presence.leave)
_PROMOTE = each(control.promote)
_CANCEL = each(control.cancel)
_RETRY = each(control.retry)
_PRUNE = each(control.prune)
_PAUSE = each(control.pause)
_SET_LIMITS = each(control.set_limits)

_SOUND_SQLITE = (3, 51, 3)
_LONG_WAL = 64 * 2**20

_left_to_parent: list[object] = []


class _Threads:
    """What is there while the store is open."""

    __slots__ = ("quick", "slow", "wake", "writer")

    def __init__(self, writer: Writer, quick: Reader, slow: Reader, wake: Wake) -> None:
        self.writer = writer
        self.quick = quick
        self.slow = slow
        self.wake = wake


class SQLiteStore:
    """Implements :class:`windlass.store.Store` in an SQLite file.

    ``durability="normal"`` commits without waiting for the disk: an accepted job then survives the
    death of every process, but the last ones not a loss of power. Of disk space, *ballast* bytes are
    kept in reserve for finishing what runs, and below *low_water* nothing new is begun.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        capacity: int = DEFAULT_CAPACITY,
        clock: Clock | None = None,
        durability: Literal["full", "normal"] = "full",
        ballast: int = 4 * 2**20,
        low_water: int = 16 * 2**20,
        file_system: Callable[[str], str | None] = files.file_system,
    ) -> None:
        name = os.fspath(path)
        if not name or name.startswith((":memory:", "file:")) or "\0" in name:
            raise ConfigError(
                f"{name!r} is no path of a file. For jobs in memory use the store 'memory:'."
            )
        self.path = os.path.realpath(name)
        self._capacity = capacity
        self._clock = clock or SystemClock()
        self._durability = durability
        self._file_system = file_system
        self._space = files.Space(self.path, ballast, low_water)
        self._gate = threading.Lock()
        self._threads: _Threads | None = None
        self._forked = False
        fork.register(self)

    # ------------------------------------------------------------------ open and close

    async def open(self) -> None:
        with self._gate:
            threads = self._threads or self._start()
        try:
            await asyncio.shield(asyncio.wrap_future(threads.writer.opened))
        except asyncio.CancelledError:
            raise
        except BaseException:
            with self._gate:
                if self._threads is threads:
                    self._threads = None
            threads.quick.stop()
            threads.slow.stop()
            raise

    def _start(self) -> _Threads:
        wake = Wake(self.path)
        quick = Reader(self.path, "windlass-sqlite-reader")
        slow = Reader(self.path, "windlass-sqlite-search")
        writer = Writer(
            self.path, self._clock, self._capacity, self._durability, self._space, wake,
            prepare=lambda: files.prepare(self.path, self._file_system),
            readers=(quick, slow),
        )  # fmt: skip
        self._threads = _Threads(writer, quick, slow, wake)
        self._forked = False
        return self._threads

    async def close(self) -> None:
        with self._gate:
            threads, self._threads = self._threads, None
            self._forked = False
        if threads is None:
            return
        threads.writer.stop()
        await asyncio.shield(asyncio.wrap_future(threads.writer.ended))

    def after_fork(self) -> None:
        """In a forked child: the threads are gone, and what they held is the parent's. SQLite's
        objects are kept for ever, because finalising them would act on the parent's files."""
        threads, self._threads = self._threads, None
        self._gate = threading.Lock()
        self._forked = threads is not None
        if threads is not None:
            threads.writer.orphan()
            _left_to_parent.append(threads)
            pythonapi.Py_IncRef(py_object(threads))

    async def _opened(self) -> _Threads:
        """The threads, after a fork new ones."""
        if self._threads is None and self._forked:
            await self.open()
        threads = self._threads
        if threads is None:
            raise Closed("The store is closed: open it first, with `await store.open()`.")
        return threads

    # ------------------------------------------------------------------ asking the threads

    async def _write(
        self,
        handler: Handler,
        *arguments: object,
        turn: Turn = Turn.OTHER,
        durable: bool = False,
    ) -> Any:
        threads = self._threads or await self._opened()
        request = Request(handler, arguments, turn, durable=durable)
        threads.writer.submit(request)
        return await request.future

    async def _read(
        self, question: Callable[..., Any], *arguments: object, slow: bool = False
    ) -> Any:
        threads = self._threads or await self._opened()
        request = Request(question, arguments)
        (threads.slow if slow else threads.quick).submit(request)
        return await request.future

    # ------------------------------------------------------------------ enqueueing and running

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        answer: list[Inserted] = await self._write(insert, jobs, turn=Turn.INSERT, durable=True)
        return answer

    async def claim(self, want: Want, limit: int, worker: WorkerId, token: Token) -> HandOut:
        taken: claim.Taken = await self._write(_CLAIM, want, limit, worker, token, turn=Turn.CLAIM)
        opens_in = None if taken.opens_in is None else timedelta(seconds=taken.opens_in)
        return HandOut(brief_jobs_of(taken.text), opens_in)

    async def ack(self, acks: Sequence[Ack]) -> list[AckAnswer]:
        answer: list[AckAnswer] = await self._write(ack.ack, acks, turn=Turn.ACK, durable=True)
        return answer

    async def progress(self, claim: Claim, fraction: float | None, note: str | None) -> bool:
        answer: bool = await self._write(_PROGRESS, claim, fraction, note)
        return answer

    async def log(self, claim: Claim, lines: Sequence[LogLine]) -> bool:
        answer: bool = await self._write(_LOG, claim, lines, durable=True)
        return answer

    async def heartbeat(self, worker: WorkerInfo) -> Beat:
        answer: Beat = await self._write(_HEARTBEAT, worker)
        return answer

    async def promote(self, limit: int) -> Promotion:
        answer: Promotion = await self._write(_PROMOTE, limit)
        return answer

    async def reclaim(
        self, suspected: Sequence[tuple[WorkerId, int]], limit: int, *, by: WorkerId | None
    ) -> list[Job]:
        return jobs_of(await self._write(_RECLAIM, suspected, limit, by))

    async def leave(self, worker: WorkerId, *, died: bool = False) -> bool:
        answer: bool = await self._write(_LEAVE, worker, died)
        return answer

    def listen(
        self, kinds: frozenset[NoticeKind], callback: Callable[[Notice], None]
    ) -> Callable[[], None]:
        threads = self._threads
        if threads is None:
            raise Closed("The store is closed: open it first, with `await store.open()`.")
        return threads.wake.listen(kinds, callback)

    # ------------------------------------------------------------------ people and their tools

    async def get(self, ids: Sequence[JobId]) -> list[Job | None]:
        return find.in_order(ids, await self._read(find.get, ids))

    async def find(
        self,
        where: JobFilter,
        limit: int,
        *,
        after: int | None = None,
        oldest_first: bool = False,
    ) -> Page:
        page: Page = await self._read(find.find, where, limit, after, oldest_first, slow=True)
        return page

    async def logs(self, id: JobId, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        lines: list[LogLine] = await self._read(find.logs, id, after, limit)
        return lines

    async def stats(self) -> Stats:
        stats: Stats = await self._read(find.stats, self._clock)
        return stats

    async def cancel(self, ids: Sequence[JobId], *, reason: str) -> list[Job | None]:
        return find.in_order(ids, await self._write(_CANCEL, ids, reason, durable=True))

    async def retry(self, ids: Sequence[JobId]) -> list[Retried]:
        skips, text = await self._write(_RETRY, ids, durable=True)
        jobs = find.in_order(ids, text)
        return [Retried(*each) for each in zip(ids, jobs, skips, strict=True)]

    async def prune(self, retention: Retention, limit: int) -> int:
        answer: int = await self._write(_PRUNE, retention, limit)
        return answer

    async def queues(self) -> list[QueueInfo]:
        queues: list[QueueInfo] = await self._read(find.queues, self._capacity)
        return queues

    async def pause(self, queue: str, paused: bool, *, reason: str | None = None) -> None:
        await self._write(_PAUSE, queue, paused, reason, durable=True)

    async def limits(self) -> list[Limit]:
        limits: list[Limit] = await self._read(find.limits)
        return limits

    async def set_limits(self, limits: Sequence[Limit]) -> None:
        await self._write(_SET_LIMITS, limits, durable=True)

    async def workers(self) -> list[WorkerInfo]:
        workers: list[WorkerInfo] = await self._read(find.workers)
        return workers

    # ------------------------------------------------------------------ the file

    async def info(self) -> StoreInfo:
        files.must_be_in_place(self.path, (await self._opened()).writer.file)
        schema: int = await self._read(_schema)
        wal = files.wal_bytes(self.path)
        return StoreInfo(
            kind="sqlite",
            version=sqlite3.sqlite_version,
            schema=schema,
            durability="host" if self._durability == "full" else "process",
            location=self.path,
            size_bytes=os.stat(self.path).st_size + wal,
            free_bytes=self._space.free(),
            warnings=tuple(self._warnings(wal)),
        )

    def _warnings(self, wal: int) -> list[str]:
        warnings = []
        if sqlite3.sqlite_version_info < _SOUND_SQLITE:
            warnings.append(
                f"SQLite {sqlite3.sqlite_version} can lose pages when two processes write and "
                "checkpoint at the same instant. Windlass's own lock rules that out; programs of "
                "your own that write to this file should use SQLite 3.51.3 or later."
            )
        if wal > _LONG_WAL:
            warnings.append(
                f"The log of the database has {wal >> 20} MiB: end the long read transaction on "
                "this file that keeps it from being emptied."
            )
        if self._space.is_low:
            warnings.append("The disk is nearly full: nothing new is accepted or claimed.")
        return warnings

    async def backup(self, path: str | os.PathLike[str]) -> None:
        """Copy the store, as it is at one moment, to a new file, while it is in use.

        Raises :class:`~windlass.errors.ConfigError` when *path* exists."""
        await self._read(upkeep.backup, os.fspath(path), slow=True)

    async def check(self) -> list[str]:
        """What is wrong with the file, in sentences; reads all of it. Empty: it is sound."""
        problems: list[str] = await self._read(upkeep.check, slow=True)
        return problems


def _schema(db: sqlite3.Connection) -> int:
    [(version,)] = db.execute("PRAGMA user_version").fetchall()
    return int(version)

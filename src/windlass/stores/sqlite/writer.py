"""The writer: the one thread of a store that writes.

Callers put requests into its inbox and await their answers. It takes all that wait at one moment,
serves them in one transaction, and answers after the commit: *group commit*, one fsync for all of
them. It never merges their fates: if the transaction fails, it is rolled back and each request is
served again by itself, so that each gets the answer that it would have got alone.
"""

from __future__ import annotations

import concurrent.futures
import random
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue
from typing import Literal

from windlass.clock import Clock
from windlass.errors import Closed, StoreFull, StoreUnavailable
from windlass.store import Notice
from windlass.stores.sqlite.book import Book
from windlass.stores.sqlite.files import (
    Space,
    connect,
    identity,
    migrate,
    must_be_in_place,
    wal_bytes,
)
from windlass.stores.sqlite.fork import register_thread
from windlass.stores.sqlite.lock import ProcessLock
from windlass.stores.sqlite.reader import Reader
from windlass.stores.sqlite.request import Request, Turn, deliver
from windlass.stores.sqlite.rows import to_micros
from windlass.stores.sqlite.transaction import Handler, LookCloser, Transaction
from windlass.stores.sqlite.trouble import as_store_error, is_busy, is_full
from windlass.stores.sqlite.wake import Wake

__all__ = ["Writer"]

_PATIENCE = 10.0
"""Seconds to wait for other connections before a write fails."""
_MOST_AT_ONCE = 1000
"""Requests in one transaction."""
_CHECKPOINT_AFTER = 2_000
"""Pages, as far as can be told, after which the log (WAL) is brought into the file. Its space is then
written over, which the disk confirms faster than growth."""
_PAGES_PER_COMMIT = 6
_ROWS_PER_PAGE = 8
_LONG_WAL = 16 * 2**20
_FULL_WAL = 256 * 2**20
"""Bytes of WAL above which it is cut to nothing, and above which nothing new is accepted."""
_IDLE = 1.0
"""Seconds without work after which the rest of the log is brought into the file."""


class Writer:
    """Opens the file in its thread; ``start`` and ``stop`` answer futures."""

    def __init__(
        self,
        path: str,
        clock: Clock,
        capacity: int,
        durability: Literal["full", "normal"],
        space: Space,
        wake: Wake,
        *,
        prepare: Callable[[], None],
        readers: Sequence[Reader],
    ) -> None:
        self._path = path
        self._clock = clock
        self._book = Book(capacity)
        self._durability = durability
        self._space = space
        self._wake = wake
        self._prepare = prepare
        self._readers = readers
        self._inbox: SimpleQueue[Request | None] = SimpleQueue()
        self.file: tuple[int, int] | None = None
        """Which file was opened, as :func:`~windlass.stores.sqlite.files.identity` tells it."""
        self._synchronous = ""
        self._unsaved = 0
        self._wal_is_stuck = False
        self._gate = threading.Lock()
        self._inside = register_thread()
        self._closed = False
        self.opened: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        for future in (self.opened, self.ended):
            future.set_running_or_notify_cancel()  # a caller that gives up cancels nothing
        self._thread = threading.Thread(
            target=self._run, name="windlass-sqlite-writer", daemon=True
        )
        self._thread.start()

    def submit(self, request: Request) -> None:
        """To be served soon. Raises :class:`Closed` after :meth:`stop`."""
        with self._gate:
            if self._closed:
                raise Closed("The store is closed: open it first.")
            self._inbox.put(request)

    def stop(self) -> None:
        """Finish what was submitted, then end; see :attr:`ended`."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)

    def orphan(self) -> None:
        """In a forked child: let go of what belongs to the parent, and close nothing of SQLite's,
        because closing would act on the parent's files. The lock's descriptor is closed, because a
        child that lives on would keep the lock that its parent held when it died."""
        self._closed = True
        if self.opened.done() and self.opened.exception() is None:
            self._lock.close()

    # ------------------------------------------------------------------ the thread

    def _run(self) -> None:
        try:
            with self._inside:
                self._open()
        except Exception as error:
            self._closed = True
            self.opened.set_exception(as_store_error(error, self._path))
            self.ended.set_result(None)
            return
        self.opened.set_result(None)
        stopping = False
        while not stopping:
            requests, stopping = self._take()
            with self._inside:
                self._work(requests)
        for reader in self._readers:
            reader.stop()
            reader.join()
        self._wake.close()
        with self._inside:
            self._close()
        self.ended.set_result(None)

    def _open(self) -> None:
        self._prepare()
        self._lock = ProcessLock(f"{self._path}-lock", _PATIENCE)
        try:
            with self._lock.held():
                self._db = connect(self._path)
                self.file = identity(self._path)
                try:
                    self._patiently(lambda: migrate(self._db, self._path))
                except BaseException:
                    self._db.close()
                    raise
        except BaseException:
            self._lock.close()
            raise

    def _close(self) -> None:
        try:
            # The last connection to close brings the log into the file: a checkpoint, too.
            with self._lock.held():
                self._db.close()
        except StoreUnavailable:
            self._db.close()  # whoever keeps the lock has it open: this is not the last
        self._lock.close()

    def _work(self, requests: list[Request]) -> None:
        self._space.look()
        accepted = [each for each in requests if not self._refuse(each)]
        if accepted:
            self._serve(accepted)
        self._keep_wal_short(idle=not accepted)

    def _take(self) -> tuple[list[Request], bool]:
        """All requests that wait now, at least one unless it is time to tidy up or to stop."""
        taken: list[Request] = []
        try:
            first = self._inbox.get(timeout=_IDLE if self._unsaved else None)
            while first is not None:
                if not first.future.cancelled():
                    taken.append(first)
                if len(taken) == _MOST_AT_ONCE:
                    return taken, False
                first = self._inbox.get_nowait()
        except Empty:
            return taken, False
        return taken, True

    def _refuse(self, request: Request) -> bool:
        """Whether there is no room for what *request* would begin."""
        if request.turn not in (Turn.INSERT, Turn.CLAIM):
            return False
        if self._space.is_low:
            request.error = StoreFull(
                f"The disk of {self._path!r} is nearly full: free some space. Running jobs can "
                "still finish; accepting and claiming go on by themselves when there is room."
            )
        elif self._wal_is_stuck:
            request.error = StoreUnavailable(
                f"A reader of {self._path!r} has kept its log from being emptied for too long "
                f"({wal_bytes(self._path) >> 20} MiB): end the long read transaction on this file."
            )
        else:
            return False
        deliver([request])
        return True

    # ------------------------------------------------------------------ transactions

    def _serve(self, requests: list[Request]) -> None:
        """Serve *requests* together; those that fail together, one by one."""
        try:
            try:
                notices = self._transact(requests, careful=False)
            except (LookCloser, sqlite3.IntegrityError):
                notices = self._transact(requests, careful=True)
        except Exception as error:
            if is_full(error) and self._space.ran_out():
                self._serve([each for each in requests if not self._refuse(each)])
            elif (
                len(requests) > 1 and not isinstance(error, StoreUnavailable) and not is_busy(error)
            ):
                for request in requests:
                    self._serve([request])
            else:
                self._fail(requests, error)
            return
        deliver(requests)
        self._wake.tell(notices)

    def _fail(self, requests: list[Request], error: Exception) -> None:
        for request in requests:
            # One each: an exception that is raised in two tasks gets a muddled traceback.
            request.error = as_store_error(error, self._path)
        deliver(requests)

    def _transact(self, requests: list[Request], *, careful: bool) -> list[Notice]:
        for request in requests:
            request.error = None  # of an attempt that was rolled back
        self._synchronize(any(each.durable for each in requests))
        with self._lock.held():
            must_be_in_place(self._path, self.file)
            self._patiently(lambda: self._db.execute("BEGIN IMMEDIATE"))
            before = self._db.total_changes
            try:
                self._book.read(self._db)
                now = to_micros(self._clock.now())
                wanted = self._wake.wanted()
                tx = Transaction(self._db, self._book, now, wanted, careful=careful)
                for handler, served in _by_turn(requests):
                    handler(tx, served)
                self._book.write(self._db)
                self._db.execute("COMMIT")
            except BaseException:
                self._book.forget()
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        changed = self._db.total_changes - before
        if changed:
            self._unsaved += _PAGES_PER_COMMIT + changed // _ROWS_PER_PAGE
        return tx.notices()

    def _synchronize(self, durable: bool) -> None:
        """Whether the next commit waits for the disk. It covers all commits before it, too."""
        mode = "FULL" if durable and self._durability == "full" else "NORMAL"
        if mode != self._synchronous:
            self._db.execute(f"PRAGMA synchronous = {mode}")
            self._synchronous = mode

    def _patiently(self, attempt: Callable[[], object]) -> None:
        """Try until other connections (a user's own) let us, or patience ends."""
        give_up = time.monotonic() + _PATIENCE
        nap = 0.0002
        while True:
            try:
                attempt()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > give_up:
                    raise
            else:
                return
            time.sleep(nap * random.uniform(0.5, 1.5))
            nap = min(nap * 1.5, 0.02)

    # ------------------------------------------------------------------ checkpoints

    def _keep_wal_short(self, *, idle: bool) -> None:
        if not self._unsaved or (self._unsaved < _CHECKPOINT_AFTER and not idle):
            return
        try:
            with self._lock.held():
                must_be_in_place(self._path, self.file)
                self._checkpoint()
        except (sqlite3.Error, OSError, StoreUnavailable):
            # It is only put off: the log grows, and `_wal_is_stuck` watches how far.
            self._wal_is_stuck = wal_bytes(self._path) > _FULL_WAL
            self._unsaved = 1

    def _checkpoint(self) -> None:
        [(busy, frames, saved)] = self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        all_saved = not busy and frames == saved
        if all_saved and wal_bytes(self._path) > _LONG_WAL:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._wal_is_stuck = not all_saved and wal_bytes(self._path) > _FULL_WAL
        self._unsaved = 0 if all_saved else 1


def _by_turn(requests: Iterable[Request]) -> list[tuple[Handler, list[Request]]]:
    """Requests of one kind together, in the order of their turns."""
    groups: defaultdict[tuple[Turn, Handler], list[Request]] = defaultdict(list)
    for request in requests:
        groups[request.turn, request.handler].append(request)
    return [(handler, served) for (_, handler), served in sorted(groups.items(), key=_turn)]


def _turn(group: tuple[tuple[Turn, Handler], list[Request]]) -> Turn:
    return group[0][0]

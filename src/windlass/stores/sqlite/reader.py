"""The reader: a thread with a connection that cannot write, for looking.

Each question is one statement, read to its end at once, so that no snapshot is held and the log can
be emptied. Questions that may have to look at very many rows are cut off (:func:`find`).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from windlass.errors import Closed, WindlassError
from windlass.stores.sqlite.files import connect_reader
from windlass.stores.sqlite.fork import register_thread
from windlass.stores.sqlite.request import Request, deliver
from windlass.stores.sqlite.trouble import as_store_error

__all__ = ["Reader", "cut_off"]

_OPS_BETWEEN_LOOKS = 4_000
"""Steps of SQLite's machine between two looks at the clock: some hundred rows."""


class Reader:
    """Serves requests one after the other; a handler is called with the connection and arguments."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._inbox: SimpleQueue[Request | None] = SimpleQueue()
        self._db: sqlite3.Connection | None = None
        self._gate = threading.Lock()
        self._inside = register_thread()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> None:
        """To be served soon. Raises :class:`Closed` after :meth:`stop`."""
        with self._gate:
            if self._closed:
                raise Closed("The store is closed: open it first.")
            self._inbox.put(request)

    def stop(self) -> None:
        """Finish what was submitted, then end."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._inbox.put(None)

    def join(self) -> None:
        """Wait for the end, after :meth:`stop`."""
        self._thread.join()

    def orphan(self) -> None:
        """In a forked child: nothing may be closed."""
        self._closed = True

    def _run(self) -> None:
        while (request := self._inbox.get()) is not None:
            if not request.future.cancelled():
                with self._inside:
                    self._serve(request)
                deliver([request])
        if self._db is not None:
            with self._inside:
                self._db.close()

    def _serve(self, request: Request) -> None:
        try:
            if self._db is None:
                self._db = connect_reader(self._path)
            request.answer = request.handler(self._db, *request.arguments)
        except WindlassError as error:
            request.error = error
        except Exception as error:
            request.error = as_store_error(error, self._path)


@contextmanager
def cut_off(db: sqlite3.Connection, seconds: float, otherwise: WindlassError) -> Iterator[None]:
    """Raise *otherwise* when the statements within take longer."""
    end = time.monotonic() + seconds
    db.set_progress_handler(lambda: time.monotonic() > end, _OPS_BETWEEN_LOOKS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise otherwise from None
        raise
    finally:
        db.set_progress_handler(None, 0)

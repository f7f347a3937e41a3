"""What the operations of one transaction share: connection, book, the time, and hints to be sent."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import Any

from windlass.errors import WindlassError
from windlass.job import JobId
from windlass.store import Notice, NoticeKind
from windlass.stores.sqlite.book import Book
from windlass.stores.sqlite.request import Request
from windlass.stores.sqlite.rows import PENDING

__all__ = ["Handler", "LookCloser", "Transaction", "each"]


class LookCloser(Exception):
    """The quick way does not fit: roll back and run the transaction again with ``careful``."""


class Transaction:
    """One write transaction, at one moment of the store's clock."""

    def __init__(
        self,
        db: sqlite3.Connection,
        book: Book,
        now: int,
        wanted: frozenset[NoticeKind],
        *,
        careful: bool,
    ) -> None:
        self.db = db
        self.book = book
        self.now = now
        """In microseconds."""
        self.careful = careful
        self.tells_changes = "changed" in wanted
        """Whether it is worth the while to name changed jobs: somebody listens."""
        self._ready: dict[str, None] = {}
        self._cancel: dict[JobId, None] = {}
        self._changed: dict[JobId, None] = {}

    @property
    def seconds(self) -> float:
        """Now, as :mod:`windlass.limits` counts."""
        return self.now / 1_000_000

    def text(self, statement: str, *parameters: object) -> Any:
        """The one value that *statement* answers."""
        rows = self.db.execute(statement, parameters).fetchall()
        return rows[0][0] if rows else None

    # Hints, sent once the transaction is committed.

    def ready(self, queue: str) -> None:
        self._ready[queue] = None

    def cancel(self, ids: Iterable[JobId]) -> None:
        self._cancel.update(dict.fromkeys(ids))

    def changed(self, ids: Iterable[JobId]) -> None:
        if self.tells_changes:
            self._changed.update(dict.fromkeys(ids))

    def moved(self, lane: int, before: int | None, after: int | None, count: int = 1) -> None:
        """Jobs changed their status: count them, and hint when they may be claimed."""
        row = self.book.lanes[lane]
        self.book.move(row, before, after, count)
        if after == PENDING:
            self.ready(row.queue)

    def notices(self) -> list[Notice]:
        notices = []
        if self._ready:
            notices.append(Notice("ready", queues=tuple(self._ready)))
        if self._cancel:
            notices.append(Notice("cancel", ids=tuple(self._cancel)))
        if self._changed:
            notices.append(Notice("changed", ids=tuple(self._changed)))
        return notices


Handler = Callable[[Transaction, list[Request]], None]
"""Serves all requests of its kind in one transaction. A request whose ``error`` it sets has written
nothing; anything that it raises undoes the transaction."""


def each(operation: Callable[..., Any]) -> Handler:
    """A handler that serves one request after the other by *operation*(transaction, *arguments)."""

    def handle(tx: Transaction, requests: list[Request]) -> None:
        for request in requests:
            try:
                request.answer = operation(tx, *request.arguments)
            except WindlassError as error:
                request.error = error

    return handle

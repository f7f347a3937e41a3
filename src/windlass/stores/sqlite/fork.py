"""What a fork must not do to a store.

A fork while a thread is inside SQLite would copy mutexes that are locked, into a child in which nobody
is left to release them. So each thread holds a lock of its own while it is inside, and a fork takes
these locks first. And what a child inherits of an open store is not its own: the store is told.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from typing import Protocol

__all__ = ["register", "register_thread"]

_PATIENCE = 1.0
"""Seconds that a fork waits for all threads: longer than a transaction takes, as a rule."""


class _Forked(Protocol):
    def after_fork(self) -> None:
        """This is the child, and the calling thread is its only one."""


_stores: weakref.WeakSet[_Forked] = weakref.WeakSet()
_locks: weakref.WeakSet[threading.Lock] = weakref.WeakSet()
_taken: list[threading.Lock] = []


def register(store: _Forked) -> None:
    """Have *store* told in every child."""
    _stores.add(store)


def register_thread() -> threading.Lock:
    """A lock for a thread to hold while it is inside SQLite."""
    lock = threading.Lock()
    _locks.add(lock)
    return lock


def _before() -> None:
    give_up = time.monotonic() + _PATIENCE
    _taken.extend(
        lock for lock in list(_locks) if lock.acquire(timeout=max(0.0, give_up - time.monotonic()))
    )


def _after_in_parent() -> None:
    while _taken:
        _taken.pop().release()


def _after_in_child() -> None:
    _taken.clear()
    for store in list(_stores):
        store.after_fork()


os.register_at_fork(
    before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
)

"""A worker process and the supervisor that started it: the child's side.

The child tells each incarnation under which it registers, so that its parent can declare exactly that
one dead when it sees the process die. And it ends with its parent: when the socket closes, it hands
everything back and leaves.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from windlass.job import WorkerId
from windlass.spawn import parent_socket

__all__ = ["ParentLink"]

_HARD_EXIT = 1.0
"""Seconds after the parent's death when this process ends, come what may."""
EXIT_ORPHANED = 72
"""Exit code of a worker that lost its parent and could not leave in time."""


class ParentLink:
    """The way to the parent. Make it with :meth:`find`."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @classmethod
    def find(cls) -> ParentLink | None:
        """The link of this process; None if no supervisor started it."""
        found = parent_socket()
        return None if found is None else cls(found[0])

    def announce(self, worker: WorkerId) -> None:
        """Tell the parent under which name this process works from now on."""
        try:
            self._socket.sendall(worker.encode() + b"\n")
        except OSError:
            # The parent has died: the watching thread deals with that.
            return

    def watch(self, stop: Callable[[timedelta], None]) -> None:
        """When the parent dies, call *stop* with no grace, and soon afterwards end this process."""
        name = "windlass-parent"
        threading.Thread(target=self._watch, args=(stop,), name=name, daemon=True).start()

    def _watch(self, stop: Callable[[timedelta], None]) -> None:
        with suppress(OSError):
            self._socket.recv(1)
        stop(timedelta(0))
        threading.Event().wait(_HARD_EXIT)
        os._exit(EXIT_ORPHANED)

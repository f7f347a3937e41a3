"""Processes started by this one, that end with it.

Parent and child share a socket pair. The child's end of it is named in its environment; whichever
process dies, the other one sees the socket close. The parent also waits in a thread, so that the death
of a child is noticed at once and its exit code known, whatever else holds the socket open.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import threading
from asyncio import CancelledError
from collections.abc import Callable, Sequence
from contextlib import suppress

__all__ = ["VARIABLE", "Spawned", "obituary", "parent_socket"]

VARIABLE = "WINDLASS_PARENT"
"""Names the child's end of the socket: ``descriptor:pid of the parent``."""


class Spawned:
    """A child process. Made on an event loop, and used there."""

    def __init__(self, command: Sequence[str], *, group: bool = False) -> None:
        """Start *command*. *group*: in a process group of its own, out of the terminal's reach.

        Raises OSError when the system has no room for another process.
        """
        loop = asyncio.get_running_loop()
        self.socket, theirs = socket.socketpair()
        self.gone = asyncio.Event()
        """Set when the process has ended."""
        self.on_gone: Callable[[], object] | None = None
        with theirs:
            try:
                self._process = subprocess.Popen(
                    list(command),
                    env=os.environ | {VARIABLE: f"{theirs.fileno()}:{os.getpid()}"},
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    process_group=0 if group else None,
                )
            except BaseException:
                self.socket.close()
                raise
        threading.Thread(
            target=self._wait, args=(loop,), name="windlass-child", daemon=True
        ).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; −9 when it was killed by signal 9."""
        return self._process.returncode

    def send(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    async def end(self) -> None:
        """Kill it, and wait until it is gone, cancelled or not."""
        self.kill()
        cancellation: CancelledError | None = None
        while not self.gone.is_set():
            try:
                await self.gone.wait()
            except CancelledError as error:
                cancellation = error
        if cancellation is not None:
            raise cancellation

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        self._process.wait()
        with suppress(RuntimeError):  # the loop has closed before
            loop.call_soon_threadsafe(self._on_end)

    def _on_end(self) -> None:
        self.gone.set()
        if self.on_gone is not None:
            self.on_gone()


def parent_socket() -> tuple[socket.socket, int] | None:
    """In a child: the socket to its parent, and the parent's process id. None in other processes.

    Answers once: programs that this process starts are no children of its parent.
    """
    named = os.environ.pop(VARIABLE, None)
    if named is None:
        return None
    descriptor, _, parent = named.partition(":")
    os.set_inheritable(int(descriptor), False)
    return socket.socket(fileno=int(descriptor)), int(parent)


def obituary(code: int | None) -> str:
    """How a process ended, by its exit code."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"

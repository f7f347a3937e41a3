"""The child of a worker that runs ``run_in="process"`` tasks: ``python -m windlass.executors.child``.

It reads orders from a socket, imports the task's module, calls the function and writes back what came
of it. Its parent kills it when a run takes too long or is cancelled. It must never outlive its parent:
a thread reads the socket all the time and ends the process at its end, and on Linux the kernel does
the same even while C code keeps all threads from running. Signals of the terminal or of a process
manager are the parent's business and do nothing here.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import runpy
import signal
import socket
import sys
import threading
from datetime import timedelta
from queue import SimpleQueue
from typing import Any

import msgspec

from windlass.codec import encode_result
from windlass.context import NO_RESOURCES, SyncContext, running
from windlass.errors import ConfigError, Retry, Snooze
from windlass.executors.messages import (
    CHILD_MAIN,
    HEADER,
    Failed,
    Finished,
    FromChild,
    Line,
    Order,
    Postponed,
    Progress,
    Reply,
    decode_to_child,
    frame,
    kind_name,
)
from windlass.faults import describe_exception
from windlass.job import Job, LogLine
from windlass.signature import Signature
from windlass.spawn import parent_socket

_PR_SET_PDEATHSIG = 1

_decode_job = msgspec.json.Decoder(Job).decode


def main() -> None:
    """Serve orders until the parent closes the socket."""
    link_to_parent = parent_socket()
    if link_to_parent is None:
        sys.exit("This program is started by a Windlass worker, for its run_in='process' tasks.")
    sock, parent = link_to_parent
    _die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM):
        # A handler and not SIG_IGN, which programs started by the task would inherit.
        signal.signal(number, lambda *_: None)
    link = _Link(sock)
    threading.Thread(target=link.read, name="windlass-parent", daemon=True).start()
    while True:
        link.send(_serve(link.orders.get(), link))


class _Link:
    """The socket. A thread reads it, sorts what comes, and watches for its end."""

    cancelled = False
    """A run in a process is ended from outside: there is nothing to look at."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self.orders: SimpleQueue[Order] = SimpleQueue()
        self._replies: SimpleQueue[bool] = SimpleQueue()

    def read(self) -> None:
        while True:
            length = int.from_bytes(self._exactly(HEADER), "big")
            message = decode_to_child(self._exactly(length))
            if isinstance(message, Reply):
                self._replies.put(message.held)
            else:
                self.orders.put(message)

    def send(self, message: FromChild) -> None:
        with self._lock:
            self._sock.sendall(frame(message))

    def progress(self, fraction: float | None, note: str | None) -> bool:
        return self._ask(Progress(fraction, note))

    def log(self, line: LogLine) -> bool:
        return self._ask(Line(line))

    def _ask(self, message: Progress | Line) -> bool:
        # One question at a time, so that each thread of the task gets the answer to its own.
        with self._lock:
            self._sock.sendall(frame(message))
            return self._replies.get()

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self._sock.recv(count - len(data))
            except OSError:
                more = b""
            if not more:
                os._exit(0)
            data += more
        return data


def _serve(order: Order, link: _Link) -> FromChild:
    """Run one job; everything that can happen becomes a message."""
    try:
        job = _decode_job(order.job)
        function, signature = _resolve(order)
        ctx: SyncContext[Any] = SyncContext(job, link, NO_RESOURCES, order.deadline)
        running.set(ctx)
        args, kwargs = signature.decode(job.payload)
        if order.context_param is not None:
            kwargs[order.context_param] = ctx
        value = function(*args, **kwargs)
        return Finished(None if value is None else encode_result(value))
    except Snooze as error:
        return Postponed(error.delay.total_seconds())
    except BaseException as error:
        # SystemExit and its like end a run, not the child.
        kinds = tuple(kind_name(kind) for kind in type(error).__mro__)
        return Failed(describe_exception(error), kinds, _asked_delay(error))
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()


_resolved: dict[tuple[str, str], tuple[Any, Signature]] = {}


def _resolve(order: Order) -> tuple[Any, Signature]:
    """The function of an order, by the path at which it is registered in the worker."""
    known = _resolved.get((order.module, order.qualname))
    if known is None:
        sys.path[:] = order.path
        found: Any = _module(order)
        for name in order.qualname.split("."):
            found = found.get(name) if isinstance(found, dict) else getattr(found, name, None)
        if found is None:
            raise ConfigError(
                f"{order.module} has no {order.qualname!r} when it is imported in a child process: "
                'a task with run_in="process" must stand at the top of an importable module.'
            )
        function = getattr(found, "function", found)
        signature = Signature.of(function, context_param=order.context_param)
        known = _resolved[order.module, order.qualname] = (function, signature)
    return known


def _module(order: Order) -> Any:
    if order.module != "__main__":
        return importlib.import_module(order.module)
    if order.main is None:
        raise ConfigError(
            "A task that is typed in interactively cannot run in a process: save it in a file."
        )
    return _main_module(order.main)


def _main_module(path: str) -> dict[str, Any]:
    if path not in _mains:
        _mains[path] = runpy.run_path(path, run_name=CHILD_MAIN)
    return _mains[path]


_mains: dict[str, dict[str, Any]] = {}


def _asked_delay(error: BaseException) -> float | None:
    """As the retry policy would read it."""
    try:
        wish: Any = error.after if isinstance(error, Retry) else getattr(error, "retry_after", None)
        return wish.total_seconds() if isinstance(wish, timedelta) else float(wish)
    except Exception:
        # Whatever the exception calls so, it is no delay.
        return None


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


if __name__ == "__main__":
    main()

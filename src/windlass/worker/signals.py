"""What signals mean to a worker or a supervisor.

    SIGTERM, SIGINT    stop; the second time: hand everything back now; the third time: exit
    SIGHUP             the same: the terminal was closed. Where it is ignored (nohup), it stays so
    SIGUSR1, SIGTSTP   claim nothing more, and go on running what runs;  SIGCONT  claim again
    SIGUSR2            one line of status on stderr
    SIGQUIT            the stacks of all threads and asyncio tasks on stderr

Handlers are plain Python ones and not the event loop's, so that they work while a task blocks the loop.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import Any, Protocol

__all__ = ["Governed", "handle_signals"]


class Governed(Protocol):
    """What signals can be sent to: a worker, a supervisor, or a server that has a worker."""

    def stop(self, grace: timedelta | None = None) -> None: ...

    def quiet(self) -> None: ...

    def resume(self) -> None: ...

    def status(self) -> str: ...


def handle_signals(
    target: Governed, *, exit: Callable[[int], object] = os._exit
) -> Callable[[], None]:
    """Let signals govern *target*; call it in the main thread, before the first claim.

    The answer puts back what was there before.
    """
    loop = asyncio.get_running_loop()
    stops = 0

    def on_stop(number: int, frame: FrameType | None) -> None:
        nonlocal stops
        stops += 1
        if stops == 1:
            target.stop()
        elif stops == 2:
            target.stop(timedelta(0))
        else:
            exit(128 + number)

    def on_status(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{target.status()}\n".encode())

    def on_quit(number: int, frame: FrameType | None) -> None:
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        for task in asyncio.all_tasks(loop):
            os.write(2, _stack_of(task).encode(errors="replace"))

    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {
        signal.SIGTERM: on_stop,
        signal.SIGINT: on_stop,
        signal.SIGUSR1: lambda *_: target.quiet(),
        signal.SIGTSTP: lambda *_: target.quiet(),
        signal.SIGCONT: lambda *_: target.resume(),
        signal.SIGUSR2: on_status,
        signal.SIGQUIT: on_quit,
    }
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        handlers[signal.SIGHUP] = on_stop
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    return restore


def _stack_of(task: asyncio.Task[Any]) -> str:
    """Where *task* stands, through all the coroutines that it awaits (asyncio shows the first only)."""
    lines = [f"Task {task.get_name()} (most recent call last):\n"]
    awaited: Any = task.get_coro()
    while awaited is not None:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            lines += traceback.format_stack(frame, limit=1)
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return "".join(lines)

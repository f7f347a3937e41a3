"""Threads for ``def`` tasks."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from asyncio import AbstractEventLoop, CancelledError, Future
from collections.abc import Callable, Coroutine
from concurrent.futures import TimeoutError as WaitTimeout
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from windlass.context import Run, SyncContext, running
from windlass.job import LogLine

if TYPE_CHECKING:
    from windlass.tasks import Task

__all__ = ["Threads"]

_DOOR_WAIT = 10.0
"""Seconds that a thread waits for the loop to pass on a line: a blocked loop must not block it too."""


class Threads:
    """Runs ``def`` tasks in daemon threads, made when needed.

    They are daemons because a thread that never ends must not keep the process from ending; the worker
    waits for all that can be waited for. How many run at once is the business of the caller's slots.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._started = 0

    async def call(self, run: Run, task: Task[..., Any]) -> object:
        """Run a ``def`` in a thread. Returns only when the function has, cancelled or not."""
        loop = asyncio.get_running_loop()
        done: Future[tuple[bool, Any]] = loop.create_future()
        doors = _ThreadDoors(run, loop)
        work = contextvars.copy_context()
        # While the thread runs it can only be told, and `run.ending` does that.
        before, run.interrupt = run.interrupt, None
        try:
            self._submit(lambda: work.run(_work, run, task, doors, done))
            returned, value = await _to_the_end(run, done, doors)
        finally:
            run.interrupt = before
        if returned:
            return value
        raise value

    def close(self) -> None:
        """Let idle threads end."""
        with self._lock:
            for _ in range(self._started):
                self._work.put(None)
            self._started = self._idle = 0

    def _submit(self, work: Callable[[], None]) -> None:
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                self._started += 1
                name = f"windlass-thread-{self._started}"
                threading.Thread(target=self._serve, name=name, daemon=True).start()
        self._work.put(work)

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            # Marked idle before the last reference to the work goes: its end is announced by then.
            work()
            del work
            with self._lock:
                self._idle += 1


class _ThreadDoors:
    """A thread's way to the store: through the worker's loop."""

    def __init__(self, run: Run, loop: AbstractEventLoop) -> None:
        self._run = run
        self._loop = loop
        self.abandoned = False
        """Whoever called for the thread was cancelled."""

    @property
    def loop(self) -> AbstractEventLoop:
        return self._loop

    @property
    def cancelled(self) -> bool:
        if self.abandoned or self._run.ending is not None:
            self._run.noticed = True
            return True
        return False

    def progress(self, fraction: float | None, note: str | None) -> bool:
        return self._pass_on(self._run.progress(fraction, note))

    def log(self, line: LogLine) -> bool:
        return self._pass_on(self._run.log(line))

    def _pass_on(self, coro: Coroutine[Any, Any, bool]) -> bool:
        try:
            future = asyncio.run_coroutine_threadsafe(coro, self._loop)
        except RuntimeError:
            # The loop is closed: the worker has gone, and left this thread behind.
            coro.close()
            return False
        try:
            return future.result(_DOOR_WAIT)
        except WaitTimeout:
            return self._run.ending != "lost"
        except CancelledError:
            return False


def _work(
    run: Run, task: Task[..., Any], doors: _ThreadDoors, done: Future[tuple[bool, Any]]
) -> None:
    """The thread's side: call the function and announce how it ended."""
    answer: tuple[bool, Any]
    try:
        ctx: SyncContext[Any] = SyncContext(run.job, doors, run.resources, run.deadline)
        running.set(ctx)
        args, kwargs = task.signature.decode(run.job.payload)
        if task.context_param is not None:
            kwargs[task.context_param] = ctx
        answer = (True, task.function(*args, **kwargs))
    except BaseException as error:
        answer = (False, error)
    try:
        doors.loop.call_soon_threadsafe(_announce, done, answer)
    except RuntimeError:
        # The loop is closed: nobody waits for this any more.
        return


def _announce(done: Future[tuple[bool, Any]], answer: tuple[bool, Any]) -> None:
    if not done.done():
        done.set_result(answer)


async def _to_the_end(
    run: Run, done: Future[tuple[bool, Any]], doors: _ThreadDoors
) -> tuple[bool, Any]:
    """Wait for a thread, which nothing can end: a cancellation is passed on, and raised afterwards.

    Only when the job is lost and the worker goes is the thread left to itself.
    """
    cancellation: CancelledError | None = None
    while not done.done():
        try:
            await asyncio.shield(done)
        except CancelledError as error:
            doors.abandoned = True
            if run.ending == "lost":
                raise
            cancellation = error
    if cancellation is not None:
        raise cancellation
    return done.result()

"""Fire-and-forget that is tied to the application's life and not to a request's.

A :class:`Background` runs functions beside the caller, in the same process: an exception is told as an
event and counted and never kills the application, and closing drains what still runs. Nothing here
survives a crash; what must, is a job.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import traceback
from collections.abc import Callable, Coroutine
from contextvars import Context
from datetime import timedelta
from types import TracebackType
from typing import Any, ParamSpec, Self

from windlass.errors import Closed, ConfigError
from windlass.events import BackgroundFailed, EventBus
from windlass.fan_out import is_async

__all__ = ["Background"]

P = ParamSpec("P")

_log = logging.getLogger("windlass.background")

_AFTER_CANCEL = 5.0
"""Seconds in which a cancelled function may clean up."""


class Background:
    """Runs functions in the background of an application.

    >>> async def main() -> None:
    ...     async with Background() as background:
    ...         background.execute(print, "hello")
    >>> asyncio.run(main())
    hello

    Leaving the block lets what was accepted finish for ``grace``, then cancels it. *threads* bounds
    how many plain functions run at once; more wait their turn.
    """

    def __init__(
        self,
        events: EventBus | None = None,
        *,
        grace: float | timedelta = 30.0,
        threads: int = 16,
    ) -> None:
        if threads < 1:
            raise ConfigError(f"Background needs at least 1 thread, not {threads}.")
        self._events = events
        self._grace = grace.total_seconds() if isinstance(grace, timedelta) else float(grace)
        if self._grace < 0:
            raise ConfigError("Background's grace cannot be negative.")
        self._threads = threads
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._unfinished = 0
        self._finished = 0
        self._failed = 0

    @property
    def running(self) -> int:
        """Functions that were accepted and have not ended."""
        return self._unfinished

    @property
    def finished(self) -> int:
        """Functions that ended well."""
        return self._finished

    @property
    def failed(self) -> int:
        """Functions that raised, or had to be given up at closing."""
        return self._failed

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise Closed("This Background was opened before: make a new one.")
        self._slots = asyncio.Semaphore(self._threads)
        self._idle = asyncio.Event()
        self._idle.set()
        self._loop = asyncio.get_running_loop()
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def execute(self, fn: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run *fn* soon, with these arguments; from the event loop or from any thread.

        A coroutine function runs in the event loop, a plain one in a thread. Its result is dropped.
        Raises :class:`~windlass.errors.Closed` before opening and after closing.
        """
        loop = self._accept()
        context = contextvars.copy_context()
        if _running_loop() is loop:
            self._start(fn, args, kwargs, context)
        else:
            loop.call_soon_threadsafe(self._start, fn, args, kwargs, context)

    async def close(self, grace: float | timedelta | None = None) -> None:
        """Refuse new work, wait for the rest up to the grace, then cancel it. Idempotent.

        A thread cannot be stopped: one that outlasts the grace is reported, and left to end alone.
        """
        seconds = self._grace if grace is None else _seconds(grace)
        with self._lock:
            self._open = False
            if self._loop is None:
                return
            # What a thread has handed over may not have started yet: the count knows it already.
            if self._unfinished:
                self._idle.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            # Reached by a cancelled caller as well: then there is no grace left to wait for.
            await self._cancel_rest()

    def _accept(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                raise Closed("This Background is not open yet: enter it with `async with` first.")
            if not self._open:
                raise Closed("This Background is closed: the application is shutting down.")
            self._unfinished += 1
            return self._loop

    def _start(
        self,
        fn: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
    ) -> None:
        assert self._loop is not None
        run = self._run(fn, args, kwargs, context)
        task = self._loop.create_task(run, context=context, name=f"background {_name(fn)}")
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(done, fn))

    async def _run(
        self,
        fn: Callable[..., object],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
    ) -> None:
        try:
            if is_async(fn):
                await fn(*args, **kwargs)  # type: ignore[misc] # is_async says that it is awaitable
            else:
                async with self._slots:
                    await _in_thread(lambda: context.copy().run(fn, *args, **kwargs), _name(fn))
        except (asyncio.CancelledError, KeyboardInterrupt):
            raise
        except BaseException as error:  # SystemExit too: one function does not end the application
            self._report(fn, error)
        else:
            self._finished += 1

    def _ended(self, task: asyncio.Task[None], fn: Callable[..., object]) -> None:
        self._tasks.discard(task)
        with self._lock:
            self._unfinished -= 1
            if self._unfinished == 0:
                self._idle.set()
        if task.cancelled():
            self._report(
                fn, TimeoutError("It had not ended when the application's grace was over.")
            )

    async def _cancel_rest(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_AFTER_CANCEL)
        for task in self._tasks & set(tasks):
            _log.error("%s ignores its cancellation and is left behind.", task.get_name())

    def _report(self, fn: Callable[..., object], error: BaseException) -> None:
        self._failed += 1
        summary = f"{type(error).__name__}: {_text(error)}"
        stack = "".join(traceback.format_exception(error))
        if self._events is not None and self._events.wants(BackgroundFailed):
            self._events.emit(BackgroundFailed(_name(fn), summary, stack))
        else:
            _log.error("Background function %s failed: %s\n%s", _name(fn), summary, stack)


def _in_thread(fn: Callable[[], object], name: str) -> Coroutine[Any, Any, object]:
    """Run *fn* in a thread of its own. A daemon: a stuck one must not keep the process alive."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[object] = loop.create_future()

    def tell(result: object, error: BaseException | None) -> None:
        if outcome.done():
            return  # cancelled: nobody waits any more
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)

    def target() -> None:
        result: object = None
        error: BaseException | None = None
        try:
            result = fn()
        except StopIteration as stop:
            error = RuntimeError(f"{name} raised StopIteration: {stop}")
        except BaseException as raised:
            error = raised
        try:
            loop.call_soon_threadsafe(tell, result, error)
        except RuntimeError:
            _log.warning("%s ended after its event loop was closed.", name)

    async def wait() -> object:
        threading.Thread(target=target, name=f"windlass-background {name}", daemon=True).start()
        return await outcome

    return wait()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def _name(fn: Callable[..., object]) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__qualname__


def _text(error: BaseException) -> str:
    """``str(error)``, which a class of the user's may have made to raise."""
    try:
        return str(error)
    except Exception:
        return "(its text cannot be shown)"

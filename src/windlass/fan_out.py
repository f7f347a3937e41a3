"""Structured parallelism inside one process, while a caller waits.

Not all concurrency is a job: what need not survive a crash runs here, without a store.
:func:`fan_out` calls one function with many items, at most ``limit`` at a time, and answers when all
are done. The first error ends the others and is raised as it is, as with Go's ``errgroup``.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, overload

from windlass.errors import ConfigError

__all__ = ["fan_out", "is_async"]

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 32
"""Threads at most where no limit is given: the system, unlike the event loop, has one."""


@overload
async def fan_out(
    fn: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    limit: int | None = None,
) -> list[R]: ...
@overload
async def fan_out(
    fn: Callable[[T], R],
    items: Iterable[T] | AsyncIterable[T],
    *,
    limit: int | None = None,
) -> list[R]: ...
async def fan_out(
    fn: Callable[[T], Any],
    items: Iterable[T] | AsyncIterable[T],
    *,
    limit: int | None = None,
) -> list[Any]:
    """Call *fn* with each of *items*, at most *limit* at a time; the results, in the items' order.

    An ``async def`` runs in the event loop, unlimited when *limit* is None; a plain function runs in
    threads, then at most 32. An item is taken only when a call can begin, so *items* may be endless
    or slow. The first error (of a call, or of *items*) cancels the other calls and is raised itself.
    When the caller is cancelled, so are the calls. Either way nothing runs on afterwards: a plain
    function that has begun cannot be stopped, and is waited for.

    >>> async def double(n: int) -> int:
    ...     return 2 * n
    >>> asyncio.run(fan_out(double, [1, 2, 3], limit=2))
    [2, 4, 6]

    Raises :class:`~windlass.errors.ConfigError` for a *limit* below 1.
    """
    if limit is not None and limit < 1:
        raise ConfigError(
            f"fan_out needs a limit of at least 1 (or None for no limit), not {limit}."
        )
    if is_async(fn):
        return await _Fan(fn, limit).run(items)
    with ThreadPoolExecutor(limit or _THREADS, thread_name_prefix="windlass-fan-out") as pool:
        return await _Fan(_in_threads(fn, pool), limit or _THREADS).run(items)


def is_async(fn: Callable[..., object]) -> bool:
    """Whether calling *fn* makes a coroutine: functions, partials, and objects with such a call."""
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
        getattr(fn, "__call__", None)  # noqa: B004 - the function itself is asked for
    )


class _Fan:
    """One ``fan_out`` under way: a task that walks the items, and a task per call.

    No ``asyncio.TaskGroup``: it raises groups, lets an error hide the caller's cancellation, and in
    Python 3.11 may leave the caller marked as cancelled.
    """

    def __init__(self, call: Callable[[Any], Awaitable[Any]], limit: int | None) -> None:
        self.call = call
        self.slots = asyncio.Semaphore(limit) if limit is not None else None
        self.tasks: set[asyncio.Task[None]] = set()
        self.ended = asyncio.Event()
        self.results: list[Any] = []
        self.error: BaseException | None = None
        self.stopping = False

    async def run(self, items: Iterable[Any] | AsyncIterable[Any]) -> list[Any]:
        self._start(self._walk(items))
        cancelled: asyncio.CancelledError | None = None
        while self.tasks:
            try:
                await self.ended.wait()
            except asyncio.CancelledError as error:
                cancelled = error
                self._stop()
        try:
            if cancelled is not None:
                raise cancelled
            if self.error is not None:
                raise self.error
            return self.results
        finally:
            # Else error → traceback → frame → error would be a cycle.
            self.error = cancelled = None

    async def _walk(self, items: Iterable[Any] | AsyncIterable[Any]) -> None:
        """Begin a call per item. A slot comes first: no item is taken that could not begin."""
        source = _each(items)
        try:
            while True:
                if self.slots is not None:
                    await self.slots.acquire()
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    return
                if self.stopping:
                    return  # the items swallowed the cancellation
                self._start(self._one(len(self.results), item))
                self.results.append(None)
                # Otherwise a plain list would start thousands before the first could fail.
                await asyncio.sleep(0)
        finally:
            await source.aclose()

    async def _one(self, index: int, item: Any) -> None:
        try:
            self.results[index] = await self.call(item)
        finally:
            if self.slots is not None:
                self.slots.release()

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not self.tasks:
            self.ended.set()
        if task.cancelled():
            # Unless told to, a call that ends cancelled has no result: an error like others.
            error: BaseException | None = None if self.stopping else asyncio.CancelledError()
        else:
            error = task.exception()
        if error is not None and self.error is None:
            self.error = error
            self._stop()

    def _stop(self) -> None:
        self.stopping = True
        for task in self.tasks:
            task.cancel()


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncGenerator[T, None]:
    """One way to walk both kinds; closes an asynchronous generator as soon as it is left."""
    if isinstance(items, AsyncIterable):
        walk = aiter(items)
        try:
            async for item in walk:
                yield item
        finally:
            close = getattr(walk, "aclose", None)
            if close is not None:
                await close()
    else:
        for item in items:
            yield item


def _in_threads(fn: Callable[[Any], Any], pool: ThreadPoolExecutor) -> Callable[[Any], Any]:
    """*fn* as a coroutine function that does not end before its thread is done with it."""

    def call(item: Any) -> Any:
        try:
            return fn(item)
        except StopIteration as error:
            # A future refuses to carry it, and would never be done.
            raise RuntimeError(f"{fn!r} raised StopIteration") from error

    async def run(item: Any) -> Any:
        context = contextvars.copy_context()
        running = pool.submit(context.run, call, item)
        outcome = asyncio.wrap_future(running)
        try:
            result = await asyncio.shield(outcome)
        except asyncio.CancelledError:
            if not running.cancel():
                await _settled(outcome)
            raise
        # A lambda that makes a coroutine looks like a plain function from outside.
        return await result if inspect.isawaitable(result) else result

    return run


async def _settled(outcome: asyncio.Future[Any]) -> None:
    """Wait until a thread is done, however often the waiting is cancelled; drop what it says."""
    while not outcome.done():
        try:
            await asyncio.wait([outcome])
        except asyncio.CancelledError:
            continue
    if not outcome.cancelled():
        outcome.exception()

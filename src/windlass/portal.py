"""The one background event loop through which synchronous code reaches the store.

Stores and the client are asynchronous; Flask, Django and scripts are not. A portal is a daemon
thread with an event loop, started by the first call and ended by :meth:`Portal.close`. Any number of
threads may call through it at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from windlass.errors import Closed, ConfigError

__all__ = ["Portal"]

T = TypeVar("T")


class Portal:
    """Runs coroutines in its own thread while the caller blocks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether its thread was started, and not closed since."""
        return self._loop is not None

    def call(
        self, function: Callable[..., Coroutine[Any, Any, T]], /, *args: Any, instead: str
    ) -> T:
        """Run ``function(*args)`` in the portal's loop and wait for its answer.

        Raises what it raises; :class:`~windlass.errors.Closed` when the portal is closed meanwhile;
        and :class:`~windlass.errors.ConfigError`, which tells to use *instead*, where an event loop
        runs in the caller's thread, because it would stand still.
        """
        if _loop_runs_here():
            raise ConfigError(
                f"An event loop runs in this thread and would block: use `{instead}` here."
            )
        future: Future[T] = asyncio.run_coroutine_threadsafe(
            function(*args), self._loop or self._start()
        )
        try:
            return future.result()
        except CancelledError:
            raise Closed(
                "The app was closed during this call; whether it took effect is open."
            ) from None
        except BaseException:
            # Ctrl-C in the caller: nobody waits for the answer any more.
            future.cancel()
            raise

    def close(self) -> None:
        """End the thread, cancelling what runs in it. Idempotent; the next call starts another."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(timeout=5)

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_turn, args=(loop,), name="windlass-portal", daemon=True
                )
                self._thread.start()
                self._loop = loop
            return self._loop


def _loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """The thread's life: turn *loop* until it is stopped, then end what is left in it."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()

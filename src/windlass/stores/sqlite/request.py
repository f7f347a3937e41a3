"""A question to one of the store's threads, and how its answer gets back to the event loop."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any

__all__ = ["Request", "Turn", "deliver"]


class Turn(IntEnum):
    """The order of operations within a transaction: what makes room comes first, claims come last,
    so that they see what was just inserted and what ended."""

    OTHER = 0
    ACK = 1
    INSERT = 2
    CLAIM = 3


class Request:
    """One caller waits for this; ``answer`` or ``error`` is set by the thread that serves it."""

    __slots__ = ("answer", "arguments", "durable", "error", "future", "handler", "loop", "turn")

    def __init__(
        self,
        handler: Callable[..., Any],
        arguments: tuple[Any, ...],
        turn: Turn = Turn.OTHER,
        *,
        durable: bool = False,
    ) -> None:
        self.handler = handler
        self.arguments = arguments
        self.turn = turn
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.answer: Any = None
        self.error: BaseException | None = None


def deliver(requests: Iterable[Request]) -> None:
    """Wake all who waited: once per event loop, however many they are."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Request]] = defaultdict(list)
    for request in requests:
        by_loop[request.loop].append(request)
    for loop, theirs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, theirs)
        except RuntimeError:
            continue  # the loop was closed meanwhile: nobody waits any more


def _resolve(requests: list[Request]) -> None:
    for request in requests:
        if request.future.done():
            continue  # the caller was cancelled
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.answer)

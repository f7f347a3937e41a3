"""Waiting on behalf of a client, with every end that a wait can have.

A client that hangs up, or a server that stops, ends the wait; nothing is left running behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

__all__ = ["race", "until_gone"]

T = TypeVar("T")


async def race(work: Coroutine[Any, Any, T], *ends: Coroutine[Any, Any, object]) -> T | None:
    """What *work* answers or raises; None if one of *ends* comes first. All others are cancelled."""
    main = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(end) for end in ends]
    try:
        await asyncio.wait((main, *others), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (main, *others):
            task.cancel()
        await asyncio.gather(main, *others, return_exceptions=True)
    return None if main.cancelled() else main.result()


async def until_gone(receive: Receive) -> None:
    """Returns when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass

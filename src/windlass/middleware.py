"""Code of the user's around every run: one onion, outermost first.

>>> async def timed(ctx: Context, call_next: Next) -> object:
...     began = time.monotonic()
...     try:
...         return await call_next(ctx)
...     finally:
...         print(ctx.job.type, time.monotonic() - began)

A middleware runs on the worker's event loop, also around tasks in threads and processes, within the
run's time-out. It may raise what a task may raise, and may return something else than it was given;
the result of a task in a process reaches it as JSON text (``msgspec.Raw``).
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from windlass.context import Context

__all__ = ["Middleware", "Next", "compose"]

Next = Callable[[Context[Any]], Awaitable[object]]
"""The rest of the onion."""

Middleware = Callable[[Context[Any], Next], Awaitable[object]]


def compose(middleware: Sequence[Middleware], innermost: Next) -> Next:
    """*innermost* wrapped in all of *middleware*, the first of which sees the run first."""
    call = innermost
    for layer in reversed(middleware):
        call = functools.partial(_enter, layer, call)
    return call


def _enter(layer: Middleware, call_next: Next, ctx: Context[Any]) -> Awaitable[object]:
    return layer(ctx, call_next)

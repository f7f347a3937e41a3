"""The tasks of ``windlass demo``: a few of every kind, some of which fail because they shall."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta

from windlass.app import Windlass
from windlass.context import Context
from windlass.errors import Discard, Snooze
from windlass.retry import RetryPolicy

__all__ = ["app"]

app: Windlass[None] = Windlass(
    retry=RetryPolicy(initial=timedelta(seconds=0.3), cap=timedelta(seconds=1))
)


@app.task(queue="mail")
async def greet(name: str) -> str:
    """Quick, in the event loop."""
    await asyncio.sleep(0.02)
    return f"Hello, {name}!"


@app.task
async def steps(ctx: Context, count: int) -> int:
    """Takes a while, and tells how far it is."""
    for step in range(count):
        await ctx.progress(step / count, f"step {step + 1} of {count}")
        await asyncio.sleep(0.1)
    return count


@app.task
def add_up(limit: int) -> int:
    """A plain function: runs in a thread."""
    time.sleep(0.05)
    return sum(range(limit))


@app.task(run_in="process")
def primes(below: int) -> int:
    """Work for a processor: runs in a process of its own."""
    return sum(all(n % d for d in range(2, math.isqrt(n) + 1)) for n in range(2, below))


@app.task
async def later(ctx: Context) -> str:
    """Puts itself off once, which costs no attempt."""
    if ctx.fence == 1:
        raise Snooze(0.5)
    return "now"


@app.task(max_attempts=10)
async def flaky(ctx: Context, failures: int) -> int:
    """Fails as often as it is told to, then succeeds."""
    await asyncio.sleep(0.01)
    if ctx.attempt <= failures:
        raise ConnectionError("the other side did not answer")
    return ctx.attempt


@app.task(max_attempts=2)
async def broken(hopeless: bool) -> None:
    """Fails on purpose: at once when it is hopeless, else when its attempts are used up."""
    if hopeless:
        raise Discard("this can never work")
    raise ValueError("this is broken on purpose")


@app.task
async def endless() -> None:
    """Runs until it is cancelled."""
    await asyncio.sleep(3600)


@app.task
def report(name: str) -> str:
    """Is asked for many times, and made once: its jobs are unique."""
    time.sleep(0.05)
    return name


@app.task
async def tomorrow() -> None:
    """Waits for its time, and is cancelled before."""

"""``flaky`` and ``slow``: two tasks whose only use is that one can watch retries and cancellation."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Annotated

from msgspec import Meta

from windlass import Context, Registry, RetryPolicy

__all__ = ["tasks"]

tasks = Registry()

Probability = Annotated[float, Meta(ge=0, le=1)]
Seconds = Annotated[float, Meta(ge=0, le=3600)]


class Unlucky(Exception):
    """This attempt was one of those that fail."""


@tasks.task(
    timeout="30s",
    max_attempts=5,
    retry=RetryPolicy(initial=timedelta(seconds=1), cap=timedelta(seconds=10)),
)
async def flaky(ctx: Context, probability: Probability = 0.5) -> str:
    """Fail with the given *probability*.

    The dice are seeded by the job and the attempt: the same attempt of the same job always falls alike.
    """
    if random.Random(f"{ctx.job.id}/{ctx.attempt}").random() < probability:
        raise Unlucky(f"Attempt {ctx.attempt} fell on the wrong side of {probability:.0%}.")
    return f"went well on attempt {ctx.attempt}"


@tasks.task(timeout="1h")
async def slow(ctx: Context, seconds: Seconds = 30.0) -> str:
    """Take *seconds*, telling how far it is; cancel it to see it end early."""
    steps = max(1, round(seconds * 2))
    for step in range(steps):
        await asyncio.sleep(seconds / steps)
        await ctx.progress((step + 1) / steps, f"step {step + 1} of {steps}")
    return f"took {seconds:g} s"

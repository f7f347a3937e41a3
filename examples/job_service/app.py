"""The job service: six tasks, their settings, and queues of a hundred places.

``windlass serve examples.job_service.app:app`` runs the HTTP API and a worker in one process. The
README beside this file shows what to ask it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from windlass import Context, Windlass
from windlass.middleware import Next

from . import images, mail, reports, to_watch, web
from .settings import Settings

settings = Settings.read()

# A hundred jobs may wait, unless a variable that Windlass reads by itself says otherwise.
capacity = None if {"JOB_QUEUE_CAPACITY", "WINDLASS_CAPACITY"} & os.environ.keys() else 100


@asynccontextmanager
async def resources(app: Windlass[Settings]) -> AsyncIterator[Settings]:
    """What every worker opens at start and hands to the tasks as ``ctx.resources``."""
    settings.pictures.mkdir(parents=True, exist_ok=True)
    yield settings


async def keep_pace(ctx: Context[Settings], call_next: Next) -> object:
    """Let a person see a job at work: most of these tasks are done within milliseconds."""
    await asyncio.sleep(ctx.resources.pace.total_seconds())
    return await call_next(ctx)


app = Windlass(lifespan=resources, capacity=capacity, middleware=[keep_pace])
for part in (mail, images, web, reports, to_watch):
    app.include(part.tasks)

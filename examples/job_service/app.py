"""The job service: its tasks, its settings, and one queue of a hundred places.

``windlass serve examples.job_service.app:app`` runs the HTTP API and a worker in one process. The
README beside this file shows what to ask it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from windlass import Next, Run, Windlass

from . import images, mail, reports, to_watch, web
from .settings import Settings

settings = Settings.read()


@asynccontextmanager
async def resources() -> AsyncIterator[Settings]:
    """What every worker opens at start and hands to the tasks as ``ctx.resources``."""
    settings.pictures.mkdir(parents=True, exist_ok=True)
    yield settings


async def keep_pace(run: Run, call_next: Next) -> object:
    """Let a person see a job at work: most of these tasks are done within milliseconds."""
    await asyncio.sleep(settings.pace.total_seconds())
    return await call_next(run)


def store_url() -> str:
    """Where the jobs live: as WINDLASS_URL says, else in the service's folder."""
    if url := os.environ.get("WINDLASS_URL"):
        return url
    settings.folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{settings.folder / 'jobs.db'}"


app = Windlass(
    store_url(),
    lifespan=resources,
    capacity=settings.capacity,
    middleware=[keep_pace] if settings.pace else [],
)

for part in (mail, images, web, reports, to_watch):
    app.include(part.tasks)

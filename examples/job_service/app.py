"""The job service: its tasks, its settings, and queues of a hundred places.

``windlass serve examples.job_service.app:app`` runs the HTTP API and a worker in one process. The
README beside this file shows what to ask it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from windlass import Context, Next, Windlass

from . import images, mail, reports, to_watch, web
from .settings import Settings


def build(settings: Settings, url: str) -> Windlass:
    """The app, with its jobs kept at *url*."""

    @asynccontextmanager
    async def resources() -> AsyncIterator[Settings]:
        """What every worker opens at start and hands to the tasks as ``ctx.resources``."""
        settings.pictures.mkdir(parents=True, exist_ok=True)
        yield settings

    async def keep_pace(ctx: Context[Settings], call_next: Next) -> object:
        """Let a person see a job at work: most of these tasks are done within milliseconds."""
        await asyncio.sleep(settings.pace.total_seconds())
        return await call_next(ctx)

    app = Windlass(
        url,
        lifespan=resources,
        capacity=settings.capacity,
        middleware=[keep_pace] if settings.pace else [],
    )
    for part in (mail, images, web, reports, to_watch):
        app.include(part.tasks)
    return app


def store_url(settings: Settings) -> str:
    """Where the jobs live: as WINDLASS_URL says, else in the service's folder."""
    if url := os.environ.get("WINDLASS_URL"):
        return url
    settings.folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{settings.folder / 'jobs.db'}"


settings = Settings.read()
app = build(settings, store_url(settings))

"""What all requests share, and the operations about the service itself: health, probes, counts.

``/livez`` says that the loop turns and touches nothing else, so that an orchestrator does not kill
the server because a disk is slow. ``/readyz`` says whether new work should come here. ``/health``
is for people.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import windlass
from windlass.control import FailureGroup
from windlass.errors import WindlassError
from windlass.job import JobFilter, Stats, WorkerInfo
from windlass.metrics import CONTENT_TYPE
from windlass.server.guard import Guard
from windlass.server.params import read_query
from windlass.server.problems import Problem, retry_after
from windlass.server.routes import Answer, Ask, Operation, Outcome
from windlass.server.shapes import FailureQuery
from windlass.server.stream import Feed
from windlass.server.views import (
    HealthView,
    IndexView,
    LiveView,
    StatsView,
    StoreView,
    TaskView,
    WorkerView,
    encode,
)

if TYPE_CHECKING:
    from windlass.app import Windlass

__all__ = ["MAX_WAITERS", "OPERATIONS", "MetricsSource", "Service"]

MAX_WAITERS = 1_000
"""Requests that wait for a job's end at one time; those beyond are answered at once."""

_STORE_SECONDS = 2.0


class MetricsSource(Protocol):
    """What ``/metrics`` shows: :class:`windlass.metrics.Metrics`, or another."""

    async def render(self, stats: Stats, workers: Sequence[WorkerInfo] = ()) -> bytes: ...


class Service:
    """One app as it is served: its guard, its event feed, and whether it is stopping."""

    def __init__(
        self,
        app: Windlass,
        guard: Guard,
        *,
        metrics: MetricsSource,
        readiness: Callable[[], list[str]] | None = None,
    ) -> None:
        self.app = app
        self.guard = guard
        self.feed = Feed(lambda: app.store)
        self.metrics = metrics
        self.waiters = 0
        self._readiness = readiness
        self._stopping = asyncio.Event()

    @property
    def draining(self) -> bool:
        return self._stopping.is_set()

    def drain(self) -> None:
        """Take no more changes, end all streams and waits, and turn ``/readyz`` red."""
        self._stopping.set()
        self.feed.close()

    async def until_draining(self) -> None:
        await self._stopping.wait()

    async def unready(self) -> list[str]:
        """Why no work should come here now; empty when it may."""
        if self.draining:
            return ["The server is shutting down."]
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                await self.app.open()
                await self.app.store.info()
        except TimeoutError:
            return [f"The store has not answered within {_STORE_SECONDS:g} seconds."]
        except WindlassError as error:
            return [str(error)]
        return [] if self._readiness is None else self._readiness()


async def show_index(ask: Ask) -> Answer:
    names = ("jobs", "queues", "workers", "limits", "failures", "stats", "tasks", "events", "health",
             "metrics", "openapi.json")  # fmt: skip
    links = {name.removesuffix(".json"): f"{ask.root}/{name}" for name in names}
    return Answer(encode(IndexView("windlass", windlass.__version__, links)))


async def show_health(ask: Ask) -> Answer:
    app = ask.service.app
    info = await app.store.info()
    stats = await app.control.stats()
    workers = await app.control.workers()
    return Answer(
        encode(
            HealthView(
                status="ok",
                version=windlass.__version__,
                store=StoreView.of(info),
                counts=StatsView.of(stats).counts,
                workers=len(workers),
            )
        )
    )


async def show_live(ask: Ask) -> Answer:
    return Answer(encode(LiveView()))


async def show_ready(ask: Ask) -> Answer:
    reasons = await ask.service.unready()
    if not reasons:
        return Answer(encode(LiveView()))
    try:
        # Anybody may ask; what is wrong inside is told to those who may know.
        ask.service.guard.check_token(ask.headers)
    except Problem:
        reasons = ["It is not: send the token to be told why."]
    raise Problem("not-ready", " ".join(reasons), headers=retry_after(2))


async def show_metrics(ask: Ask) -> Answer:
    control = ask.service.app.control
    body = await ask.service.metrics.render(await control.stats(), await control.workers())
    return Answer(body, content_type=CONTENT_TYPE)


async def show_stats(ask: Ask) -> Answer:
    return Answer(encode(StatsView.of(await ask.service.app.control.stats())))


async def list_workers(ask: Ask) -> Answer:
    workers = await ask.service.app.control.workers()
    return Answer(encode([WorkerView.of(worker) for worker in workers]))


async def list_failures(ask: Ask) -> Answer:
    query = read_query(FailureQuery, ask.query)
    where = JobFilter(type=frozenset(query.type), queue=frozenset(query.queue))
    return Answer(encode(await ask.service.app.control.failures(where)))


async def list_tasks(ask: Ask) -> Answer:
    return Answer(encode([TaskView.of(task) for task in ask.service.app.registry.tasks()]))


OPERATIONS = (
    Operation(
        "GET", "/", show_index, "Where everything is", {200: Outcome("Links.", IndexView)}
    ),
    Operation(
        "GET", "/health", show_health, "How the service is, and what its store can promise",
        {200: Outcome("The service is well.", HealthView)},
    ),
    Operation(
        "GET", "/livez", show_live, "Whether the process lives (never touches the store)",
        {200: Outcome("It does.", LiveView)}, public=True,
    ),
    Operation(
        "GET", "/readyz", show_ready, "Whether new work should come here",
        {200: Outcome("It should.", LiveView)}, ("not-ready",), public=True,
    ),
    Operation(
        "GET", "/metrics", show_metrics, "Metrics for Prometheus",
        {200: Outcome("Text format 0.0.4.", None, "text/plain")},
    ),
    Operation(
        "GET", "/stats", show_stats, "Counts by queue and type",
        {200: Outcome("The counts at one moment.", StatsView)},
    ),
    Operation(
        "GET", "/workers", list_workers, "The workers that live",
        {200: Outcome("Oldest first.", list[WorkerView])},
    ),
    Operation(
        "GET", "/failures", list_failures, "Failed jobs, grouped by what went wrong",
        {200: Outcome("Largest group first.", list[FailureGroup])},
        query=FailureQuery,
    ),
    Operation(
        "GET", "/tasks", list_tasks, "The tasks that can be enqueued, with their schemas",
        {200: Outcome("In the order of their declaration.", list[TaskView])},
    ),
)  # fmt: skip

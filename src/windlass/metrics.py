"""Prometheus metrics: counters and histograms from events, gauges from the store's counts.

:class:`Metrics` subscribes to an app's events and keeps what this process did; what the store knows
about all processes is read when somebody scrapes. Labels are bounded: task types by the registry, and
queues by number, because both can be named by callers. ``prometheus_client`` is imported by the first
:class:`Metrics`.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any

from windlass import __version__
from windlass.events import (
    AckStale,
    BackgroundFailed,
    EventBus,
    JobEnded,
    JobEnqueued,
    JobStarted,
    LoopStalled,
    StoreAnswered,
    StoreFailed,
)
from windlass.job import Job, Lane, Stats, Status, WorkerInfo

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OTHER = "other"
"""The label of whatever is unknown or too many."""
_MOST_QUEUES = 200
_RUN_BUCKETS = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600,
)  # fmt: skip
_WAIT_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 21600, 86400,
)  # fmt: skip
_STORE_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 10)
_WORKER_STATES = ("running", "quiet", "stopping", "stalled")


class Metrics:
    """Counts the events of one app. Safe to use from any thread.

    *types* answers the task types that are registered (others are counted as ``other``); None: any
    type is taken as it comes. A *registry* of the user's may be given to join his own metrics.
    """

    def __init__(
        self,
        events: EventBus,
        types: Callable[[], Iterable[str]] | None = None,
        *,
        registry: CollectorRegistry | None = None,
    ) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

        self.registry = registry if registry is not None else CollectorRegistry()
        self._types = types
        self._queues: set[str] = set()
        self._labels: dict[Lane, tuple[str, str]] = {}
        # One dictionary look-up per event: `labels()` itself costs as much as the rest together.
        self._children: dict[tuple[Any, ...], Any] = {}

        own = self.registry
        by_lane = ["queue", "task"]
        self._enqueued = Counter(
            "windlass_jobs_enqueued", "Jobs accepted by this process.", by_lane, registry=own
        )
        self._finished = Counter(
            "windlass_jobs_finished",
            "Runs that ended in this process, by what became of the job.",
            [*by_lane, "outcome"],
            registry=own,
        )
        self._run = Histogram(
            "windlass_job_run_seconds", "How long runs took.", by_lane, buckets=_RUN_BUCKETS,
            registry=own,
        )  # fmt: skip
        self._wait = Histogram(
            "windlass_job_wait_seconds", "From ready to started.", by_lane, buckets=_WAIT_BUCKETS,
            registry=own,
        )  # fmt: skip
        self._store_took = Histogram(
            "windlass_store_operation_seconds", "How long operations of the store took.",
            ["operation"], buckets=_STORE_BUCKETS, registry=own,
        )  # fmt: skip
        self._store_errors = Counter(
            "windlass_store_errors", "Store operations that failed.", ["operation"], registry=own
        )
        self._stale = Counter(
            "windlass_acks_stale",
            "Writes that were refused because the claim was no longer held.",
            ["operation"],
            registry=own,
        )
        self._stalls = Counter(
            "windlass_loop_stalls", "Times that a handler blocked the event loop.", registry=own
        )
        self._background = Counter(
            "windlass_background_failures", "Background functions that raised.", registry=own
        )
        build = Gauge(
            "windlass_build_info", "Always 1; the labels tell.", ["version", "python"], registry=own
        )
        build.labels(__version__, platform.python_version()).set(1)

        self._ends = [
            events.subscribe(JobEnqueued, self._on_enqueued),
            events.subscribe(JobStarted, self._on_started),
            events.subscribe(JobEnded, self._on_ended),
            events.subscribe(StoreAnswered, self._on_store_answered),
            events.subscribe(StoreFailed, self._on_store_failed),
            events.subscribe(AckStale, self._on_stale),
            events.subscribe(LoopStalled, lambda _: self._stalls.inc()),
            events.subscribe(BackgroundFailed, lambda _: self._background.inc()),
        ]

    def close(self) -> None:
        """Stop counting."""
        for end in self._ends:
            end()

    async def render(self, stats: Stats, workers: Sequence[WorkerInfo] | None = None) -> bytes:
        """Everything in the Prometheus text format, with what the store said just now.

        Without *workers* nothing is said of them.

        Made in a thread: thousands of series take longer than the event loop should stand still.
        """
        return await asyncio.to_thread(self._rendered, stats, workers)

    def _rendered(self, stats: Stats, workers: Sequence[WorkerInfo] | None) -> bytes:
        from prometheus_client import generate_latest

        own = self.registry.collect()
        snapshot = _Snapshot(chain(own, self._store_metrics(stats, workers)))
        return generate_latest(snapshot)

    # -------------------------------------------------------------- events

    def _on_enqueued(self, event: JobEnqueued) -> None:
        if not event.duplicate:
            self._child(self._enqueued, event.job).inc()

    def _on_started(self, event: JobStarted) -> None:
        self._child(self._wait, event.job).observe(_seconds(event.waited))

    def _on_ended(self, event: JobEnded) -> None:
        self._child(self._finished, event.job, event.outcome).inc()
        self._child(self._run, event.job).observe(_seconds(event.ran))

    def _on_store_answered(self, event: StoreAnswered) -> None:
        self._store_took.labels(event.operation).observe(event.took)

    def _on_store_failed(self, event: StoreFailed) -> None:
        self._store_errors.labels(event.operation).inc()

    def _on_stale(self, event: AckStale) -> None:
        self._stale.labels(event.operation).inc()

    def _child(self, metric: Any, job: Job, *more: str) -> Any:
        labels = (*self._bounded(job.lane), *more)
        key = (metric, *labels)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = metric.labels(*labels)
        return child

    # -------------------------------------------------------------- labels

    def _bounded(self, lane: Lane) -> tuple[str, str]:
        labels = self._labels.get(lane)
        if labels is None:
            queue, task = self._queue(lane.queue), self._task(lane.type)
            labels = queue, task
            # What is not known yet may be registered later; and unknown names are endless.
            if queue != OTHER and task != OTHER:
                self._labels[lane] = labels
        return labels

    def _queue(self, name: str) -> str:
        if name in self._queues:
            return name
        if len(self._queues) >= _MOST_QUEUES:
            return OTHER
        self._queues.add(name)
        return name

    def _task(self, name: str) -> str:
        if self._types is None:
            return name
        known: Container[str] = tuple(self._types())
        return name if name in known else OTHER

    # -------------------------------------------------------------- the store's view

    def _store_metrics(
        self, stats: Stats, workers: Sequence[WorkerInfo] | None
    ) -> Iterator[Metric]:
        from prometheus_client.metrics_core import GaugeMetricFamily

        counts: dict[tuple[str, str], int] = {}
        oldest: dict[str, float] = {}
        for lane in stats.lanes:
            queue = self._queue(lane.queue)
            for status in Status:
                key = queue, status.value
                counts[key] = counts.get(key, 0) + lane.counts.get(status, 0)
            ready = lane.oldest_ready_at
            age = 0.0 if ready is None else max(0.0, _seconds(stats.at - ready))
            oldest[queue] = max(age, oldest.get(queue, 0.0))

        jobs = GaugeMetricFamily(
            "windlass_jobs", "Jobs in the store, by status.", labels=["queue", "state"]
        )
        for (queue, state), count in sorted(counts.items()):
            jobs.add_metric([queue, state], count)
        yield jobs

        ages = GaugeMetricFamily(
            "windlass_queue_oldest_age_seconds",
            "How long the oldest pending job has been waiting.",
            labels=["queue"],
        )
        for queue, age in sorted(oldest.items()):
            ages.add_metric([queue], age)
        yield ages

        if workers is None:
            return
        slots = GaugeMetricFamily(
            "windlass_worker_slots", "Slots of all workers.", labels=["state"]
        )
        busy = sum(worker.busy for worker in workers)
        slots.add_metric(["busy"], busy)
        slots.add_metric(["free"], max(0, sum(worker.slots for worker in workers) - busy))
        yield slots

        alive = GaugeMetricFamily("windlass_workers", "Workers, by state.", labels=["state"])
        for state in _WORKER_STATES:
            alive.add_metric([state], sum(worker.state == state for worker in workers))
        yield alive


class _Snapshot:
    """What one scrape found, in the shape that ``generate_latest`` reads.

    Without the ``_created`` series that the library adds: a third of all, and of no use here.
    """

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        for metric in self._metrics:
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


def _seconds(span: timedelta) -> float:
    return span.total_seconds()

"""Metrics: what is counted, that labels stay few, and what a scrape shows of the store."""

from __future__ import annotations

import subprocess
import sys

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.control.scene import Scene
from tests.observability.facts import W1, a_job, ended, enqueued, started
from windlass.events import AckStale, BackgroundFailed, EventBus, JobEnded, StoreFailed
from windlass.job import Status
from windlass.metrics import Metrics


class Scrape:
    """Samples of one rendering: by name, then by label values."""

    def __init__(self, text: bytes) -> None:
        self.families = list(text_string_to_metric_families(text.decode()))
        self.samples = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, *labels: str) -> float | None:
        return self.samples.get((f"windlass_{name}", *sorted(labels)))


async def scrape(metrics: Metrics, scene: Scene | None = None) -> Scrape:
    scene = scene or Scene()
    return Scrape(await metrics.render(await scene.store.stats(), await scene.store.workers()))


async def test_the_life_of_jobs_is_counted_by_queue_task_and_outcome() -> None:
    events = EventBus()
    metrics = Metrics(events)
    for _ in range(2):
        events.emit(enqueued())
        events.emit(started())
    events.emit(enqueued(duplicate=True))
    events.emit(ended())
    events.emit(ended(Status.FAILED, error="boom"))
    events.emit(ended(Status.SCHEDULED, error="boom"))

    got = await scrape(metrics)

    assert got("jobs_enqueued_total", "mail", "email") == 2
    assert got("jobs_finished_total", "mail", "email", "completed") == 1
    assert got("jobs_finished_total", "mail", "email", "failed") == 1
    assert got("jobs_finished_total", "mail", "email", "retried") == 1
    assert got("job_run_seconds_count", "mail", "email") == 3
    assert got("job_run_seconds_sum", "mail", "email") == 0.75
    assert got("job_wait_seconds_sum", "mail", "email") == 4


async def test_troubles_are_counted() -> None:
    events = EventBus()
    metrics = Metrics(events)
    events.emit(StoreFailed("claim", "disk"))
    events.emit(AckStale(a_job().id, W1, "ack"))
    events.emit(BackgroundFailed("x", "y", "z"))

    got = await scrape(metrics)

    assert got("store_errors_total", "claim") == 1
    assert got("acks_stale_total", "ack") == 1
    assert got("background_failures_total") == 1
    assert got("loop_stalls_total") == 0


async def test_unknown_types_are_counted_as_other_until_they_are_registered() -> None:
    events, known = EventBus(), ["email"]
    metrics = Metrics(events, lambda: known)
    events.emit(enqueued())
    for n in range(50):
        events.emit(enqueued(a_job(f"made-up-{n}")))
    events.emit(enqueued(a_job("later")))
    known.append("later")
    events.emit(enqueued(a_job("later")))

    got = await scrape(metrics)

    assert got("jobs_enqueued_total", "mail", "email") == 1
    assert got("jobs_enqueued_total", "mail", "other") == 51
    assert got("jobs_enqueued_total", "mail", "later") == 1


async def test_queues_beyond_many_are_counted_together() -> None:
    events = EventBus()
    metrics = Metrics(events)
    for n in range(1000):
        events.emit(enqueued(a_job(queue=f"q{n}")))

    got = await scrape(metrics)

    series = [key for key in got.samples if key[0] == "windlass_jobs_enqueued_total"]
    assert len(series) == 201
    assert got("jobs_enqueued_total", "other", "email") == 800


async def test_a_scrape_shows_what_the_store_holds_now() -> None:
    scene = Scene()
    metrics = Metrics(EventBus())
    await scene.worker(slots=10, busy=3)
    for _ in range(3):
        await scene.job(queue="mail")
    scene.later(90)
    await scene.worker(slots=10, busy=3)
    await scene.claim()

    got = await scrape(metrics, scene)
    await scene.control.cancel([(await scene.job()).id])
    after = await scrape(metrics, scene)

    assert got("jobs", "mail", "pending") == 2
    assert got("jobs", "mail", "processing") == 1
    assert got("jobs", "mail", "failed") == 0
    assert got("queue_oldest_age_seconds", "mail") == 90
    assert got("worker_slots", "busy") == 3
    assert got("worker_slots", "free") == 7
    assert got("workers", "running") == 1
    assert after("jobs", "default", "cancelled") == 1


async def test_names_follow_the_conventions() -> None:
    events = EventBus()
    metrics = Metrics(events)
    for event in (enqueued(), started(), ended()):
        events.emit(event)

    got = await scrape(metrics)

    for family in got.families:
        assert family.name.startswith("windlass_")
        assert family.documentation.endswith((".", "tell."))
        for sample in family.samples:
            assert "id" not in sample.labels
            assert not sample.name.endswith(("_ms", "_milliseconds"))
    assert [s for s in got.samples if s[0] == "windlass_build_info"]


async def test_two_apps_in_one_process_do_not_share_counts() -> None:
    one, two = EventBus(), EventBus()
    first, second = Metrics(one), Metrics(two)
    one.emit(enqueued())

    assert (await scrape(first))("jobs_enqueued_total", "mail", "email") == 1
    assert (await scrape(second))("jobs_enqueued_total", "mail", "email") is None


async def test_closed_metrics_count_no_more() -> None:
    events = EventBus()
    metrics = Metrics(events)
    metrics.close()

    assert not events.wants(JobEnded)


def test_the_library_is_imported_when_metrics_are_made_and_not_before() -> None:
    code = "import sys, windlass.metrics; sys.exit('prometheus_client' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("status", list(Status))
async def test_every_end_of_a_run_has_an_outcome(status: Status) -> None:
    event = msgspec.structs.replace(ended(), status=status)

    assert event.outcome

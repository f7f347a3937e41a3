"""``why``: for every reason a job can have not to run, a sentence that names it."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from tests.control.scene import Scene, Snoozed
from windlass.job import Failure, JobFilter, Limit, Status
from windlass.lifecycle import Expired
from windlass.limits import Rate
from windlass.why import Ahead, Situation, explain, span


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.worker()
    return scene


async def test_nothing_in_the_way(scene: Scene) -> None:
    job = await scene.job()

    assert await scene.why(job) == (
        "Nothing holds it back: a worker should take it within a second."
    )


async def test_scheduled_by_its_caller(scene: Scene) -> None:
    job = await scene.job(delay=timedelta(minutes=5))

    why = await scene.control.why(job.id)

    assert why.sentence == "It is scheduled: it waits until 00:05:00 UTC (in 5 min)."
    assert why.next_step == f"To run it now: windlass retry {job.id}"


async def test_scheduled_for_another_day_names_the_date(scene: Scene) -> None:
    job = await scene.job(delay=timedelta(days=2, hours=1))

    assert "2026-01-03 01:00 UTC (in 2 d 1 h)" in await scene.why(job)


async def test_waiting_for_a_retry_names_attempt_and_error(scene: Scene) -> None:
    await scene.job(max_attempts=4)
    (claimed,) = await scene.claim()
    job = await scene.fail(claimed, "no route\nto host", retry=True)

    assert await scene.why(job) == (
        "It waits for a retry until 00:00:02 UTC (in 2 s): "
        "attempt 1 of 4 failed with ValueError: no route."
    )


async def test_put_off_by_its_task(scene: Scene) -> None:
    await scene.job()
    (claimed,) = await scene.claim()
    job = await scene.end(claimed, Snoozed(timedelta(hours=2)))

    assert await scene.why(job) == "Its task put it off until 02:00:00 UTC (in 2 h)."


async def test_put_off_by_its_task_after_an_earlier_failure(scene: Scene) -> None:
    await scene.job()
    (claimed,) = await scene.claim()
    await scene.fail(claimed, retry=True)
    scene.later(10)
    await scene.store.promote(10)
    (again,) = await scene.claim()
    job = await scene.end(again, Snoozed(timedelta(hours=2)))

    assert "put it off" in await scene.why(job)


async def test_waiting_after_its_worker_died(scene: Scene) -> None:
    await scene.job()
    (claimed,) = await scene.claim()
    job = await scene.end(claimed, Expired(Failure(1, "lost", "WorkerLost", "gone")))

    assert "The worker that ran it died" in await scene.why(job)


async def test_due_with_nobody_to_notice() -> None:
    scene = Scene()
    job = await scene.job(delay=timedelta(seconds=5))
    scene.later(10)

    why = await scene.control.why(job.id)

    assert "no worker is running to notice" in why.sentence
    assert why.next_step == "Start a worker: windlass worker"


async def test_scheduled_into_a_paused_queue_tells_both(scene: Scene) -> None:
    job = await scene.job(delay=timedelta(minutes=5))
    await scene.control.pause("default")

    why = await scene.control.why(job.id)

    assert why.sentence.startswith("It is scheduled")
    assert "Queue 'default' is paused." in why.details


async def test_paused_queue_with_its_reason(scene: Scene) -> None:
    job = await scene.job()
    await scene.control.pause("default", reason="provider down")

    why = await scene.control.why(job.id)

    assert why.sentence == "Queue 'default' is paused (provider down)."
    assert why.next_step == "To let it go on: windlass queues resume default"


async def test_no_worker_at_all() -> None:
    scene = Scene()
    job = await scene.job()

    why = await scene.control.why(job.id)

    assert why.sentence == "No worker is running."
    assert why.next_step == "Start a worker: windlass worker"


async def test_workers_but_none_knows_the_type(scene: Scene) -> None:
    job = await scene.job("emial")

    why = await scene.control.why(job.id)

    assert why.sentence == (
        "It is parked: none of the workers knows task type 'emial'; "
        "they know 'email'. Near: 'email'."
    )
    assert why.next_step is not None
    assert "alias" in why.next_step


async def test_no_worker_serves_its_queue() -> None:
    scene = Scene()
    await scene.worker(queues=("a", "b"))
    job = await scene.job(queue="c")

    why = await scene.control.why(job.id)

    assert why.sentence == ("No worker serves queue 'c': those that run (1) serve only 'a', 'b'.")
    assert why.next_step == "Start a worker for it: windlass worker --queues c"


async def test_the_workers_of_its_queue_do_not_know_its_type() -> None:
    scene = Scene()
    await scene.worker("w1", queues=("a",), types=("email",))
    await scene.worker("w2", queues=("b",), types=("report",))
    job = await scene.job("report", queue="a")

    assert "none of the workers that serve queue 'a' knows task type 'report'" in (
        await scene.why(job)
    )


async def test_workers_that_take_nothing_new() -> None:
    scene = Scene()
    await scene.worker(state="stopping")
    job = await scene.job()

    assert "take no new jobs: w1 (box, process 7) is stopping" in await scene.why(job)


async def test_all_slots_busy() -> None:
    scene = Scene()
    await scene.worker(slots=2, busy=2)
    await scene.job(priority=5)
    job = await scene.job()

    assert await scene.why(job) == (
        "All 2 slots of the 1 worker that can run it are busy. 1 job comes first."
    )


@pytest.mark.parametrize(("scope", "name"), [("queue", "default"), ("type", "email")])
async def test_concurrency_limit_reached(scene: Scene, scope: str, name: str) -> None:
    limit = msgspec.convert({"scope": scope, "name": name, "concurrency": 1}, Limit)
    await scene.control.set_limit(limit)
    await scene.job()
    await scene.claim()
    job = await scene.job()

    sentence = await scene.why(job)

    assert name in sentence
    assert "is at its concurrency limit: 1 of at most 1 are running." in sentence


async def test_rate_limit_names_pace_and_turn(scene: Scene) -> None:
    await scene.control.set_limit(Limit(scope="queue", name="default", rate=Rate(6, 60.0)))
    await scene.job()
    await scene.claim()
    await scene.job()
    job = await scene.job()

    assert await scene.why(job) == (
        "Queue 'default' has a rate limit of 6/60s: one may start every 10 s and 1 job comes first, "
        "so its turn comes until about 00:00:20 UTC (in 20 s)."
    )


async def test_jobs_ahead_of_it_by_rank(scene: Scene) -> None:
    for _ in range(3):
        await scene.job(priority=10)
    await scene.job(queue="other", priority=10)
    job = await scene.job()
    await scene.job()

    assert await scene.why(job) == "It is in line: 3 jobs of its queue come first."


async def test_a_suspect_waits_for_quarantine(scene: Scene) -> None:
    await scene.job()
    for _ in range(2):
        (claimed,) = await scene.claim()
        await scene.end(claimed, Expired(Failure(1, "lost", "WorkerLost", "gone")))
        scene.later(5)
        await scene.store.promote(10)
    (job,) = (await scene.control.find(JobFilter())).jobs

    assert job.status is Status.PENDING
    assert "It is a suspect: workers died with it 2 times" in await scene.why(job)


async def test_processing_since_when_and_where(scene: Scene) -> None:
    await scene.job(timeout=timedelta(minutes=1))
    (job,) = await scene.claim()
    scene.later(3)
    await scene.store.progress(job.claim, 0.5, "half way")

    why = await scene.control.why(job.id)

    assert why.sentence == (
        "It has been running since 00:00:00 UTC (3 s ago) on worker w1 (box, process 7), "
        "attempt 1 of 15."
    )
    assert why.details == ["Progress 50%: half way.", "It times out at 00:01:00 UTC (in 57 s)."]
    assert why.next_step == f"To end it: windlass cancel {job.id}"


async def test_cancellation_requested_of_a_running_job(scene: Scene) -> None:
    await scene.job()
    (job,) = await scene.claim()
    await scene.control.cancel([job.id])

    assert "Its cancellation was requested" in await scene.why(job)


async def test_running_on_a_worker_that_is_silent_or_gone(scene: Scene) -> None:
    await scene.job()
    (job,) = await scene.claim()
    scene.later(60)

    silent = await scene.control.why(job.id)
    (worker,) = await scene.store.workers()
    await scene.store.leave(worker.id, died=True)
    gone = await scene.control.why(job.id)

    assert "has not been heard of for 1 min" in silent.sentence
    assert "is gone" in gone.sentence
    assert silent.next_step == "Start another worker: windlass worker"
    assert gone.next_step == "Start a worker: windlass worker"


async def test_final_states_name_the_reason_and_the_way_back(scene: Scene) -> None:
    failed = await scene.failed("bad address")
    cancelled = await scene.job()
    await scene.control.cancel([cancelled.id], reason="not wanted")

    why = await scene.control.why(failed.id)

    assert why.sentence == "It failed at 00:00:00 UTC (0 s ago): discarded by the task."
    assert "Last error (attempt 1): ValueError: bad address" in why.details
    assert why.next_step == f"To run it again: windlass retry {failed.id}"
    assert (await scene.why(cancelled)).endswith(": not wanted.")


async def test_expired_and_not_yet_swept(scene: Scene) -> None:
    job = await scene.job(expires=timedelta(seconds=1))
    scene.later(5)

    assert "It expired at 00:00:01 UTC (4 s ago)" in await scene.why(job)


async def test_every_status_has_an_answer(scene: Scene) -> None:
    job = await scene.job()
    stats = await scene.store.stats()

    for status in Status:
        changed = msgspec.structs.replace(job, status=status)
        why = explain(Situation(job=changed, stats=stats, ahead=Ahead(5000, exact=False)))
        assert why.sentence.endswith(".")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (1.25, "1.2 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (7_200, "2 h"),
        (90_061, "1 d 1 h"),
    ],
)
def test_spans_are_short(seconds: float, text: str) -> None:
    assert span(timedelta(seconds=seconds)) == text

"""Finding, cancelling, retrying and grouping jobs, one by one and in bulk."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.control.scene import Returned, Scene
from windlass.errors import ConfigError, JobNotFound
from windlass.job import (
    JobFilter,
    JobId,
    JobOptions,
    Limit,
    LogLine,
    NewJob,
    Retention,
    Status,
    Unique,
)


@pytest.fixture
async def scene() -> Scene:
    scene = Scene()
    await scene.worker()
    return scene


async def test_a_job_is_found_by_its_id_and_by_the_end_of_it(scene: Scene) -> None:
    job = await scene.job()

    assert (await scene.control.get(job.id)).id == job.id
    assert (await scene.control.get(job.id[-6:])).id == job.id
    assert (await scene.control.get(f" {job.id.upper()} ")).id == job.id


@pytest.mark.parametrize("name", ["ffffffff", "not-an-id", "00000000-0000-7000-8000-ffffffffffff"])
async def test_a_job_that_is_not_there_is_said_so(scene: Scene, name: str) -> None:
    with pytest.raises(JobNotFound, match="never was, or it was pruned"):
        await scene.control.get(name)


async def test_a_suffix_that_fits_several_jobs_lists_them(scene: Scene) -> None:
    ids = [JobId(f"{n}0000000-0000-7000-8000-0000abcdef01") for n in range(2)]
    await scene.store.insert([NewJob(each, "email", b"{}", JobOptions()) for each in ids])

    with pytest.raises(ConfigError, match=r"fits several jobs: .*Give more characters"):
        await scene.control.get("abcdef01")


async def test_a_suffix_that_is_too_short_is_refused(scene: Scene) -> None:
    job = await scene.job()

    with pytest.raises(ConfigError, match="at least the last 6"):
        await scene.control.get(job.id[-5:])


async def test_cancel_by_ids_tells_what_was_skipped_and_why(scene: Scene) -> None:
    running = await scene.job()
    await scene.claim()
    waiting = await scene.job()
    missing = JobId("00000000-0000-7000-8000-ffffffffffff")
    done = await scene.job()
    await scene.store.cancel([done.id], reason="before")

    answer = await scene.control.cancel([running.id, waiting.id, done.id, missing, waiting.id])

    assert (answer.matched, answer.changed) == (4, 2)
    assert answer.ids == [running.id, waiting.id]
    assert answer.skipped == {"already cancelled": 1, "not found": 1}
    assert (await scene.control.get(running.id)).cancel_requested
    assert (await scene.control.get(waiting.id)).reason == "cancelled by an operator"


async def test_a_dry_run_says_the_same_and_changes_nothing(scene: Scene) -> None:
    jobs = [await scene.job() for _ in range(3)]

    dry = await scene.control.cancel(JobFilter(), dry_run=True)
    still = [(await scene.control.get(job.id)).status for job in jobs]
    wet = await scene.control.cancel(JobFilter())

    assert dry.dry_run
    assert still == [Status.PENDING] * 3
    assert (dry.matched, dry.changed, dry.ids) == (wet.matched, wet.changed, wet.ids)


async def test_bulk_goes_through_more_jobs_than_one_page_and_stops_at_its_limit(
    scene: Scene,
) -> None:
    for _ in range(1203):
        await scene.job(queue="many")
    await scene.job(queue="other")

    some = await scene.control.cancel(JobFilter(queue=frozenset({"many"})), limit=700)
    rest = await scene.control.cancel(JobFilter(queue=frozenset({"many"})))

    assert (some.matched, some.changed) == (700, 700)
    assert (rest.matched, rest.changed) == (503, 503)
    assert (await scene.control.stats()).count(Status.PENDING) == 1


async def test_retry_without_a_status_redrives_the_failed_and_nothing_else(scene: Scene) -> None:
    failed = [await scene.failed() for _ in range(2)]
    cancelled = await scene.job()
    await scene.control.cancel([cancelled.id])

    answer = await scene.control.retry(JobFilter())

    assert (answer.matched, answer.changed) == (2, 2)
    assert {(await scene.control.get(job.id)).status for job in failed} == {Status.PENDING}
    assert (await scene.control.get(cancelled.id)).status is Status.CANCELLED


async def test_retry_skips_what_runs_or_waits_already(scene: Scene) -> None:
    running = await scene.job()
    await scene.claim()
    waiting = await scene.job()

    answer = await scene.control.retry([running.id, waiting.id])

    assert answer.changed == 0
    assert answer.skipped == {"processing": 1, "pending": 1}


async def test_retry_says_when_the_unique_key_is_taken(scene: Scene) -> None:
    first = await scene.job(unique=Unique("k"))
    await scene.control.cancel([first.id])
    await scene.job(unique=Unique("k"))

    answer = await scene.control.retry([first.id])

    assert answer.skipped == {"key taken": 1}


async def test_failures_are_grouped_by_type_error_and_place(scene: Scene) -> None:
    trace = (
        'Traceback (most recent call last):\n  File "/lib/x.py", line 3, in outer\n    inner()\n'
    )
    here = trace + '  File "/app/mail.py", line 12, in send\n    raise ValueError\nValueError: a'
    for n in range(7):
        await scene.failed(f"user {n}", traceback=here)
        scene.later(60)
    await scene.failed("no traceback\nsecond line")

    large, small = await scene.control.failures()

    assert (large.type, large.error, large.where) == (
        "email",
        "ValueError",
        "/app/mail.py:12 in send",
    )
    assert (large.count, large.message, len(large.ids)) == (7, "user 6", 5)
    assert large.first is not None
    assert large.last is not None
    assert large.last - large.first == timedelta(minutes=6)
    assert (small.where, small.count) == ("no traceback", 1)


async def test_pause_resume_limits_and_prune_reach_the_store(scene: Scene) -> None:
    job = await scene.job(queue="mail")
    await scene.control.pause("mail", reason="provider down")
    await scene.control.set_limit(Limit(scope="queue", name="mail", concurrency=2))

    (queue,) = [each for each in await scene.control.queues() if each.name == "mail"]
    (limit,) = [each for each in await scene.control.limits() if each.name == "mail"]

    assert (queue.paused, queue.reason) == (True, "provider down")
    assert (limit.concurrency, limit.operator) == (2, True)
    await scene.control.resume("mail")
    assert not (await scene.control.queues())[0].paused
    await scene.control.cancel([job.id])
    scene.later(8 * 86_400)
    assert await scene.control.prune(Retention()) == 1


async def test_logs_are_told_in_order(scene: Scene) -> None:
    await scene.job()
    (job,) = await scene.claim()
    await scene.store.log(job.claim, [LogLine("info", "one", 1), LogLine("error", "two", 1)])
    await scene.end(job, Returned())

    assert [line.message for line in await scene.control.logs(job.id)] == ["one", "two"]

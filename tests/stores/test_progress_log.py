"""``progress``, ``log`` and ``logs``: what a running task leaves behind while it runs."""

import pytest
from msgspec.structs import replace

from tests.stores.support import (
    HOUR,
    SECOND,
    all_jobs,
    claim_one,
    end,
    get_one,
    job_in,
    line,
    new_id,
    new_token,
    start_one,
)
from windlass.clock import FakeClock
from windlass.job import Claim, Status
from windlass.lifecycle import Interrupted, Returned
from windlass.store import Store

OTHERS = [status for status in Status if status is not Status.PROCESSING]


async def test_the_holder_notes_progress(store: Store) -> None:
    job = await start_one(store)

    noted = await store.progress(job.claim, 0.25, "☃ a quarter")

    assert noted is True
    after = await get_one(store, job.id)
    assert after == replace(job, progress=0.25, note="☃ a quarter")


async def test_what_is_not_said_stays_as_it_was(store: Store) -> None:
    job = await start_one(store)
    await store.progress(job.claim, 0.25, "rendering")

    await store.progress(job.claim, 0.5, None)
    by_fraction = await get_one(store, job.id)
    await store.progress(job.claim, None, "packing")
    by_note = await get_one(store, job.id)

    assert (by_fraction.progress, by_fraction.note) == (0.5, "rendering")
    assert (by_note.progress, by_note.note) == (0.5, "packing")


async def test_progress_stays_readable_when_the_job_has_ended(store: Store) -> None:
    job = await start_one(store)
    await store.progress(job.claim, 1.0, "all sent")

    job = await end(store, job, Returned())

    assert (job.progress, job.note) == (1.0, "all sent")


async def test_lines_are_kept_in_order_with_the_stores_time(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)

    assert await store.log(job.claim, [line("one"), line("two ☃", "warning")]) is True
    clock.advance(SECOND)
    assert await store.log(job.claim, [line("three")]) is True

    lines = await store.logs(job.id)
    assert [(each.level, each.message) for each in lines] == [
        ("info", "one"), ("warning", "two ☃"), ("info", "three"),
    ]  # fmt: skip
    assert [each.at for each in lines] == [clock.now() - SECOND, clock.now() - SECOND, clock.now()]
    assert [each.seq for each in lines] == sorted({each.seq for each in lines})


async def test_logs_are_read_on_from_where_one_was(store: Store) -> None:
    job = await start_one(store)
    await store.log(job.claim, [line(str(number)) for number in range(10)])

    first = await store.logs(job.id, limit=4)
    rest = await store.logs(job.id, after=first[-1].seq)

    assert [each.message for each in first + rest] == [str(number) for number in range(10)]
    assert await store.logs(job.id, after=rest[-1].seq) == []


async def test_the_last_thousand_lines_are_kept(store: Store) -> None:
    job = await start_one(store)
    for start in range(0, 1_500, 300):
        await store.log(job.claim, [line(str(start + number)) for number in range(300)])

    lines = await store.logs(job.id, limit=5_000)

    assert [each.message for each in lines] == [str(number) for number in range(500, 1_500)]
    assert [each.seq for each in lines] == [*range(501, 1_501)]


async def test_lines_of_all_runs_stay_together(store: Store) -> None:
    job = await start_one(store)
    await store.log(job.claim, [line("first run")])
    await end(store, job, Interrupted())
    job = await claim_one(store)

    await store.log(job.claim, [replace(line("second run"), attempt=2)])
    await end(store, job, Returned())

    lines = await store.logs(job.id)
    assert [(each.message, each.attempt) for each in lines] == [("first run", 1), ("second run", 2)]


async def test_each_job_has_its_own_lines(store: Store) -> None:
    one = await start_one(store)
    two = await start_one(store)
    await store.log(one.claim, [line("of one")])
    await store.log(two.claim, [line("of two")])

    assert [each.message for each in await store.logs(two.id)] == ["of two"]
    assert await store.logs(new_id()) == []


async def test_no_lines_are_no_change(store: Store) -> None:
    job = await start_one(store)

    assert await store.log(job.claim, []) is True
    assert await store.logs(job.id) == []


async def test_another_token_writes_nothing(store: Store) -> None:
    job = await start_one(store)
    stranger = Claim(job.id, new_token())

    assert await store.progress(stranger, 0.5, "mine") is False
    assert await store.log(stranger, [line("mine")]) is False
    assert await get_one(store, job.id) == job
    assert await store.logs(job.id) == []


@pytest.mark.parametrize("status", OTHERS)
async def test_a_job_that_is_not_processing_takes_no_writes(store: Store, status: Status) -> None:
    job = await job_in(store, status)
    claim = Claim(job.id, job.token or new_token())

    assert await store.progress(claim, 0.5, "late") is False
    assert await store.log(claim, [line("late")]) is False
    assert await all_jobs(store) == [job]
    assert await store.logs(job.id) == []


async def test_a_job_that_is_not_there_takes_no_writes(store: Store) -> None:
    nowhere = Claim(new_id(), new_token())

    assert await store.progress(nowhere, 0.5, None) is False
    assert await store.log(nowhere, [line("lost")]) is False


async def test_writes_change_nothing_else(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)
    clock.advance(HOUR)

    await store.log(job.claim, [line("a")])
    await store.progress(job.claim, 0.5, None)

    assert await get_one(store, job.id) == replace(job, progress=0.5)

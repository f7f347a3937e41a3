"""What people do: cancel, retry, prune, pause, limits; and what they see: stats, queues, workers."""

import asyncio
from datetime import timedelta

import pytest

from tests.stores.support import (
    EVERYTHING,
    HOUR,
    LOST,
    MINUTE,
    SECOND,
    Place,
    ack,
    ack_with,
    all_jobs,
    claim,
    claim_one,
    end,
    get_one,
    insert_one,
    job_in,
    line,
    new_id,
    new_job,
    queue_limit,
    raised,
    register,
    start_one,
    type_limit,
)
from windlass.clock import FakeClock
from windlass.job import FINAL, WAITING, Lane, Retention, Stats, Status, Unique
from windlass.lifecycle import Change, Returned
from windlass.limits import Rate
from windlass.store import Retried, Store

DAY = timedelta(days=1)

# ---------------------------------------------------------------- cancel


@pytest.mark.parametrize("status", sorted(WAITING))
async def test_a_waiting_job_is_cancelled_with_the_reason(
    store: Store, clock: FakeClock, status: Status
) -> None:
    job = await job_in(store, status, unique=Unique("k"))
    clock.advance(SECOND)

    [answer] = await store.cancel([job.id], reason="not needed ☃")

    assert answer == await get_one(store, job.id)
    assert (answer.status, answer.reason) == (Status.CANCELLED, "not needed ☃")
    assert (answer.finished_at, answer.unique_key) == (clock.now(), None)
    assert await claim(store, 10) == []


async def test_a_running_job_is_asked_to_end(store: Store) -> None:
    job = await start_one(store, unique=Unique("k"))

    [answer] = await store.cancel([job.id], reason="operator")

    assert answer == await get_one(store, job.id)
    assert (answer.status, answer.cancel_requested) == (Status.PROCESSING, True)
    assert (answer.token, answer.unique_key, answer.finished_at) == (job.token, "k", None)
    assert await store.cancel([job.id], reason="again") == [answer]


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_an_ended_job_is_left_alone(store: Store, status: Status) -> None:
    job = await job_in(store, status)

    assert await store.cancel([job.id], reason="late") == [job]
    assert await get_one(store, job.id) == job


async def test_a_job_waiting_for_its_retry_is_cancelled_and_keeps_its_errors(store: Store) -> None:
    job = await end(store, await start_one(store), raised())

    [cancelled] = await store.cancel([job.id], reason="operator")

    assert cancelled is not None
    assert (cancelled.status, cancelled.failures, cancelled.token) == (Status.CANCELLED, 1, None)
    assert cancelled.errors == job.errors


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.PENDING])
async def test_a_key_chosen_for_cancelled_jobs_outlives_the_cancellation(
    store: Store, status: Status
) -> None:
    job = await job_in(store, status, unique=Unique("k", WAITING | {Status.CANCELLED}))

    await store.cancel([job.id], reason="operator")

    assert (await get_one(store, job.id)).unique_key == "k"
    assert (await store.insert([new_job(unique=Unique("k"))]))[0].duplicate


async def test_cancel_answers_in_order_with_gaps(store: Store) -> None:
    one, two = await insert_one(store), await insert_one(store, delay=HOUR)

    answers = await store.cancel([two.id, new_id(), one.id, two.id], reason="operator")

    assert [answer and answer.id for answer in answers] == [two.id, None, one.id, two.id]
    assert {job.status for job in await all_jobs(store)} == {Status.CANCELLED}
    assert await store.cancel([], reason="operator") == []


# ---------------------------------------------------------------- retry


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_a_retry_opens_a_new_generation(
    store: Store, clock: FakeClock, status: Status
) -> None:
    job = await job_in(store, status, unique=Unique("k"), expires=MINUTE)
    clock.advance(HOUR)

    [answer] = await store.retry([job.id])

    after = await get_one(store, job.id)
    assert answer == Retried(job.id, after)
    assert (after.status, after.ready_at, after.generation) == (Status.PENDING, clock.now(), 1)
    assert (after.failures, after.crashes, after.charges, after.token) == (0, 0, 0, None)
    assert (after.result, after.reason, after.finished_at) == (None, None, None)
    assert (after.cancel_requested, after.expires_at, after.unique_key) == (False, None, "k")
    assert (after.errors, after.created_at, after.fence) == (job.errors, job.created_at, 1)
    assert (await claim_one(store)).fence == 2


async def test_a_retry_starts_counting_anew(store: Store) -> None:
    job = await start_one(store)
    await store.progress(job.claim, 0.7, "seventy")
    await store.cancel([job.id], reason="operator")
    change = Change(Status.FAILED, failure=LOST, counted=True, crashed=True, charged=True)
    await ack(store, ack_with(job, change, change))

    await store.retry([job.id])

    after = await get_one(store, job.id)
    assert (after.failures, after.crashes, after.charges) == (0, 0, 0)
    assert (after.cancel_requested, after.progress, after.note) == (False, None, None)
    assert len(after.errors) == 1


async def test_a_retry_of_what_expired_gives_it_all_the_time(
    store: Store, clock: FakeClock
) -> None:
    job = await insert_one(store, expires=MINUTE)
    clock.advance(MINUTE)
    await store.promote(EVERYTHING)

    [retried] = await store.retry([job.id])
    clock.advance(DAY)

    assert retried.job is not None
    assert (retried.job.status, retried.job.expires_at) == (Status.PENDING, None)
    assert (await store.promote(EVERYTHING)).expired == 0
    assert (await claim_one(store)).id == job.id


async def test_a_retry_hurries_a_scheduled_job(store: Store, clock: FakeClock) -> None:
    held = await start_one(store)
    change = Change(Status.SCHEDULED, delay=HOUR, failure=LOST, counted=True, crashed=True)
    await ack(store, ack_with(held, change))
    clock.advance(SECOND)

    [answer] = await store.retry([held.id])

    after = await get_one(store, held.id)
    assert answer == Retried(held.id, after)
    assert (after.status, after.ready_at, after.generation) == (Status.PENDING, clock.now(), 0)
    assert (after.failures, after.crashes, after.token) == (1, 1, None)


async def test_a_scheduled_job_that_is_hurried_expires_no_more(
    store: Store, clock: FakeClock
) -> None:
    job = await insert_one(store, delay=HOUR, expires=MINUTE)

    await store.retry([job.id])
    clock.advance(DAY)

    assert (await store.promote(EVERYTHING)).expired == 0
    assert (await claim_one(store)).id == job.id


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.PENDING])
async def test_what_runs_or_may_run_is_skipped(store: Store, status: Status) -> None:
    job = await job_in(store, status)

    [answer] = await store.retry([job.id])

    assert (answer.id, answer.skipped) == (job.id, status.value)
    assert await get_one(store, job.id) == job


async def test_a_job_that_is_not_there_is_skipped(store: Store) -> None:
    nowhere = new_id()

    assert await store.retry([nowhere]) == [Retried(nowhere, None, "not found")]


async def test_a_job_whose_key_another_holds_is_skipped(store: Store) -> None:
    job = await job_in(store, Status.FAILED, unique=Unique("k"))
    await insert_one(store, unique=Unique("k"))

    [answer] = await store.retry([job.id])

    assert answer.skipped == "key taken"
    assert await get_one(store, job.id) == job


async def test_of_two_retried_with_one_key_the_first_gets_it(store: Store) -> None:
    one = await job_in(store, Status.FAILED, unique=Unique("k"))
    two = await job_in(store, Status.CANCELLED, unique=Unique("k"))

    answers = await store.retry([one.id, two.id, one.id])

    assert [answer.skipped for answer in answers] == [None, "key taken", "pending"]


async def test_capacity_does_not_hinder_a_retry(store: Store) -> None:
    await store.set_limits([queue_limit(capacity=1)])
    job = await job_in(store, Status.FAILED)
    await insert_one(store)

    [answer] = await store.retry([job.id])

    assert answer.skipped is None
    assert (await store.stats()).count(Status.PENDING) == 2


# ---------------------------------------------------------------- prune

RETENTION = Retention(
    completed=DAY, cancelled=2 * DAY, failed=3 * DAY, keyed=4 * DAY, least=timedelta(hours=2)
)


@pytest.mark.parametrize(
    ("status", "kept"),
    [(Status.COMPLETED, DAY), (Status.CANCELLED, 2 * DAY), (Status.FAILED, 3 * DAY)],
)
@pytest.mark.parametrize("keyed", [True, False])
async def test_ended_jobs_are_deleted_when_they_were_kept_long_enough(
    store: Store, clock: FakeClock, status: Status, kept: timedelta, keyed: bool
) -> None:
    clock.advance(HOUR)
    job = await job_in(store, status, keyed=keyed)
    kept = max(kept, 4 * DAY) if keyed else kept

    clock.advance(kept - SECOND)
    before = await store.prune(RETENTION, EVERYTHING)
    clock.advance(SECOND)
    after = await store.prune(RETENTION, EVERYTHING)

    assert (before, after) == (0, 1)
    assert await store.get([job.id]) == [None]
    assert (await store.stats()).count() == 0


@pytest.mark.parametrize("status", sorted(frozenset(Status) - FINAL))
async def test_what_has_not_ended_is_never_deleted(
    store: Store, clock: FakeClock, status: Status
) -> None:
    job = await job_in(store, status)
    clock.advance(1000 * DAY)

    assert await store.prune(RETENTION, EVERYTHING) == 0
    assert await get_one(store, job.id) == job


async def test_every_row_is_kept_the_least_time(store: Store, clock: FakeClock) -> None:
    await job_in(store, Status.COMPLETED)
    at_once = Retention(completed=timedelta(0), keyed=timedelta(0), least=MINUTE)
    clock.advance(MINUTE - SECOND)

    before = await store.prune(at_once, EVERYTHING)
    clock.advance(SECOND)

    assert (before, await store.prune(at_once, EVERYTHING)) == (0, 1)


async def test_no_more_than_the_limit_are_deleted(store: Store, clock: FakeClock) -> None:
    await store.insert([new_job() for _ in range(5)])
    for job in await claim(store, 5):
        await end(store, job, Returned())
    clock.advance(10 * DAY)

    assert [await store.prune(RETENTION, 2) for _ in range(4)] == [2, 2, 1, 0]


async def test_logs_and_keys_go_with_the_job(store: Store, clock: FakeClock) -> None:
    job = await start_one(store, unique=Unique("k", frozenset(Status)))
    await store.log(job.claim, [line("a")])
    await end(store, job, Returned())
    clock.advance(10 * DAY)

    await store.prune(RETENTION, EVERYTHING)

    assert await store.logs(job.id) == []
    assert not (await store.insert([new_job(unique=Unique("k"))]))[0].duplicate


async def test_the_id_of_a_deleted_job_is_free(store: Store, clock: FakeClock) -> None:
    job = await job_in(store, Status.COMPLETED, keyed=True)
    clock.advance(10 * DAY)
    await store.prune(RETENTION, EVERYTHING)

    again = await insert_one(store, "u", id=job.id, keyed=True)

    assert (again.status, again.seq > job.seq) == (Status.PENDING, True)


async def test_a_retried_job_is_not_deleted_for_its_former_end(
    store: Store, clock: FakeClock
) -> None:
    job = await job_in(store, Status.FAILED)
    clock.advance(10 * DAY)
    await store.retry([job.id])
    await end(store, await claim_one(store), Returned())

    assert await store.prune(RETENTION, EVERYTHING) == 0


# ---------------------------------------------------------------- queues and pause


async def test_queues_are_told_by_name_with_their_counts(store: Store, clock: FakeClock) -> None:
    await job_in(store, Status.COMPLETED, queue="b")
    oldest = clock.now()
    await store.insert([new_job(queue="b"), new_job("u", queue="b")])
    clock.advance(MINUTE)
    await store.insert([new_job(queue="a", delay=HOUR), new_job(queue="b")])

    a, b = await store.queues()

    assert (a.name, a.paused, a.reason, a.limit) == ("a", False, None, None)
    assert (a.counts.get(Status.SCHEDULED), a.oldest_ready_at) == (1, None)
    assert (b.counts.get(Status.PENDING), b.counts.get(Status.COMPLETED)) == (3, 1)
    assert b.oldest_ready_at == oldest


async def test_configured_queues_are_told_without_jobs(store: Store) -> None:
    limit = queue_limit("limited", capacity=7, concurrency=2)
    await store.set_limits([limit, type_limit("no-queue", concurrency=1)])
    await store.pause("paused", True, reason="holiday ☃")

    limited, paused = await store.queues()

    assert (limited.name, limited.capacity, limited.limit) == ("limited", 7, limit)
    assert (paused.name, paused.paused, paused.reason) == ("paused", True, "holiday ☃")


async def test_a_resumed_queue_has_no_reason(store: Store) -> None:
    await store.pause("a", True, reason="holiday")

    await store.pause("a", False)

    [queue] = await store.queues()
    assert (queue.paused, queue.reason) == (False, None)


async def test_a_pause_leaves_what_runs_alone(store: Store) -> None:
    job = await start_one(store)

    await store.pause("default", True)

    assert await get_one(store, job.id) == job
    await end(store, job, Returned())


async def test_a_paused_queue_still_accepts(store: Store) -> None:
    await store.pause("default", True)

    assert (await insert_one(store)).status is Status.PENDING


# ---------------------------------------------------------------- limits


async def test_limits_are_told_as_they_were_set(store: Store) -> None:
    limits = [
        queue_limit("b", concurrency=1, rate=Rate(3, 0.5, 2), capacity=9),
        type_limit("a", concurrency=0),
        queue_limit("a", operator=True),
        type_limit("ü", rate=Rate(count=1, period=86400.0)),
    ]

    await store.set_limits(limits)

    def order(limit: object) -> str:
        return str(limit)

    assert sorted(await store.limits(), key=order) == sorted(limits, key=order)


async def test_a_limit_is_set_whole(store: Store) -> None:
    await store.set_limits([queue_limit(concurrency=1, rate=Rate(1, 1.0), capacity=9)])

    await store.set_limits([queue_limit(concurrency=2)])

    assert await store.limits() == [queue_limit(concurrency=2)]


async def test_what_code_declares_leaves_an_operators_limit_in_place(store: Store) -> None:
    operators = queue_limit(concurrency=5, operator=True)
    await store.set_limits([queue_limit(concurrency=1)])

    await store.set_limits([operators])
    await store.set_limits([queue_limit(concurrency=2), type_limit(concurrency=3)])

    assert sorted(await store.limits(), key=lambda limit: limit.scope) == [
        operators, type_limit(concurrency=3),
    ]  # fmt: skip


async def test_declaring_a_rate_again_gives_no_new_start(store: Store) -> None:
    limit = queue_limit(rate=Rate(count=1, period=60))
    await store.set_limits([limit])
    await store.insert([new_job(), new_job()])
    await claim_one(store)

    await store.set_limits([limit])

    assert await claim(store) == []


async def test_an_operators_rate_starts_with_no_charge(store: Store) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=1, period=86400))])
    await store.insert([new_job(), new_job()])
    await claim_one(store)

    await store.set_limits([queue_limit(rate=Rate(count=1, period=60), operator=True)])

    await claim_one(store)


# ---------------------------------------------------------------- stats


async def test_stats_of_an_empty_store_count_nothing(store: Store, clock: FakeClock) -> None:
    stats = await store.stats()

    assert (stats.at, stats.count()) == (clock.now(), 0)


async def test_stats_count_every_lane_and_status(store: Store, clock: FakeClock) -> None:
    await end(store, await start_one(store, "u", queue="a"), Returned())
    for _ in range(3):
        await start_one(store, "u", queue="a")
    oldest = clock.now()
    await store.insert([new_job("t", queue="a"), new_job("t", queue="b", delay=HOUR)])
    clock.advance(MINUTE)
    await store.insert([new_job("t", queue="a")])

    stats = await store.stats()

    assert recount(stats) == {
        (Lane("a", "u"), Status.COMPLETED): 1,
        (Lane("a", "u"), Status.PROCESSING): 3,
        (Lane("a", "t"), Status.PENDING): 2,
        (Lane("b", "t"), Status.SCHEDULED): 1,
    }
    ages = {Lane(lane.queue, lane.type): lane.oldest_ready_at for lane in stats.lanes}
    assert ages == {Lane("a", "u"): None, Lane("a", "t"): oldest, Lane("b", "t"): None}


def recount(stats: Stats) -> dict[tuple[Lane, Status], int]:
    return {
        (Lane(lane.queue, lane.type), status): number
        for lane in stats.lanes
        for status, number in lane.counts.items()
        if number
    }


async def test_stats_follow_every_change(store: Store, clock: FakeClock) -> None:
    async def counts() -> dict[Status, int]:
        stats = await store.stats()
        return {status: stats.count(status) for status in Status if stats.count(status)}

    await store.insert([new_job(), new_job(delay=MINUTE), new_job(expires=MINUTE)])
    after_insert = await counts()
    clock.advance(MINUTE)
    await store.promote(10)
    after_promote = await counts()
    one, two = await claim(store, 5)
    after_claim = await counts()
    await end(store, one, Returned())
    await end(store, two, raised())
    after_ack = await counts()
    await store.retry([one.id, two.id])
    after_retry = await counts()
    clock.advance(100 * DAY)
    await store.prune(RETENTION, 10)

    assert after_insert == {Status.PENDING: 2, Status.SCHEDULED: 1}
    assert after_promote == {Status.PENDING: 2, Status.CANCELLED: 1}
    assert after_claim == {Status.PROCESSING: 2, Status.CANCELLED: 1}
    assert after_ack == {Status.COMPLETED: 1, Status.SCHEDULED: 1, Status.CANCELLED: 1}
    assert after_retry == {Status.PENDING: 2, Status.CANCELLED: 1}
    assert await counts() == {Status.PENDING: 2}


# ---------------------------------------------------------------- opening and closing


async def test_open_and_close_may_be_repeated(place: Place) -> None:
    store = place.connect()

    for _ in range(2):
        await store.open()
        await store.open()
        await insert_one(store)
        await store.close()
        await store.close()

    await store.open()
    assert len(await all_jobs(store)) == 2
    await store.close()


async def test_everything_survives_closing_and_opening(place: Place, clock: FakeClock) -> None:
    store = place.connect()
    await store.open()
    await store.set_limits([queue_limit(concurrency=3, operator=True)])
    await store.pause("a", True, reason="holiday")
    await register(store, "w1")
    held = await start_one(store, worker="w1", unique=Unique("k"))
    await store.log(held.claim, [line("a")])
    await store.insert([new_job(keyed=True), new_job(delay=HOUR, tags=("x",))])
    before = (
        await all_jobs(store), await store.queues(), await store.limits(), await store.workers(),
        await store.logs(held.id),
    )  # fmt: skip
    await store.close()

    again = place.connect()
    await again.open()
    after = (
        await all_jobs(again), await again.queues(), await again.limits(), await again.workers(),
        await again.logs(held.id),
    )  # fmt: skip
    assert await ack(again, ack_with(held, Change(Status.COMPLETED))) == ["applied"]
    await again.close()

    assert after == before


async def test_closing_finishes_what_was_accepted(place: Place) -> None:
    store = place.connect()
    await store.open()
    calls = [asyncio.ensure_future(store.insert([new_job()])) for _ in range(50)]
    await asyncio.sleep(0)

    await store.close()

    await asyncio.gather(*calls)
    again = place.connect()
    await again.open()
    assert len(await all_jobs(again)) == 50
    await again.close()


async def test_a_store_tells_what_it_is(store: Store) -> None:
    info = await store.info()

    assert info.kind
    assert info.version
    assert info.location
    assert info.durability in ("host", "process", "none")

"""``claim``: which jobs are handed out, in which order, and what that changes."""

from datetime import timedelta

import pytest

from tests.stores.support import (
    EVERYTHING,
    FAILURE,
    HOUR,
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
    hand_out,
    insert_one,
    job_in,
    new_job,
    new_token,
    queue_limit,
    register,
    settled,
    suspect,
    type_limit,
)
from windlass.clock import FakeClock
from windlass.job import Job, Limit, Status, WorkerId
from windlass.lifecycle import Cancelled, Change, Interrupted, Outcome, Returned, Snoozed
from windlass.limits import Rate
from windlass.store import HandOut, Store

# ---------------------------------------------------------------- what a hand-out changes


async def test_a_job_handed_out_is_processing_under_the_token(
    store: Store, clock: FakeClock
) -> None:
    inserted = await insert_one(store)
    await register(store, "w1")
    token = new_token()
    clock.advance(SECOND)

    [job] = (await hand_out(store, token=token)).jobs

    assert job.id == inserted.id
    assert (job.status, job.token, job.worker) == (Status.PROCESSING, token, "w1")
    assert (job.started_at, job.fence) == (clock.now(), 1)
    assert (job.ready_at, job.failures) == (inserted.ready_at, 0)
    assert await get_one(store, job.id) == job


async def test_the_fence_rises_with_every_hand_out(store: Store) -> None:
    await insert_one(store)
    fences = []

    for _ in range(3):
        job = await claim_one(store)
        fences.append(job.fence)
        await end(store, job, Interrupted())

    assert fences == [1, 2, 3]


async def test_errors_are_kept_but_left_out_of_the_answer(store: Store) -> None:
    await insert_one(store)
    job = await claim_one(store)
    await ack(store, ack_with(job, Change(Status.PENDING, failure=FAILURE)))

    job = await claim_one(store)

    assert job.errors == ()
    assert [error.message for error in (await get_one(store, job.id)).errors] == ["no"]


async def test_a_run_begins_with_no_progress(store: Store) -> None:
    await insert_one(store)
    job = await claim_one(store)
    await store.progress(job.claim, 0.9, "nearly there")
    await end(store, job, Interrupted())

    job = await claim_one(store)

    assert (job.progress, job.note) == (None, None)
    assert await get_one(store, job.id) == job


async def test_at_most_limit_jobs_are_handed_out(store: Store) -> None:
    await store.insert([new_job() for _ in range(5)])

    assert [len(await claim(store, limit)) for limit in (3, 0, 3, 3)] == [3, 0, 2, 0]


# ---------------------------------------------------------------- order


async def test_jobs_of_one_moment_come_in_order_of_insertion(store: Store) -> None:
    batch = [new_job(queue=queue) for queue in ("b", "a", "b", "c", "a")]
    await store.insert(batch)

    jobs = await claim(store, 10)

    assert [job.id for job in jobs] == [new.id for new in batch]


async def test_what_was_ready_first_comes_first(store: Store, clock: FakeClock) -> None:
    late = await insert_one(store, delay=10 * SECOND)
    clock.advance(5 * SECOND)
    early = await insert_one(store, queue="other")
    clock.advance(10 * SECOND)
    await store.promote(EVERYTHING)

    assert [job.id for job in await claim(store, 10)] == [early.id, late.id]


async def test_each_step_of_priority_is_a_head_start_of_a_minute(
    store: Store, clock: FakeClock
) -> None:
    early = await insert_one(store, priority=0)
    clock.advance(90 * SECOND)
    one_step = await insert_one(store, priority=1)
    two_steps = await insert_one(store, priority=2)
    behind = await insert_one(store, priority=-1)

    jobs = await claim(store, 10)

    assert [job.id for job in jobs] == [two_steps.id, early.id, one_step.id, behind.id]


async def test_equal_ranks_come_in_order_of_insertion(store: Store, clock: FakeClock) -> None:
    first = await insert_one(store, priority=1)
    second = await insert_one(store, delay=MINUTE, priority=2)
    clock.advance(MINUTE)
    await store.promote(EVERYTHING)

    assert [job.id for job in await claim(store, 10)] == [first.id, second.id]


async def test_a_retry_takes_its_place_by_the_time_it_became_due(
    store: Store, clock: FakeClock
) -> None:
    retried = await insert_one(store)
    job = await claim_one(store)
    await ack(store, ack_with(job, Change(Status.SCHEDULED, delay=10 * SECOND)))
    clock.advance(5 * SECOND)
    meanwhile = await insert_one(store)
    clock.advance(5 * SECOND)
    await store.promote(EVERYTHING)

    assert [job.id for job in await claim(store, 10)] == [meanwhile.id, retried.id]


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.FAILED])
async def test_what_a_person_retries_takes_its_place_by_the_time_of_that(
    store: Store, clock: FakeClock, status: Status
) -> None:
    retried = await job_in(store, status)
    clock.advance(SECOND)
    before = await insert_one(store)
    clock.advance(SECOND)
    await store.retry([retried.id])
    clock.advance(SECOND)
    after = await insert_one(store)

    assert [job.id for job in await claim(store, 10)] == [before.id, retried.id, after.id]


async def test_the_lowest_ranks_come_first_across_claims_and_lanes(store: Store) -> None:
    lanes = [("a", "t"), ("b", "t"), ("a", "u"), ("b", "u")]
    batch = [
        new_job(name, queue=queue, priority=(7 * index) % 5)
        for index, (queue, name) in enumerate(lanes * 10)
    ]
    inserted = [answer.job for answer in await store.insert(batch)]

    claimed: list[Job] = []
    while jobs := await claim(store, 7, types=("t", "u")):
        claimed += jobs

    wanted = sorted(inserted, key=lambda job: (-job.priority, job.seq))
    assert [job.id for job in claimed] == [job.id for job in wanted]


# ---------------------------------------------------------------- what is wanted


async def test_only_wanted_types_are_handed_out(store: Store) -> None:
    await store.insert([new_job("a"), new_job("b"), new_job("c")])

    jobs = await claim(store, 10, types=("a", "c", "unknown"))

    assert [job.type for job in jobs] == ["a", "c"]
    assert await claim(store, 10, types=()) == []


async def test_only_wanted_queues_are_handed_out(store: Store) -> None:
    await store.insert([new_job(queue=queue) for queue in ("a", "b", "c")])

    jobs = await claim(store, 10, queues=("a", "c", "unknown"))

    assert [job.queue for job in jobs] == ["a", "c"]
    assert await claim(store, 10, queues=()) == []
    assert [job.queue for job in await claim(store, 10, queues=None)] == ["b"]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PENDING])
async def test_only_pending_jobs_are_handed_out(store: Store, status: Status) -> None:
    await job_in(store, status)

    assert await claim(store, 10) == []


async def test_paused_queues_are_not_claimed_from(store: Store) -> None:
    await store.insert([new_job(queue="a"), new_job(queue="b")])
    await store.pause("a", True)

    while_paused = await claim(store, 10)
    await store.pause("a", False)
    afterwards = await claim(store, 10)

    assert [job.queue for job in while_paused] == ["b"]
    assert [job.queue for job in afterwards] == ["a"]


async def test_suspects_are_handed_out_only_when_wanted(store: Store, clock: FakeClock) -> None:
    suspicious = await suspect(store, clock)
    innocent = await insert_one(store)

    usual = await claim(store, 10)
    in_quarantine = await claim(store, 10, suspects=True)

    assert [job.id for job in usual] == [innocent.id]
    assert [job.id for job in in_quarantine] == [suspicious.id]
    assert in_quarantine[0].suspect


async def test_suspects_too_come_by_rank(store: Store, clock: FakeClock) -> None:
    behind, usual, first = [
        await suspect(store, clock, priority=priority) for priority in (-1, 0, 1)
    ]

    [one] = await claim(store, 1, suspects=True)
    rest = await claim(store, 10, suspects=True)

    assert [job.id for job in (one, *rest)] == [first.id, usual.id, behind.id]


async def test_one_crash_makes_no_suspect(store: Store) -> None:
    await insert_one(store)
    job = await claim_one(store)
    await ack(store, ack_with(job, Change(Status.PENDING, crashed=True)))

    assert await claim(store, 10, suspects=True) == []
    assert len(await claim(store, 10)) == 1


async def test_a_job_past_its_expiry_is_not_handed_out(store: Store, clock: FakeClock) -> None:
    expired = await insert_one(store, expires=MINUTE)
    fresh = await insert_one(store, expires=HOUR)
    clock.advance(MINUTE)

    jobs = await claim(store, 10)

    assert [job.id for job in jobs] == [fresh.id]
    assert (await get_one(store, expired.id)).status is Status.PENDING


async def test_a_job_just_before_its_expiry_is_handed_out(store: Store, clock: FakeClock) -> None:
    await insert_one(store, expires=MINUTE)
    clock.advance(MINUTE - timedelta(microseconds=1))

    await claim_one(store)


# ---------------------------------------------------------------- by whom


async def test_a_worker_that_is_unknown_gets_nothing(store: Store) -> None:
    job = await insert_one(store)

    assert await hand_out(store, worker="nobody") == HandOut([])
    assert await get_one(store, job.id) == job


async def test_a_worker_that_was_declared_dead_gets_nothing(store: Store) -> None:
    await insert_one(store)
    await register(store, "w1")
    await store.leave(WorkerId("w1"), died=True)

    assert await hand_out(store, worker="w1") == HandOut([])


async def test_a_worker_that_was_declared_dead_gets_nothing_from_any_store(place: Place) -> None:
    one, two = place.connect(), place.connect()
    await one.open()
    try:
        await insert_one(one)
        await register(one, "w1")
        await one.leave(WorkerId("w1"), died=True)
        await two.open()
        try:
            assert await hand_out(two, worker="w1") == HandOut([])
        finally:
            await two.close()
    finally:
        await one.close()


async def test_a_worker_whose_lease_ran_out_is_not_dead_until_declared(
    store: Store, clock: FakeClock
) -> None:
    await insert_one(store)
    await register(store, "w1", lease=SECOND)
    clock.advance(HOUR)

    assert len((await hand_out(store, worker="w1")).jobs) == 1


# ---------------------------------------------------------------- concurrency limits


@pytest.mark.parametrize("limit", [queue_limit(concurrency=2), type_limit(concurrency=2)])
async def test_no_more_run_than_the_concurrency_of_queue_or_type(
    store: Store, limit: Limit
) -> None:
    await store.set_limits([limit])
    await store.insert([new_job() for _ in range(5)])

    first = await claim(store, 10, worker="w1")
    none = await claim(store, 10, worker="w2")
    await end(store, first[0], Returned())
    again = await claim(store, 10, worker="w2")

    assert [len(first), len(none), len(again)] == [2, 0, 1]


async def test_a_types_concurrency_counts_over_all_queues(store: Store) -> None:
    await store.set_limits([type_limit(concurrency=3)])
    await store.insert([new_job(queue=queue) for queue in "aabb"])

    assert len(await claim(store, 2, queues="a")) == 2
    assert len(await claim(store, 2, queues="b")) == 1


async def test_a_queues_concurrency_counts_over_all_types(store: Store) -> None:
    await store.set_limits([queue_limit(concurrency=3)])
    await store.insert([new_job(name) for name in "aabb"])

    assert len(await claim(store, 2, types="a")) == 2
    assert len(await claim(store, 2, types="b")) == 1


async def test_both_limits_hold_and_others_go_on(store: Store) -> None:
    await store.set_limits([queue_limit("a", concurrency=3), type_limit("t", concurrency=1)])
    jobs = [new_job(name, queue=queue) for queue in "ab" for name in "ttuu"]
    await store.insert(jobs)

    claimed = await claim(store, 10, types=("t", "u"))

    assert [(job.queue, job.type) for job in claimed] == [
        ("a", "t"), ("a", "u"), ("a", "u"), ("b", "u"), ("b", "u"),
    ]  # fmt: skip


async def test_what_a_limit_holds_back_takes_no_place_in_the_answer(store: Store) -> None:
    await store.set_limits([queue_limit("a", concurrency=1)])
    await store.insert([new_job(queue="a", priority=1) for _ in range(5)])
    await store.insert([new_job(queue="b") for _ in range(5)])

    assert [job.queue for job in await claim(store, 4)] == ["a", "b", "b", "b"]


async def test_a_concurrency_of_nothing_lets_nothing_run(store: Store) -> None:
    await store.set_limits([queue_limit(concurrency=0)])
    await insert_one(store)

    assert await claim(store, 10) == []


async def test_a_limit_set_below_what_runs_lets_them_run_on(store: Store) -> None:
    await store.insert([new_job() for _ in range(4)])
    running = await claim(store, 3)
    await store.set_limits([queue_limit(concurrency=1)])

    assert await claim(store, 10) == []
    assert {job.status for job in await all_jobs(store)} == {Status.PENDING, Status.PROCESSING}
    assert len(running) == (await store.stats()).count(Status.PROCESSING)


# ---------------------------------------------------------------- rates


@pytest.mark.parametrize("scope", ["queue", "type"])
async def test_no_more_start_than_the_rate_allows(
    store: Store, clock: FakeClock, scope: str
) -> None:
    rate = Rate(count=2, period=10, burst=2)
    limit = queue_limit(rate=rate) if scope == "queue" else type_limit(rate=rate)
    await store.set_limits([limit])
    await store.insert([new_job() for _ in range(10)])
    await register(store)

    counts = []
    for _ in range(3):
        counts.append(len((await hand_out(store, 10)).jobs))
        clock.advance(5 * SECOND)

    assert counts == [2, 1, 1]


async def test_the_answer_says_when_a_rate_opens(store: Store, clock: FakeClock) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=1, period=10))])
    await store.insert([new_job(), new_job()])
    await register(store)

    first = await hand_out(store, 10)
    clock.advance(4 * SECOND)
    second = await hand_out(store, 10)
    clock.advance(6 * SECOND)
    third = await hand_out(store, 10)

    assert [len(answer.jobs) for answer in (first, second, third)] == [1, 0, 1]
    assert first.opens_in == 10 * SECOND
    assert second.opens_in == 6 * SECOND
    assert third.opens_in is None


async def test_no_rate_holds_back_what_is_not_there(store: Store) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=1, period=10))])
    await insert_one(store)
    await register(store)

    first = await hand_out(store, 10)
    second = await hand_out(store, 10)

    assert (first.opens_in, second.opens_in) == (None, None)


async def test_the_soonest_of_several_rates_is_told(store: Store) -> None:
    slow, quick = Rate(count=1, period=60), Rate(count=1, period=5)
    await store.set_limits([queue_limit("slow", rate=slow), queue_limit("quick", rate=quick)])
    await store.insert([new_job(queue=queue) for queue in ("slow", "slow", "quick", "quick")])
    await register(store)

    answer = await hand_out(store, 10)

    assert len(answer.jobs) == 2
    assert answer.opens_in == 5 * SECOND


async def test_a_lane_opens_when_both_its_rates_do(store: Store) -> None:
    slow, quick = Rate(count=1, period=60), Rate(count=1, period=5)
    await store.set_limits([queue_limit(rate=quick), type_limit(rate=slow)])
    await store.insert([new_job(), new_job()])
    await register(store)

    assert (await hand_out(store, 10)).opens_in == MINUTE


async def test_each_job_is_charged_to_queue_and_type(store: Store) -> None:
    rate = Rate(count=2, period=60, burst=2)
    await store.set_limits([queue_limit("a", rate=rate), type_limit("t", rate=rate)])
    await store.insert([new_job("t", queue="a"), new_job("u", queue="a"), new_job("u", queue="a")])
    await store.insert([new_job("t", queue="b"), new_job("t", queue="b")])

    jobs = await claim(store, 10, types=("t", "u"))

    assert [(job.type, job.queue) for job in jobs] == [("t", "a"), ("u", "a"), ("t", "b")]


async def test_a_rate_holds_across_workers_and_stores(place: Place, clock: FakeClock) -> None:
    one, two = place.connect(), place.connect()
    await one.open()
    await two.open()
    try:
        await one.set_limits([queue_limit(rate=Rate(count=1, period=60))])
        await one.insert([new_job(), new_job()])

        assert len(await claim(one, 10, worker="w1")) == 1
        assert await claim(two, 10, worker="w2") == []
        clock.advance(MINUTE)
        assert len(await claim(two, 10, worker="w2")) == 1
    finally:
        await two.close()
        await one.close()


async def test_a_queue_and_a_type_of_one_name_have_rates_of_their_own(place: Place) -> None:
    one, two = place.connect(), place.connect()
    await one.open()
    await two.open()
    try:
        rate = Rate(count=1, period=60)
        await one.set_limits([queue_limit("mail", rate=rate), type_limit("mail", rate=rate)])
        await one.insert([new_job("t", queue="mail"), new_job("mail", queue="default")])

        of_queue = await claim(one, 10, worker="w1", queues=("mail",))
        of_type = await claim(two, 10, worker="w2", types=("mail",), queues=("default",))

        assert (len(of_queue), len(of_type)) == (1, 1)
    finally:
        await two.close()
        await one.close()


async def test_a_hand_back_before_the_start_refunds_the_rate(store: Store) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=1, period=60))])
    await insert_one(store)
    job = await claim_one(store)

    await ack(store, settled(job, Interrupted(started=False)))

    assert (await claim_one(store)).fence == 2


async def test_a_job_cancelled_before_it_started_refunds_the_rate(store: Store) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=1, period=60))])
    job, _ = await store.insert([new_job(), new_job()])
    held = await claim_one(store)
    await store.cancel([job.job.id], reason="no")

    await ack(store, settled(held, Interrupted(started=False)))

    assert (await get_one(store, held.id)).status is Status.CANCELLED
    await claim_one(store)


@pytest.mark.parametrize("outcome", [Interrupted(), Snoozed(SECOND), Returned(), Cancelled()])
async def test_what_was_started_is_not_refunded(store: Store, outcome: Outcome) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=1, period=60))])
    await store.insert([new_job(), new_job()])
    job = await claim_one(store)

    await end(store, job, outcome)

    assert await claim(store, 10) == []

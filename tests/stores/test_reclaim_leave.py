"""``reclaim`` and ``leave``: how workers are declared dead, and how their jobs come back."""

from datetime import timedelta

import pytest

from tests.stores.support import (
    EVERYTHING,
    HOUR,
    LOST,
    MINUTE,
    SECOND,
    ack,
    all_jobs,
    beat,
    claim,
    end,
    get_one,
    insert_one,
    new_job,
    register,
    settled,
    start_one,
)
from windlass.clock import FakeClock
from windlass.job import Job, Status, WorkerId
from windlass.lifecycle import Expired, Interrupted, Returned
from windlass.store import Store

W1, W2, W3 = WorkerId("w1"), WorkerId("w2"), WorkerId("w3")


async def reclaim(store: Store, *suspected: tuple[WorkerId, int], by: WorkerId = W2) -> list[Job]:
    return await store.reclaim(suspected, EVERYTHING, by=by)


# ---------------------------------------------------------------- declaring dead


async def test_a_worker_silent_beyond_its_lease_is_declared_dead(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store, worker="w1")
    clock.advance(MINUTE)

    jobs = await reclaim(store, (W1, 0))

    assert jobs == [job]
    assert await store.workers() == []
    assert not (await beat(store, "w1", 1)).alive


async def test_a_worker_within_its_lease_is_left_alone(store: Store, clock: FakeClock) -> None:
    await start_one(store, worker="w1")
    clock.advance(12 * SECOND - SECOND / 1000)

    assert await reclaim(store, (W1, 0)) == []
    assert (await beat(store, "w1", 1)).alive


async def test_a_worker_that_beat_since_is_left_alone(store: Store, clock: FakeClock) -> None:
    await start_one(store, worker="w1")
    await beat(store, "w1", 1)
    clock.advance(MINUTE)

    assert await reclaim(store, (W1, 0)) == []
    assert (await beat(store, "w1", 2)).alive


async def test_nobody_declares_itself_dead(store: Store, clock: FakeClock) -> None:
    await start_one(store, worker="w1")
    clock.advance(MINUTE)

    assert await reclaim(store, (W1, 0), by=W1) == []
    assert (await beat(store, "w1", 1)).alive


@pytest.mark.parametrize("silence", [MINUTE, 48 * HOUR])
async def test_whoever_is_not_suspected_is_left_alone(
    store: Store, clock: FakeClock, silence: timedelta
) -> None:
    await start_one(store, worker="w1")
    await register(store, "idle")
    clock.advance(silence)

    assert await reclaim(store) == []
    assert await reclaim(store, (W3, 0)) == []
    assert (await beat(store, "w1", 1)).alive
    assert (await beat(store, "idle", 1)).alive


async def test_somebody_who_is_no_worker_may_reclaim(store: Store, clock: FakeClock) -> None:
    job = await start_one(store, worker="w1")
    clock.advance(MINUTE)

    assert await store.reclaim([(W1, 0)], EVERYTHING, by=None) == [job]


# ---------------------------------------------------------------- what comes back


async def test_jobs_come_back_unchanged_until_somebody_settles_them(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store, worker="w1")
    clock.advance(MINUTE)

    first = await reclaim(store, (W1, 0))
    second = await reclaim(store)

    assert first == second == [job]
    assert await get_one(store, job.id) == job
    assert await claim(store, 10, worker="w2") == []


async def test_jobs_of_a_worker_declared_dead_by_others_come_back(store: Store) -> None:
    job = await start_one(store, worker="w1")
    await store.leave(W1, died=True)

    assert await reclaim(store) == [job]


async def test_only_what_is_processing_comes_back(store: Store) -> None:
    await store.insert([new_job() for _ in range(3)])
    done, back, lost = await claim(store, 3, worker="w1")
    await end(store, done, Returned())
    await end(store, back, Interrupted())
    await store.leave(W1, died=True)

    assert await reclaim(store) == [lost]


async def test_jobs_of_the_living_do_not_come_back(store: Store, clock: FakeClock) -> None:
    await start_one(store, worker="w2")
    dead = await start_one(store, worker="w1")
    await store.leave(W1, died=True)

    assert await reclaim(store) == [dead]


async def test_no_more_than_the_limit_come_back(store: Store) -> None:
    await store.insert([new_job() for _ in range(5)])
    await claim(store, 5, worker="w1")
    await store.leave(W1, died=True)
    seen = set()

    for wanted in (2, 2, 1):
        jobs = await store.reclaim([], 2, by=W2)
        assert len(jobs) == wanted
        seen |= {job.id for job in jobs}
        await ack(store, *(settled(job, Expired(LOST)) for job in jobs))

    assert len(seen) == 5
    assert await store.reclaim([], 2, by=W2) == []


async def test_errors_come_back_with_the_job(store: Store, clock: FakeClock) -> None:
    job = await start_one(store, worker="w1")
    await store.leave(W1, died=True)
    await ack(store, settled(job, Expired(LOST)))
    clock.advance(HOUR)
    await store.promote(EVERYTHING)
    [job] = await claim(store, worker="w2")
    await store.leave(W2, died=True)

    [orphan] = await reclaim(store, by=W3)

    assert len(orphan.errors) == 1
    assert orphan == await get_one(store, job.id)


async def test_a_reclaimed_job_runs_elsewhere(store: Store, clock: FakeClock) -> None:
    await start_one(store, worker="w1")
    clock.advance(MINUTE)

    [orphan] = await reclaim(store, (W1, 0))
    job = await end(store, orphan, Expired(LOST))
    clock.advance(SECOND)
    await store.promote(10)
    [again] = await claim(store, worker="w2")

    assert (job.status, job.crashes, job.failures) == (Status.SCHEDULED, 1, 0)
    assert (again.id, again.fence, again.worker) == (orphan.id, 2, "w2")


async def test_of_two_reclaimers_one_wins(store: Store, clock: FakeClock) -> None:
    await start_one(store, worker="w1")
    clock.advance(MINUTE)
    [one] = await reclaim(store, (W1, 0), by=W2)
    [two] = await reclaim(store, (W1, 0), by=W3)

    answers = await ack(store, settled(one, Expired(LOST)))
    answers += await ack(store, settled(two, Expired(LOST)))

    assert answers == ["applied", "stale"]
    assert (await get_one(store, one.id)).crashes == 1


@pytest.mark.parametrize("first", ["owner", "reclaimer"])
async def test_of_a_reclaimer_and_the_late_owner_one_wins(
    store: Store, clock: FakeClock, first: str
) -> None:
    owned = await start_one(store, worker="w1")
    clock.advance(MINUTE)
    [orphan] = await reclaim(store, (W1, 0))
    acks = [settled(owned, Returned(b"1")), settled(orphan, Expired(LOST))]

    answers = await ack(store, *(acks if first == "owner" else reversed(acks)))

    job = await get_one(store, owned.id)
    if first == "owner":
        assert (answers[0], job.status, job.crashes) == ("applied", Status.COMPLETED, 0)
    else:
        assert (answers, job.status, job.crashes) == (["applied", "stale"], Status.SCHEDULED, 1)


# ---------------------------------------------------------------- leave


async def test_a_worker_with_nothing_in_hand_leaves(store: Store) -> None:
    job = await start_one(store, worker="w1")
    await end(store, job, Returned())

    assert await store.leave(W1) is True
    assert await store.workers() == []


async def test_a_worker_with_a_job_in_hand_does_not_leave(store: Store) -> None:
    await start_one(store, worker="w1")

    assert await store.leave(W1) is False
    assert (await beat(store, "w1", 1)).alive


async def test_somebody_else_s_job_hinders_nobody(store: Store) -> None:
    await start_one(store, worker="w2")
    await register(store, "w1")

    assert await store.leave(W1) is True


async def test_a_worker_that_is_unknown_has_left(store: Store) -> None:
    assert await store.leave(W1) is True
    assert await store.leave(W1, died=True) is True
    await register(store, "w1")


async def test_a_worker_seen_dying_is_declared_dead_and_no_more(store: Store) -> None:
    job = await start_one(store, worker="w1")
    idle = await insert_one(store)

    await store.leave(W1, died=True)

    assert await all_jobs(store) == [job, idle]
    assert await store.workers() == []
    assert not (await beat(store, "w1", 1)).alive


async def test_declaring_dead_twice_is_harmless(store: Store) -> None:
    job = await start_one(store, worker="w1")

    await store.leave(W1, died=True)
    await store.leave(W1, died=True)

    assert await reclaim(store) == [job]

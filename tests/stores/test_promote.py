"""``promote``: scheduled jobs whose time has come, and waiting ones whose time is over."""

from datetime import timedelta

import pytest

from tests.stores.support import (
    EVERYTHING,
    HOUR,
    MINUTE,
    SECOND,
    claim,
    claim_one,
    end,
    get_one,
    insert_one,
    new_job,
    raised,
    start_one,
    suspect,
)
from windlass.clock import FakeClock
from windlass.job import Status, Unique
from windlass.lifecycle import Interrupted
from windlass.store import Promotion, Store

NOTHING = Promotion(promoted=0, expired=0, next_due=None, suspects=False)


async def test_an_empty_store_has_nothing_to_promote(store: Store) -> None:
    assert await store.promote(10) == NOTHING


async def test_what_is_due_becomes_pending(store: Store, clock: FakeClock) -> None:
    job = await insert_one(store, delay=MINUTE)
    clock.advance(MINUTE)

    promotion = await store.promote(10)

    after = await get_one(store, job.id)
    assert promotion == Promotion(promoted=1, expired=0, next_due=None, suspects=False)
    assert (after.status, after.ready_at) == (Status.PENDING, job.ready_at)
    assert (await claim_one(store)).id == job.id


async def test_what_is_not_due_stays(store: Store, clock: FakeClock) -> None:
    job = await insert_one(store, delay=MINUTE)
    clock.advance(MINUTE - timedelta(microseconds=1))

    promotion = await store.promote(10)

    assert promotion.promoted == 0
    assert await get_one(store, job.id) == job


async def test_it_tells_when_the_next_is_due(store: Store, clock: FakeClock) -> None:
    await store.insert([new_job(delay=HOUR), new_job(delay=MINUTE), new_job()])

    assert (await store.promote(10)).next_due == MINUTE
    clock.advance(MINUTE)
    assert (await store.promote(10)).next_due == HOUR - MINUTE


async def test_no_more_than_the_limit_move_and_the_earliest_first(
    store: Store, clock: FakeClock
) -> None:
    late = await insert_one(store, delay=3 * SECOND)
    early = await insert_one(store, delay=SECOND)
    middle = await insert_one(store, delay=2 * SECOND)
    clock.advance(MINUTE)

    promotion = await store.promote(2)

    statuses = [(await get_one(store, job.id)).status for job in (early, middle, late)]
    assert promotion == Promotion(promoted=2, expired=0, next_due=timedelta(0), suspects=False)
    assert statuses == [Status.PENDING, Status.PENDING, Status.SCHEDULED]
    assert (await store.promote(2)).promoted == 1


async def test_a_retry_comes_back_when_its_delay_is_over(store: Store, clock: FakeClock) -> None:
    job = await end(store, await start_one(store), raised())

    clock.advance(2 * SECOND)
    await store.promote(10)

    again = await claim_one(store)
    assert (again.id, again.failures, again.attempt) == (job.id, 1, 2)


async def test_a_key_chosen_for_the_wait_is_free_afterwards(store: Store, clock: FakeClock) -> None:
    unique = Unique("k", frozenset({Status.SCHEDULED}))
    job = await insert_one(store, delay=MINUTE, unique=unique)
    clock.advance(MINUTE)

    await store.promote(10)

    assert (job.unique_key, (await get_one(store, job.id)).unique_key) == ("k", None)
    assert not (await store.insert([new_job(delay=MINUTE, unique=unique)]))[0].duplicate


async def test_the_token_stays_on_what_was_promoted(store: Store, clock: FakeClock) -> None:
    held = await start_one(store)
    await end(store, held, raised())
    clock.advance(HOUR)

    await store.promote(10)

    assert (await get_one(store, held.id)).token == held.token


# ---------------------------------------------------------------- expiry


@pytest.mark.parametrize("delay", [timedelta(0), SECOND])
async def test_waiting_jobs_past_their_expiry_are_cancelled(
    store: Store, clock: FakeClock, delay: timedelta
) -> None:
    job = await insert_one(store, delay=delay, expires=MINUTE, unique=Unique("k"))
    clock.advance(MINUTE + delay)

    promotion = await store.promote(10)

    after = await get_one(store, job.id)
    assert (promotion.promoted, promotion.expired) == (0, 1)
    assert (after.status, after.reason) == (Status.CANCELLED, "expired before it started")
    assert (after.finished_at, after.unique_key) == (clock.now(), None)
    assert await claim(store, 10) == []


async def test_what_expired_loses_its_token(store: Store, clock: FakeClock) -> None:
    job = await start_one(store, expires=MINUTE)
    await end(store, job, Interrupted(started=False))
    clock.advance(MINUTE)

    await store.promote(10)

    assert (await get_one(store, job.id)).token is None


async def test_what_runs_or_has_ended_does_not_expire(store: Store, clock: FakeClock) -> None:
    await start_one(store, expires=MINUTE)
    ended = await insert_one(store, expires=MINUTE)
    await store.cancel([ended.id], reason="operator")
    clock.advance(HOUR)

    assert (await store.promote(10)).expired == 0
    assert (await get_one(store, ended.id)).reason == "operator"


async def test_expiries_have_a_limit_of_their_own(store: Store, clock: FakeClock) -> None:
    await store.insert([new_job(expires=SECOND) for _ in range(3)])
    await store.insert([new_job(delay=SECOND) for _ in range(3)])
    clock.advance(MINUTE)

    first, second, third = [await store.promote(2) for _ in range(3)]

    assert [(each.promoted, each.expired) for each in (first, second, third)] == [
        (2, 2), (1, 1), (0, 0),
    ]  # fmt: skip


async def test_it_tells_that_more_has_expired_than_it_did(store: Store, clock: FakeClock) -> None:
    await store.insert([new_job(expires=SECOND) for _ in range(3)])
    await insert_one(store, expires=HOUR)
    clock.advance(MINUTE)

    first, second = [await store.promote(2) for _ in range(2)]

    assert [(each.expired, each.next_due) for each in (first, second)] == [
        (2, timedelta(0)), (1, None),
    ]  # fmt: skip


# ---------------------------------------------------------------- suspects


async def test_it_tells_whether_suspects_are_pending(store: Store, clock: FakeClock) -> None:
    await suspect(store, clock)
    waiting = await store.promote(10)

    [job] = await claim(store, 1, suspects=True)
    running = await store.promote(10)
    await end(store, job, Interrupted())
    back = await store.promote(10)

    assert [each.suspects for each in (waiting, running, back)] == [True, False, True]


async def test_each_job_moves_once(store: Store, clock: FakeClock) -> None:
    await store.insert([new_job(delay=SECOND) for _ in range(10)])
    clock.advance(MINUTE)

    moved = [(await store.promote(4)).promoted for _ in range(4)]

    assert moved == [4, 4, 2, 0]
    assert len(await claim(store, EVERYTHING)) == 10

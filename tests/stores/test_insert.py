"""``insert``: what is accepted, what stands already, and what is refused."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.stores.support import (
    HOUR,
    MINUTE,
    SECOND,
    Place,
    all_jobs,
    claim_one,
    end,
    get_one,
    insert_one,
    job_in,
    new_id,
    new_job,
    queue_limit,
    start_one,
)
from windlass.clock import FakeClock
from windlass.errors import DuplicateJob, EnqueueError, IdConflict, QueueFull
from windlass.job import ACTIVE, FINAL, WAITING, NewJob, Status, Unique
from windlass.lifecycle import Returned
from windlass.store import Store

# ---------------------------------------------------------------- accepting


async def test_a_new_job_is_pending_and_ready_now(store: Store, clock: FakeClock) -> None:
    new = new_job()

    [inserted] = await store.insert([new])

    assert not inserted.duplicate
    assert inserted.job.id == new.id
    assert inserted.job.status is Status.PENDING
    assert inserted.job.created_at == inserted.job.ready_at == clock.now()
    assert await get_one(store, new.id) == inserted.job


async def test_a_new_job_has_no_history(store: Store) -> None:
    job = await insert_one(store)

    assert (job.failures, job.crashes, job.charges, job.fence, job.generation) == (0, 0, 0, 0, 0)
    assert (job.token, job.worker, job.started_at, job.finished_at) == (None, None, None, None)
    assert (job.progress, job.note, job.result, job.reason, job.errors) == (
        None, None, None, None, (),
    )  # fmt: skip
    assert not job.cancel_requested


async def test_everything_about_a_job_is_kept_as_given(store: Store) -> None:
    new = new_job(
        "mail.würde", payload='{"to": "ü ☃ \\u0041", "n":  1e2}'.encode(), queue="bulk/ü ☃",
        priority=-7, max_attempts=3, timeout=timedelta(microseconds=1_500_001), expires=HOUR,
        unique=Unique("k'\"%_\\"), tags=("b", "a"), meta={"trace": "00-é", "who": ""},
        on_lost="fail",
    )  # fmt: skip

    await store.insert([new])

    job = await get_one(store, new.id)
    options = new.options
    assert (job.type, bytes(job.payload), job.queue) == (new.type, new.payload, options.queue)
    assert (job.priority, job.max_attempts, job.timeout) == (-7, 3, options.timeout)
    assert (job.unique_key, job.tags, dict(job.meta)) == ("k'\"%_\\", ("b", "a"), options.meta)
    assert job.on_lost == "fail"
    assert job.expires_at == job.ready_at + HOUR


async def test_a_job_without_timeout_has_none(store: Store) -> None:
    job = await insert_one(store, timeout=None)

    assert (await get_one(store, job.id)).timeout is None


async def test_answers_come_in_order_and_seq_rises_with_them(store: Store) -> None:
    first = await insert_one(store)
    batch = [new_job() for _ in range(20)]

    answers = await store.insert(batch)

    assert [answer.job.id for answer in answers] == [new.id for new in batch]
    seqs = [first.seq, *(answer.job.seq for answer in answers)]
    assert seqs == sorted(set(seqs))


async def test_an_empty_batch_is_accepted(store: Store) -> None:
    assert await store.insert([]) == []


async def test_a_delay_ahead_makes_it_scheduled(store: Store, clock: FakeClock) -> None:
    job = await insert_one(store, delay=5 * MINUTE, expires=HOUR)

    assert job.status is Status.SCHEDULED
    assert job.ready_at == clock.now() + 5 * MINUTE
    assert job.expires_at == clock.now() + 5 * MINUTE + HOUR
    assert await get_one(store, job.id) == job


async def test_a_time_ahead_makes_it_scheduled_in_utc(store: Store, clock: FakeClock) -> None:
    at = (clock.now() + HOUR).astimezone(timezone(timedelta(hours=5)))

    job = await insert_one(store, run_at=at)

    assert job.status is Status.SCHEDULED
    assert job.ready_at == at
    assert job.ready_at.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "when", [{"delay": timedelta(0)}, {"run_at": datetime(2001, 1, 1, tzinfo=UTC)}]
)
async def test_no_delay_or_a_time_long_past_is_ready_now_with_no_head_start(
    store: Store, clock: FakeClock, when: dict[str, Any]
) -> None:
    job = await insert_one(store, **when)

    assert job.status is Status.PENDING
    assert job.ready_at == clock.now()


# ---------------------------------------------------------------- ids


@pytest.mark.parametrize("keyed", [True, False])
async def test_the_same_id_again_answers_the_stored_job_as_duplicate(
    store: Store, clock: FakeClock, keyed: bool
) -> None:
    new = new_job(keyed=keyed, tags=("a",))
    await store.insert([new])
    clock.advance(MINUTE)

    [again] = await store.insert([new])

    assert again.duplicate
    assert again.job == await get_one(store, new.id)
    assert len(await all_jobs(store)) == 1


@pytest.mark.parametrize("status", Status)
async def test_the_same_id_again_is_a_duplicate_in_every_status(
    store: Store, status: Status
) -> None:
    new = new_job(delay=HOUR) if status is Status.SCHEDULED else new_job()
    await job_in(store, status, id=new.id)

    [again] = await store.insert([new])

    assert again.duplicate
    assert again.job.status is status


@pytest.mark.parametrize(
    "other",
    [
        {"type": "u"},
        {"payload": b'{"a":1}'},
        {"priority": 1},
        {"queue": "other"},
        {"delay": HOUR},
        {"tags": ("x",)},
        {"unique": Unique("k")},
    ],
)
async def test_a_keyed_id_with_another_body_is_a_conflict(
    store: Store, other: dict[str, Any]
) -> None:
    stored = await insert_one(store, keyed=True)

    with pytest.raises(IdConflict) as caught:
        await store.insert([new_job(id=stored.id, keyed=True, **other)])

    assert caught.value.existing_id == stored.id
    assert await all_jobs(store) == [stored]


async def test_an_id_that_the_caller_did_not_choose_is_not_compared(store: Store) -> None:
    stored = await insert_one(store)

    [again] = await store.insert([new_job("u", id=stored.id, payload=b'{"a":1}')])

    assert again.duplicate
    assert again.job == stored


async def test_an_id_twice_in_one_batch_is_one_job(store: Store) -> None:
    new = new_job(keyed=True)

    first, second = await store.insert([new, new])

    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.job == second.job
    assert len(await all_jobs(store)) == 1


async def test_an_id_twice_in_one_batch_with_two_bodies_is_a_conflict(store: Store) -> None:
    new = new_job(keyed=True)

    with pytest.raises(IdConflict):
        await store.insert([new, new_job("u", id=new.id, keyed=True)])

    assert await all_jobs(store) == []


# ---------------------------------------------------------------- unique keys


@pytest.mark.parametrize("status", sorted(ACTIVE))
async def test_a_held_key_answers_the_holder(store: Store, status: Status) -> None:
    holder = await job_in(store, status, unique=Unique("k"))

    [answer] = await store.insert([new_job("u", unique=Unique("k"))])

    assert answer.duplicate
    assert answer.job == holder
    assert len(await all_jobs(store)) == 1


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_a_key_is_free_once_its_job_has_ended(store: Store, status: Status) -> None:
    old = await job_in(store, status, unique=Unique("k"))

    job = await insert_one(store, unique=Unique("k"))

    assert old.unique_key is None
    assert job.unique_key == "k"


@pytest.mark.parametrize("status", Status)
async def test_a_key_counts_in_the_statuses_chosen_for_it(store: Store, status: Status) -> None:
    unique = Unique("k", WAITING | {Status.FAILED})
    old = await job_in(store, status, unique=unique)

    [answer] = await store.insert([new_job(unique=unique)])

    assert answer.duplicate == (status in unique.within)
    assert old.unique_key == ("k" if status in unique.within else None)


async def test_it_is_the_holder_who_chose_the_statuses(store: Store) -> None:
    await job_in(store, Status.PROCESSING, unique=Unique.while_waiting("a"))
    await job_in(store, Status.COMPLETED, unique=Unique("b", frozenset(Status)))

    free, held = await store.insert(
        [
            new_job(unique=Unique("a", frozenset(Status))),
            new_job(unique=Unique("b", frozenset({Status.PENDING}))),
        ]
    )

    assert (free.duplicate, held.duplicate) == (False, True)


@pytest.mark.parametrize("status", sorted(WAITING))
async def test_replace_cancels_a_waiting_holder(
    store: Store, clock: FakeClock, status: Status
) -> None:
    old = await job_in(store, status, unique=Unique("k"))
    clock.advance(SECOND)

    new = await insert_one(store, unique=Unique("k", on_conflict="replace"))

    old = await get_one(store, old.id)
    assert old.status is Status.CANCELLED
    assert old.reason == f"replaced by {new.id}"
    assert (old.finished_at, old.unique_key, old.token) == (clock.now(), None, None)
    assert (new.status, new.unique_key) == (Status.PENDING, "k")


async def test_replace_takes_the_key_over_even_where_it_outlives_a_cancellation(
    store: Store,
) -> None:
    old = await insert_one(store, unique=Unique("k", frozenset(Status)))

    new = await insert_one(store, unique=Unique("k", frozenset(Status), "replace"))

    assert (await get_one(store, old.id)).unique_key is None
    assert new.unique_key == "k"


@pytest.mark.parametrize("status", [Status.PROCESSING, Status.COMPLETED])
async def test_replace_answers_a_holder_that_has_started(store: Store, status: Status) -> None:
    unique = Unique("k", frozenset(Status), "replace")
    holder = await job_in(store, status, unique=unique)

    [answer] = await store.insert([new_job(unique=unique)])

    assert answer.duplicate
    assert answer.job == holder == await get_one(store, holder.id)


async def test_reject_raises_and_names_the_holder(store: Store) -> None:
    holder = await insert_one(store, unique=Unique("k"))

    with pytest.raises(DuplicateJob) as caught:
        await store.insert([new_job(unique=Unique("k", on_conflict="reject"))])

    assert caught.value.existing == holder
    assert await all_jobs(store) == [holder]


async def test_a_key_twice_in_one_batch_is_one_job(store: Store) -> None:
    first, second = await store.insert([new_job(unique=Unique("k")), new_job(unique=Unique("k"))])

    assert (first.duplicate, second.duplicate) == (False, True)
    assert first.job == second.job
    assert len(await all_jobs(store)) == 1


async def test_a_key_replaced_in_one_batch_stands_with_the_last(store: Store) -> None:
    unique = Unique("k", on_conflict="replace")
    batch = [new_job(unique=unique) for _ in range(3)]

    await store.insert(batch)

    jobs = {job.id: job for job in await all_jobs(store)}
    assert [jobs[new.id].status for new in batch] == [
        Status.CANCELLED, Status.CANCELLED, Status.PENDING,
    ]  # fmt: skip
    assert [jobs[new.id].unique_key for new in batch] == [None, None, "k"]


async def test_the_same_id_is_looked_for_before_the_key(store: Store) -> None:
    new = new_job(keyed=True, unique=Unique("k", on_conflict="reject"))
    await store.insert([new])

    [again] = await store.insert([new])

    assert again.duplicate


# ---------------------------------------------------------------- capacity


async def test_a_queue_over_its_capacity_is_full(store: Store) -> None:
    await store.set_limits([queue_limit("small", capacity=2)])
    await store.insert([new_job(queue="small"), new_job(queue="small", delay=HOUR)])

    with pytest.raises(QueueFull) as caught:
        await store.insert([new_job(queue="small")])

    assert (caught.value.queue, caught.value.capacity) == ("small", 2)
    assert len(await all_jobs(store)) == 2
    await insert_one(store, queue="other")


async def test_a_queue_without_a_capacity_has_the_stores(place: Place) -> None:
    store = place.connect(capacity=3)
    await store.open()
    try:
        await store.insert([new_job() for _ in range(3)])

        with pytest.raises(QueueFull):
            await store.insert([new_job()])
        await store.set_limits([queue_limit(capacity=None, concurrency=1)])
        with pytest.raises(QueueFull):
            await store.insert([new_job()])
    finally:
        await store.close()


async def test_only_what_waits_needs_room(store: Store) -> None:
    await store.set_limits([queue_limit(capacity=1)])
    job = await start_one(store)

    await insert_one(store)

    await claim_one(store)
    await end(store, job, Returned())
    await insert_one(store)


async def test_a_batch_that_does_not_fit_is_refused_whole(store: Store) -> None:
    await store.set_limits([queue_limit(capacity=2)])

    with pytest.raises(QueueFull):
        await store.insert([new_job(queue="other"), *(new_job() for _ in range(3))])

    assert await all_jobs(store) == []
    assert (await store.stats()).count() == 0


async def test_duplicates_need_no_room(store: Store) -> None:
    await store.set_limits([queue_limit(capacity=1)])
    new = new_job(unique=Unique("k"))
    await store.insert([new])

    answers = await store.insert([new, new_job(unique=Unique("k"))])

    assert [answer.duplicate for answer in answers] == [True, True]


async def test_replacing_needs_no_more_room(store: Store) -> None:
    await store.set_limits([queue_limit(capacity=1)])
    unique = Unique("k", on_conflict="replace")
    await insert_one(store, unique=unique)

    new = await insert_one(store, unique=unique)

    assert new.status is Status.PENDING


@pytest.mark.parametrize("fault", [IdConflict, DuplicateJob])
async def test_ids_and_keys_are_checked_before_room(
    store: Store, fault: type[EnqueueError]
) -> None:
    await store.set_limits([queue_limit(capacity=1)])
    stored = await insert_one(store, keyed=True, unique=Unique("k"))
    wrong = {
        IdConflict: new_job("u", id=stored.id, keyed=True),
        DuplicateJob: new_job(unique=Unique("k", on_conflict="reject")),
    }

    with pytest.raises(fault):
        await store.insert([new_job(), wrong[fault]])


# ---------------------------------------------------------------- all or none


@pytest.mark.parametrize("fault", ["id", "key", "room"])
async def test_whatever_is_raised_nothing_was_changed(store: Store, fault: str) -> None:
    await store.set_limits([queue_limit("small", capacity=1)])
    stored = await insert_one(store, keyed=True, unique=Unique("k"))
    replaceable = await insert_one(store, unique=Unique("r"))
    wrong: dict[str, list[NewJob]] = {
        "id": [new_job("u", id=stored.id, keyed=True)],
        "key": [new_job(unique=Unique("k", on_conflict="reject"))],
        "room": [new_job(queue="small"), new_job(queue="small")],
    }
    good = [new_job(), new_job(unique=Unique("r", on_conflict="replace")), new_job(delay=HOUR)]

    with pytest.raises(EnqueueError):
        await store.insert([*good, *wrong[fault]])

    assert await all_jobs(store) == [stored, replaceable]
    assert (await store.stats()).count() == 2
    assert (await store.insert([new_job(unique=Unique("r"))]))[0].duplicate


async def test_a_refused_batch_can_be_given_again(store: Store) -> None:
    await store.set_limits([queue_limit(capacity=1)])
    batch = [new_job(keyed=True), new_job(keyed=True, id=new_id())]
    with pytest.raises(QueueFull):
        await store.insert(batch)

    await store.set_limits([queue_limit(capacity=2)])
    answers = await store.insert(batch)

    assert [answer.duplicate for answer in answers] == [False, False]

"""``ack``: what the holder of a claim may change, and how often."""

from datetime import timedelta

import pytest
from msgspec import Raw
from msgspec.structs import replace

from tests.stores.support import (
    EVERYTHING,
    FAILURE,
    HOUR,
    LOST,
    MINUTE,
    SECOND,
    ack,
    ack_with,
    all_jobs,
    claim,
    claim_one,
    end,
    get_one,
    insert_one,
    job_in,
    new_job,
    new_token,
    raised,
    register,
    settled,
    start_one,
)
from windlass.clock import FakeClock
from windlass.job import ACTIVE, FINAL, WAITING, Claim, JobId, Retention, Status, Unique, WorkerId
from windlass.lifecycle import (
    Cancelled,
    Change,
    Crashed,
    Expired,
    Interrupted,
    Outcome,
    Returned,
    Snoozed,
)
from windlass.retry import NO_RETRY
from windlass.store import Store

# ---------------------------------------------------------------- what each outcome does


async def test_a_job_that_returned_is_completed_with_its_result(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store)
    clock.advance(SECOND)

    job = await end(store, job, Returned('{"a": "ü", "n":  1e2}'.encode()))

    assert (job.status, job.finished_at) == (Status.COMPLETED, clock.now())
    assert job.result == Raw('{"a": "ü", "n":  1e2}'.encode())
    assert (job.failures, job.reason, job.errors) == (0, None, ())


async def test_a_job_that_returned_nothing_has_no_result(store: Store) -> None:
    job = await start_one(store)

    assert (await end(store, job, Returned())).result is None


async def test_a_job_that_raised_is_scheduled_after_the_delay(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store)
    clock.advance(MINUTE)

    job = await end(store, job, raised("out of paper"))

    assert (job.status, job.failures, job.attempt) == (Status.SCHEDULED, 1, 2)
    assert job.ready_at == clock.now() + 2 * SECOND
    assert job.finished_at is None
    assert job.errors == (replace(FAILURE, message="out of paper", at=clock.now()),)


async def test_a_job_that_may_not_run_again_is_failed_with_the_reason(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store)

    job = await end(store, job, raised(), NO_RETRY)

    assert (job.status, job.failures, job.finished_at) == (Status.FAILED, 1, clock.now())
    assert job.reason == "not to be retried"
    assert len(job.errors) == 1


async def test_a_snoozed_job_is_scheduled_and_counts_no_failure(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store)

    job = await end(store, job, Snoozed(HOUR))

    assert (job.status, job.failures, job.errors) == (Status.SCHEDULED, 0, ())
    assert job.ready_at == clock.now() + HOUR


async def test_a_job_handed_back_is_pending_where_it_stood(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)
    ready_at = job.ready_at
    clock.advance(MINUTE)

    job = await end(store, job, Interrupted())

    assert (job.status, job.failures, job.ready_at) == (Status.PENDING, 0, ready_at)
    assert (await claim_one(store)).fence == 2


async def test_a_cancelled_job_has_the_reason(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)

    job = await end(store, job, Cancelled("no longer wanted"))

    assert (job.status, job.reason) == (Status.CANCELLED, "no longer wanted")
    assert job.finished_at == clock.now()


async def test_crashes_and_charges_rise_as_the_change_says(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)
    job = await end(store, job, Expired(LOST))
    expired = (job.failures, job.crashes, job.charges)
    clock.advance(MINUTE)
    await store.promote(EVERYTHING)

    job = await end(store, await claim_one(store), Crashed(LOST))

    assert expired == (0, 1, 0)
    assert (job.failures, job.crashes, job.charges) == (0, 2, 1)


async def test_the_last_twenty_errors_are_kept(store: Store) -> None:
    await insert_one(store)
    for number in range(23):
        job = await claim_one(store)
        failure = replace(FAILURE, message=str(number))
        await ack(store, ack_with(job, Change(Status.PENDING, failure=failure, counted=True)))

    job = await get_one(store, job.id)

    assert job.failures == 23
    assert [error.message for error in job.errors] == [str(number) for number in range(3, 23)]


async def test_an_error_is_kept_whole(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)
    failure = replace(
        FAILURE, attempt=7, kind="timeout", type="T", message="☃ '\"", traceback="a\n  b"
    )

    await ack(store, ack_with(job, Change(Status.FAILED, failure=failure)))

    assert (await get_one(store, job.id)).errors == (replace(failure, at=clock.now()),)


async def test_the_hand_out_stays_readable_on_an_ended_job(store: Store, clock: FakeClock) -> None:
    held = await start_one(store, worker="w7")
    clock.advance(SECOND)

    job = await end(store, held, Returned())

    assert (job.worker, job.started_at, job.fence) == ("w7", held.started_at, 1)


async def test_delays_are_exact_to_the_microsecond(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)

    delay = timedelta(days=200, microseconds=1)
    job = await end(store, job, Snoozed(delay))

    assert job.ready_at == clock.now() + delay


# ---------------------------------------------------------------- a cancellation requested


@pytest.mark.parametrize(
    "outcome", [Interrupted(), Snoozed(HOUR), raised(), Expired(LOST), Cancelled("as asked")]
)
async def test_a_job_whose_cancellation_was_requested_ends_cancelled(
    store: Store, outcome: Outcome
) -> None:
    job = await start_one(store)
    await store.cancel([job.id], reason="operator")

    job = await end(store, job, outcome)

    assert job.status is Status.CANCELLED
    assert job.reason in ("cancelled on request", "as asked")
    assert job.cancel_requested


async def test_a_job_that_returned_is_completed_in_spite_of_a_request(store: Store) -> None:
    job = await start_one(store)
    await store.cancel([job.id], reason="operator")

    job = await end(store, job, Returned(b"1"))

    assert (job.status, job.result) == (Status.COMPLETED, Raw(b"1"))


async def test_the_other_change_is_applied_whole(store: Store) -> None:
    job = await start_one(store)
    await store.cancel([job.id], reason="operator")

    job = await end(store, job, raised("at last"))

    assert (job.failures, [error.message for error in job.errors]) == (1, ["at last"])


# ---------------------------------------------------------------- expiry


@pytest.mark.parametrize("outcome", [Interrupted(), Snoozed(SECOND), raised()])
async def test_a_job_that_has_started_expires_no_more(
    store: Store, clock: FakeClock, outcome: Outcome
) -> None:
    job = await start_one(store, expires=MINUTE)

    job = await end(store, job, outcome)
    clock.advance(HOUR)
    promotion = await store.promote(EVERYTHING)

    assert job.expires_at is None
    assert promotion.expired == 0
    assert (await claim_one(store)).id == job.id


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_a_job_that_has_run_to_its_end_has_no_expiry(store: Store, status: Status) -> None:
    job = await job_in(store, status, expires=MINUTE)

    assert job.expires_at is None


async def test_a_job_handed_back_before_its_start_still_expires(
    store: Store, clock: FakeClock
) -> None:
    held = await start_one(store, expires=MINUTE)

    job = await end(store, held, Interrupted(started=False))
    clock.advance(HOUR)

    assert job.expires_at == held.expires_at
    assert await claim(store, 10) == []
    assert (await store.promote(EVERYTHING)).expired == 1


# ---------------------------------------------------------------- unique keys


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_an_end_releases_the_key(store: Store, status: Status) -> None:
    job = await job_in(store, status, unique=Unique("k"))

    assert job.unique_key is None


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_an_end_keeps_a_key_chosen_for_it(store: Store, status: Status) -> None:
    job = await job_in(store, status, unique=Unique("k", ACTIVE | {status}))

    assert job.unique_key == "k"


@pytest.mark.parametrize("outcome", [Interrupted(), Snoozed(HOUR), raised()])
async def test_a_job_that_comes_back_takes_its_key_again(store: Store, outcome: Outcome) -> None:
    held = await start_one(store, unique=Unique.while_waiting("k"))

    job = await end(store, held, outcome)

    assert (held.unique_key, job.unique_key) == (None, "k")


@pytest.mark.parametrize("outcome", [Interrupted(), Snoozed(HOUR), raised()])
async def test_a_job_that_comes_back_to_a_taken_key_goes_on_without_it(
    store: Store, outcome: Outcome
) -> None:
    held = await start_one(store, unique=Unique.while_waiting("k"))
    other = await insert_one(store, unique=Unique.while_waiting("k"))

    job = await end(store, held, outcome)

    assert job.status in WAITING
    assert job.unique_key is None
    assert (await get_one(store, other.id)).unique_key == "k"


async def test_two_that_come_back_at_once_share_no_key(store: Store) -> None:
    one = await start_one(store, unique=Unique.while_waiting("k"))
    two = await start_one(store, unique=Unique.while_waiting("k"))

    answers = await ack(store, settled(one, Interrupted()), settled(two, Interrupted()))

    assert answers == ["applied", "applied"]
    assert [job.unique_key for job in await all_jobs(store)] == ["k", None]


@pytest.mark.parametrize("status", sorted(FINAL))
async def test_an_end_that_counts_takes_a_key_that_is_free(store: Store, status: Status) -> None:
    job = await job_in(store, status, unique=Unique("k", WAITING | {status}))

    assert job.unique_key == "k"
    [again] = await store.insert([new_job(unique=Unique("k"))])
    assert (again.job.id, again.duplicate) == (job.id, True)


async def test_an_end_that_counts_meets_a_taken_key_without_harm(store: Store) -> None:
    held = await start_one(store, unique=Unique("k", WAITING | FINAL))
    await insert_one(store, unique=Unique("k"))

    job = await end(store, held, Returned())

    assert (job.status, job.unique_key) == (Status.COMPLETED, None)


# ---------------------------------------------------------------- who may, and again


async def test_the_same_ack_repeated_is_applied_and_changes_nothing(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store)
    again = settled(job, raised())
    await ack(store, again)
    after = await get_one(store, job.id)
    clock.advance(HOUR)

    answers = [*await ack(store, again), *await ack(store, settled(job, Returned(b"1")))]

    assert answers == ["applied", "applied"]
    assert await get_one(store, job.id) == after


async def test_an_ack_twice_in_one_batch_counts_once(store: Store) -> None:
    job = await start_one(store)
    twice = settled(job, raised())

    assert await ack(store, twice, twice) == ["applied", "applied"]
    assert (await get_one(store, job.id)).failures == 1


async def test_an_ack_is_recognised_until_the_job_is_handed_out_again(
    store: Store, clock: FakeClock
) -> None:
    job = await start_one(store)
    again = settled(job, raised())
    await ack(store, again)
    clock.advance(HOUR)
    await store.promote(EVERYTHING)

    promoted = await ack(store, again)
    await claim_one(store)
    handed_out = await ack(store, again)

    assert (promoted, handed_out) == (["applied"], ["stale"])


@pytest.mark.parametrize("change", ["cancel", "expire", "retry", "replace"])
async def test_an_ack_is_stale_once_anyone_else_has_changed_the_job(
    store: Store, clock: FakeClock, change: str
) -> None:
    unique = Unique("k", on_conflict="replace")
    job = await start_one(store, expires=MINUTE, unique=unique)
    again = settled(job, Interrupted(started=False))
    await ack(store, again)
    match change:
        case "cancel":
            await store.cancel([job.id], reason="operator")
        case "expire":
            clock.advance(MINUTE)
            await store.promote(EVERYTHING)
        case "retry":
            await store.cancel([job.id], reason="operator")
            await store.retry([job.id])
        case "replace":
            await store.insert([new_job(unique=unique)])
    before = await get_one(store, job.id)

    assert await ack(store, again) == ["stale"]
    assert before.token is None
    assert await get_one(store, job.id) == before


async def test_another_token_is_stale_and_changes_nothing(store: Store) -> None:
    job = await start_one(store)
    before = await get_one(store, job.id)

    answers = await ack(store, settled(replace(job, token=new_token()), Returned()))

    assert answers == ["stale"]
    assert await get_one(store, job.id) == before


@pytest.mark.parametrize("status", [Status.SCHEDULED, Status.PENDING])
async def test_a_job_that_was_never_handed_out_takes_no_ack(store: Store, status: Status) -> None:
    job = await job_in(store, status)

    answers = await ack(store, settled(replace(job, token=new_token()), Returned()))

    assert answers == ["stale"]
    assert await get_one(store, job.id) == job


async def test_a_job_that_is_not_there_is_gone(store: Store, clock: FakeClock) -> None:
    job = await start_one(store)
    again = settled(job, Returned())
    await ack(store, again)
    clock.advance(365 * 24 * HOUR)
    await store.prune(Retention(), EVERYTHING)

    assert await ack(store, again) == ["gone"]


async def test_a_reclaimed_ack_clears_the_token(store: Store) -> None:
    job = await start_one(store)

    settled_for_another = settled(job, Expired(LOST))
    answers = await ack(store, settled_for_another)
    late = await ack(store, settled(job, Returned(b"1")))

    assert (answers, late) == (["applied"], ["stale"])
    assert (await get_one(store, job.id)).token is None
    assert (await get_one(store, job.id)).status is Status.SCHEDULED


async def test_one_ack_that_cannot_be_applied_hinders_no_other(store: Store) -> None:
    await store.insert([new_job() for _ in range(3)])
    jobs = await claim(store, 3)
    stranger = replace(jobs[1], token=new_token())
    nowhere = replace(jobs[0], id=JobId("0190aaaa-0000-7000-8000-000000000000"))

    answers = await ack(
        store,
        settled(jobs[0], Returned(b"0")),
        settled(stranger, Returned(b"1")),
        settled(nowhere, Returned(b"2")),
        settled(jobs[2], raised()),
    )

    assert answers == ["applied", "stale", "gone", "applied"]
    assert [job.status for job in await all_jobs(store)] == [
        Status.COMPLETED, Status.PROCESSING, Status.SCHEDULED,
    ]  # fmt: skip


async def test_many_acks_of_every_kind_are_answered_in_order(store: Store) -> None:
    await store.insert([new_job() for _ in range(40)])
    jobs = await claim(store, 40)
    outcomes: list[Outcome] = [Returned(b"1"), raised(), Interrupted(), Snoozed(HOUR)] * 10
    acks = [settled(job, outcome) for job, outcome in zip(jobs, outcomes, strict=True)]

    answers = await ack(store, *acks[:20], *acks[:5], *acks[20:])

    assert answers == ["applied"] * 45
    wanted = [Status.COMPLETED, Status.SCHEDULED, Status.PENDING, Status.SCHEDULED] * 10
    assert [job.status for job in await all_jobs(store)] == wanted


async def test_no_acks_are_answered_by_nothing(store: Store) -> None:
    assert await ack(store) == []


async def test_a_worker_declared_dead_may_still_end_what_nobody_took(store: Store) -> None:
    job = await start_one(store, worker="w1")
    await store.leave(WorkerId("w1"), died=True)

    assert await ack(store, settled(job, Returned())) == ["applied"]


async def test_a_claim_names_the_job_it_was_given_for(store: Store) -> None:
    await store.insert([new_job(), new_job()])
    await register(store)
    one, two = await claim(store, 2)
    other = await insert_one(store)

    swapped = replace(settled(one, Returned()), claim=Claim(other.id, two.claim.token))

    assert await ack(store, swapped) == ["stale"]

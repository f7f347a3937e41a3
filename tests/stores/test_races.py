"""What several callers at once may see, and what comes of late, lost and repeated calls.

The names F6, F13… are those of the failure modes these tests stand for: zombies (F6), a lost answer
to a claim (F13), an Ack (F14) or an insert (F15), and cancellation against everything else (F21, F22).
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import permutations

import pytest

from tests.stores.support import (
    EVERYTHING,
    HOUR,
    LOST,
    MINUTE,
    Place,
    ack,
    all_jobs,
    beat,
    claim,
    claim_one,
    end,
    get_one,
    hand_out,
    in_threads,
    insert_one,
    line,
    new_job,
    new_token,
    queue_limit,
    raised,
    register,
    settled,
    start_one,
)
from windlass.clock import FakeClock
from windlass.job import Job, JobId, Status, Unique, WorkerId
from windlass.lifecycle import Cancelled, Expired, Interrupted, Returned, Snoozed
from windlass.limits import Rate
from windlass.retry import NO_RETRY
from windlass.store import Inserted, Store

CALLERS = 4


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Store]:
    """A store on the place, as another process would have."""
    store = place.connect()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# ---------------------------------------------------------------- claims


async def test_claims_of_one_loop_never_hand_out_a_job_twice(store: Store) -> None:
    await store.insert([new_job() for _ in range(200)])
    await register(store)

    answers = await asyncio.gather(*(hand_out(store, 7) for _ in range(40)))

    ids = [job.id for answer in answers for job in answer.jobs]
    assert len(ids) == len(set(ids)) == 200


async def test_claims_of_many_stores_never_hand_out_a_job_twice(place: Place) -> None:
    async def prepare() -> None:
        async with connected(place) as store:
            await store.insert([new_job() for _ in range(300)])

    async def work(index: int) -> list[JobId]:
        async with connected(place) as store:
            ids = []
            while jobs := await claim(store, 7, worker=f"w{index}"):
                ids += [job.id for job in jobs]
                await ack(store, *(settled(job, Returned()) for job in jobs))
            return ids

    await asyncio.to_thread(asyncio.run, prepare())
    claimed = await asyncio.to_thread(in_threads, CALLERS, work)

    ids = [each for part in claimed for each in part]
    assert len(ids) == len(set(ids)) == 300
    async with connected(place) as store:
        assert (await store.stats()).count(Status.COMPLETED) == 300
        assert {job.fence for job in await all_jobs(store)} == {1}


async def test_one_store_serves_loops_in_many_threads(store: Store) -> None:
    """As an application does whose synchronous callers go through a loop of their own."""

    async def work(index: int) -> list[JobId]:
        await asyncio.gather(*(store.insert([new_job()]) for _ in range(25)))
        jobs = await claim(store, 25, worker=f"w{index}")
        await asyncio.gather(*(ack(store, settled(job, Returned())) for job in jobs))
        return [job.id for job in jobs]

    claimed = await asyncio.to_thread(in_threads, CALLERS, work)

    ids = [each for part in claimed for each in part]
    assert len(ids) == len(set(ids))
    assert (await store.stats()).count(Status.COMPLETED) == len(ids) == 25 * CALLERS
    assert len(await all_jobs(store)) == 25 * CALLERS


@pytest.mark.parametrize("limit", ["concurrency", "rate"])
async def test_limits_hold_over_many_stores_at_once(place: Place, limit: str) -> None:
    async with connected(place) as store:
        rate = Rate(count=5, period=3600, burst=5)
        limits = {"concurrency": queue_limit(concurrency=5), "rate": queue_limit(rate=rate)}
        await store.set_limits([limits[limit]])
        await store.insert([new_job() for _ in range(50)])

    async def work(index: int) -> int:
        async with connected(place) as store:
            await register(store, f"w{index}")
            answers = [await hand_out(store, 3, worker=f"w{index}") for _ in range(4)]
            return sum(len(answer.jobs) for answer in answers)

    claimed = await asyncio.to_thread(in_threads, CALLERS, work)

    assert sum(claimed) == 5


# ---------------------------------------------------------------- inserts


async def test_of_many_inserts_with_one_key_one_is_accepted(store: Store) -> None:
    calls = (store.insert([new_job(unique=Unique("k"))]) for _ in range(64))

    answers = [answer for [answer] in await asyncio.gather(*calls)]

    assert sum(not answer.duplicate for answer in answers) == 1
    assert len({answer.job.id for answer in answers}) == 1
    assert len(await all_jobs(store)) == 1


@pytest.mark.parametrize("by", ["id", "key"])
async def test_of_many_stores_inserting_one_job_one_is_accepted(place: Place, by: str) -> None:
    one = new_job(keyed=True)
    async with connected(place):
        pass  # made, so that the race is about the job

    async def work(index: int) -> list[Inserted]:
        async with connected(place) as store:
            job = one if by == "id" else new_job(unique=Unique("k"))
            calls = (store.insert([job]) for _ in range(16))
            return [answer for [answer] in await asyncio.gather(*calls)]

    parts = await asyncio.to_thread(in_threads, CALLERS, work)

    answers = [answer for part in parts for answer in part]
    assert len(answers) == 64
    assert sum(not answer.duplicate for answer in answers) == 1
    assert len({answer.job.id for answer in answers}) == 1


async def test_an_insert_repeated_after_a_lost_answer_is_one_job(
    store: Store, clock: FakeClock
) -> None:
    """F15, at any time of the job's life."""
    new = new_job(keyed=True)
    await store.insert([new])
    repeated = [(await store.insert([new]))[0]]
    job = await claim_one(store)
    repeated += await store.insert([new])
    await end(store, job, Returned())
    repeated += await store.insert([new])

    assert [answer.duplicate for answer in repeated] == [True] * 3
    assert len(await all_jobs(store)) == 1


async def test_a_caller_that_is_refused_harms_no_other(store: Store) -> None:
    await store.set_limits([queue_limit("small", capacity=0)])
    calls = [
        store.insert([new_job(queue="small" if number % 3 == 0 else "default")])
        for number in range(30)
    ]

    answers = await asyncio.gather(*calls, return_exceptions=True)

    refused = [isinstance(answer, Exception) for answer in answers]
    assert refused == [number % 3 == 0 for number in range(30)]
    assert len(await all_jobs(store)) == 20


async def test_a_queue_takes_no_more_than_its_capacity_from_all_at_once(store: Store) -> None:
    await store.set_limits([queue_limit(capacity=10)])

    calls = (store.insert([new_job()]) for _ in range(30))
    answers = await asyncio.gather(*calls, return_exceptions=True)

    assert sum(isinstance(answer, Exception) for answer in answers) == 20
    assert len(await all_jobs(store)) == 10


# ---------------------------------------------------------------- reclaim and promote


async def test_of_two_reclaimers_at_once_one_wins(place: Place, clock: FakeClock) -> None:
    async with connected(place) as store:
        await store.insert([new_job() for _ in range(20)])
        await claim(store, 20, worker="dead")
    clock.advance(MINUTE)

    async def work(index: int) -> int:
        async with connected(place) as store:
            by = await register(store, f"w{index}")
            jobs = await store.reclaim([(WorkerId("dead"), 0)], EVERYTHING, by=by)
            answers = await ack(store, *(settled(job, Expired(LOST)) for job in jobs))
            return answers.count("applied")

    won = await asyncio.to_thread(in_threads, CALLERS, work)

    assert sum(won) == 20
    async with connected(place) as store:
        jobs = await all_jobs(store)
    assert {(job.status, job.crashes) for job in jobs} == {(Status.SCHEDULED, 1)}


async def test_of_many_that_promote_at_once_each_job_moves_once(
    place: Place, clock: FakeClock
) -> None:
    async with connected(place) as store:
        await store.insert([new_job(delay=MINUTE) for _ in range(100)])
    clock.advance(HOUR)

    async def work(index: int) -> int:
        async with connected(place) as store:
            return sum([(await store.promote(9)).promoted for _ in range(5)])

    moved = await asyncio.to_thread(in_threads, CALLERS, work)

    assert sum(moved) == 100


# ---------------------------------------------------------------- F6: zombies

Zombie = Callable[[Store, Job], Awaitable[object]]


async def _late_log_and_cancelled(store: Store, job: Job) -> object:
    logged = await store.log(job.claim, [line("from the grave")])
    [answer] = await ack(store, settled(job, Cancelled()))
    return logged or answer


ZOMBIES: dict[str, Zombie] = {
    "completes": lambda store, job: ack(store, settled(job, Returned(b'"zombie"'))),
    "fails": lambda store, job: ack(store, settled(job, raised("zombie"), NO_RETRY)),
    "retries": lambda store, job: ack(store, settled(job, raised("zombie"))),
    "snoozes": lambda store, job: ack(store, settled(job, Snoozed(HOUR))),
    "hands back": lambda store, job: ack(store, settled(job, Interrupted(started=False))),
    "notes progress": lambda store, job: store.progress(job.claim, 0.99, "zombie"),
    "logs and acks a cancellation": _late_log_and_cancelled,
}


@pytest.mark.parametrize("ending", [Status.COMPLETED, Status.FAILED])
@pytest.mark.parametrize("zombie", ZOMBIES)
async def test_a_zombie_is_rejected_and_the_new_holder_wins(
    store: Store, clock: FakeClock, zombie: str, ending: Status
) -> None:
    stale = await start_one(store, worker="a")
    await _reclaim(store, clock, stale)
    held = await claim_one(store, worker="b")
    before = await get_one(store, held.id)

    answer = await ZOMBIES[zombie](store, stale)

    assert answer in (["stale"], "stale", False)
    assert await get_one(store, held.id) == before
    assert await store.logs(held.id) == []
    assert [each.claim for each in (await beat(store, "b", 1)).held] == [held.claim]
    if ending is Status.COMPLETED:
        job = await end(store, held, Returned(b'"mine"'))
        assert bytes(job.result or b"") == b'"mine"'
    else:
        job = await end(store, held, raised("mine"), NO_RETRY)
        assert job.errors[-1].message == "mine"
    assert (job.status, job.worker) == (ending, "b")
    assert await ZOMBIES[zombie](store, stale) == answer
    assert await get_one(store, job.id) == job


async def _reclaim(store: Store, clock: FakeClock, job: Job) -> None:
    """As a worker that finds *job*'s worker silent does, up to the job's next chance."""
    clock.advance(MINUTE)
    assert job.worker is not None
    [orphan] = await store.reclaim([(job.worker, 0)], EVERYTHING, by=None)
    await end(store, orphan, Expired(LOST))
    clock.advance(MINUTE)
    await store.promote(EVERYTHING)


async def test_a_zombie_of_an_unreclaimed_generation_is_rejected_after_a_retry(
    store: Store,
) -> None:
    """The operator's retry, and not a hand-out, is what came between."""
    stale = await start_one(store, worker="a")
    await end(store, stale, raised(), NO_RETRY)
    await store.retry([stale.id])
    before = await get_one(store, stale.id)

    answers = await ack(store, settled(stale, Returned(b"1")))

    assert answers == ["stale"]
    assert await get_one(store, stale.id) == before


# ---------------------------------------------------------------- F13: a claim's answer is lost


async def test_a_job_whose_claim_was_lost_is_handed_back_by_its_worker(
    store: Store, clock: FakeClock
) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=1, period=3600))])
    new = await insert_one(store)
    await register(store, "w1")
    token = new_token()
    await hand_out(store, worker="w1", token=token)  # the answer never arrives

    [row] = (await beat(store, "w1", 1)).held
    [job] = await store.get([row.claim.id])
    assert job is not None
    answers = await ack(store, settled(job, Interrupted(started=False)))

    assert row.claim == (new.id, token)
    assert answers == ["applied"]
    assert (await beat(store, "w1", 2)).held == []
    again = await claim_one(store, worker="w1")
    assert (again.failures, again.fence) == (0, 2)


# ---------------------------------------------------------------- F14: an Ack's answer is lost


@pytest.mark.parametrize(
    "outcome", [Returned(b"1"), raised(), Snoozed(HOUR), Interrupted(), Cancelled()]
)
async def test_an_ack_repeated_after_a_lost_answer_is_applied_and_doubles_nothing(
    store: Store, outcome: Returned | Snoozed | Interrupted | Cancelled
) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=10, period=3600, burst=10))])
    job = await start_one(store)
    lost = settled(job, outcome)
    await ack(store, lost)
    after = await get_one(store, job.id)
    counts = (await store.stats()).lanes

    repeated = [await ack(store, lost) for _ in range(3)]

    assert repeated == [["applied"]] * 3
    assert await get_one(store, job.id) == after
    assert (await store.stats()).lanes == counts


async def test_a_refund_repeated_is_made_once(store: Store) -> None:
    await store.set_limits([queue_limit(rate=Rate(count=2, period=3600, burst=2))])
    await store.insert([new_job() for _ in range(5)])
    one, _ = await claim(store, 2)
    lost = settled(one, Interrupted(started=False))

    await ack(store, lost)
    await ack(store, lost)

    assert len(await claim(store, 5)) == 1


async def test_an_ack_repeated_by_another_store_is_recognised(place: Place) -> None:
    async with connected(place) as one:
        job = await start_one(one)
        lost = settled(job, raised())
        await ack(one, lost)

    async with connected(place) as two:
        assert await ack(two, lost) == ["applied"]
        assert (await get_one(two, job.id)).failures == 1


# ---------------------------------------------------------------- F21, F22: cancel against all

Step = Callable[[Store, Job], Awaitable[object]]


async def _acked(store: Store, job: Job, *, ending: str) -> str:
    outcomes = {
        "complete": settled(job, Returned(b"1")),
        "fail": settled(job, raised(), NO_RETRY),
        "reclaim": settled(job, Expired(LOST)),
    }
    [answer] = await ack(store, outcomes[ending])
    return answer


STEPS: dict[str, Step] = {
    "cancel": lambda store, job: store.cancel([job.id], reason="operator"),
    "retry": lambda store, job: store.retry([job.id]),
    "complete": lambda store, job: _acked(store, job, ending="complete"),
    "fail": lambda store, job: _acked(store, job, ending="fail"),
    "reclaim": lambda store, job: _acked(store, job, ending="reclaim"),
}
ORDERS = list(permutations(STEPS))


class Expected:
    """The truth table of one job under these steps, in as few words as possible."""

    def __init__(self) -> None:
        self.status = Status.PROCESSING
        self.held = True
        self.requested = False
        self.generation = self.failures = self.crashes = 0

    def after(self, steps: tuple[str, ...]) -> tuple[object, ...]:
        for step in steps:
            getattr(self, step)()
        return self.status, self.requested, self.generation, self.failures, self.crashes

    def cancel(self) -> None:
        if self.status is Status.PROCESSING:
            self.requested = True
        elif self.status in (Status.PENDING, Status.SCHEDULED):
            self.status, self.held = Status.CANCELLED, False

    def retry(self) -> None:
        if self.status in (Status.PROCESSING, Status.PENDING):
            return
        if self.status is not Status.SCHEDULED:
            self.generation += 1
            self.failures = self.crashes = 0
            self.requested = False
        self.status, self.held = Status.PENDING, False

    def complete(self) -> None:
        self._ack(Status.COMPLETED, Status.COMPLETED)

    def fail(self) -> None:
        if self._ack(Status.FAILED, Status.CANCELLED):
            self.failures += 1

    def reclaim(self) -> None:
        if self._ack(Status.SCHEDULED, Status.CANCELLED):
            self.crashes += 1
            self.held = False

    def _ack(self, then: Status, if_cancel_requested: Status) -> bool:
        if not self.held or self.status is not Status.PROCESSING:
            return False
        self.status = if_cancel_requested if self.requested else then
        return True


def _seen(job: Job) -> tuple[object, ...]:
    return job.status, job.cancel_requested, job.generation, job.failures, job.crashes


async def test_cancel_complete_fail_reclaim_and_retry_in_every_order(store: Store) -> None:
    for order in ORDERS:
        job = await start_one(store)
        for step in order:
            await STEPS[step](store, job)
        after = await get_one(store, job.id)
        assert _seen(after) == Expected().after(order), order
        assert (after.finished_at is None) == (after.status is Status.PENDING), order
        await store.cancel([job.id], reason="makes room for the next")


async def test_cancel_complete_fail_reclaim_and_retry_at_once(place: Place) -> None:
    """Whatever the order turns out to be, it is one: the outcome is that of some permutation."""
    possible = {Expected().after(order) for order in ORDERS}
    outcomes: Counter[tuple[object, ...]] = Counter()
    async with connected(place) as store:
        for _ in range(20):
            job = await start_one(store)
            steps = list(STEPS.values())

            async def work(index: int, job: Job = job, steps: list[Step] = steps) -> object:
                async with connected(place) as own:
                    return await steps[index](own, job)

            await asyncio.to_thread(in_threads, len(steps), work)
            outcomes[_seen(await get_one(store, job.id))] += 1
            await store.cancel([job.id], reason="makes room for the next")

    assert set(outcomes) <= possible

"""``heartbeat``: leases, incarnations, and what a worker is believed to hold."""

from tests.stores.support import (
    HOUR,
    SECOND,
    beat,
    claim,
    end,
    hand_out,
    new_job,
    register,
    start_one,
    worker_info,
)
from windlass.clock import FakeClock
from windlass.job import WorkerId
from windlass.lifecycle import Interrupted, Returned
from windlass.store import Beat, Held, Store

W1, W2 = WorkerId("w1"), WorkerId("w2")


async def test_the_first_beat_registers(store: Store, clock: FakeClock) -> None:
    answer = await store.heartbeat(worker_info("w1", host="here", queues=("a", "b")))

    assert answer == Beat(alive=True, held=[])
    [worker] = await store.workers()
    now = clock.now()
    assert (worker.id, worker.host, worker.queues) == ("w1", "here", ("a", "b"))
    assert (worker.started_at, worker.seen_at) == (now, now)
    assert worker.lease_until == now + worker.lease


async def test_each_beat_renews_the_lease_and_what_is_known(store: Store, clock: FakeClock) -> None:
    await register(store, "w1")
    started = clock.now()
    clock.advance(5 * SECOND)

    await beat(store, "w1", 1, busy=3, state="quiet", lease=30 * SECOND)

    [worker] = await store.workers()
    assert (worker.beat, worker.busy, worker.state) == (1, 3, "quiet")
    assert (worker.started_at, worker.seen_at) == (started, clock.now())
    assert worker.lease_until == clock.now() + 30 * SECOND


async def test_everything_a_worker_says_of_itself_is_kept(store: Store) -> None:
    said = worker_info(
        "w1", host="ü", pid=77, version="9.1", queues=None, types=("a", "b"), slots=4, busy=2,
        state="stalled", quarantine=True, lease=SECOND,
    )  # fmt: skip

    await store.heartbeat(said)

    [kept] = await store.workers()
    names = ("host", "pid", "version", "queues", "types", "slots", "busy", "state", "quarantine")
    assert [getattr(kept, name) for name in names] == [getattr(said, name) for name in names]
    assert kept.lease == SECOND


async def test_the_same_beat_repeated_is_harmless(store: Store) -> None:
    job = await start_one(store, worker="w1")

    answers = [await beat(store, "w1", number) for number in (0, 0, 1, 1)]

    held = Beat(alive=True, held=[Held(job.claim, False)])
    assert answers == [held] * 4
    assert len(await store.workers()) == 1


async def test_it_answers_the_rows_that_the_worker_is_processing(store: Store) -> None:
    await store.insert([new_job() for _ in range(4)])
    kept, done, back = await claim(store, 3, worker="w1")
    await claim(store, 1, worker="w2")
    await end(store, done, Returned())
    await end(store, back, Interrupted())

    answer = await beat(store, "w1", 1)

    assert answer.held == [Held(kept.claim, False)]


async def test_it_tells_of_cancellations_requested(store: Store) -> None:
    one = await start_one(store, worker="w1")
    two = await start_one(store, worker="w1")
    await store.cancel([two.id], reason="operator")

    answer = await beat(store, "w1", 1)

    asked = {held.claim: held.cancel_requested for held in answer.held}
    assert asked == {one.claim: False, two.claim: True}


async def test_a_claim_whose_answer_was_lost_is_among_the_held(store: Store) -> None:
    """F13: the row bears a token that the worker does not know, and can be handed back."""
    await store.insert([new_job()])
    await register(store, "w1")
    [lost] = (await hand_out(store, worker="w1")).jobs

    [held] = (await beat(store, "w1", 1)).held

    assert held.claim == lost.claim


async def test_a_worker_that_is_not_known_and_does_not_register_is_not_alive(
    store: Store,
) -> None:
    answer = await beat(store, "w1", 1)

    assert answer == Beat(alive=False, held=[])
    assert await store.workers() == []


async def test_a_worker_declared_dead_is_not_alive_and_never_returns(
    store: Store, clock: FakeClock
) -> None:
    await start_one(store, worker="w1")
    await store.leave(W1, died=True)
    clock.advance(HOUR)

    answers = [await beat(store, "w1", number) for number in (1, 0, 2)]

    assert answers == [Beat(alive=False, held=[])] * 3
    assert await store.workers() == []


async def test_a_worker_that_left_does_not_come_back_by_beating_on(store: Store) -> None:
    await register(store, "w1")
    assert await store.leave(W1)

    assert not (await beat(store, "w1", 1)).alive


async def test_a_worker_late_for_its_lease_is_alive_until_declared_dead(
    store: Store, clock: FakeClock
) -> None:
    await register(store, "w1", lease=SECOND)
    clock.advance(HOUR)

    assert (await beat(store, "w1", 1)).alive


async def test_workers_are_listed_oldest_first(store: Store, clock: FakeClock) -> None:
    for name in ("w2", "w1", "w3"):
        await register(store, name)
        clock.advance(SECOND)
    await beat(store, "w2", 1)
    await store.leave(W1, died=True)

    assert [worker.id for worker in await store.workers()] == ["w2", "w3"]

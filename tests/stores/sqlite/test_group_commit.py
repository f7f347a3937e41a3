"""Many callers share a transaction, and none of them notices."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

from msgspec.structs import replace

from tests.stores.sqlite.conftest import Program
from tests.stores.support import (
    MINUTE,
    ack,
    all_jobs,
    beat,
    claim,
    hand_out,
    insert_one,
    new_id,
    new_job,
    new_token,
    queue_limit,
    raised,
    register,
    settled,
    start_one,
)
from windlass.clock import FakeClock
from windlass.errors import DuplicateJob, IdConflict, QueueFull, StoreUnavailable, WindlassError
from windlass.job import Claim, NewJob, Unique
from windlass.lifecycle import Returned
from windlass.retry import NO_RETRY
from windlass.store import HandOut, Inserted
from windlass.stores.sqlite import SQLiteStore


async def insert_all(
    store: SQLiteStore, *batches: list[NewJob]
) -> list[list[Inserted] | BaseException]:
    """Insert all batches at one moment, so that one transaction serves them."""
    return await asyncio.gather(*(store.insert(batch) for batch in batches), return_exceptions=True)


async def in_one_transaction(
    store: SQLiteStore, db: sqlite3.Connection, *batches: list[NewJob]
) -> list[list[Inserted] | BaseException]:
    """The same without luck: the writer is kept waiting, with a job of its own, until all are in."""
    assert store._threads is not None
    writer = store._threads.writer
    statements: list[str] = []
    writer._db.set_trace_callback(statements.append)
    db.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(insert_one(store))
    while not statements:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    answers = asyncio.ensure_future(insert_all(store, *batches))
    while writer._inbox.qsize() < len(batches):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    db.execute("COMMIT")
    await waiting
    return await answers


async def test_callers_that_wait_at_one_moment_share_a_commit(store: SQLiteStore) -> None:
    await insert_one(store)
    statements: list[str] = []
    assert store._threads is not None
    store._threads.writer._db.set_trace_callback(statements.append)

    answers = await insert_all(store, *[[new_job()] for _ in range(300)])

    assert len(answers) == 300
    assert statements.count("COMMIT") <= 5


async def test_a_refused_insert_harms_nobody_else(store: SQLiteStore) -> None:
    await store.set_limits([queue_limit("small", capacity=1)])
    keyed = new_job(keyed=True, payload=b"1")
    await store.insert([keyed])
    await insert_one(store, unique=Unique("k"))
    reject = Unique("k", on_conflict="reject")

    answers = await insert_all(
        store,
        [new_job()],
        [new_job(), new_job(unique=reject)],
        [new_job(), new_job(id=keyed.id, keyed=True, payload=b"2")],
        [new_job(queue="small"), new_job(queue="small")],
        [new_job(), new_job()],
    )

    kinds = [type(each) if isinstance(each, BaseException) else len(each) for each in answers]
    assert kinds == [1, DuplicateJob, IdConflict, QueueFull, 2]
    assert (await store.stats()).count() == 5
    assert await store.check() == []


async def test_callers_with_the_same_new_id_get_one_job(store: SQLiteStore) -> None:
    same = new_id()

    answers = await insert_all(store, *[[new_job(id=same)] for _ in range(20)], [new_job()])

    inserted = [each for answer in answers if isinstance(answer, list) for each in answer]
    assert len(inserted) == 21
    assert sum(each.duplicate for each in inserted) == 19
    assert len(await all_jobs(store)) == 2


async def test_a_request_that_sqlite_cannot_take_fails_alone(store: SQLiteStore) -> None:
    impossible = new_job(priority=2**70)

    answers = await insert_all(store, [new_job()], [impossible], [new_job()])

    assert [isinstance(each, list) for each in answers] == [True, False, True]
    assert len(await all_jobs(store)) == 2


async def test_a_lost_claim_among_many_is_told_to_its_holder_alone(store: SQLiteStore) -> None:
    for _ in range(5):
        await insert_one(store)
    jobs = await claim(store, 5)
    acks = [settled(job, Returned(b"1")) for job in jobs]
    stale = replace(acks[0], claim=Claim(jobs[0].id, new_token()))

    answers = await asyncio.gather(*(store.ack([each]) for each in (*acks, stale, *acks)))

    assert answers == [["applied"]] * 5 + [["stale"]] + [["applied"]] * 5
    assert await store.check() == []


async def test_a_refusal_that_was_rolled_back_is_told_to_nobody(
    store: SQLiteStore, db: sqlite3.Connection
) -> None:
    await store.set_limits([queue_limit("small", capacity=1)])

    # The second is served first, because it is plain, and the first finds no room; then the third
    # makes the transaction fail, and each is served by itself.
    first, second, third = await in_one_transaction(
        store,
        db,
        [new_job(queue="small", unique=Unique("k"))],
        [new_job(queue="small")],
        [new_job(priority=2**70, unique=Unique("l"))],
    )

    assert isinstance(first, list)
    assert isinstance(second, QueueFull)
    assert isinstance(third, Exception)
    assert [job.unique_key for job in await all_jobs(store)] == [None, "k"]


async def test_callers_in_one_transaction_share_the_room_of_a_queue(
    store: SQLiteStore, db: sqlite3.Connection
) -> None:
    await store.set_limits([queue_limit("small", capacity=5)])
    sizes = (2, 2, 2, 1, 1)

    answers = await in_one_transaction(
        store, db, *[[new_job(queue="small") for _ in range(size)] for size in sizes]
    )

    kinds = [type(each) if isinstance(each, BaseException) else len(each) for each in answers]
    assert kinds == [2, 2, QueueFull, 1, QueueFull]


async def test_a_commit_that_fails_is_told_or_made_again(
    store: SQLiteStore, path: Path, db: sqlite3.Connection
) -> None:
    await insert_one(store)
    # A trigger of the user's that refuses one kind of job: the transaction of all fails with it.
    db.execute(
        "CREATE TRIGGER no BEFORE INSERT ON jobs WHEN NEW.payload = '\"no\"' "
        "BEGIN SELECT raise(ABORT, 'not this one'); END"
    )

    answers = await insert_all(
        store, [new_job()], [new_job(payload=b'"no"')], [new_job()], [new_job()]
    )

    assert [isinstance(each, list) for each in answers] == [True, False, True, True]
    assert isinstance(answers[1], StoreUnavailable)
    assert len(await all_jobs(store)) == 4
    assert await store.check() == []


async def test_a_cancelled_caller_harms_nobody(store: SQLiteStore) -> None:
    impatient = [asyncio.ensure_future(insert_one(store)) for _ in range(20)]
    patient = [asyncio.ensure_future(insert_one(store)) for _ in range(20)]
    await asyncio.sleep(0)

    for each in impatient:
        each.cancel()

    assert len({job.id for job in await asyncio.gather(*patient)}) == 20


async def test_the_counts_are_right_after_everything_at_once(
    store: SQLiteStore, clock: FakeClock
) -> None:
    roll = random.Random(7)
    await register(store)
    await store.set_limits([queue_limit("q1", concurrency=3), queue_limit("q2", capacity=20)])

    async def producer() -> None:
        for _ in range(15):
            jobs = [
                new_job(
                    roll.choice("abc"),
                    queue=roll.choice(["q1", "q2", "q3"]),
                    delay=roll.choice([None, None, MINUTE]),
                    unique=roll.choice([None, Unique(roll.choice("xyz"))]),
                    expires=roll.choice([None, 2 * MINUTE]),
                )
                for _ in range(roll.randrange(1, 4))
            ]
            try:
                await store.insert(jobs)
            except WindlassError:
                continue

    async def consumer() -> None:
        for _ in range(15):
            jobs = await claim(store, 5, types="abc")
            for job in jobs:
                outcome = Returned() if roll.random() < 0.5 else raised()
                await ack(store, settled(job, outcome, NO_RETRY))

    async def operator() -> None:
        for _ in range(15):
            ids = [job.id for job in await all_jobs(store)]
            some = roll.sample(ids, min(3, len(ids)))
            if roll.random() < 0.5:
                await store.retry(some)
            else:
                await store.cancel(some, reason="no")
            clock.advance(MINUTE / 10)
            await store.promote(10)

    async with asyncio.TaskGroup() as group:
        for body in (producer, consumer, operator) * 3:
            group.create_task(body())

    assert await store.check() == []


CROWD = """
import asyncio, sys
from tests.stores.support import *
from windlass.stores.sqlite import SQLiteStore, writer
writer._CHECKPOINT_AFTER = 1  # as often as can be: they must not meet a writer
async def main():
    store = SQLiteStore(sys.argv[1], durability="normal")
    await store.open()
    worker = sys.argv[2]
    await register(store, worker)
    done = []
    async def produce():
        for _ in range(30):
            await store.insert([new_job() for _ in range(10)])
    async def consume():
        idle = 0
        while idle < 20:
            jobs = await claim(store, 7, worker=worker)
            idle = 0 if jobs else idle + 1
            answers = await store.ack([settled(job, Returned()) for job in jobs])
            assert set(answers) <= {"applied"}
            done.extend(job.id for job in jobs)
            if not jobs:
                await asyncio.sleep(0.01)
    await asyncio.gather(produce(), consume(), consume())
    print(*done)
    await store.close()
asyncio.run(main())
"""


async def test_processes_share_the_work_and_double_none_of_it(
    store: SQLiteStore, program: Program, path: Path
) -> None:
    children = [program(CROWD, path, f"worker-{number}") for number in range(4)]

    done = [each for child in children for each in child.communicate()[0].split()]

    assert [child.returncode for child in children] == [0] * 4
    left = await claim(store, 10_000)
    assert len(done) == len(set(done))
    assert len(done) + len(left) == 4 * 300
    assert await store.check() == []


async def test_a_worker_that_died_elsewhere_gets_nothing_here(
    store: SQLiteStore, path: Path
) -> None:
    other = SQLiteStore(path, durability="normal")
    await other.open()
    await start_one(store, worker="w1")
    await insert_one(store)

    await other.leave(await register(other, "w1"), died=True)

    assert await hand_out(store, worker="w1") == HandOut([])
    assert not (await beat(store, "w1")).alive
    await other.close()

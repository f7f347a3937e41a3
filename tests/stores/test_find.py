"""``get`` and ``find``: looking at jobs one by one and page by page."""

from datetime import timedelta

import pytest

from tests.stores.support import (
    ALL,
    EVERYTHING,
    HOUR,
    MINUTE,
    SECOND,
    claim,
    end,
    get_one,
    insert_one,
    job_in,
    new_id,
    new_job,
    raised,
    start_one,
)
from windlass.clock import FakeClock
from windlass.job import Job, JobFilter, Retention, Status, Unique
from windlass.lifecycle import Returned
from windlass.store import Store


async def found(store: Store, where: JobFilter) -> list[Job]:
    """All that match, newest first, read in pages of two."""
    jobs: list[Job] = []
    after: int | None = None
    while True:
        page = await store.find(where, 2, after=after)
        jobs += page.jobs
        if page.next is None:
            return jobs
        after = page.next


# ---------------------------------------------------------------- get


async def test_get_answers_in_order_with_gaps(store: Store) -> None:
    one, two = await insert_one(store), await insert_one(store)

    assert await store.get([two.id, new_id(), one.id, two.id]) == [two, None, one, two]
    assert await store.get([]) == []


async def test_get_answers_the_whole_job(store: Store) -> None:
    job = await end(store, await start_one(store, payload=b'{"a": 1}'), raised())

    job = await get_one(store, job.id)

    assert bytes(job.payload) == b'{"a": 1}'
    assert [error.message for error in job.errors] == ["no"]


# ---------------------------------------------------------------- order and pages


async def test_the_newest_come_first(store: Store) -> None:
    jobs = [await insert_one(store) for _ in range(5)]

    page = await store.find(ALL, 10)

    assert page.jobs == jobs[::-1]
    assert page.next is None


async def test_the_oldest_come_first_when_asked(store: Store) -> None:
    jobs = [await insert_one(store) for _ in range(5)]

    assert (await store.find(ALL, 10, oldest_first=True)).jobs == jobs


@pytest.mark.parametrize("oldest_first", [True, False])
@pytest.mark.parametrize("size", [1, 3, 7, 8])
async def test_pages_show_every_job_once(store: Store, oldest_first: bool, size: int) -> None:
    jobs = [answer.job for answer in await store.insert([new_job() for _ in range(7)])]
    wanted = jobs if oldest_first else jobs[::-1]

    seen: list[Job] = []
    after: int | None = None
    while True:
        page = await store.find(ALL, size, after=after, oldest_first=oldest_first)
        assert len(page.jobs) <= size
        seen += page.jobs
        if page.next is None:
            break
        after = page.next

    assert seen == wanted


async def test_a_full_page_has_a_next_while_more_match(store: Store) -> None:
    await store.insert([new_job("a"), new_job("b"), new_job("a"), new_job("b")])
    where = JobFilter(type=frozenset({"a"}))

    first = await store.find(where, 1)

    assert len(first.jobs) == 1
    assert first.next is not None
    assert [job.type for job in (await store.find(where, 1, after=first.next)).jobs] == ["a"]


async def test_inserts_and_prunes_between_pages_neither_repeat_nor_skip(
    store: Store, clock: FakeClock
) -> None:
    await job_in(store, Status.COMPLETED)
    clock.advance(timedelta(days=30))
    jobs = [answer.job for answer in await store.insert([new_job() for _ in range(6)])]

    first = await store.find(ALL, 2)
    await store.insert([new_job() for _ in range(3)])
    await store.cancel([jobs[3].id], reason="no")
    clock.advance(timedelta(days=30))
    await store.prune(Retention(), EVERYTHING)
    second = await store.find(ALL, EVERYTHING, after=first.next)

    assert first.jobs == [jobs[5], jobs[4]]
    assert [job.id for job in second.jobs] == [jobs[2].id, jobs[1].id, jobs[0].id]


async def test_nothing_is_found_in_an_empty_store(store: Store) -> None:
    page = await store.find(ALL, 10)

    assert (page.jobs, page.next) == ([], None)


# ---------------------------------------------------------------- filters


@pytest.mark.parametrize("status", Status)
async def test_by_status(store: Store, status: Status) -> None:
    done = [await job_in(store, each) for each in (Status.COMPLETED, Status.FAILED)]
    rest = [Status.CANCELLED, Status.PROCESSING, Status.SCHEDULED, Status.PENDING]
    jobs = done + [await job_in(store, each) for each in rest]

    matching = await found(store, JobFilter(status=frozenset({status, Status.PENDING})))

    wanted = [job for job in jobs if job.status in (status, Status.PENDING)]
    assert matching == wanted[::-1]


async def test_by_type_and_queue(store: Store) -> None:
    lanes = [("a", "x"), ("a", "y"), ("b", "x"), ("b", "y"), ("c", "x")]
    for name, queue in lanes:
        await insert_one(store, name, queue=queue)

    types = await found(store, JobFilter(type=frozenset({"a", "c"})))
    queues = await found(store, JobFilter(queue=frozenset({"y"})))
    both = await found(store, JobFilter(type=frozenset({"a", "b"}), queue=frozenset({"x"})))

    assert [(job.type, job.queue) for job in types] == [("c", "x"), ("a", "y"), ("a", "x")]
    assert [(job.type, job.queue) for job in queues] == [("b", "y"), ("a", "y")]
    assert [(job.type, job.queue) for job in both] == [("b", "x"), ("a", "x")]


async def test_by_any_of_some_tags(store: Store) -> None:
    one = await insert_one(store, tags=("a", "b"))
    two = await insert_one(store, tags=("b", "%"))
    await insert_one(store, tags=("ab", "A"))
    await insert_one(store)

    assert await found(store, JobFilter(tag=frozenset({"b"}))) == [two, one]
    assert await found(store, JobFilter(tag=frozenset({"a", "%"}))) == [two, one]
    assert await found(store, JobFilter(tag=frozenset({"c"}))) == []


async def test_by_worker_running_or_ended(store: Store) -> None:
    await store.insert([new_job() for _ in range(4)])
    ended, running = await claim(store, 2, worker="w1")
    await claim(store, 1, worker="w2")
    ended = await end(store, ended, Returned())

    assert await found(store, JobFilter(worker=frozenset({"w1"}))) == [running, ended]


async def test_by_time_of_creation(store: Store, clock: FakeClock) -> None:
    start = clock.now()
    jobs = []
    for _ in range(4):
        jobs.append(await insert_one(store))
        clock.advance(MINUTE)

    where = JobFilter(created_from=start + MINUTE, created_to=start + 3 * MINUTE)

    assert await found(store, where) == [jobs[2], jobs[1]]
    assert await found(store, JobFilter(created_from=start + 2 * MINUTE)) == [jobs[3], jobs[2]]
    assert await found(store, JobFilter(created_to=start)) == []


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("hello", True), ("HELLO", True), ("Ünïcode ☃", True), ("ünïcode", False), ("%", False),
        ("h_llo", False), ('"to"', True), ("5*", False), ("[h]ello", False), ("'", False),
    ],
)  # fmt: skip
async def test_by_text_in_the_payload(store: Store, text: str, matches: bool) -> None:
    job = await insert_one(store, payload='{"to": "Hello", "x": "Ünïcode ☃"}'.encode())
    await insert_one(store, "hello", queue="hello", tags=("hello",))

    assert await found(store, JobFilter(text=text)) == ([job] if matches else [])


async def test_by_unique_key_finds_the_holder(store: Store) -> None:
    await job_in(store, Status.COMPLETED, unique=Unique("k"))
    holder = await insert_one(store, unique=Unique("k"))
    await insert_one(store, unique=Unique("kk"))

    assert await found(store, JobFilter(unique_key="k")) == [holder]
    assert await found(store, JobFilter(unique_key="%")) == []


async def test_by_the_end_of_the_id(store: Store) -> None:
    jobs = [await insert_one(store) for _ in range(5)]

    assert await found(store, JobFilter(id_suffix=jobs[2].id[-8:])) == [jobs[2]]
    assert await found(store, JobFilter(id_suffix=jobs[2].id)) == [jobs[2]]
    assert await found(store, JobFilter(id_suffix="%" + jobs[2].id[-7:])) == []


async def test_fields_are_anded(store: Store, clock: FakeClock) -> None:
    await insert_one(store, "a", queue="x", tags=("t",))
    clock.advance(SECOND)
    wanted = await insert_one(store, "a", queue="x", tags=("t",), payload=b'{"k":"v"}')
    await insert_one(store, "a", queue="x", tags=("t",), payload=b'{"k":"v"}', delay=HOUR)
    await insert_one(store, "b", queue="x", tags=("t",), payload=b'{"k":"v"}')

    where = JobFilter(
        status=frozenset({Status.PENDING}), type=frozenset({"a"}), queue=frozenset({"x"}),
        tag=frozenset({"t"}), created_from=clock.now(), text='"v"', id_suffix=wanted.id[-6:],
    )  # fmt: skip

    assert await found(store, where) == [wanted]

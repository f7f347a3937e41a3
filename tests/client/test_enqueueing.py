import asyncio
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from windlass import (
    ConfigError,
    DuplicateJob,
    IdConflict,
    PayloadError,
    QueueFull,
    Status,
    Unique,
    UnknownTask,
    Windlass,
)
from windlass.client import MAX_BATCH
from windlass.events import JobEnqueued
from windlass.job import NewJob, Token, WorkerId, WorkerInfo
from windlass.store import Want

app = Windlass("memory:", capacity=20_000)
app.queue("tiny", capacity=2)


@app.task(aliases=["add_up"])
async def add(a: int, b: int = 1) -> int:
    return a + b


@app.task(queue="tiny")
def tiny(n: int) -> None: ...


@pytest.fixture(autouse=True)
def _fresh_store() -> None:
    app.use_store(app._make_store())


async def test_a_call_becomes_a_pending_job_with_the_arguments_given() -> None:
    handle = await add.enqueue(1, b=2)

    job = handle.job
    assert (job.type, job.queue, job.status) == ("add", "default", Status.PENDING)
    assert bytes(job.payload) == b'{"a":1,"b":2}'
    assert handle.id == job.id
    assert UUID(handle.id).version == 7
    assert not handle.duplicate


async def test_options_go_with_the_job_and_not_with_the_arguments() -> None:
    bound = add.options(delay="5m", queue="sums", priority=9, tags=["x"], meta={"k": "v"})

    job = (await bound.enqueue(1)).job

    assert job.status is Status.SCHEDULED
    assert job.ready_at - job.created_at == timedelta(minutes=5)
    assert (job.queue, job.priority, job.tags, job.meta) == ("sums", 9, ("x",), {"k": "v"})
    assert bytes(job.payload) == b'{"a":1}'
    assert add.defaults.queue == "default"


async def test_arguments_that_do_not_fit_are_refused_with_their_place() -> None:
    with pytest.raises(PayloadError) as refused:
        await add.enqueue("one")  # type: ignore[arg-type]
    with pytest.raises(PayloadError):
        add.bind()  # type: ignore[call-arg]

    assert [error.pointer for error in refused.value.errors] == ["/a"]
    assert (await app.store.stats()).count() == 0


async def test_the_same_id_is_one_job() -> None:
    chosen = uuid4()

    first = await add.options(id=chosen).enqueue(1)
    again = await add.options(id=str(chosen).upper()).enqueue(1)

    assert first.id == again.id == str(chosen)
    assert (first.duplicate, again.duplicate) == (False, True)
    with pytest.raises(IdConflict):
        await add.options(id=chosen).enqueue(2)


async def test_the_same_key_is_one_job() -> None:
    first = await add.options(key="order-17").enqueue(1)
    again = await add.options(key="order-17").enqueue(1)

    assert (first.id, True) == (again.id, again.duplicate)
    with pytest.raises(IdConflict):
        await add.options(key="order-17").enqueue(2)


def test_an_id_and_a_key_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="either an id or an idempotency key"):
        add.options(id=uuid4(), key="x")


async def test_a_unique_key_returns_its_holder() -> None:
    bound = add.options(unique="sum")

    first, second = await bound.enqueue(1), await bound.enqueue(2)

    assert (second.id, second.duplicate) == (first.id, True)
    with pytest.raises(DuplicateJob):
        await add.options(unique=Unique("sum", on_conflict="reject")).enqueue(3)


async def test_many_calls_are_enqueued_in_order() -> None:
    handles = await app.enqueue_many(add.bind(n) for n in range(1000))

    assert [bytes(handle.job.payload) for handle in handles[:2]] == [b'{"a":0}', b'{"a":1}']
    assert len({handle.id for handle in handles}) == 1000
    assert await app.enqueue_many([]) == []


async def test_many_calls_are_enqueued_all_or_none() -> None:
    calls = [add.bind(1), tiny.bind(1), tiny.bind(2), tiny.bind(3)]

    with pytest.raises(QueueFull):
        await app.enqueue_many(calls)

    assert (await app.store.stats()).count() == 0


async def test_more_than_a_batch_holds_is_refused_before_anything_happens() -> None:
    with pytest.raises(ConfigError, match=r"at most 10,000 jobs, all or none, and got 10,001"):
        await app.enqueue_many(add.bind(n) for n in range(MAX_BATCH + 1))

    assert len(await app.enqueue_many(add.bind(n) for n in range(MAX_BATCH))) == MAX_BATCH


async def test_a_call_enqueued_again_makes_no_second_job() -> None:
    call = add.bind(1)

    (first,) = await app.enqueue_many([call])
    (again,) = await app.enqueue_many([call])

    assert (again.id, again.duplicate) == (first.id, True)


async def test_a_full_queue_refuses_after_a_moment_and_says_when_to_come_back() -> None:
    await app.enqueue_many([tiny.bind(1), tiny.bind(2)])
    loop = asyncio.get_running_loop()
    began = loop.time()

    with pytest.raises(QueueFull) as refused:
        await tiny.enqueue(3)

    assert loop.time() - began >= 0.1
    assert (refused.value.queue, refused.value.capacity) == ("tiny", 2)
    assert refused.value.retry_after >= timedelta(0)


async def test_a_full_queue_takes_a_job_when_room_comes_within_a_moment() -> None:
    await app.enqueue_many([tiny.bind(1), tiny.bind(2)])
    worker = WorkerInfo(
        id=WorkerId("w"), host="h", pid=1, version="0", queues=None, types=("tiny",), slots=1
    )
    await app.store.heartbeat(worker)

    enqueueing = asyncio.ensure_future(tiny.enqueue(3))
    await asyncio.sleep(0)
    assert not enqueueing.done()
    want = Want(None, frozenset({"tiny"}))
    await app.store.claim(want, 1, WorkerId("w"), Token("t"))

    assert (await enqueueing).job.status is Status.PENDING


async def test_subscribers_are_told_of_accepted_jobs() -> None:
    told: list[JobEnqueued] = []
    stop = app.events.subscribe(JobEnqueued, told.append)

    bound = add.options(unique="once")
    await bound.enqueue(1)
    await bound.enqueue(1)
    stop()
    await add.enqueue(2)

    assert [event.duplicate for event in told] == [False, True]


async def test_raw_json_is_submitted_by_type_or_alias() -> None:
    inserted = await app.client.submit("add_up", b'{ "a": 1 }', {"priority": 3, "delay": "1m"})

    assert inserted.job.type == "add"
    assert inserted.job.priority == 3
    assert inserted.job.status is Status.SCHEDULED


async def test_raw_json_under_one_key_is_one_job() -> None:
    first = await app.client.submit("add", b'{"a":1}', key="k")
    again = await app.client.submit("add", b'{"a":1}', key="k")

    assert again.job.id == first.job.id
    assert again.duplicate
    assert (await add.options(key="k").enqueue(1)).duplicate


async def test_a_refusal_names_the_task_as_its_jobs_do() -> None:
    app = Windlass("memory:")

    @app.task(name="mail.welcome")
    async def welcome(to: str) -> None: ...

    with pytest.raises(PayloadError, match=r"does not fit task mail\.welcome"):
        await app.client.submit("mail.welcome", b'{"to":1}')


@pytest.mark.parametrize("payload", [b"", b"[]", b'{"a":"x"}', b'{"b":1}', b'{"a":1,"c":2}'])
async def test_raw_json_that_does_not_fit_is_refused(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        await app.client.submit("add", payload)


async def test_an_unknown_type_is_refused_with_what_may_have_been_meant() -> None:
    with pytest.raises(UnknownTask, match=r"There is no task 'ad'; did you mean 'add'") as refused:
        await app.client.submit("ad", b"{}")
    with pytest.raises(UnknownTask, match="known are add, add_up, tiny"):
        await app.client.submit("zzzzz", b"{}")
    with pytest.raises(UnknownTask, match="no task is registered at all"):
        await Windlass("memory:").client.submit("zzzzz", b"{}")

    assert refused.value.known[0] == "add"


async def test_one_options_object_serves_all_jobs_of_a_task() -> None:
    first, second = add.bind(1).new, add.bind(2).new

    assert isinstance(first, NewJob)
    assert first.options is second.options is add.defaults

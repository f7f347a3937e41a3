"""Asking about a job: status, result, cancel."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import uuid4

import pytest

from windlass import (
    ConfigError,
    Discard,
    JobCancelled,
    JobError,
    JobFailed,
    JobGone,
    JobNotFound,
    ResultError,
    ResultTimeout,
    Retention,
    Status,
    Windlass,
)
from windlass.testing import ManualClock, drain, in_memory

app = Windlass("memory:")


@dataclass
class Point:
    x: int
    y: int


@app.task
async def point(x: int) -> Point:
    return Point(x, -x)


@app.task
def nothing() -> None: ...


@app.task
async def fails() -> int:
    raise Discard("no such user")


@app.task
async def lies() -> int:
    return "text"  # type: ignore[return-value]


@app.task
async def waits_for_another(id: str) -> str:
    try:
        await app.job(id).result()
    except ConfigError as error:
        return str(error)
    return "was let through"


@app.task
def waits_for_another_in_a_thread() -> str:
    try:
        nothing.enqueue_sync().result(timeout=5)
    except ConfigError as error:
        return str(error)
    return "was let through"


@pytest.fixture(autouse=True)
def clock() -> Iterator[ManualClock]:
    with in_memory(app) as clock:
        yield clock
    app.portal.close()


async def test_a_result_comes_as_the_type_that_the_task_returns() -> None:
    made, none = await point.enqueue(3), await nothing.enqueue()

    await drain(app)

    assert await made.result() == Point(3, -3)
    assert await none.result() is None  # type: ignore[func-returns-value]
    assert made.job.status is Status.COMPLETED


async def test_a_result_is_awaited_until_the_job_ends() -> None:
    handle = await point.enqueue(3)
    waiting = asyncio.ensure_future(handle.result(timeout=20))
    await asyncio.sleep(0.02)
    assert not waiting.done()

    await drain(app)

    assert await waiting == Point(3, -3)


async def test_a_result_is_found_even_when_every_hint_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(app.store, "listen", lambda kinds, callback: lambda: None)
    handle = await point.enqueue(3)
    waiting = asyncio.ensure_future(handle.result(timeout=20))

    await drain(app)

    assert await waiting == Point(3, -3)


async def test_waiting_ends_after_the_timeout_and_the_job_goes_on() -> None:
    handle = await point.enqueue(3)

    with pytest.raises(ResultTimeout, match=r"has not ended within 20ms; it goes on") as timed_out:
        await handle.result(timeout="20ms")

    assert isinstance(timed_out.value, TimeoutError)
    assert (await handle.status()).status is Status.PENDING


async def test_waiting_leaves_no_listener_behind() -> None:
    before = len(app.store._listeners)  # type: ignore[attr-defined]
    handle = await point.enqueue(3)

    with pytest.raises(ResultTimeout):
        await handle.result(timeout=0.01)

    assert len(app.store._listeners) == before  # type: ignore[attr-defined]


async def test_a_failed_job_raises_with_its_last_error() -> None:
    handle = await fails.enqueue()
    await drain(app)

    with pytest.raises(JobFailed, match=r"discarded by the task.*Discard: no such user") as failed:
        await handle.result()

    assert failed.value.job.status is Status.FAILED
    assert failed.value.job_id == handle.id


async def test_a_cancelled_job_raises_with_the_reason() -> None:
    handle = await point.enqueue(3)

    job = await handle.cancel()

    assert job.status is Status.CANCELLED
    with pytest.raises(JobCancelled, match="was cancelled: cancelled on request"):
        await handle.result()


async def test_a_job_that_was_pruned_is_gone(clock: ManualClock) -> None:
    handle = await point.enqueue(3)
    await drain(app)
    clock.advance("2d")
    await app.store.prune(Retention(), 100)

    with pytest.raises(JobGone, match="ended and was pruned"):
        await handle.result()
    with pytest.raises(JobGone, match="ended and was pruned"):
        await handle.status()


async def test_a_job_that_never_was_is_not_found() -> None:
    handle = app.job(str(uuid4()))

    with pytest.raises(JobNotFound):
        await handle.result()
    with pytest.raises(JobNotFound):
        await handle.status()
    with pytest.raises(JobNotFound):
        await handle.cancel()
    with pytest.raises(JobError, match="call status"):
        _ = handle.job
    with pytest.raises(ConfigError, match="A job's id is a UUID"):
        app.job("order-17")


async def test_a_handle_of_a_bare_id_gives_the_task_s_result() -> None:
    id = (await point.enqueue(3)).id  # noqa: A001
    await drain(app)

    assert await app.job(id).result() == Point(3, -3)


async def test_a_result_that_does_not_fit_its_annotation_is_an_error() -> None:
    handle = await lies.enqueue()
    await drain(app)

    with pytest.raises(ResultError, match="does not fit the return annotation"):
        await handle.result()


async def test_result_is_refused_inside_a_task() -> None:
    other = await point.options(delay="1h").enqueue(1)
    handle = await waits_for_another.enqueue(other.id)
    in_thread = await waits_for_another_in_a_thread.enqueue()

    await drain(app)

    assert "would hold its slot" in await handle.result()
    assert "would hold its slot" in await in_thread.result()


async def test_all_who_wait_share_one_listener_and_none_is_left() -> None:
    before = len(app.store._listeners)  # type: ignore[attr-defined]
    handles = await app.enqueue_many(point.bind(n) for n in range(50))
    waiting = [asyncio.ensure_future(handle.result(timeout=20)) for handle in handles]
    twice = asyncio.ensure_future(handles[0].result(timeout=20))
    await asyncio.sleep(0.02)
    assert len(app.store._listeners) == before + 1  # type: ignore[attr-defined]

    await drain(app)

    assert [each.x for each in await asyncio.gather(*waiting)] == list(range(50))
    assert (await twice).x == 0
    assert len(app.store._listeners) == before  # type: ignore[attr-defined]

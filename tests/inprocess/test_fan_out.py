"""``fan_out``: order, limit, first error, cancellation, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial

import pytest

from windlass.errors import ConfigError
from windlass.fan_out import fan_out


class Boom(Exception):
    pass


def left_behind() -> list[asyncio.Task[object]]:
    """Tasks beside this test and the plugin's own that runs it."""
    return [
        task
        for task in asyncio.all_tasks() - {asyncio.current_task()}
        if "_call_in_runner_task" not in repr(task)
    ]


async def test_results_come_in_the_order_of_the_items_however_calls_end() -> None:
    async def wait(n: int) -> int:
        await asyncio.sleep(0.001 * (10 - n))
        return n * n

    assert await fan_out(wait, range(10)) == [n * n for n in range(10)]


async def test_no_items_give_no_results() -> None:
    async def never(n: int) -> int:
        raise AssertionError

    assert await fan_out(never, []) == []


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_no_more_calls_run_at_once_than_the_limit(limit: int) -> None:
    running = most = 0

    async def count(n: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await fan_out(count, range(300), limit=limit)

    assert 1 <= most <= limit


async def test_threads_respect_the_limit_and_reach_it() -> None:
    together = threading.Barrier(3, timeout=10)
    running = most = 0
    lock = threading.Lock()

    def count(n: int) -> int:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()
        with lock:
            running -= 1
        return -n

    assert await fan_out(count, range(9), limit=3) == [-n for n in range(9)]
    assert most == 3


async def test_a_plain_function_runs_in_a_thread_and_leaves_the_loop_free() -> None:
    loop_turned = threading.Event()
    asyncio.get_running_loop().call_soon(loop_turned.set)

    def wait(n: int) -> bool:
        return loop_turned.wait(10) and threading.current_thread() is not threading.main_thread()

    assert await fan_out(wait, [1, 2]) == [True, True]


async def test_the_first_error_cancels_the_siblings_and_is_raised_itself() -> None:
    cancelled: list[int] = []
    started = asyncio.Event()

    async def run(n: int) -> None:
        if n == 2:
            started.set()
            raise Boom("two")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(n)
            raise

    with pytest.raises(Boom, match="two"):
        await fan_out(run, range(4), limit=3)

    assert started.is_set()
    assert sorted(cancelled) == [0, 1]
    assert not left_behind()


async def test_an_error_while_the_siblings_end_does_not_replace_the_first() -> None:
    async def run(n: int) -> None:
        if n == 1:
            raise Boom("first")
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("second")

    with pytest.raises(Boom, match="first"):
        await fan_out(run, range(2))


async def test_no_item_is_taken_after_an_error() -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    async def fail(n: int) -> None:
        raise Boom

    with pytest.raises(Boom):
        await fan_out(fail, source(), limit=5)

    assert len(taken) <= 6


async def test_an_error_of_the_items_is_raised_and_ends_the_calls() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise Boom("items")

    async def wait(n: int) -> None:
        await asyncio.Event().wait()

    with pytest.raises(Boom, match="items"):
        await fan_out(wait, source())

    assert not left_behind()


@pytest.mark.parametrize("group", [ExceptionGroup("many", [Boom()])])
async def test_an_exception_group_raised_by_a_call_stays_whole(
    group: ExceptionGroup[Boom],
) -> None:
    async def fail(n: int) -> None:
        raise group

    with pytest.raises(ExceptionGroup) as caught:
        await fan_out(fail, [1])

    assert caught.value is group


async def test_cancelling_the_caller_cancels_the_calls_and_propagates() -> None:
    started, ended = asyncio.Event(), 0

    async def wait(n: int) -> None:
        nonlocal ended
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    async with asyncio.TaskGroup() as group:
        caller = group.create_task(fan_out(wait, range(5)))
        await started.wait()
        caller.cancel()

    assert caller.cancelled()
    assert ended >= 1
    assert not left_behind()


async def test_a_time_out_around_it_works() -> None:
    async def wait(n: int) -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await fan_out(wait, range(5))


async def test_a_cancellation_of_the_caller_is_not_hidden_by_an_error_of_a_call() -> None:
    started = asyncio.Event()

    async def run(n: int) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise Boom

    async with asyncio.TaskGroup() as group:
        caller = group.create_task(fan_out(run, [1]))
        await started.wait()
        caller.cancel()

    assert caller.cancelled()


async def test_a_call_that_ends_cancelled_by_itself_is_an_error_and_no_hole_in_the_results() -> (
    None
):
    async def run(n: int) -> int:
        if n == 1:
            raise asyncio.CancelledError
        return n

    with pytest.raises(asyncio.CancelledError):
        await fan_out(run, range(3))


async def test_threads_that_have_begun_are_waited_for_when_the_caller_is_cancelled() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()

    def block(n: int) -> None:
        begun.set()
        release.wait(10)
        ended.set()

    async with asyncio.TaskGroup() as group:
        caller = group.create_task(fan_out(block, [1]))
        await asyncio.to_thread(begun.wait, 10)
        caller.cancel()
        await asyncio.sleep(0)
        caller.cancel()  # once more, while it waits for the thread
        release.set()

    assert caller.cancelled()
    assert ended.is_set()


async def test_ten_thousand_items_half_failing_leave_nothing_behind() -> None:
    before = threading.active_count()

    async def guarded(n: int) -> str:
        if n % 2:
            raise Boom(n)
        return "ok"

    async def tolerant(n: int) -> str:
        try:
            (outcome,) = await fan_out(guarded, [n])
        except Boom:
            return "failed"
        return outcome

    outcomes = await fan_out(tolerant, range(10_000), limit=200)
    with pytest.raises(Boom):
        await fan_out(guarded, range(10_000))

    assert outcomes.count("ok") == outcomes.count("failed") == 5_000
    assert not left_behind()
    assert threading.active_count() == before


async def test_a_raised_error_is_freed_without_the_garbage_collector() -> None:
    async def fail(n: int) -> None:
        raise Boom

    gc.collect()
    gc.disable()
    try:
        with pytest.raises(Boom) as caught:
            await fan_out(fail, [1])
        left = weakref.ref(caught.value)
        del caught

        assert left() is None
    finally:
        gc.enable()


async def test_asynchronous_items_are_taken_lazily_and_closed() -> None:
    taken, closed = 0, False
    running = 0
    ahead = 0

    async def source() -> AsyncIterator[int]:
        nonlocal taken, closed
        try:
            while True:
                taken += 1
                yield taken
                await asyncio.sleep(0)
        finally:
            closed = True

    async def work(n: int) -> None:
        nonlocal running, ahead
        running += 1
        ahead = max(ahead, taken - running)
        await asyncio.sleep(0)
        running -= 1
        if n == 50:
            raise Boom

    with pytest.raises(Boom):
        await fan_out(work, source(), limit=4)

    assert taken < 60
    assert closed


@pytest.mark.parametrize("make", ["partial", "object", "lambda"])
async def test_whatever_makes_a_coroutine_is_awaited(make: str) -> None:
    async def add(a: int, b: int) -> int:
        return a + b

    class Adder:
        async def __call__(self, n: int) -> int:
            return n + 1

    calls: dict[str, Callable[[int], object]] = {
        "partial": partial(add, 1),
        "object": Adder(),
        "lambda": lambda n: add(1, n),
    }

    assert await fan_out(calls[make], [1, 2]) == [2, 3]


async def test_items_that_swallow_the_cancellation_begin_no_further_call() -> None:
    begun: list[int] = []

    async def stubborn() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 2

    async def fail(n: int) -> None:
        begun.append(n)
        raise ValueError(n)

    with pytest.raises(ValueError, match="1"):
        await fan_out(fail, stubborn())

    assert begun == [1]


async def test_stop_iteration_from_a_thread_is_an_error_and_no_hang() -> None:
    def stop(n: int) -> int:
        return next(iter([]))

    with pytest.raises(RuntimeError, match="StopIteration"):
        await fan_out(stop, [1])


async def test_threads_run_side_by_side() -> None:
    together = threading.Barrier(8)

    assert sorted(await fan_out(lambda _: together.wait(timeout=10), range(8))) == [*range(8)]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        await fan_out(print, [1], limit=limit)

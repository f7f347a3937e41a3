"""How long the store takes: measured for whoever wants to know, and not otherwise."""

from __future__ import annotations

from windlass import Windlass
from windlass.events import StoreAnswered
from windlass.metrics import Metrics
from windlass.observed import plain
from windlass.stores.memory import MemoryStore


async def test_each_operation_is_told_with_its_name() -> None:
    app = Windlass("memory:")
    told: list[StoreAnswered] = []
    app.events.subscribe(StoreAnswered, told.append)

    async with app:
        await app.store.stats()
        await app.store.queues()

    assert [each.operation for each in told] == ["stats", "queues"]
    assert all(each.took >= 0 for each in told)


async def test_the_metrics_hold_a_histogram_by_operation() -> None:
    app = Windlass("memory:")
    metrics = Metrics(app.events)

    async with app:
        await app.store.queues()
        text = (await metrics.render(await app.store.stats())).decode()

    assert 'windlass_store_operation_seconds_count{operation="queues"} 1.0' in text


async def test_while_nobody_asks_a_call_goes_straight_to_the_store() -> None:
    app = Windlass("memory:")

    async with app:
        answer = app.store.stats()
        name = answer.cr_code.co_qualname  # type: ignore[attr-defined]
        await answer

    assert name == "MemoryStore.stats"
    assert isinstance(plain(app.store), MemoryStore)


async def test_a_store_that_is_put_back_is_not_wrapped_twice() -> None:
    app = Windlass("memory:")
    before = app.store

    app.use_store(MemoryStore())
    app.use_store(before)

    assert app.store is before

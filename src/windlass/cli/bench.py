"""``windlass bench``: what this machine and store can do, in about ten seconds.

Measures the whole way of a job (insert, claim, run a task that does nothing, Ack) in one process, on a
store of its own beside the real one, and counts that every job ran exactly once.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from windlass.cli.exits import FAILED
from windlass.cli.output import Bar, emit, json_option, progress, say, table
from windlass.cli.session import run

if TYPE_CHECKING:
    from windlass.app import Windlass

__all__ = ["bench"]

_CHUNK = 5_000


class Figure(NamedTuple):
    """One measurement: *value* in *unit*, and how it was taken."""

    name: str
    value: float
    unit: str
    how: str


@click.command
@click.option("--jobs", "count", type=click.IntRange(100), default=10_000, show_default=True,
              help="Jobs to insert and to run.")  # fmt: skip
@click.option("--store", type=click.Choice(["sqlite", "memory"]), default="sqlite",
              show_default=True, help="Which kind of store.")  # fmt: skip
@click.option("--durability", type=click.Choice(["full", "normal"]), default="full",
              show_default=True, help="full: survives loss of power.")  # fmt: skip
@click.option("--directory", type=click.Path(exists=True, file_okay=False, path_type=Path),
              default=".", help="On which disk (default: the current directory's).")  # fmt: skip
@json_option
def bench(count: int, store: str, durability: str, directory: Path, as_json: bool) -> None:
    """Measure what this machine and store can do.

    Uses a store of its own in --directory, and removes it.

    \b
    windlass bench
    windlass bench --jobs 50000 --durability normal --json
    """
    with tempfile.TemporaryDirectory(prefix=".windlass-bench-", dir=directory) as place:
        url = "memory:" if store == "memory" else f"sqlite:///{Path(place).resolve()}/bench.db"
        with progress("Measuring", 4) as bar:
            figures, exact = run(_measure(url, count, durability, bar))
    setting = {
        "store": store,
        "durability": durability if store == "sqlite" else "none",
        "jobs": count,
        "cores": os.cpu_count(),
        "exact": exact,
    }
    if as_json:
        emit(setting | {figure.name: figure.value for figure in figures})
    else:
        most = max(figure.value for figure in figures if figure.unit == "jobs/s")
        table(
            ["", ">", "", "", "~how"],
            [[f.name, _number(f.value), f.unit, _bar(f, most), f.how] for f in figures],
        )
        kept = "every job ran exactly once" if exact else "JOBS WERE LOST OR REPEATED"
        say(f"{store}, durability {setting['durability']}, {count:,} jobs: {kept}.")
    if not exact:
        raise click.exceptions.Exit(FAILED)


async def _measure(url: str, count: int, durability: Any, bar: Bar) -> tuple[list[Figure], bool]:
    ran: dict[int, int] = {}
    done = asyncio.Event()
    async with _app(url, count, durability, ran, done) as app:
        figures = [await _one_by_one(app)]
        bar.update(1, "insert in bulk")
        figures.append(await _in_bulk(app, count))
        bar.update(2, "drain")
        figures.append(await _drain(app, count, done))
        exact = sorted(ran) == list(range(count)) and set(ran.values()) == {1}
        bar.update(3, "latency")
        figures += await _latency(app)
        bar.update(4)
    return figures, exact


@asynccontextmanager
async def _app(
    url: str, count: int, durability: Any, ran: dict[int, int], done: asyncio.Event
) -> AsyncIterator[Windlass[Any]]:
    from windlass.app import Windlass

    app: Windlass[Any] = Windlass(url, capacity=count + 1_000, durability=durability)

    @app.task(name="nothing", queue="bench")
    async def nothing(n: int) -> None:
        ran[n] = ran.get(n, 0) + 1
        if len(ran) == count:
            done.set()

    @app.task(name="stamp", queue="latency")
    async def stamp(at: float) -> float:
        return time.monotonic() - at

    @app.task(name="idle", queue="idle")
    async def idle() -> None: ...

    async with app:
        yield app


async def _one_by_one(app: Windlass[Any]) -> Figure:
    """Inserts that wait for each other: what a web request pays."""
    idle = app.registry.get("idle")
    assert idle is not None
    took = []
    for _ in range(200):
        begun = time.perf_counter()
        await idle.enqueue()
        took.append(time.perf_counter() - begun)
    p50 = statistics.median(took) * 1e6
    return Figure("enqueue one, p50", p50, "µs", "200 after one another, each durable")


async def _in_bulk(app: Windlass[Any], count: int) -> Figure:
    nothing = app.registry.get("nothing")
    assert nothing is not None
    begun = time.perf_counter()
    for start in range(0, count, _CHUNK):
        calls = (nothing.bind(n) for n in range(start, min(start + _CHUNK, count)))
        await app.enqueue_many(calls)
    rate = count / (time.perf_counter() - begun)
    return Figure("enqueue in bulk", rate, "jobs/s", f"batches of {min(_CHUNK, count):,}")


async def _drain(app: Windlass[Any], count: int, done: asyncio.Event) -> Figure:
    """One worker in this process runs all jobs; stops when nothing is left."""
    worker = _worker(app, "bench")
    begun = time.perf_counter()
    working, waiting = asyncio.create_task(worker.run()), asyncio.create_task(done.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        seconds = time.perf_counter() - begun
    finally:
        waiting.cancel()
        worker.stop()
        await working
    return Figure("run to the end", count / seconds, "jobs/s", "one worker process, no-op task")


async def _latency(app: Windlass[Any]) -> list[Figure]:
    """From enqueue to start, with an idle worker in this process."""
    stamp = app.registry.get("stamp")
    assert stamp is not None
    worker = _worker(app, "latency")
    working = asyncio.create_task(worker.run())
    took: list[float] = []
    try:
        for _ in range(200):
            job = await stamp.enqueue(time.monotonic())
            took.append(float(await job.result(timeout=10)))
            await asyncio.sleep(0.002)
    finally:
        worker.stop()
        await working
    took.sort()
    how = "one job at a time, idle worker in this process"
    return [
        Figure("enqueue to start, p50", took[len(took) // 2] * 1e3, "ms", how),
        Figure("enqueue to start, p99", took[int(len(took) * 0.99) - 1] * 1e3, "ms", how),
    ]


def _worker(app: Windlass[Any], queue: str) -> Any:
    from windlass.worker import WorkerOptions

    return app.worker(WorkerOptions(queues=frozenset({queue}), processes=1))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _bar(figure: Figure, most: float) -> str:
    if figure.unit != "jobs/s":
        return ""
    return "█" * max(1, round(24 * figure.value / most))

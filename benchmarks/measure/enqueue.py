"""How fast jobs are accepted, durably: in bulk, by a hundred callers at once, one by one."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time

from measure.jobs import app, noop
from measure.lab import BATCH, Lab, percentile


async def bulk(lab: Lab) -> dict[str, float]:
    """``enqueue_many`` in batches; the time includes binding the arguments."""
    count = lab.count(100_000)
    async with app:
        began = time.perf_counter()
        for first in range(0, count, BATCH):
            last = min(first + BATCH, count)
            await app.enqueue_many(noop.bind(i) for i in range(first, last))
        took = time.perf_counter() - began
        await _check(count)
    return {"bulk enqueue, jobs/s": count / took}


async def concurrent(lab: Lab) -> dict[str, float]:
    """A hundred callers, each awaiting its own ``enqueue`` before the next."""
    callers, each = 100, lab.count(50_000) // 100
    latencies: list[float] = []

    async def caller(number: int) -> None:
        for i in range(each):
            began = time.perf_counter()
            await noop.enqueue(number * each + i)
            latencies.append(time.perf_counter() - began)

    async with app:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for number in range(callers):
                group.create_task(caller(number))
        took = time.perf_counter() - began
        await _check(callers * each)
    return {
        "100 enqueuers, jobs/s": callers * each / took,
        "100 enqueuers, p50 ms": statistics.median(latencies) * 1e3,
        "100 enqueuers, p99 ms": percentile(latencies, 0.99) * 1e3,
    }


async def one_by_one(lab: Lab) -> dict[str, float]:
    """One caller, beside bare inserts by ``sqlite3`` with a commit at FULL each, in turns of 50."""
    turns, each = max(2, lab.count(2_000) // 50), 50
    ours: list[float] = []
    bare: list[float] = []
    connection = _bare_database(lab)
    async with app:
        for turn in range(turns):
            for i in range(each):
                began = time.perf_counter()
                await noop.enqueue(turn * each + i)
                ours.append(time.perf_counter() - began)
            for i in range(each):
                began = time.perf_counter()
                _bare_insert(connection, turn * each + i)
                bare.append(time.perf_counter() - began)
        await _check(turns * each)
    connection.close()
    mine, theirs = statistics.median(ours) * 1e6, statistics.median(bare) * 1e6
    return {
        "one by one, p50 µs": mine,
        "one by one, p99 µs": percentile(ours, 0.99) * 1e6,
        "bare sqlite3 insert, p50 µs": theirs,
        "one by one above bare, p50 µs": mine - theirs,
    }


def _bare_database(lab: Lab) -> sqlite3.Connection:
    connection = sqlite3.connect(lab.folder / "bare.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE job (id TEXT PRIMARY KEY, type TEXT, payload BLOB, at REAL)")
    return connection


def _bare_insert(connection: sqlite3.Connection, i: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(
        "INSERT INTO job VALUES (?, 'noop', ?, ?)",
        (f"0198f3a0-0000-7000-8000-{i:012d}", b'{"i":%d}' % i, time.time()),
    )
    connection.execute("COMMIT")


async def _check(count: int) -> None:
    stored = (await app.store.stats()).count()
    if stored != count:
        raise SystemExit(f"{count} jobs were accepted and {stored} are stored.")

"""Whether a claim becomes dearer as finished jobs pile up: 10,000 against 1,000,000 kept."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from measure.jobs import app, noop
from measure.lab import Lab, percentile
from windlass.job import Job, Token, WorkerId, WorkerInfo
from windlass.lifecycle import Returned, settle
from windlass.retry import RetryPolicy
from windlass.store import Want

_ME = WorkerId("benchmark")
_CLAIM = 100
_WANT = Want(None, frozenset({"noop"}))


async def kept(lab: Lab) -> dict[str, float]:
    """Claims of 100 jobs while 20,000 wait, with few and with many finished jobs in the file."""
    few, many = lab.count(10_000), lab.count(1_000_000)
    async with app:
        await app.store.heartbeat(WorkerInfo(id=_ME, host="", pid=0, version="", queues=None,
                                             types=("noop",), slots=_CLAIM))  # fmt: skip
        await _finish(few)
        light = await _claim_times(lab)
        await _finish(many - few - lab.count(20_000))
        heavy = await _claim_times(lab)
    return {
        f"claim of {_CLAIM} with 10,000 kept, p99 ms": percentile(light, 0.99) * 1e3,
        f"claim of {_CLAIM} with 1,000,000 kept, p99 ms": percentile(heavy, 0.99) * 1e3,
        "claim p99, 1,000,000 kept / 10,000 kept": percentile(heavy, 0.99)
        / percentile(light, 0.99),
    }


async def _claim_times(lab: Lab) -> list[float]:
    count = lab.count(20_000)
    await _enqueue(count)
    times: list[float] = []
    for _ in range(count // _CLAIM):
        began = time.perf_counter()
        jobs = await _claim(_CLAIM)
        times.append(time.perf_counter() - began)
        await _ack(jobs)
    return times


async def _finish(count: int) -> None:
    """Enqueue, claim and complete *count* jobs, by the store's own operations."""
    for first in range(0, count, 10_000):
        part = min(10_000, count - first)
        await _enqueue(part)
        while jobs := await _claim(1000):
            await _ack(jobs)


async def _enqueue(count: int) -> None:
    for first in range(0, count, 10_000):
        await app.enqueue_many(noop.bind(i) for i in range(first, min(first + 10_000, count)))


async def _claim(limit: int) -> list[Job]:
    return (await app.store.claim(_WANT, limit, _ME, Token(uuid.uuid4().hex))).jobs


async def _ack(jobs: Sequence[Job]) -> None:
    policy = RetryPolicy()
    await app.store.ack([settle(job, Returned(), policy, 0.0) for job in jobs])

"""How soon an idle worker starts a job: from before ``enqueue`` is called to inside the function."""

from __future__ import annotations

import asyncio
import statistics
import time

from measure.jobs import STARTED, app, entries, noop, size_of
from measure.lab import Lab, percentile, wait_for_size, worker

_GAP = 0.02
_WARM = 10


async def same_process(lab: Lab) -> dict[str, float]:
    """Client and worker in one process and one event loop, as under ``windlass serve``."""
    async with app, asyncio.TaskGroup() as group:
        work = app.worker()
        group.create_task(work.run())
        sent = await _send(lab)
        await _until(lab, len(sent))
        work.stop()
    return _report("start in the same process", lab, sent)


async def across_processes(lab: Lab) -> dict[str, float]:
    """The client here, the worker in a process of its own."""
    async with app:
        with worker(lab) as child:
            await noop.enqueue(-1)
            await asyncio.to_thread(wait_for_size, lab.ledger, size_of(1), child, 30)
            sent = await _send(lab)
            await _until(lab, len(sent) + 1)
    return _report("start across processes", lab, sent)


async def _send(lab: Lab) -> list[int]:
    """Enqueue now and then, on an idle worker each time; when each call began."""
    sent: list[int] = []
    await asyncio.sleep(0.5)
    for i in range(lab.count(500) + _WARM):
        sent.append(time.monotonic_ns())
        await noop.enqueue(i)
        await asyncio.sleep(_GAP)
    return sent


async def _until(lab: Lab, count: int) -> None:
    async with asyncio.timeout(20):
        while lab.ledger.stat().st_size < size_of(count):  # noqa: ASYNC110 - written elsewhere
            await asyncio.sleep(0.01)


def _report(what: str, lab: Lab, sent: list[int]) -> dict[str, float]:
    started = {entry.i: entry.at for entry in entries(lab.ledger) if entry.kind == STARTED}
    waits = [(started[i] - at) / 1e6 for i, at in enumerate(sent)][_WARM:]
    return {
        f"{what}, p50 ms": statistics.median(waits),
        f"{what}, p99 ms": percentile(waits, 0.99),
    }

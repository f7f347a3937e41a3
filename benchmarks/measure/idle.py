"""What a worker costs that has nothing to do."""

from __future__ import annotations

import asyncio
import time

from measure.jobs import app, noop, size_of
from measure.lab import Lab, cpu_seconds, memory_mb, wait_for_size, worker


async def idle(lab: Lab) -> dict[str, float]:
    """Memory and processor time of a worker process after its first job, with nothing to do."""
    seconds = max(2.0, 20.0 * lab.scale)
    async with app:
        await noop.enqueue(0)
    with worker(lab) as child:
        wait_for_size(lab.ledger, size_of(1), child, 30)
        await asyncio.sleep(1)
        before, began = cpu_seconds(child.pid), time.monotonic()
        await asyncio.sleep(seconds)
        used = cpu_seconds(child.pid) - before
        took = time.monotonic() - began
        memory = memory_mb(child.pid)
    return {"idle worker, % of a core": 100 * used / took, "idle worker, MB": memory}

"""How fast one worker process empties a full queue, and what it weighs; delivery is counted exactly."""

from __future__ import annotations

import time

from measure.jobs import ENDED, SLEEP, STARTED, app, entries, noop, size_of, sleep
from measure.lab import BATCH, Lab, memory_mb, wait_for_size, worker
from windlass.job import Status


async def drain(lab: Lab) -> dict[str, float]:
    """20,000 no-op jobs with one small argument, from the first start to the last."""
    count = lab.count(20_000)
    async with app:
        for first in range(0, count, BATCH):
            await app.enqueue_many(noop.bind(i) for i in range(first, min(first + BATCH, count)))
    with worker(lab) as child:
        wait_for_size(lab.ledger, size_of(count), child, 120)
        most = memory_mb(child.pid, "VmHWM")
    starts = [entry.at for entry in entries(lab.ledger)]
    await _check_delivery(lab, count, STARTED)
    return {
        "drain of no-op jobs, jobs/s": count / ((max(starts) - min(starts)) / 1e9),
        "worker memory at its most, MB": most,
    }


async def waiting(lab: Lab) -> dict[str, float]:
    """2,000 jobs that wait 100 ms each, a hundred at a time: the ideal is 1,000 per second."""
    count = lab.count(2_000)
    async with app:
        await app.enqueue_many(sleep.bind(i) for i in range(count))
    with worker(lab, concurrency=100) as child:
        wait_for_size(lab.ledger, size_of(2 * count), child, 30 + 2 * count * SLEEP / 100)
    at = [entry.at for entry in entries(lab.ledger)]
    await _check_delivery(lab, count, ENDED)
    return {"100 ms jobs at concurrency 100, jobs/s": count / ((max(at) - min(at)) / 1e9)}


async def _check_delivery(lab: Lab, count: int, kind: int) -> None:
    """Each job ran exactly once by the ledger, and is completed by the store."""
    ran = [entry.i for entry in entries(lab.ledger) if entry.kind == kind]
    if len(ran) != count or len(set(ran)) != count:
        raise SystemExit(f"Of {count} jobs {len(set(ran))} ran, {len(ran)} times.")
    async with app:
        end = time.monotonic() + 5
        while (done := (await app.store.stats()).count(Status.COMPLETED)) != count:
            if time.monotonic() > end:
                raise SystemExit(f"Of {count} jobs {done} are completed in the store.")

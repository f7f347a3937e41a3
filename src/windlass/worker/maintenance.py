"""Maintenance: what somebody has to do for all workers, and every worker may do at any time.

* promote: jobs whose time has come become pending;
* reclaim: jobs of workers that died are settled ``Expired``;
* prune: ended jobs are deleted when they have been kept long enough.

There is no leader: each step is one operation of the store that any number of callers may repeat. A
worker is suspected by the *second look* only: its beat number was seen unchanged for a whole lease on
this process's own monotonic clock, so that neither a clock that was set nor a frozen observer kills
anybody who is alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from random import Random

from windlass.clock import Clock
from windlass.crashpoints import crash_point
from windlass.errors import StoreError
from windlass.job import Failure, Job, Retention, WorkerId, WorkerInfo
from windlass.lifecycle import Ack, Expired, settle
from windlass.retry import RetryPolicy
from windlass.store import Store
from windlass.worker.backoff import Backoff

__all__ = ["Maintenance", "Observation", "Policies", "reclaim"]

_BATCH = 1_000
_PRUNE_EVERY = 30.0

Policies = Callable[[Job], RetryPolicy]
"""The retry policy that holds for a job; the default one for a type that is unknown here."""


class Observation:
    """When each worker's beat number was first seen as it is now."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._seen: dict[WorkerId, tuple[int, float]] = {}
        self._last = float("-inf")

    def suspects(self, workers: Iterable[WorkerInfo], now: float) -> list[tuple[WorkerId, int]]:
        """Those who have not beaten for a lease. A look that comes late forgets all before it: whoever
        was paused himself knows nothing about others."""
        if now - self._last > 2 * self._interval:
            self._seen.clear()
        self._last = now
        seen: dict[WorkerId, tuple[int, float]] = {}
        suspected = []
        for worker in workers:
            known = self._seen.get(worker.id)
            since = known[1] if known is not None and known[0] == worker.beat else now
            seen[worker.id] = (worker.beat, since)
            if now - since >= worker.lease.total_seconds():
                suspected.append((worker.id, worker.beat))
        self._seen = seen
        return suspected


async def reclaim(
    store: Store,
    suspected: list[tuple[WorkerId, int]],
    *,
    by: WorkerId | None,
    policies: Policies,
    rng: Random,
) -> int:
    """Take the jobs of the dead from them; how many. Raises StoreError."""
    count = 0
    while True:
        jobs = await store.reclaim(suspected, _BATCH, by=by)
        if jobs:
            crash_point("mid-reclaim")
            await store.ack([_expired(job, policies, rng) for job in jobs])
            count += len(jobs)
        if len(jobs) < _BATCH:
            return count


def _expired(job: Job, policies: Policies, rng: Random) -> Ack:
    message = f"Worker {job.worker} died, or was cut off from the store, while it ran this job."
    failure = Failure(job.attempt, "lost", "WorkerDied", message)
    return settle(job, Expired(failure), policies(job), rng.random())


class Maintenance:
    """The three loops, as coroutines for the worker's task group."""

    def __init__(
        self,
        store: Store,
        *,
        worker: Callable[[], WorkerId | None],
        policies: Policies,
        retention: Retention,
        suspects_wait: Callable[[], Awaitable[None]],
        poll: float,
        check: float,
        clock: Clock,
        rng: Random,
        backoff: Callable[[str, float], Backoff],
    ) -> None:
        self._store = store
        self._worker = worker
        self._policies = policies
        self._retention = retention
        self._suspects_wait = suspects_wait
        self._poll = poll
        self._check = check
        self._clock = clock
        self._rng = rng
        self._backoff = backoff
        self._observation = Observation(check)
        self._next_due = float("inf")
        self._sooner = asyncio.Event()

    def due_in(self, seconds: float) -> None:
        """A job of ours comes due then: promotion need not wait for its next look."""
        # The loop's own time: this only decides when to ask, and the store decides what is due.
        due = asyncio.get_running_loop().time() + seconds
        if due < self._next_due:
            self._next_due = due
            self._sooner.set()

    async def promote(self) -> None:
        """Promote for ever: when the next job is due, and twice in each poll for those that came since."""
        backoff = self._backoff("promote", 5.0)
        while True:
            self._next_due = float("inf")
            self._sooner.clear()
            try:
                self.due_in(await self.promote_once())
            except StoreError as error:
                self.due_in(backoff.failed(error))
            else:
                backoff.succeeded()
            await self._until_due()

    async def _until_due(self) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < self._next_due:
            self._sooner.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._next_due):
                    await self._sooner.wait()
        # A store in memory never gives way by itself.
        await asyncio.sleep(0)

    async def reclaim(self) -> None:
        """Check for ever whether somebody has died."""
        await self._for_ever("reclaim", self._reclaim_once)

    async def prune(self) -> None:
        """Prune for ever."""
        await self._for_ever("prune", self._prune_once)

    async def promote_once(self) -> float:
        """One promotion; seconds until the next is worth while."""
        done = await self._store.promote(_BATCH)
        if done.promoted:
            crash_point("mid-promote")
        if done.suspects:
            await self._suspects_wait()
        if done.next_due is None:
            return self._jittered(self._poll / 2)
        return min(done.next_due.total_seconds(), self._jittered(self._poll / 2))

    async def _reclaim_once(self) -> float:
        workers = await self._store.workers()
        suspected = self._observation.suspects(workers, self._clock.monotonic())
        by = self._worker()
        suspected = [(worker, beat) for worker, beat in suspected if worker != by]
        await reclaim(self._store, suspected, by=by, policies=self._policies, rng=self._rng)
        return self._check

    async def _prune_once(self) -> float:
        deleted = await self._store.prune(self._retention, _BATCH)
        # A short rest between two batches lets others write.
        return 0.05 if deleted >= _BATCH else self._jittered(_PRUNE_EVERY)

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.75 + self._rng.random() / 2)

    async def _for_ever(self, name: str, once: Callable[[], Awaitable[float]]) -> None:
        backoff = self._backoff(name, 5.0)
        while True:
            try:
                delay = await once()
            except StoreError as error:
                delay = backoff.failed(error)
            else:
                backoff.succeeded()
            await asyncio.sleep(delay)

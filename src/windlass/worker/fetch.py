"""Fetch: claim as many jobs as there are free slots, and hand each over to be run.

A fetcher never claims more than it can start at once, so a job never waits inside a worker while
another one idles. It asks again at once after a full batch; else it sleeps until one of these: a hint
that jobs are ready, a slot that became free while work was left, a rate limit that opens, or the
poll. Hints may be lost, so the poll is always on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from random import Random
from uuid import uuid4

from windlass.crashpoints import crash_point
from windlass.errors import StoreError
from windlass.job import Job, Token, WorkerId
from windlass.store import HandOut, JobStore, Want
from windlass.worker.backoff import Backoff

__all__ = ["Fetcher"]

_MAX_BATCH = 1_000
"""Jobs per claim at most: a store's transaction should stay short."""


class Fetcher:
    """Claims for one pool of slots. :attr:`free` is all that the rest of the worker touches."""

    def __init__(
        self,
        store: JobStore,
        want: Want,
        slots: int,
        *,
        worker: Callable[[], WorkerId | None],
        outstanding: set[Token],
        start: Callable[[list[Job]], None],
        backoff: Backoff,
        poll: float,
        rng: Random,
    ) -> None:
        self._store = store
        self.want = want
        self.slots = slots
        self.free = slots
        """Slots in which nothing runs."""
        self.idle = False
        """The latest claim found nothing, and nothing has called for another one since."""
        self._worker = worker
        self._outstanding = outstanding
        self._start = start
        self._backoff = backoff
        self._poll = poll
        self._rng = rng
        self._wake = asyncio.Event()
        self.held_up = False
        """Does not claim because it may not, and waits to be woken when it may."""
        self._more = False
        """The latest claim was full: there is probably more."""

    def release(self) -> None:
        """A slot became free."""
        self.free += 1
        if self._more:
            self._wake.set()

    def wake(self) -> None:
        """There may be something to claim, or a reason not to claim has gone."""
        self.idle = False
        self._wake.set()

    async def run(self) -> None:
        """Claim for ever. *worker* answers None while nothing shall be claimed."""
        while True:
            self._wake.clear()
            worker = self._worker()
            self.held_up = worker is None
            if worker is None or self.free <= 0:
                self._more = True
                await self._wake.wait()
                continue
            limit = min(self.free, _MAX_BATCH)
            hand_out = await self._claim(worker, limit)
            if hand_out is None:
                continue
            if hand_out.jobs:
                crash_point("after-claim")
                self._start(hand_out.jobs)
            self._more = len(hand_out.jobs) >= limit
            if not self._more:
                self.idle = not hand_out.jobs and hand_out.opens_in is None
                await self._rest(hand_out)

    async def _claim(self, worker: WorkerId, limit: int) -> HandOut | None:
        """One call. When it fails, what it may have claimed in the store belongs to nobody here: the
        token is forgotten for ever, and the heartbeat hands back whatever bears it."""
        token = Token(uuid4().hex)
        self._outstanding.add(token)
        try:
            hand_out = await self._store.claim(self.want, limit, worker, token)
        except StoreError as error:
            delay = self._backoff.failed(error)
        else:
            self._backoff.succeeded()
            return hand_out
        finally:
            # The jobs of a hand-out are started before anything else runs, so that between here and
            # there no heartbeat can find a token that is neither outstanding nor held.
            self._outstanding.discard(token)
        await asyncio.sleep(delay)
        return None

    async def _rest(self, hand_out: HandOut) -> None:
        seconds = self._poll * (0.75 + self._rng.random() / 2)
        if hand_out.opens_in is not None:
            seconds = min(seconds, max(hand_out.opens_in.total_seconds(), 0.001))
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()

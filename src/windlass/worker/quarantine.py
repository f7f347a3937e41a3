"""Quarantine: the process in which suspects run, apart from everything else.

A job that was in flight when two workers died is claimed by nobody but a quarantine: a worker process
of one slot that runs one suspect at a time. If it dies, that job alone can be to blame, and is charged;
if the job ends well, it is a suspect no longer. Whichever worker finds suspects waiting starts one,
unless one lives already; it ends by itself when there are no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random

from windlass.errors import StoreError
from windlass.events import EventBus, SuspectsWait
from windlass.job import WorkerId, WorkerInfo
from windlass.store import Store
from windlass.worker.supervisor import WorkerProcess

__all__ = ["Quarantine"]

_LAST_CHANCE = 3.0
"""Seconds that a quarantine gets to hand its job back when its starter stops."""
_PAUSE = 0.5
"""Seconds between two quarantines."""


class Quarantine:
    """Starts *command*, a worker with ``quarantine=True``, when it is wanted. None: it cannot."""

    def __init__(
        self,
        command: Sequence[str] | None,
        store: Store,
        events: EventBus,
        *,
        worker: Callable[[], WorkerId],
        queues: frozenset[str] | None,
        types: frozenset[str],
        rng: Random,
    ) -> None:
        self._command = command
        self._store = store
        self._events = events
        self._worker = worker
        self._queues = queues
        self._types = types
        self._rng = rng
        self._asked = asyncio.Event()
        self._said = False

    def wanted(self, workers: Sequence[WorkerInfo]) -> None:
        """Suspects wait, and *workers* live: start a quarantine unless one of them can serve ours."""
        if any(self._serves(worker) for worker in workers):
            return
        if self._command is not None:
            self._asked.set()
        elif not self._said:
            self._said = True
            self._events.emit(SuspectsWait(self._worker()))

    async def run(self) -> None:
        """Run one quarantine after another, for ever."""
        while self._command is not None:
            await self._asked.wait()
            await self._live(self._command)
            await asyncio.sleep(_PAUSE)
            self._asked.clear()

    def _serves(self, worker: WorkerInfo) -> bool:
        queues = None if worker.queues is None else frozenset(worker.queues)
        covers = queues is None or (self._queues is not None and self._queues <= queues)
        return worker.quarantine and covers and self._types <= frozenset(worker.types)

    async def _live(self, command: Sequence[str]) -> None:
        """One quarantine from start to burial."""
        try:
            child = WorkerProcess(command)
        except OSError:
            return  # The system has no room for a process now; the suspects wait on.
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            await self._end(child)
            raise
        finally:
            child.close()
        if code != 0:
            # Else its lease runs out, and others see to it.
            with suppress(StoreError):
                await child.bury(self._store, self._rng)

    async def _end(self, child: WorkerProcess) -> None:
        """The worker stops: the quarantine loses its parent, hands back its job and ends."""
        child.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_CHANCE):
                await child.process.gone.wait()
        await child.process.end()

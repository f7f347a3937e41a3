"""The worker: fetch, execute and complete wired together, from start to drained.

    fetch ──Job──► execute ──Outcome──► settle ──Ack──► complete

:meth:`Worker.run` is one task group around those loops and the maintenance. Stopping goes down one
ladder: quiet (claim nothing more), grace (let runs end), cancel (they become ``Interrupted``), flush
the Acks, leave. One deadline governs all of it; asking again shortens it.
"""

from __future__ import annotations

import asyncio
import functools
import os
from asyncio import CancelledError
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from datetime import timedelta
from random import Random
from typing import Any, Literal

from windlass.clock import Clock, SystemClock
from windlass.codec import safe_text
from windlass.crashpoints import crash_point
from windlass.errors import ConfigError, StoreError
from windlass.events import EventBus, WorkerStopped
from windlass.executors import call_on_loop
from windlass.executors.processes import Processes
from windlass.executors.threads import Threads
from windlass.job import Job, Retention, WorkerId
from windlass.middleware import Middleware
from windlass.store import Notice, Store, Want
from windlass.tasks import Registry
from windlass.worker.backoff import Backoff
from windlass.worker.complete import Completer
from windlass.worker.execute import Caller, around
from windlass.worker.fetch import Fetcher
from windlass.worker.maintenance import Maintenance
from windlass.worker.options import WorkerOptions
from windlass.worker.presence import EXIT_STALLED, EXIT_STUCK, Presence
from windlass.worker.quarantine import Quarantine
from windlass.worker.runs import Runs

__all__ = ["EXIT_STALLED", "EXIT_STUCK", "Worker", "WorkerState"]

WorkerState = Literal["starting", "running", "quiet", "stopping", "stalled", "stopped"]

_CANCEL_WAIT = 2.0
"""Seconds that cancelled runs get to clean up, and the store to take the last Acks."""
_QUARANTINE_IDLE = 10.0
"""Seconds without a suspect after which a quarantine ends."""


class Worker:
    """Runs jobs of *registry*'s tasks from *store* until it is told to stop.

    *resources* is entered before the first claim, and its value is every context's ``resources``.
    An *embedded* worker lives in somebody else's process and never ends that; another one calls *exit*
    with a code when a run is left that only the end of the process ends.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        events: EventBus,
        options: WorkerOptions | None = None,
        *,
        resources: Callable[[], AbstractAsyncContextManager[Any]] | None = None,
        middleware: Sequence[Middleware] = (),
        retention: Retention | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        embedded: bool = True,
        exit: Callable[[int], object] = os._exit,
    ) -> None:
        self._store = store
        self._events = events
        self._options = options = options or WorkerOptions()
        self._lifespan = resources
        self._clock = clock = clock or SystemClock()
        self._rng = rng = rng or Random()
        self._exit = exit
        self._state: WorkerState = "starting"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked: list[Callable[[], None]] = []
        self._stop_by: float | None = None
        self._stop_asked = asyncio.Event()
        self._attention = asyncio.Event()

        self._tasks = {name: task for name in registry.types() if (task := registry.get(name))}
        self._threads = Threads()
        self._processes = Processes()
        callers: dict[str, Caller] = {
            "loop": call_on_loop,
            "thread": self._threads.call,
            "process": self._processes.call,
        }
        self._runs = Runs(
            store, self._tasks, {kind: around(middleware, call) for kind, call in callers.items()},
            events, worker=lambda: self.id, accepting=lambda: self._state == "running",
            changed=self._on_change, due_in=lambda delay: self._maintenance.due_in(delay),
            clock=clock, rng=rng,
        )  # fmt: skip
        self._completer = Completer(store, self._runs.answered, self._backoff("ack"))
        self._runs.completer = self._completer
        slots = self._slots()
        self._presence = Presence(
            store, self._runs, events, options, types=tuple(self._tasks), slots=sum(slots.values()),
            state=self._public_state, embedded=embedded, exit=exit, clock=clock, backoff=self._backoff,
        )  # fmt: skip
        self._presence.changed = self._on_change
        self._fetchers = [self._fetcher(types, count) for types, count in slots.items()]
        self._max_backlog = 1_000 + 10 * sum(slots.values())
        self._maintenance = Maintenance(
            store, worker=lambda: self.id, policies=self._runs.policy,
            retention=retention or Retention(), suspects_wait=self._on_suspects,
            poll=options.poll.total_seconds(), check=options.check.total_seconds(), clock=clock,
            rng=rng, backoff=self._backoff,
        )  # fmt: skip
        self.quarantine_command: Sequence[str] | None = None
        """How to start a process for suspects: a command that runs a worker of the same app with
        ``quarantine=True``. None: suspects are left to others."""
        self._quarantine: Quarantine | None = None

    # ------------------------------------------------------------------ what others see and ask

    @property
    def embedded(self) -> bool:
        """Whether it must leave the process alone, whatever happens."""
        return self._presence.embedded

    def as_program(self, announce: Callable[[WorkerId], None] | None) -> None:
        """This process is the worker's own; *announce* is told each incarnation as it registers."""
        self._presence.embedded = False
        self._presence.announce = announce

    @property
    def id(self) -> WorkerId:
        """The present incarnation."""
        return self._presence.id

    @property
    def state(self) -> WorkerState:
        """What it is doing. ``stalled``: its event loop does not turn."""
        return "stalled" if self._presence.stalled else self._state

    @property
    def ready(self) -> bool:
        """Registered, in touch with the store, and claiming."""
        return self.state == "running" and self._presence.in_good_standing

    @property
    def jobs(self) -> list[Job]:
        """The jobs that run here now."""
        return [run.job for run in list(self._runs.active)]

    @property
    def stale(self) -> int:
        """Outcomes of this worker that were refused, because the job was no longer its own."""
        return self._runs.stale

    def status(self) -> str:
        """One line for people."""
        jobs = ", ".join(f"{job.type} {job.id}" for job in self.jobs[:20]) or "nothing"
        return f"worker {self.id} {self.state}, runs {jobs}"

    def stop(self, grace: timedelta | None = None) -> None:
        """Stop claiming, and end :meth:`run` when all runs have ended or *grace* is over.

        May be called from any thread and from signal handlers, and again, to shorten the grace."""
        seconds = (self._options.grace if grace is None else grace).total_seconds()
        self._ask(functools.partial(self._begin_stop, seconds))

    def quiet(self) -> None:
        """Claim nothing more, and go on running what runs. May be called as :meth:`stop`."""
        self._ask(functools.partial(self._turn, "running", "quiet"))

    def resume(self) -> None:
        """Claim again after :meth:`quiet`."""
        self._ask(functools.partial(self._turn, "quiet", "running"))

    # ------------------------------------------------------------------ from start to drained

    async def run(self) -> None:
        """Work until stopped. To be cancelled is a stop without grace: nothing is lost by it.

        Raises:
            ConfigError: the lifespan failed at start, or the worker has run before.
            StoreError: the store cannot be used at all.
        """
        if self._loop is not None:
            raise ConfigError("A worker runs once: make a new one.")
        self._loop = asyncio.get_running_loop()
        main = asyncio.create_task(self._main(), name="windlass-worker")
        try:
            await asyncio.shield(main)
        except CancelledError:
            self.stop(timedelta(0))
            while not main.done():
                # Cancelled again and again, perhaps: what is left to do has an end of its own.
                with suppress(CancelledError):
                    await asyncio.wait([main])
            raise

    async def _main(self) -> None:
        for asked in self._asked:
            asked()
        try:
            async with AsyncExitStack() as stack:
                await self._enter_lifespan(stack)
                if await self._presence.register(self._stop_asked):
                    await self._work()
        finally:
            self._state = "stopped"
            self._threads.close()
            await self._processes.close()

    async def _enter_lifespan(self, stack: AsyncExitStack) -> None:
        if self._lifespan is None:
            return
        try:
            self._runs.resources = await stack.enter_async_context(self._lifespan())
        except Exception as error:
            raise ConfigError(
                "The app's lifespan failed at start, so no job was claimed: "
                f"{type(error).__name__}: {safe_text(error, 500)}"
            ) from error

    async def _work(self) -> None:
        if self._state == "starting":
            self._state = "running"
        unlisten = self._store.listen(frozenset({"ready", "cancel"}), self._on_notice)
        try:
            async with asyncio.TaskGroup() as group:
                pumps = [group.create_task(pump) for pump in self._pumps()]
                try:
                    await self._stop_asked.wait()
                    await self._until_ended_or_late()
                finally:
                    for pump in pumps:
                        pump.cancel()
        finally:
            unlisten()
            await self._finish()

    def _pumps(self) -> Iterator[Coroutine[Any, Any, None]]:
        """The loops of a worker."""
        options = self._options
        for fetcher in self._fetchers:
            yield fetcher.run()
        yield self._completer.run()
        yield self._runs.watch_deadlines(options.grace.total_seconds(), self._on_stuck)
        yield self._presence.hand_back_orphans()
        if not options.quarantine:
            yield self._start_quarantine().run()
            yield self._maintenance.promote()
            yield self._maintenance.reclaim()
            yield self._maintenance.prune()
        if options.quarantine or options.drain:
            yield self._stop_when_idle(_QUARANTINE_IDLE if options.quarantine else 0.0)

    def _start_quarantine(self) -> Quarantine:
        self._quarantine = Quarantine(
            self.quarantine_command, self._store, self._events, worker=lambda: self.id,
            queues=self._options.queues, types=frozenset(self._tasks), rng=self._rng,
        )  # fmt: skip
        return self._quarantine

    async def _until_ended_or_late(self) -> None:
        """The grace: wait for the runs that can be waited for, and for claims under way."""
        loop = asyncio.get_running_loop()
        while self._runs.active.keys() - self._runs.stuck or self._presence.outstanding:
            assert self._stop_by is not None
            if loop.time() >= self._stop_by:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout_at(self._stop_by):
                    await self._attention.wait()
            self._attention.clear()

    async def _finish(self) -> None:
        """The lower half of the ladder. It has little time; what it cannot do, the lease's end does."""
        self._state = "stopping"
        await self._runs.interrupt_all(_CANCEL_WAIT)
        crash_point("mid-flush")
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_CANCEL_WAIT):
                await self._completer.flush()
        await self._presence.stop_beating()
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_CANCEL_WAIT):
                await self._presence.leave()
        self._events.emit(WorkerStopped(self.id, self._runs.handed_back))
        if self._runs.active and not self.embedded:
            # Only the end of this process ends these runs.
            self._exit(EXIT_STUCK)
        await self._runs.abandon_all()

    async def _stop_when_idle(self, seconds: float) -> None:
        """Stop once there has been nothing to do for *seconds*."""
        loop = asyncio.get_running_loop()
        idle_since: float | None = None
        while True:
            await asyncio.sleep(0.02)
            if self._runs.held:
                idle_since = None
            elif not all(fetcher.idle for fetcher in self._fetchers):
                self._wake()
            elif idle_since is None:
                idle_since = loop.time()
                with suppress(StoreError):
                    # Look once more, at what became due and at what came meanwhile.
                    await self._maintenance.promote_once()
                self._wake()
            elif loop.time() - idle_since >= seconds:
                self._begin_stop(0.0)
                return

    # ------------------------------------------------------------------ claiming

    def _slots(self) -> dict[frozenset[str], int]:
        """Slots for each kind of task, by its types; in quarantine one slot for all."""
        options = self._options
        if options.quarantine:
            return {frozenset(self._tasks): 1}
        counts = {
            "loop": options.concurrency,
            "thread": options.threads,
            "process": options.processes,
        }
        kinds = {
            kind: frozenset(name for name, task in self._tasks.items() if task.run_in == kind)
            for kind in counts
        }
        return {types: counts[kind] for kind, types in kinds.items() if types and counts[kind]}

    def _fetcher(self, types: frozenset[str], slots: int) -> Fetcher:
        want = Want(self._options.queues, types, self._options.quarantine)
        fetcher = Fetcher(
            self._store, want, slots, worker=self._claiming,
            outstanding=self._presence.outstanding,
            start=lambda jobs: self._runs.start(fetcher, jobs), backoff=self._backoff("claim"),
            poll=self._options.poll.total_seconds(), rng=self._rng,
        )  # fmt: skip
        return fetcher

    def _claiming(self) -> WorkerId | None:
        """Under which name to claim; None while nothing shall be claimed."""
        self._attention.set()
        if self._state != "running" or not self._presence.in_good_standing:
            return None
        if self._completer.backlog > self._max_backlog:
            return None
        return self.id

    # ------------------------------------------------------------------ what happens meanwhile

    def _on_notice(self, notice: Notice) -> None:
        if notice.kind == "ready":
            wanted = self._options.queues
            if wanted is None or not notice.queues or not wanted.isdisjoint(notice.queues):
                self._wake()
        elif self._runs.has_any(notice.ids):
            # A hint may be late and mean an earlier hand-out; the beat's answer says what holds now.
            self._presence.beat_now()

    def _on_change(self) -> None:
        """A run or an Ack came to its end, or a beat was answered."""
        self._attention.set()
        for fetcher in self._fetchers:
            if fetcher.held_up and self._claiming() is not None:
                fetcher.wake()

    async def _on_suspects(self) -> None:
        if self._quarantine is not None:
            self._quarantine.wanted(await self._store.workers())

    def _on_stuck(self) -> None:
        """A run ignores its time-out. Its slot is lost until the process is: so unless that is
        somebody else's, drain and exit, to be started anew."""
        if not self.embedded:
            self._begin_stop(self._options.grace.total_seconds())

    def _wake(self) -> None:
        for fetcher in self._fetchers:
            fetcher.wake()

    def _turn(self, before: WorkerState, after: WorkerState) -> None:
        if self._state == before or (self._state == "starting" and after == "quiet"):
            self._state = after
            self._wake()

    def _begin_stop(self, seconds: float) -> None:
        by = asyncio.get_running_loop().time() + seconds
        self._stop_by = by if self._stop_by is None else min(self._stop_by, by)
        self._state = "stopping"
        self._stop_asked.set()
        self._attention.set()
        self._wake()

    def _ask(self, function: Callable[[], None]) -> None:
        """Call *function* on the worker's loop; as its first act, when it does not run yet."""
        if self._loop is None:
            self._asked.append(function)
            return
        with suppress(RuntimeError):  # the loop is closed, and the worker long stopped
            self._loop.call_soon_threadsafe(function)

    def _public_state(self) -> Literal["running", "quiet", "stopping", "stalled"]:
        state = self.state
        return "running" if state == "starting" or state == "stopped" else state

    def _backoff(self, operation: str, cap: float = 5.0) -> Backoff:
        return Backoff(operation, self._events, self._rng, cap=cap)

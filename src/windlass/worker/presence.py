"""Presence: the worker as the store knows it, under one incarnation after another.

It says what a beat says, and acts on what the answer says: runs that were lost are ended, runs that
shall be cancelled are cancelled, claims whose reply was lost are handed back. A worker that was
declared dead ends everything and comes back under a new name, because an incarnation never returns.
When the handlers' loop is blocked it decides how long to wait, and settles everything as a last act.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Literal
from uuid import uuid4

import windlass
from windlass.clock import Clock
from windlass.context import Run
from windlass.errors import StoreError, StoreFull, StoreUnavailable
from windlass.events import EventBus, LoopStalled, WorkerLost, WorkerStarted
from windlass.job import Claim, Token, WorkerId, WorkerInfo
from windlass.lifecycle import Ack, Interrupted, Snoozed, settle
from windlass.store import Beat, Store
from windlass.worker.backoff import Backoff
from windlass.worker.execute import timed_out
from windlass.worker.heartbeat import Heartbeat, compare
from windlass.worker.options import WorkerOptions
from windlass.worker.runs import Runs

__all__ = ["EXIT_STALLED", "EXIT_STUCK", "Presence"]

EXIT_STUCK = 70
"""Exit code of a process that left a run behind which would not end. Restart it at once."""
EXIT_STALLED = 71
"""Exit code of a process whose event loop was blocked beyond all time-outs. Restart it at once."""

_COVER = timedelta(seconds=1)
"""Delay of a job whose run outlives its Ack by the moment that this process needs to exit."""
_LAST_ACT = 5.0


class _Identity:
    """An incarnation and its beats."""

    def __init__(self) -> None:
        self.id = WorkerId(uuid4().hex)
        self.beat = 0
        self.registered = False


class Presence:
    """Implements :class:`windlass.worker.heartbeat.Host`."""

    def __init__(
        self,
        store: Store,
        runs: Runs,
        events: EventBus,
        options: WorkerOptions,
        *,
        types: tuple[str, ...],
        slots: int,
        state: Callable[[], Literal["running", "quiet", "stopping", "stalled"]],
        embedded: bool,
        exit: Callable[[int], object],
        clock: Clock,
        backoff: Callable[[str, float], Backoff],
    ) -> None:
        self._store = store
        self._runs = runs
        self._events = events
        self._options = options
        self._types = types
        self._slots = slots
        self._state = state
        self.embedded = embedded
        self.announce: Callable[[WorkerId], None] | None = None
        """Told each incarnation as it registers."""
        self._exit = exit
        self._clock = clock
        self._backoff = backoff
        self._host = socket.gethostname()
        self._version = windlass.__version__
        self._identity = _Identity()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heartbeat: Heartbeat | None = None
        self._orphans: set[Claim] = set()
        self._found_orphans = asyncio.Event()
        self.outstanding: set[Token] = set()
        """Tokens of claim calls that are under way."""
        self.changed: Callable[[], None] = lambda: None
        """Called on the worker's loop when it may claim again, or no longer."""

    @property
    def id(self) -> WorkerId:
        return self._identity.id

    @property
    def in_good_standing(self) -> bool:
        """Registered, and its lease confirmed."""
        heart = self._heartbeat
        return self._identity.registered and (heart is None or not heart.fenced)

    @property
    def stalled(self) -> bool:
        return self._heartbeat is not None and self._heartbeat.stalled

    # ------------------------------------------------------------------ coming and going

    async def register(self, stop: asyncio.Event) -> bool:
        """Make the worker known, and begin to beat; False when *stop* came before the store answered."""
        self._loop = asyncio.get_running_loop()
        backoff = self._backoff("register", 5.0)
        while not stop.is_set():
            info, _ = self.present()
            try:
                await self._store.heartbeat(info)
            except (StoreUnavailable, StoreFull) as error:
                self._identity = _Identity()
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff.failed(error)):
                        await stop.wait()
                continue
            backoff.succeeded()
            self._registered()
            self._start_heart(self._loop)
            return True
        return False

    def _registered(self) -> None:
        self._identity.registered = True
        if self.announce is not None:
            self.announce(self.id)
        if self._events.wants(WorkerStarted):
            info = self._info(self._identity)
            self._events.emit(WorkerStarted(info.id, info.slots, info.queues))

    def _start_heart(self, loop: asyncio.AbstractEventLoop) -> None:
        beat = self._options.beat.total_seconds()
        self._heartbeat = Heartbeat(
            self._store, self, loop, beat=beat, lease=self._options.lease.total_seconds(),
            clock=self._clock, backoff=self._backoff("heartbeat", beat / 2),
        )  # fmt: skip
        self._heartbeat.start()

    async def stop_beating(self) -> None:
        """End the heartbeat's thread."""
        if self._heartbeat is not None:
            await self._heartbeat.stop()

    async def leave(self) -> None:
        """Hand back claims whose reply was lost, settle what will not end, and leave.

        Raises StoreError; whatever was not done then is done by others when the lease has run out.
        """
        info, held = self.present()
        answer = await self._store.heartbeat(info)
        if answer.alive:
            await self._hand_back(compare(answer.held, held, self._runs.held.keys(), ()).orphans)
        if self._runs.active and not self.embedded:
            last = [(run, self._last_ack(run)) for run in self._runs.active]
            self._runs.answered(last, await self._store.ack([ack for _, ack in last]))
        await self._store.leave(self.id)

    def _last_ack(self, run: Run) -> Ack:
        """For a run that only the end of this process ends, which is at hand."""
        late = run.ending == "timed out" or run in self._runs.stuck
        return self._runs.settle(run, timed_out(run) if late else Snoozed(_COVER))

    # ------------------------------------------------------------------ beats

    def beat_now(self) -> None:
        """Beat at once."""
        if self._heartbeat is not None:
            self._heartbeat.beat_now()

    def present(self) -> tuple[WorkerInfo, list[Claim]]:
        identity = self._identity
        held = list(self._runs.held)
        info = self._info(identity)
        identity.beat += 1
        return info, held

    def _info(self, identity: _Identity) -> WorkerInfo:
        options = self._options
        return WorkerInfo(
            id=identity.id,
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            queues=None if options.queues is None else tuple(sorted(options.queues)),
            types=self._types,
            slots=self._slots,
            busy=len(self._runs.active),
            state=self._state(),
            quarantine=options.quarantine,
            lease=options.lease,
            beat=identity.beat,
        )

    def on_beat(self, worker: WorkerId, beat: Beat, held_at_send: list[Claim]) -> None:
        if worker != self.id:
            return
        if not beat.alive:
            self._lost()
            return
        if not self._identity.registered:
            self._registered()
        found = compare(beat.held, held_at_send, self._runs.held.keys(), self.outstanding)
        for claim in found.lost:
            self._runs.end(claim, "lost")
        for claim in found.cancel:
            self._runs.end(claim, "cancelled")
        if found.orphans:
            self._orphans.update(found.orphans)
            self._found_orphans.set()
        self.changed()

    def _lost(self) -> None:
        """Declared dead: everything it held is others' now. It goes on under a new name."""
        self._events.emit(WorkerLost(self.id))
        self._runs.lose_all()
        self._identity = _Identity()
        self.beat_now()

    def fence(self) -> None:
        self._runs.lose_all()

    async def hand_back_orphans(self) -> None:
        """Hand back, for ever, claims whose reply was lost."""
        backoff = self._backoff("hand back", 5.0)
        while True:
            await self._found_orphans.wait()
            self._found_orphans.clear()
            orphans, self._orphans = self._orphans, set()
            try:
                await self._hand_back(list(orphans))
            except StoreError as error:
                # The next beat finds them again.
                await asyncio.sleep(backoff.failed(error))
            else:
                backoff.succeeded()

    async def _hand_back(self, orphans: list[Claim]) -> None:
        if not orphans:
            return
        jobs = await self._store.get([claim.id for claim in orphans])
        acks = [
            settle(job, Interrupted(started=False), self._runs.policy(job), 0.0)
            for claim, job in zip(orphans, jobs, strict=True)
            if job is not None and job.token == claim.token
        ]
        self._runs.handed_back += len(acks)
        await self._store.ack(acks)

    # ------------------------------------------------------------------ a loop that does not turn

    def on_stall(self, blocked: float, stacks: str) -> None:
        if self._events.wants(LoopStalled):
            self._events.emit(LoopStalled(self.id, timedelta(seconds=blocked), stacks))

    def while_stalled(self) -> Literal["beat on", "give up", "exit"]:
        culprit = self._culprit()
        runs = [culprit] if culprit is not None else list(self._runs.active)
        deadlines = [run.deadline for run in runs if run.deadline is not None]
        if not runs or len(deadlines) < len(runs):
            # Nothing of ours blocks the loop, or it was given all the time in the world.
            return "beat on"
        if self._clock.monotonic() < max(deadlines) + self._options.grace.total_seconds():
            return "beat on"
        return "give up" if self.embedded else "exit"

    async def last_act(self) -> None:
        culprit = self._culprit()
        acks = self._runs.completer.unanswered
        for run, task in list(self._runs.active.items()):
            if run is culprit:
                acks.append(self._runs.settle(run, timed_out(run)))
            elif task.run_in == "loop":
                # Stands still on the loop that stands still: as good as ended.
                acks.append(self._runs.settle(run, Interrupted()))
            else:
                acks.append(self._runs.settle(run, Snoozed(_COVER)))
        with suppress(TimeoutError, StoreError):
            async with asyncio.timeout(_LAST_ACT):
                await self._store.ack(acks)
                await self._store.leave(self.id)
        self._exit(EXIT_STALLED)

    def _culprit(self) -> Run | None:
        assert self._loop is not None
        return self._runs.run_on_loop(self._loop)

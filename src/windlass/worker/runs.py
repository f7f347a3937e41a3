"""The runs of a worker: from a claimed job to an answered Ack.

A run is *active* from its start until its function has ended, and takes up a slot for as long; it is
*held* until the store has answered its Ack (or, when the job was lost to another, until it ended).
Each is one plain asyncio task, kept alive by the dictionaries here. Time-outs need no timer per run:
whatever is active is looked at ten times a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import Any, Literal

from windlass.clock import Clock
from windlass.context import Doors, Run
from windlass.events import AckStale, EventBus, JobEnded, JobStarted
from windlass.job import Claim, Job, JobId, LogLine, WorkerId
from windlass.lifecycle import Ack, Interrupted, Outcome, Raised, settle
from windlass.retry import RetryPolicy
from windlass.store import AckAnswer
from windlass.worker.complete import Completer, Done
from windlass.worker.execute import AnyTask, Caller, execute
from windlass.worker.fetch import Fetcher

__all__ = ["Runs"]

_TICK = 0.1
"""Seconds between two looks at the time-outs."""


class Runs:
    """What a worker runs, and what it still owes the store an Ack for."""

    def __init__(
        self,
        doors: Doors,
        tasks: Mapping[str, AnyTask],
        callers: Mapping[str, Caller],
        events: EventBus,
        *,
        worker: Callable[[], WorkerId],
        accepting: Callable[[], bool],
        changed: Callable[[], None],
        due_in: Callable[[float], None],
        clock: Clock,
        rng: Random,
    ) -> None:
        self._doors = doors
        self._tasks = tasks
        self._callers = callers
        self._events = events
        self._worker = worker
        self._accepting = accepting
        self._changed = changed
        self._due_in = due_in
        self._clock = clock
        self._rng = rng
        self._some = asyncio.Event()
        self.completer: Completer
        self.resources: Any = None
        self.held: dict[Claim, Run] = {}
        self.active: dict[Run, AnyTask] = {}
        self.stuck: set[Run] = set()
        """Active ones that ignore their time-out."""
        self.handed_back = 0
        self.stale = 0
        """Writes that were refused because the claim was no longer this worker's."""

    # ------------------------------------------------------------------ the way of a run

    def start(self, fetcher: Fetcher, jobs: list[Job]) -> None:
        """Run *jobs* in slots of *fetcher*; hand them back when this is no time to start any."""
        loop = asyncio.get_running_loop()
        now = self._clock.monotonic()
        told = self._events.wants(JobStarted)
        for job in jobs:
            run = Run(job, self, self.resources)
            self.held[job.claim] = run
            task = self._tasks.get(job.type)
            if task is None or not self._accepting():
                self.completer.add((run, self.settle(run, Interrupted(started=False))))
                continue
            run.started = now
            if job.timeout is not None:
                run.deadline = now + job.timeout.total_seconds()
            fetcher.free -= 1
            self.active[run] = task
            run.handle = loop.create_task(self._serve(run, task, fetcher))
            if told and job.started_at is not None:
                waited = job.started_at - job.ready_at
                self._events.emit(JobStarted(job, self._worker(), waited))
        self._some.set()

    async def _serve(self, run: Run, task: AnyTask, fetcher: Fetcher) -> None:
        outcome = await execute(run, task, self._callers[task.run_in])
        if self._events.wants(JobEnded):
            run.ran = self._clock.monotonic() - run.started
        if run.ending == "lost":
            del self.held[run.job.claim]
        else:
            self.completer.add((run, self.settle(run, outcome)))
        del self.active[run]
        fetcher.release()
        self._changed()

    def settle(self, run: Run, outcome: Outcome) -> Ack:
        """The Ack for *run*, by its task's policy."""
        policy = self.policy(run.job)
        if isinstance(outcome, Interrupted):
            self.handed_back += 1
        try:
            return settle(run.job, outcome, policy, self._rng.random())
        except Exception:
            # An attribute of the user's exception, or a policy of his own, may be code that fails.
            if isinstance(outcome, Raised):
                outcome = Raised(outcome.failure)
            return settle(run.job, outcome, RetryPolicy(), self._rng.random())

    def policy(self, job: Job) -> RetryPolicy:
        """What holds for *job*; the default for a type that is unknown here."""
        task = self._tasks.get(job.type)
        return RetryPolicy() if task is None else task.retry

    def answered(self, batch: list[Done], answers: list[AckAnswer]) -> None:
        """The store has answered these Acks: they are held no longer."""
        told = self._events.wants(JobEnded)
        for (run, ack), answer in zip(batch, answers, strict=True):
            self.held.pop(ack.claim, None)
            if ack.then.delay:
                self._due_in(ack.then.delay.total_seconds())
            if answer == "stale":
                self._refused(ack.claim, "ack")
            elif told:
                self._events.emit(self._ended(run, ack))
        self._changed()

    def _ended(self, run: Run, ack: Ack) -> JobEnded:
        change = ack.if_cancel_requested if run.ending == "cancelled" else ack.then
        ran = timedelta(seconds=run.ran)
        return JobEnded(run.job, self._worker(), change.status, ran, change.failure, change.reason)

    # ------------------------------------------------------------------ the doors of runs

    async def progress(self, claim: Claim, fraction: float | None, note: str | None) -> bool:
        """As :meth:`windlass.store.JobStore.progress`; a refusal is counted."""
        held = await self._doors.progress(claim, fraction, note)
        return held or self._refused(claim, "progress")

    async def log(self, claim: Claim, lines: Sequence[LogLine]) -> bool:
        """As :meth:`windlass.store.JobStore.log`; a refusal is counted."""
        held = await self._doors.log(claim, lines)
        return held or self._refused(claim, "log")

    def _refused(self, claim: Claim, operation: str) -> bool:
        self.stale += 1
        self._events.emit(AckStale(claim.id, self._worker(), operation))
        return False

    # ------------------------------------------------------------------ ending runs early

    def end(self, claim: Claim, why: Literal["lost", "cancelled"]) -> None:
        """End the run of *claim*, if it is under way and was not told so before."""
        run = self.held.get(claim)
        if run in self.active and (run.ending is None or (why == "lost" and run.ending != why)):
            run.end(why)

    def lose_all(self) -> None:
        """End every run, and let nothing come of it."""
        for run in list(self.active):
            if run.ending != "lost":
                run.end("lost")

    async def interrupt_all(self, seconds: float) -> None:
        """End every run for the sake of a shutdown, and wait *seconds* for those that can be ended."""
        for run in list(self.active):
            run.end("shutdown")
        by = asyncio.get_running_loop().time() + seconds
        while self.active.keys() - self.stuck:
            waiting = [run.handle for run in self.active if run.handle and not run.handle.done()]
            left = by - asyncio.get_running_loop().time()
            if left <= 0 or not waiting:
                return
            await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)

    async def abandon_all(self) -> None:
        """Let go of what would not end: the worker goes, and nothing may wait for its threads."""
        handles = [run.handle for run in self.active if run.handle is not None]
        for run in list(self.active):
            run.end("lost")
        for handle in handles:
            handle.cancel()
        if handles:
            await asyncio.wait(handles, timeout=1.0)

    async def watch_deadlines(self, grace: float, found_stuck: Callable[[], None]) -> None:
        """End runs that take too long, for ever; tell of those that have not ended *grace* later."""
        while True:
            self._some.clear()
            if not self.active:
                await self._some.wait()
            await asyncio.sleep(_TICK)
            now = self._clock.monotonic()
            overdue = [r for r in self.active if r.deadline is not None and r.deadline <= now]
            for run in overdue:
                if run.ending is None:
                    run.end("timed out")
                elif run not in self.stuck and now > (run.deadline or now) + grace:
                    self.stuck.add(run)
                    run.end("timed out")
                    found_stuck()

    def run_on_loop(self, loop: asyncio.AbstractEventLoop) -> Run | None:
        """The run that has *loop* at this moment. Any thread may ask."""
        current = asyncio.current_task(loop)
        return next((run for run in list(self.active) if run.handle is current), None)

    def has_any(self, ids: tuple[JobId, ...]) -> bool:
        """Whether one of these jobs runs here."""
        return any(run.job.id in ids for run in self.active)

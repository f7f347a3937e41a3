"""A memory store, a registry and a worker to try things on, and ways to wait without sleeping.

Tests wait for what they mean: a job's status (by the store's hints), an event, a gate that a task
opens. Time-outs are driven by a fake clock; :data:`SOON` only bounds a test that would hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from random import Random
from typing import Any, TypeVar

from windlass.client import new_job_id
from windlass.clock import Clock
from windlass.events import (
    AckStale,
    Event,
    EventBus,
    JobEnded,
    JobStarted,
    LoopStalled,
    StoreFailed,
    StoreRecovered,
    SuspectsWait,
    WorkerLost,
    WorkerStarted,
    WorkerStopped,
)
from windlass.job import FINAL, Job, JobId, JobOptions, NewJob, Status, WorkerInfo
from windlass.lifecycle import Ack
from windlass.retry import RetryPolicy
from windlass.store import AckAnswer, Beat, HandOut, Notice, Store, Want
from windlass.stores.memory import MemoryStore
from windlass.tasks import Registry, Task
from windlass.worker import Worker, WorkerOptions

SOON = 10.0
E = TypeVar("E", bound=Event)
T = TypeVar("T")

QUICK = WorkerOptions(
    lease=timedelta(seconds=1.2),
    beat=timedelta(seconds=0.3),
    poll=timedelta(seconds=0.2),
    check=timedelta(seconds=0.2),
    grace=timedelta(seconds=5),
    concurrency=10,
    threads=4,
    processes=2,
)
"""Short intervals: what would take seconds takes tenths."""

AT_ONCE = RetryPolicy(initial=timedelta(0), jitter=0.0)


class Bench:
    """What a worker works on."""

    def __init__(self, store: Store | None = None, clock: Clock | None = None) -> None:
        self.clock = clock
        self.store: Any = store or FaultyStore(clock=clock)
        self.registry = Registry()
        self.events = EventBus()
        self.seen: list[Event] = []
        self._told = asyncio.Event()
        for kind in (
            AckStale, JobEnded, JobStarted, LoopStalled, StoreFailed, StoreRecovered, SuspectsWait,
            WorkerLost, WorkerStarted, WorkerStopped,
        ):  # fmt: skip
            self.events.subscribe(kind, self._note)

    def _note(self, event: Event) -> None:
        self.seen.append(event)
        self._told.set()

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.seen if isinstance(event, kind)]

    async def event(self, kind: type[E], which: Callable[[E], bool] = lambda event: True) -> E:
        """Wait for an event."""

        async def look() -> E:
            while True:
                found = next((event for event in self.of(kind) if which(event)), None)
                if found is not None:
                    return found
                self._told.clear()
                # Events of the heartbeat come from its thread, whose set() wakes nobody here.
                await asyncio.wait([asyncio.ensure_future(self._told.wait())], timeout=0.02)

        return await soon(look())

    async def put(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> JobId:
        """Enqueue a call."""
        return (await self.put_many(task, [args], **kwargs))[0]

    async def put_many(
        self, task: Task[..., Any], calls: Sequence[Sequence[Any]], **kwargs: Any
    ) -> list[JobId]:
        """Enqueue several calls at once."""
        new = [
            NewJob(new_job_id(), task.type, task.signature.encode(tuple(c), kwargs), task.defaults)
            for c in calls
        ]
        await self.store.insert(new)
        return [job.id for job in new]

    async def put_raw(self, type: str, payload: bytes = b"{}", **options: Any) -> JobId:
        """Enqueue what no client would."""
        job_id = new_job_id()
        await self.store.insert([NewJob(job_id, type, payload, JobOptions(**options))])
        return job_id

    async def job(self, job_id: JobId) -> Job:
        """The job as it stands."""
        found = (await self.store.get([job_id]))[0]
        assert isinstance(found, Job)
        return found

    async def until(
        self, job_id: JobId, *statuses: Status, when: Callable[[Job], bool] = bool
    ) -> Job:
        """Wait until the job is in one of *statuses* (any final one), and *when* holds."""
        changed = asyncio.Event()

        def on_notice(notice: Notice) -> None:
            changed.set()

        unlisten = self.store.listen(frozenset({"changed"}), on_notice)
        try:

            async def look() -> Job:
                while True:
                    changed.clear()
                    job = await self.job(job_id)
                    if job.status in (statuses or FINAL) and when(job):
                        return job
                    await changed.wait()

            return await soon(look())
        finally:
            unlisten()

    def worker(self, options: WorkerOptions = QUICK, **kwargs: Any) -> Worker:
        """A worker; *kwargs* as its own."""
        kwargs.setdefault("rng", Random(1))
        if self.clock is not None:
            kwargs.setdefault("clock", self.clock)
        return Worker(self.store, self.registry, self.events, options, **kwargs)

    @asynccontextmanager
    async def working(
        self, options: WorkerOptions = QUICK, worker: Worker | None = None, **kwargs: Any
    ) -> AsyncIterator[Worker]:
        """A worker that works meanwhile, and is stopped without grace at the end."""
        worker = worker or self.worker(options, **kwargs)
        run = asyncio.create_task(worker.run())
        try:
            await soon(asyncio.wait(
                [run, asyncio.ensure_future(self.event(WorkerStarted, lambda e: e.worker == worker.id))],
                return_when=asyncio.FIRST_COMPLETED,
            ))  # fmt: skip
            yield worker
        finally:
            worker.stop(timedelta(0))
            await soon(run)


class FaultyStore(MemoryStore):
    """A memory store whose operations can be made to fail, wait or be counted."""

    def __init__(self, clock: Clock | None = None) -> None:
        super().__init__(clock=clock)
        self.before: dict[str, Callable[[Any], Awaitable[None]]] = {}
        """operation → called with its main argument before it is done; may raise."""
        self.after: dict[str, Callable[[Any], Awaitable[None]]] = {}
        """operation → called with its answer when it is done; may raise: the reply is lost."""
        self.claims: list[tuple[Want, int]] = []
        self.acks: list[list[Ack]] = []
        self.beats: list[WorkerInfo] = []

    async def claim(self, want: Want, limit: int, worker: Any, token: Any) -> HandOut:
        self.claims.append((want, limit))
        await self._call(self.before, "claim", limit)
        answer = await super().claim(want, limit, worker, token)
        await self._call(self.after, "claim", answer)
        return answer

    async def ack(self, acks: Sequence[Ack]) -> list[AckAnswer]:
        self.acks.append(list(acks))
        await self._call(self.before, "ack", acks)
        answer = await super().ack(acks)
        await self._call(self.after, "ack", answer)
        return answer

    async def heartbeat(self, worker: WorkerInfo) -> Beat:
        self.beats.append(worker)
        await self._call(self.before, "heartbeat", worker)
        answer = await super().heartbeat(worker)
        await self._call(self.after, "heartbeat", answer)
        return answer

    async def _call(
        self, hooks: dict[str, Callable[[Any], Awaitable[None]]], name: str, argument: Any
    ) -> None:
        if name in hooks:
            await hooks[name](argument)


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what tells nobody when it changes."""
    async with asyncio.timeout(SOON):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def soon(awaitable: Awaitable[T]) -> T:
    """The answer, if it does not hang."""
    async with asyncio.timeout(SOON):
        return await awaitable

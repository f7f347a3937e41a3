"""Making jobs and awaiting them: the way from a call to the store, and back to its result.

:class:`Client` is the only caller of ``store.insert``: it waits a moment for room in a full queue,
tells who subscribed, and looks up raw payloads (from HTTP and the command line) in the registry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, cast

import uuid_utils

from windlass.crashpoints import crash_point
from windlass.durations import Duration, format_duration, parse_duration
from windlass.errors import (
    ConfigError,
    JobError,
    JobGone,
    JobNotFound,
    QueueFull,
    ResultTimeout,
    UnknownTask,
)
from windlass.events import EventBus, JobEnqueued
from windlass.job import FINAL, Job, JobId, JobOptions, NewJob
from windlass.options import job_id, key_to_id, merge_options
from windlass.store import ControlStore, Inserted, JobStore, Notice

if TYPE_CHECKING:
    from windlass.tasks import Registry

__all__ = ["MAX_BATCH", "Client", "chosen_id", "missing", "new_job_id", "unknown_task"]

MAX_BATCH = 10_000
"""Jobs that one call may enqueue: they are accepted in one transaction."""

_PAUSES_FOR_ROOM = (0.002, 0.005, 0.01, 0.018, 0.025, 0.04)
"""Seconds between tries to insert into a full queue: a tenth of a second in all."""

_FIRST_LOOK, _SLOWEST_LOOK = 0.005, 0.25
"""Seconds between looks at an awaited job. Hints usually come first, but may be lost."""

_uuid7 = uuid_utils.uuid7


def new_job_id() -> JobId:
    """A fresh id: a UUID version 7, so that ids sort by the time they were made."""
    return cast("JobId", str(_uuid7()))


class ClientStore(JobStore, ControlStore, Protocol):
    """What the client needs of a store."""


class Client:
    """Inserts jobs and waits for them; one per app, usable from any event loop."""

    def __init__(
        self,
        store: ClientStore,
        registry: Registry,
        events: EventBus,
        *,
        prepare: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.store = store
        self.registry = registry
        self.events = events
        self.prepare = prepare
        """Makes the store ready before its first use; None once that is done."""
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}

    async def insert(self, jobs: Sequence[NewJob]) -> list[Inserted]:
        """Have the store accept *jobs*, all or none; answers in order, when they are durable.

        Waits up to a tenth of a second for room in a full queue, then raises
        :class:`~windlass.errors.QueueFull`; else raises as :meth:`JobStore.insert
        <windlass.store.JobStore.insert>` does.
        """
        if self.prepare is not None:
            await self.prepare()
        if len(jobs) > MAX_BATCH:
            raise ConfigError(
                f"One call enqueues at most {MAX_BATCH:,} jobs, all or none, and got {len(jobs):,}: "
                "enqueue them in several batches."
            )
        try:
            inserted = await self.store.insert(jobs)
        except QueueFull as full:
            inserted = await self._insert_when_room(jobs, full)
        crash_point("after-insert-commit")
        if self.events.wants(JobEnqueued):
            for each in inserted:
                self.events.emit(JobEnqueued(each.job, each.duplicate))
        return inserted

    def new_job(
        self,
        type: str,
        payload: bytes,
        options: Mapping[str, object] | JobOptions | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
    ) -> NewJob:
        """A job to insert, of a call whose arguments are JSON already: from HTTP or a command line.

        *options* override the task's own, one by one. *id* (a UUID) or *key* (an idempotency key)
        makes repeating the call harmless. Raises :class:`~windlass.errors.UnknownTask`,
        :class:`~windlass.errors.PayloadError` or :class:`~windlass.errors.ConfigError`.
        """
        task = self.registry.get(type)
        if task is None:
            raise unknown_task(type, self.registry)
        if not isinstance(options, JobOptions):
            options = merge_options(task.defaults, options or {})
        chosen = chosen_id(id, key)
        raw = task.signature.check(payload)
        return NewJob(chosen or new_job_id(), task.type, raw, options, chosen is not None)

    async def submit(
        self,
        type: str,
        payload: bytes,
        options: Mapping[str, object] | JobOptions | None = None,
        *,
        id: str | None = None,
        key: str | None = None,
    ) -> Inserted:
        """:meth:`new_job`, inserted. Raises as both do."""
        return (await self.insert((self.new_job(type, payload, options, id=id, key=key),)))[0]

    async def get(self, id: JobId) -> Job:
        """The job as it stands. Raises :class:`~windlass.errors.JobNotFound`."""
        job = await self._look(id)
        if job is None:
            raise JobNotFound(f"There is no job {id}.", id)
        return job

    async def wait(self, id: JobId, timeout: Duration | None = None, *, known: bool = False) -> Job:
        """The job, once it has ended.

        Raises :class:`~windlass.errors.ResultTimeout` after *timeout*; when there is no such job,
        :class:`~windlass.errors.JobNotFound`, or :class:`~windlass.errors.JobGone` if it was there
        before (*known*: the caller has seen it).
        """
        limit = None if timeout is None else parse_duration(timeout, what="timeout")
        if self.prepare is not None:
            await self.prepare()
        try:
            async with asyncio.timeout(None if limit is None else limit.total_seconds()):
                with self._watch().changes(id) as changed:
                    return await self._until_final(id, changed, known)
        except TimeoutError:
            if limit is None:
                raise
            raise ResultTimeout(
                f"Job {id} has not ended within {format_duration(limit)}; it goes on undisturbed.",
                id,
            ) from None

    async def cancel(self, id: JobId) -> Job:
        """Cancel the job if it waits, ask it to end if it runs; answers it as it then stands.

        Raises :class:`~windlass.errors.JobNotFound`.
        """
        if self.prepare is not None:
            await self.prepare()
        (job,) = await self.store.cancel([id], reason="cancelled on request")
        if job is None:
            raise JobNotFound(f"There is no job {id}.", id)
        return job

    async def _insert_when_room(self, jobs: Sequence[NewJob], full: QueueFull) -> list[Inserted]:
        """Try again a few times. No hints here: under load they would come all the time."""
        for pause in _PAUSES_FOR_ROOM:
            await asyncio.sleep(pause)
            try:
                return await self.store.insert(jobs)
            except QueueFull as again:
                full = again
        raise full

    async def _until_final(self, id: JobId, changed: asyncio.Event, known: bool) -> Job:
        pause = _FIRST_LOOK
        while True:
            changed.clear()
            job = await self._look(id)
            if job is None:
                raise missing(id, known)
            if job.status in FINAL:
                return job
            known = True
            try:
                async with asyncio.timeout(pause):
                    await changed.wait()
            except TimeoutError:
                pause = min(pause * 2, _SLOWEST_LOOK)

    def _watch(self) -> _Watch:
        """The running loop's watch."""
        loop = asyncio.get_running_loop()
        watch = self._watches.get(loop)
        if watch is None:
            watch = self._watches[loop] = _Watch(self.store, lambda: self._watches.pop(loop))
        return watch

    async def _look(self, id: JobId) -> Job | None:
        if self.prepare is not None:
            await self.prepare()
        (job,) = await self.store.get([id])
        return job


class _Watch:
    """Passes on hints about jobs to all who wait for one in an event loop.

    One listener serves them all: with one for each, every hint would go through every waiter.
    """

    def __init__(self, store: ClientStore, on_end: Callable[[], object]) -> None:
        self._waiting: dict[JobId, list[asyncio.Event]] = {}
        self._on_end = on_end
        self._stop = store.listen(frozenset({"changed"}), self._notice)

    @contextmanager
    def changes(self, id: JobId) -> Iterator[asyncio.Event]:
        """An event that is set when the job may have changed."""
        changed = asyncio.Event()
        self._waiting.setdefault(id, []).append(changed)
        try:
            yield changed
        finally:
            self._waiting[id].remove(changed)
            if not self._waiting[id]:
                del self._waiting[id]
            if not self._waiting:
                self._stop()
                self._on_end()

    def _notice(self, hint: Notice) -> None:
        for job in hint.ids:
            for changed in self._waiting.get(job, ()):
                changed.set()


def chosen_id(id: object | None, key: object | None) -> JobId | None:
    """The id that the caller chose, by itself or through an idempotency key; None if neither."""
    if id is not None and key is not None:
        raise ConfigError("A job has either an id or an idempotency key: give one of them.")
    if id is not None:
        return job_id(id)
    return None if key is None else key_to_id(key)


def unknown_task(type: str, registry: Registry) -> UnknownTask:
    """The error for a *type* that nobody registered, with names that come near."""
    near = registry.near(type)
    known = registry.types()
    if near:
        hint = f"did you mean {' or '.join(map(repr, near))}?"
    elif known:
        hint = f"known are {', '.join(known[:10])}{' and others' if len(known) > 10 else ''}."
    else:
        hint = "no task is registered at all: is the module that declares them imported?"
    return UnknownTask(f"There is no task {type!r:.80}; {hint}", near)


def missing(id: JobId, known: bool) -> JobError:
    """The error for a job that is not there; *known*: it was there before."""
    if known:
        return JobGone(
            f"Job {id} ended and was pruned: results are kept as long as the app's retention says.",
            id,
        )
    return JobNotFound(f"There is no job {id}.", id)

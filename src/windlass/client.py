"""Making jobs and awaiting them: the way from a call to the store, and back to its result.

:class:`Client` is the only caller of ``store.insert``: it waits a moment for room in a full queue,
tells who subscribed, and looks up raw payloads (from HTTP and the command line) in the registry. A
:class:`JobHandle` is what ``enqueue`` answers: the job's id and the ways to ask about it; it costs
nothing until it is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import msgspec
import uuid_utils

from windlass.context import in_handler
from windlass.durations import Duration, format_duration, parse_duration
from windlass.errors import (
    ConfigError,
    JobCancelled,
    JobError,
    JobFailed,
    JobGone,
    JobNotFound,
    QueueFull,
    ResultTimeout,
    UnknownTask,
)
from windlass.events import EventBus, JobEnqueued
from windlass.job import FINAL, Job, JobId, JobOptions, NewJob, Status
from windlass.options import job_id, key_to_id, merge_options
from windlass.portal import Portal
from windlass.store import ControlStore, Inserted, JobStore, Notice

if TYPE_CHECKING:
    from windlass.tasks import Registry

__all__ = ["MAX_BATCH", "Client", "JobHandle", "SyncJobHandle", "new_job_id"]

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

MAX_BATCH = 10_000
"""Jobs that one call may enqueue: they are accepted in one transaction."""

_PAUSES_FOR_ROOM = (0.002, 0.005, 0.01, 0.018, 0.025, 0.04)
"""Seconds between tries to insert into a full queue: a tenth of a second in all."""

_FIRST_LOOK, _SLOWEST_LOOK = 0.005, 0.25
"""Seconds between looks at an awaited job. Hints usually come first, but may be lost."""

_uuid7 = uuid_utils.uuid7
_decode_any = msgspec.json.Decoder().decode


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
        changed = asyncio.Event()

        def notice(hint: Notice) -> None:
            if id in hint.ids:
                changed.set()

        if self.prepare is not None:
            await self.prepare()
        stop = self.store.listen(frozenset({"changed"}), notice)
        try:
            async with asyncio.timeout(None if limit is None else limit.total_seconds()):
                return await self._until_final(id, changed, known)
        except TimeoutError:
            if limit is None:
                raise
            raise ResultTimeout(
                f"Job {id} has not ended within {format_duration(limit)}; it goes on undisturbed.",
                id,
            ) from None
        finally:
            stop()

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
                raise _missing(id, known)
            if job.status in FINAL:
                return job
            known = True
            try:
                async with asyncio.timeout(pause):
                    await changed.wait()
            except TimeoutError:
                pause = min(pause * 2, _SLOWEST_LOOK)

    async def _look(self, id: JobId) -> Job | None:
        if self.prepare is not None:
            await self.prepare()
        (job,) = await self.store.get([id])
        return job


class JobHandle(Generic[R_co]):
    """An enqueued job: its id, and the ways to ask about it and to end it."""

    __slots__ = ("_client", "_job", "duplicate", "id")

    def __init__(
        self,
        client: Client,
        id: JobId,
        job: Job | None = None,
        duplicate: bool = False,
    ) -> None:
        self._client = client
        self._job = job
        self.id = id
        self.duplicate = duplicate
        """The job was there before this call (same id or key, or its unique key is held)."""

    @property
    def job(self) -> Job:
        """The job as this handle last saw it. :meth:`status` looks anew.

        Raises :class:`~windlass.errors.JobError` while a handle made of a bare id has not looked.
        """
        if self._job is None:
            raise JobError(f"Job {self.id} was not looked at yet: call status() first.", self.id)
        return self._job

    async def status(self) -> Job:
        """The job as it stands now.

        Raises :class:`~windlass.errors.JobGone`, or :class:`~windlass.errors.JobNotFound` for an id
        under which no job was seen.
        """
        try:
            self._job = await self._client.get(self.id)
        except JobNotFound:
            raise _missing(self.id, self._job is not None) from None
        return self._job

    async def result(self, timeout: Duration | None = None) -> R_co:
        """What the task returned, once it has; waits at most *timeout* (None: as long as it takes).

        Raises :class:`~windlass.errors.JobFailed`, :class:`~windlass.errors.JobCancelled`,
        :class:`~windlass.errors.JobGone` or :class:`~windlass.errors.ResultTimeout` (the job goes
        on); and :class:`~windlass.errors.ConfigError` inside a task, which would hold its slot
        while it waits for another's.
        """
        _refuse_in_handler()
        known = self._job is not None
        self._job = job = await self._client.wait(self.id, timeout, known=known)
        return cast("R_co", _result(job, self._client.registry))

    async def cancel(self) -> Job:
        """Cancel the job if it waits, ask it to end if it runs; a job that ended is left alone."""
        self._job = await self._client.cancel(self.id)
        return self._job

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


class SyncJobHandle(Generic[R_co]):
    """A :class:`JobHandle` for synchronous code: the same questions, as plain calls."""

    __slots__ = ("_handle", "_portal")

    def __init__(self, handle: JobHandle[R_co], portal: Portal) -> None:
        self._handle = handle
        self._portal = portal

    @property
    def id(self) -> JobId:
        """The job's id."""
        return self._handle.id

    @property
    def duplicate(self) -> bool:
        """As :attr:`JobHandle.duplicate`."""
        return self._handle.duplicate

    @property
    def job(self) -> Job:
        """As :attr:`JobHandle.job`."""
        return self._handle.job

    def status(self) -> Job:
        """As :meth:`JobHandle.status`."""
        return self._call(self._handle.status, instead="await job.status()")

    def result(self, timeout: Duration | None = None) -> R_co:
        """As :meth:`JobHandle.result`."""
        return self._call(self._handle.result, timeout, instead="await job.result()")

    def cancel(self) -> Job:
        """As :meth:`JobHandle.cancel`."""
        return self._call(self._handle.cancel, instead="await job.cancel()")

    def _call(self, function: Callable[..., Coroutine[Any, Any, T]], *args: Any, instead: str) -> T:
        return self._portal.call(function, *args, instead=instead)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


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


def _refuse_in_handler() -> None:
    if in_handler():
        raise ConfigError(
            "result() inside a task would hold its slot while it waits for another's, and stop "
            "every worker once all slots wait: enqueue the next step from the job that ends."
        )


def _missing(id: JobId, known: bool) -> JobError:
    if known:
        return JobGone(
            f"Job {id} ended and was pruned: results are kept as long as the app's retention says.",
            id,
        )
    return JobNotFound(f"There is no job {id}.", id)


def _result(job: Job, registry: Registry) -> object:
    """What *job*, which has ended, returned; or the error that says why it did not.

    Decoded by the return annotation of the task that ran: a duplicate may be of another type.
    """
    match job.status:
        case Status.FAILED:
            raise JobFailed(_why_failed(job), job)
        case Status.CANCELLED:
            raise JobCancelled(
                f"Job {job.id} was cancelled: {job.reason or 'no reason given'}.", job
            )
        case _:
            if job.result is None:
                return None
            task, raw = registry.get(job.type), bytes(job.result)
            return task.signature.decode_result(raw) if task else _decode_any(raw)


def _why_failed(job: Job) -> str:
    text = f"Job {job.id} ({job.type}) failed: {job.reason or 'no reason given'}"
    if job.errors:
        last = job.errors[-1]
        text += f"; attempt {last.attempt} ended with {last.type}: {last.message}"
    return text.rstrip(".") + "."

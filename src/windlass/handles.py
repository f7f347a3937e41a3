"""What ``enqueue`` answers: a job's id, and the ways to ask about it and to end it.

A handle costs nothing until it is asked. :class:`JobHandle` is for asynchronous code,
:class:`SyncJobHandle` asks the same questions through the app's portal.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from windlass.client import Client, missing
from windlass.context import in_handler
from windlass.durations import Duration
from windlass.errors import ConfigError, JobCancelled, JobError, JobFailed, JobNotFound
from windlass.job import Job, JobId, Status
from windlass.portal import Portal

if TYPE_CHECKING:
    from windlass.tasks import Registry

__all__ = ["JobHandle", "SyncJobHandle"]

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_decode_any = msgspec.json.Decoder().decode


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
            raise missing(self.id, self._job is not None) from None
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


def _refuse_in_handler() -> None:
    if in_handler():
        raise ConfigError(
            "result() inside a task would hold its slot while it waits for another's, and stop "
            "every worker once all slots wait: enqueue the next step from the job that ends."
        )


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

"""What a running task sees of its job, and its only doors to the store.

A task that names a parameter of type :class:`Context` (``async def``) or :class:`SyncContext`
(``def``, in a thread or a process of its own) gets one; others cost nothing. Both are thin views of
a :class:`Run`, the record that the worker keeps of one run of one job: who holds it, until when it
may take, and whether it shall end. What a run writes is checked against its claim, so that a run
that lost its job cannot disturb the one that has it now.
"""

from __future__ import annotations

from asyncio import CancelledError, Task
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

from windlass.codec import safe_text
from windlass.errors import ClaimLost, ConfigError, StoreError
from windlass.job import Claim, Job, LogLine

__all__ = [
    "NO_RESOURCES",
    "Context",
    "Doors",
    "Ending",
    "Level",
    "Run",
    "SyncContext",
    "SyncDoors",
    "current_context",
    "in_handler",
]

if TYPE_CHECKING:
    from typing_extensions import TypeVar as _TypeVar

    # So that a bare `Context` passes a strict type checker.
    Res = _TypeVar("Res", default=Any)
else:
    Res = TypeVar("Res")
"""Type of the value that the app's lifespan yields: pools, clients, settings."""

Level = Literal["debug", "info", "warning", "error"]

Ending = Literal["cancelled", "timed out", "shutdown", "lost"]
"""Why a run is asked to end before it is done. ``lost``: the job is no longer ours."""

_MAX_MESSAGE = 4_000
_MAX_NOTE = 500


class Doors(Protocol):
    """The part of a store that a run may use."""

    async def progress(self, claim: Claim, fraction: float | None, note: str | None) -> bool: ...

    async def log(self, claim: Claim, lines: Sequence[LogLine]) -> bool: ...


class SyncDoors(Protocol):
    """The same for code that cannot await: through the loop from a thread, by pipe from a process.

    Each answers whether the claim still held."""

    @property
    def cancelled(self) -> bool: ...

    def progress(self, fraction: float | None, note: str | None) -> bool: ...

    def log(self, line: LogLine) -> bool: ...


class Run:
    """One run of a job. The worker that runs it writes here; contexts and middleware look."""

    __slots__ = (
        "_context",
        "deadline",
        "doors",
        "ending",
        "handle",
        "interrupt",
        "job",
        "noticed",
        "ran",
        "resources",
        "started",
    )

    def __init__(
        self, job: Job, doors: Doors, resources: Any = None, deadline: float | None = None
    ) -> None:
        self.job = job
        self.doors = doors
        self.resources = resources
        self.deadline = deadline
        """When it is timed out, on the worker's monotonic clock; None: never."""
        self.started = 0.0
        """When it began, on the same clock."""
        self.ran = 0.0
        """Seconds it took, once it has ended and if anybody wanted to know."""
        self.ending: Ending | None = None
        self.interrupt: Callable[[], object] | None = None
        """What ends it early; None: it has not begun, or can only look at ``cancelled`` by itself."""
        self.noticed = False
        """The task knows that it shall end, so that a return is no proof that it got through."""
        self.handle: Task[None] | None = None
        """The asyncio task that carries it, kept alive by this reference."""
        self._context: Context[Any] | None = None

    @property
    def context(self) -> Context[Any]:
        """The view of this run that is handed to the task."""
        if self._context is None:
            self._context = Context(self)
        return self._context

    @property
    def over(self) -> bool:
        """Whether it was asked to end."""
        return self.ending is not None

    def end(self, why: Ending) -> None:
        """Ask the run to end. The first reason stands, except that ``lost`` overrules all."""
        if self.ending is None or why == "lost":
            self.ending = why
        if self.interrupt is not None:
            self.noticed = True
            self.interrupt()

    async def progress(self, fraction: float | None, note: str | None) -> bool:
        """Pass on progress; whether the claim holds (a store that is away says nothing)."""
        try:
            return self._held(await self.doors.progress(self.job.claim, fraction, note))
        except StoreError:
            return self.ending != "lost"

    async def log(self, line: LogLine) -> bool:
        """Pass on a line; whether the claim holds (a store that is away says nothing)."""
        try:
            return self._held(await self.doors.log(self.job.claim, [line]))
        except StoreError:
            return self.ending != "lost"

    def _held(self, answer: bool) -> bool:
        if not answer:
            self.ending = "lost"
        return answer


class Context(Generic[Res]):
    """What an ``async def`` task sees of its job.

    >>> async def encode(ctx: Context, path: str) -> None:
    ...     await ctx.progress(0.5, "half of it")
    """

    __slots__ = ("_run",)

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def job(self) -> Job:
        """The job as it was when it was claimed."""
        return self._run.job

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return self._run.job.attempt

    @property
    def fence(self) -> int:
        """Rises with every hand-out of the job: pass it on to systems that can refuse an older one."""
        return self._run.job.fence

    @property
    def resources(self) -> Res:
        """What the app's lifespan yielded in this worker."""
        resources: Res = self._run.resources
        return resources

    @property
    def cancelled(self) -> bool:
        """The run shall end: on request, past its time-out, at shutdown, or its job was lost."""
        return self._run.ending is not None

    @property
    def deadline(self) -> float | None:
        """When the run times out, on the monotonic clock; None: never."""
        return self._run.deadline

    async def progress(self, fraction: float | None, note: str | None = None) -> None:
        """Tell how far the run is: *fraction* in 0…1 (None: unknown), *note* for people.

        While the store is away nothing is noted, and nothing raised.

        Raises:
            ValueError: *fraction* is out of range.
            ClaimLost: the job is no longer this run's.
        """
        if not await self._run.progress(_fraction(fraction), _note(note)):
            raise _lost(self.job)

    async def log(self, message: str, level: Level = "info") -> None:
        """Keep a line with the job, for people who look at it. Raises as :meth:`progress`."""
        if not await self._run.log(_line(message, level, self.attempt)):
            raise _lost(self.job)


class SyncContext(Generic[Res]):
    """What a ``def`` task sees of its job, in a thread or in a process of its own.

    Nothing can end a thread from outside, so a long task in one looks at :attr:`cancelled` now and
    then, or calls :meth:`check`. A process is simply ended.

    >>> def crunch(ctx: SyncContext, rows: int) -> None:
    ...     for row in range(rows):
    ...         ctx.check()
    """

    __slots__ = ("_doors", "_job", "_resources", "deadline")

    def __init__(
        self, job: Job, doors: SyncDoors, resources: Any, deadline: float | None = None
    ) -> None:
        self._job = job
        self._doors = doors
        self._resources = resources
        self.deadline = deadline
        """When the run times out, on the monotonic clock; None: never."""

    @property
    def job(self) -> Job:
        """The job as it was when it was claimed."""
        return self._job

    @property
    def attempt(self) -> int:
        """Number of this attempt, from 1."""
        return self._job.attempt

    @property
    def fence(self) -> int:
        """Rises with every hand-out of the job: pass it on to systems that can refuse an older one."""
        return self._job.fence

    @property
    def resources(self) -> Res:
        """What the app's lifespan yielded in this worker.

        Raises:
            ConfigError: the task runs in a process, where the worker's resources cannot follow.
        """
        if self._resources is NO_RESOURCES:
            raise ConfigError(
                f"Task {self._job.type!r} runs in a process of its own, which has no ctx.resources: "
                "open there what it needs, or run it in a thread."
            )
        resources: Res = self._resources
        return resources

    @property
    def cancelled(self) -> bool:
        """The run shall end: on request, past its time-out, at shutdown, or its job was lost."""
        return self._doors.cancelled

    def check(self) -> None:
        """Raise :class:`asyncio.CancelledError` if the run shall end."""
        if self._doors.cancelled:
            raise CancelledError

    def progress(self, fraction: float | None, note: str | None = None) -> None:
        """Tell how far the run is; as :meth:`Context.progress`."""
        if not self._doors.progress(_fraction(fraction), _note(note)):
            raise _lost(self._job)

    def log(self, message: str, level: Level = "info") -> None:
        """Keep a line with the job; as :meth:`Context.log`."""
        if not self._doors.log(_line(message, level, self.attempt)):
            raise _lost(self._job)


NO_RESOURCES = object()
"""Stands for resources that cannot be had where the task runs."""

running: ContextVar[Run | SyncContext[Any] | None] = ContextVar("windlass_running", default=None)
"""The run that the present code belongs to. Set by executors only."""


def current_context() -> Context[Any] | SyncContext[Any] | None:
    """The context of the run that the calling code belongs to; None outside of tasks."""
    found = running.get()
    return found.context if isinstance(found, Run) else found


def in_handler() -> bool:
    """Whether the calling code runs inside a task."""
    return running.get() is not None


def _fraction(fraction: float | None) -> float | None:
    if fraction is None:
        return None
    if not -1e-9 <= fraction <= 1 + 1e-9:
        raise ValueError(
            f"Progress is a fraction from 0 to 1, not {fraction}: divide by the total."
        )
    return min(max(float(fraction), 0.0), 1.0)


def _note(note: str | None) -> str | None:
    return None if note is None else safe_text(note, _MAX_NOTE)


def _line(message: str, level: Level, attempt: int) -> LogLine:
    return LogLine(level, safe_text(message, _MAX_MESSAGE), attempt)


def _lost(job: Job) -> ClaimLost:
    return ClaimLost(
        f"Job {job.id} is no longer held by this run: what it does from here on does not count.",
        job.id,
    )

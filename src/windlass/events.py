"""Facts, told to whoever subscribed: logs, metrics and users' own hooks.

Code that makes something happen emits a typed event and formats nothing. An event that nobody
subscribed to is not even made: emitters ask :meth:`EventBus.wants` first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Literal, TypeVar

import msgspec

from windlass.job import Failure, Job, JobId, Status, WorkerId

__all__ = [
    "AckStale",
    "BackgroundFailed",
    "Event",
    "EventBus",
    "JobEnded",
    "JobEnqueued",
    "JobStarted",
    "LoopStalled",
    "Outcome",
    "StoreAnswered",
    "StoreFailed",
    "StoreRecovered",
    "SuspectsWait",
    "WorkerLost",
    "WorkerStarted",
    "WorkerStopped",
]

_log = logging.getLogger("windlass.events")


Outcome = Literal["completed", "failed", "cancelled", "retried", "snoozed", "interrupted"]


class Event(msgspec.Struct, frozen=True):
    """Base of all events."""


class JobEnqueued(Event, frozen=True):
    """A job was accepted (``duplicate``: it stood already)."""

    job: Job
    duplicate: bool = False


class JobStarted(Event, frozen=True):
    """A run begins. ``waited``: from ready to started."""

    job: Job
    worker: WorkerId
    waited: timedelta


class JobEnded(Event, frozen=True):
    """A run is over and its Ack was answered: ``status`` is where the job stands now."""

    job: Job
    worker: WorkerId
    status: Status
    ran: timedelta
    failure: Failure | None = None
    reason: str | None = None

    @property
    def outcome(self) -> Outcome:
        """What became of the run, in a word that logs and metrics share."""
        match self.status:
            case Status.COMPLETED:
                return "completed"
            case Status.FAILED:
                return "failed"
            case Status.CANCELLED:
                return "cancelled"
            case Status.SCHEDULED:
                return "retried" if self.failure is not None else "snoozed"
            case _:
                return "interrupted"


class AckStale(Event, frozen=True):
    """What a worker wanted to write was refused: the claim was no longer its own."""

    id: JobId
    worker: WorkerId
    operation: str


class WorkerStarted(Event, frozen=True):
    """A worker registered and begins to claim."""

    worker: WorkerId
    slots: int
    queues: tuple[str, ...] | None


class WorkerStopped(Event, frozen=True):
    """A worker left; it handed back this many jobs unfinished."""

    worker: WorkerId
    handed_back: int


class WorkerLost(Event, frozen=True):
    """This worker was declared dead by others: it ends what it holds."""

    worker: WorkerId


class SuspectsWait(Event, frozen=True):
    """Jobs wait that were in flight when two workers died, and this worker has no command by which to
    start a quarantine for them: run ``windlass worker --quarantine``."""

    worker: WorkerId


class LoopStalled(Event, frozen=True):
    """The handlers' event loop did not turn for ``blocked``; ``stacks`` shows where it stands."""

    worker: WorkerId
    blocked: timedelta
    stacks: str


class StoreAnswered(Event, frozen=True):
    """A store did what it was asked, in ``took`` seconds."""

    operation: str
    took: float


class StoreFailed(Event, frozen=True):
    """An operation failed and will be tried again."""

    operation: str
    error: str


class StoreRecovered(Event, frozen=True):
    """An operation that had failed works again."""

    operation: str


class BackgroundFailed(Event, frozen=True):
    """An in-process background function raised; the application lives on."""

    name: str
    error: str
    traceback: str


E = TypeVar("E", bound=Event)


class EventBus:
    """Subscribers by event type. Handlers are plain functions, called in the emitter's thread."""

    def __init__(self) -> None:
        self._handlers: dict[type[Event], tuple[Callable[..., None], ...]] = {}

    def subscribe(self, kind: type[E], handler: Callable[[E], None]) -> Callable[[], None]:
        """Call *handler* with every event of exactly this *kind*; the answer ends it."""
        self._handlers[kind] = (*self._handlers.get(kind, ()), handler)

        def unsubscribe() -> None:
            rest = tuple(h for h in self._handlers.get(kind, ()) if h is not handler)
            if rest:
                self._handlers[kind] = rest
            else:
                self._handlers.pop(kind, None)

        return unsubscribe

    def wants(self, kind: type[Event]) -> bool:
        """Whether anybody would notice."""
        return kind in self._handlers

    def emit(self, event: Event) -> None:
        """Tell all subscribers. One that raises is logged and does not disturb the others."""
        for handler in self._handlers.get(type(event), ()):
            try:
                handler(event)
            except Exception:
                _log.exception("An event handler failed", extra={"event": type(event).__name__})

"""For tests of programs that enqueue: jobs in memory, a clock that is moved by hand, and a drain.

>>> async def test_a_welcome_is_sent_after_an_hour():
...     with in_memory(app) as clock:
...         await sign_up("ann@example.org")
...         assert_enqueued(app, welcome.bind("ann@example.org"), queue="mail")
...
...         clock.advance("1h")
...         await drain(app)
...
...         assert outbox == ["ann@example.org"]

Nothing is imitated: the store is the memory store, and :func:`drain` runs the real worker with the
app's lifespan and middleware. The pytest plugin ``windlass.testing_plugin`` offers the same as
fixtures.
"""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from windlass.app import Windlass
from windlass.calls import Call, Task
from windlass.clock import FakeClock, SystemClock
from windlass.context import Context
from windlass.durations import Duration, parse_duration
from windlass.errors import ConfigError, TaskSignal
from windlass.events import JobEnded
from windlass.job import Job, JobFilter, JobId, Limit
from windlass.middleware import Next
from windlass.observed import plain
from windlass.stores.memory import MemoryStore
from windlass.worker import Worker, WorkerOptions

__all__ = ["ManualClock", "assert_enqueued", "drain", "drain_sync", "enqueued", "in_memory"]

T = TypeVar("T")


class ManualClock(FakeClock):
    """A clock that begins at the present time and stands still until it is told to move."""

    def __init__(self, start: datetime | None = None) -> None:
        super().__init__(start or SystemClock().now())

    def advance(self, by: Duration) -> None:
        """Move forward by *by*: ``"2h"``, seconds or a timedelta."""
        super().advance(parse_duration(by, what="The time to advance"))


class _Store(MemoryStore):
    async def set_limits(self, limits: Sequence[Limit]) -> None:
        await super().set_limits([msgspec.structs.replace(limit, rate=None) for limit in limits])


@contextmanager
def in_memory(app: Windlass[Any], clock: ManualClock | None = None) -> Iterator[ManualClock]:
    """Within the block, *app* keeps its jobs in memory, beginning with none; yields their clock.

    Delays, retries, expiry and retention follow that clock; time-outs of running tasks are real.
    Rate limits are lifted: while the clock stands still, nothing would pass them.
    """
    clock = clock or ManualClock()
    before = app.store
    app.use_store(_Store(capacity=app.settings.capacity, clock=clock))
    try:
        yield clock
    finally:
        app.use_store(before)


async def drain(app: Windlass[Any], *, fail_fast: bool = False) -> list[Job]:
    """Run every job that is due, and those they enqueue, until none is; answers the jobs that ran,
    in the order in which they ended.

    What is scheduled for later (a delay, a retry) waits for the clock to advance and another drain.
    *fail_fast*: stop at the first exception of a task and raise it here, as it was raised there.
    """
    ran: dict[JobId, None] = {}
    errors: list[BaseException] = []
    await app.open()
    worker = _worker(app, errors if fail_fast else None)
    stop_listening = app.events.subscribe(JobEnded, lambda event: ran.setdefault(event.job.id))
    try:
        await worker.run()
    finally:
        stop_listening()
    if errors:
        raise errors[0]
    return [job for job in await app.store.get(list(ran)) if job is not None]


def drain_sync(app: Windlass[Any], *, fail_fast: bool = False) -> list[Job]:
    """:func:`drain` for synchronous tests."""

    async def drained() -> list[Job]:
        return await drain(app, fail_fast=fail_fast)

    return app.portal.call(drained, instead="await drain(app)")


def enqueued(
    app: Windlass[Any], what: Task[..., Any] | Call[Any] | None = None, *, queue: str | None = None
) -> list[Job]:
    """The jobs of a task, of a call with exactly these arguments, or all of them; oldest first.

    Jobs count whatever became of them since. Raises :class:`~windlass.errors.ConfigError` when the
    app is not :func:`in_memory`.
    """
    where = JobFilter(
        type=frozenset(() if what is None else (_type(what),)),
        queue=frozenset(() if queue is None else (queue,)),
    )
    jobs = _at_once(_memory_of(app).find(where, 1_000_000, oldest_first=True)).jobs
    if isinstance(what, Call):
        wanted = _arguments(app, what.new.type, what.new.payload)
        jobs = [job for job in jobs if _arguments(app, job.type, bytes(job.payload)) == wanted]
    return jobs


def assert_enqueued(
    app: Windlass[Any],
    what: Task[..., Any] | Call[Any],
    *,
    queue: str | None = None,
    times: int | None = None,
) -> Job:
    """Assert that a task, or a call with exactly these arguments, was enqueued; answers the latest.

    >>> job = assert_enqueued(app, welcome.bind(42, lang="fr"), queue="mail", times=1)
    >>> assert job.priority == 9

    *times*: exactly so often (from 1; for none at all use ``assert not enqueued(…)``).
    """
    jobs = enqueued(app, what, queue=queue)
    if times is not None and times < 1:
        raise ConfigError(f"times={times}: write `assert not enqueued(app, …)` instead.")
    # Raised, not asserted: a test must not pass because Python runs with -O.
    if not jobs or (times is not None and len(jobs) != times):
        raise AssertionError(_complaint(app, what, queue, times, jobs))
    return jobs[-1]


def _worker(app: Windlass[Any], errors: list[BaseException] | None) -> Worker:
    """The app's worker, told to end when nothing is due and, for *errors*, at the first one."""
    lifespan = app.lifespan

    async def stop_at_error(ctx: Context[Any], call_next: Next) -> object:
        try:
            return await call_next(ctx)
        except TaskSignal:
            raise
        except Exception as error:
            assert errors is not None
            errors.append(error)
            worker.stop(timedelta(0))
            raise

    worker = Worker(
        app.store,
        app.registry,
        app.events,
        WorkerOptions(drain=True, poll=timedelta(milliseconds=20)),
        resources=None if lifespan is None else lambda: lifespan(app),
        middleware=app.middleware if errors is None else (*app.middleware, stop_at_error),
        retention=app.retention,
    )
    return worker


def _memory_of(app: Windlass[Any]) -> MemoryStore:
    store = plain(app.store)
    if not isinstance(store, MemoryStore):
        raise ConfigError("The app's jobs are not in memory: use `with in_memory(app):` first.")
    return store


def _at_once(answer: Coroutine[Any, Any, T]) -> T:
    """The answer of the memory store, which never awaits: so that synchronous tests can look, too."""
    try:
        answer.send(None)
    except StopIteration as done:
        value: T = done.value
        return value
    raise AssertionError("The memory store awaited something.")


def _type(what: Task[..., Any] | Call[Any]) -> str:
    return what.new.type if isinstance(what, Call) else what.type


def _arguments(app: Windlass[Any], type: str, payload: bytes) -> dict[str, Any]:
    """The arguments that a run would see, defaults filled in."""
    task = app.registry.get(type)
    if task is None:
        found: dict[str, Any] = msgspec.json.decode(payload)
        return found
    args, kwargs = task.signature.decode(payload)
    spec = inspect.signature(task.function)
    parameters = [each for name, each in spec.parameters.items() if name != task.context_param]
    bound = spec.replace(parameters=parameters).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.arguments


def _complaint(
    app: Windlass[Any],
    what: Task[..., Any] | Call[Any],
    queue: str | None,
    times: int | None,
    jobs: list[Job],
) -> str:
    wanted = _type(what)
    if isinstance(what, Call):
        wanted += f" {what.new.payload.decode()}"
    if queue is not None:
        wanted += f" in queue {queue!r}"
    there = enqueued(app)
    listed = "".join(
        f"\n  {job.type} {bytes(job.payload).decode():.200} in queue {job.queue!r}, {job.status}"
        for job in there[-10:]
    )
    often = "" if times is None else f"{times} times "
    return f"Expected {often}{wanted}, found {len(jobs)}; " + (
        f"of {len(there)} jobs enqueued, the latest are:{listed}" if there else "no job at all."
    )

"""The app: the object that a program makes, and that joins tasks, store, client and worker.

Nothing is global: everything hangs on a :class:`Windlass`. It opens its store on first use, from
whichever event loop comes first, so that importing a module that makes one touches no file; ``async
with app`` opens it early and closes it in the end.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from windlass.calls import Call, Task
from windlass.client import Client
from windlass.clock import Clock, SystemClock
from windlass.config import Settings
from windlass.errors import ConfigError
from windlass.events import EventBus
from windlass.handles import JobHandle, SyncJobHandle
from windlass.job import Limit, NewJob, Retention
from windlass.limits import Rate
from windlass.load import is_loading, target_of
from windlass.observed import observed
from windlass.options import check_name, job_id
from windlass.portal import Portal
from windlass.retry import RetryPolicy
from windlass.store import Store
from windlass.tasks import Registry, Res, TaskDeclarations, limit_of, retry_of

if TYPE_CHECKING:
    from windlass.control import Control
    from windlass.middleware import Middleware
    from windlass.worker import Worker, WorkerOptions

__all__ = ["Windlass"]

R = TypeVar("R")
_log = logging.getLogger("windlass.app")


class Windlass(TaskDeclarations[Res]):
    """An application's tasks and the place where its jobs live.

    >>> app = Windlass("sqlite:///jobs.db")
    >>> @app.task
    ... async def welcome(user_id: int) -> None: ...
    >>> job = await welcome.enqueue(42)

    *url*: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``memory:``; by default
    ``WINDLASS_URL``, else ``sqlite:///jobs.db``. *lifespan*: makes what tasks share (pools,
    clients), once per worker; what it yields is ``ctx.resources``. *retry*: the policy of tasks
    without their own. *retention*: how long ended jobs are kept. *capacity*: jobs of one queue that
    may wait. *middleware*: wrapped around each run, the first outermost. *durability*: ``full``
    (accepted jobs survive loss of power) or ``normal`` (SIGKILL, and the host lives on).

    Raises :class:`~windlass.errors.ConfigError` for what cannot work.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        lifespan: Callable[[Windlass[Any]], AbstractAsyncContextManager[Res]] | None = None,
        retry: RetryPolicy | None = None,
        retention: Retention | None = None,
        capacity: int | None = None,
        middleware: Sequence[Middleware] = (),
        clock: Clock | None = None,
        durability: Literal["full", "normal"] | None = None,
    ) -> None:
        if not (lifespan is None or callable(lifespan)):
            raise ConfigError(
                "lifespan is a function of the app, made by @asynccontextmanager, "
                f"not {lifespan!r:.80}."
            )
        self.settings = Settings.load(url=url, capacity=capacity, durability=durability)
        self.lifespan = lifespan
        self.retry = retry_of(retry) or RetryPolicy()
        if not isinstance(retention, Retention | None):
            raise ConfigError(
                "retention is a Retention such as Retention(completed=timedelta(days=7)), "
                f"not {retention!r:.80}."
            )
        self.retention = retention or Retention()
        self.middleware = tuple(middleware)
        self.clock = clock or SystemClock()
        self.registry = Registry()
        self.events = EventBus()
        self._logs_events = False
        self._limits: dict[tuple[str, str], Limit] = {}
        """Declared, by (scope, name)."""
        self._lock = threading.Lock()
        self._opening: Future[None] | None = None
        self._portal: Portal | None = None
        self._control: Control | None = None
        self._inherited: list[Store] = []
        self.use_store(self._make_store())
        self._made = self.store
        _APPS.add(self)

    # ---------------------------------------------------------------- declaring

    def queue(
        self,
        name: str,
        *,
        capacity: int | None = None,
        concurrency: int | None = None,
        rate: str | Rate | None = None,
    ) -> None:
        """Declare what all workers together may do with a queue, and how many jobs may wait in it.

        A limit that an operator set stays in force. Raises :class:`~windlass.errors.ConfigError`.
        """
        limit = limit_of("queue", check_name(name, "A queue's name"), concurrency, rate, capacity)
        if limit is not None:
            self._declare(limit)

    def include(self, registry: Registry) -> None:
        """Take in the tasks that are declared on *registry*, now or later.

        Raises :class:`~windlass.errors.DuplicateTask`, or :class:`~windlass.errors.ConfigError` for
        tasks of another app.
        """
        registry.follow(self._take_in)

    def _take_in(self, task: Task[..., Any]) -> Task[..., Any]:
        if task.home is not None and task.home is not self:
            raise ConfigError(
                f"Task {task.type!r} ({task.place}) belongs to another app: include its registry "
                "in one app only."
            )
        self.registry.add(task)
        task.settle_in(self, self.retry)
        if task.limit is not None:
            self._declare(task.limit)
        return task

    def _declare(self, limit: Limit) -> None:
        self._limits[limit.scope, limit.name] = limit
        # An app that is open already writes it before its next use of the store.
        self.client.prepare = self.open

    # ---------------------------------------------------------------- enqueueing

    async def enqueue_many(self, calls: Iterable[Call[R]]) -> list[JobHandle[R]]:
        """Enqueue up to 10,000 calls at once, all or none; the handles come in their order.

        >>> jobs = await app.enqueue_many(welcome.bind(user) for user in users)

        Raises as ``enqueue`` does, and then none of them was accepted.
        """
        jobs = [_new(call) for call in calls]
        if not jobs:
            return []
        client = self.client
        return [
            JobHandle(client, each.job.id, each.job, each.duplicate)
            for each in await client.insert(jobs)
        ]

    def enqueue_many_sync(self, calls: Iterable[Call[R]]) -> list[SyncJobHandle[R]]:
        """:meth:`enqueue_many` for synchronous code."""
        portal = self.portal
        handles = portal.call(self.enqueue_many, list(calls), instead="await app.enqueue_many(…)")
        return [SyncJobHandle(handle, portal) for handle in handles]

    def job(self, id: str) -> JobHandle[Any]:
        """A handle for the job of this id; nothing is looked up yet."""
        return JobHandle(self.client, job_id(id))

    @property
    def portal(self) -> Portal:
        """The background event loop of this app's synchronous callers, started by their first call."""
        if self._portal is None:
            with self._lock:
                if self._portal is None:
                    self._portal = Portal()
                    atexit.register(_close_at_exit, weakref.ref(self))
        return self._portal

    @property
    def control(self) -> Control:
        """Looking at jobs, queues and workers, and intervening. The app must be open."""
        if self._control is None:
            from windlass.control import Control

            self._control = Control(self.store, self.registry)
        return self._control

    # ---------------------------------------------------------------- working

    def log_events(self) -> None:
        """Have failures and what workers do logged by the loggers ``windlass.*``, and each step of
        every job as well if ``windlass.jobs`` logs DEBUG by now. Making a worker does so, too."""
        if not self._logs_events:
            from windlass.logs import attach_logging

            self._logs_events = True
            attach_logging(self.events)

    def worker(self, options: WorkerOptions | None = None) -> Worker:
        """A worker for this app's tasks, to be run by ``await worker.run()`` while the app is open."""
        from windlass.worker import Worker

        self.log_events()
        lifespan = self.lifespan
        return Worker(
            self.store,
            self.registry,
            self.events,
            options or self.settings.worker_options(),
            resources=None if lifespan is None else lambda: lifespan(self),
            middleware=self.middleware,
            retention=self.retention,
            clock=self.clock,
        )

    def run_worker(self, options: WorkerOptions | None = None) -> None:
        """Open the app, work until SIGTERM or Ctrl-C, and close it: the whole of a worker program.

        For the main thread. Suspects, which only a process of their own may run, are run by another
        ``windlass worker`` for this app, started when there are any.
        """
        if is_loading():
            raise ConfigError(
                "run_worker() was called while the app was imported: put it under "
                "`if __name__ == '__main__':`."
            )
        asyncio.run(self._run_worker(options))

    async def _run_worker(self, options: WorkerOptions | None) -> None:
        from windlass.worker import run_as_program

        target = target_of(self)
        command = [sys.executable, "-m", "windlass", "worker", str(target), "--quarantine"]
        async with self:
            await run_as_program(self.worker(options), command if target else None)

    # ---------------------------------------------------------------- opening and closing

    async def open(self) -> None:
        """Make the store ready and write the declared limits to it. Idempotent, from any loop.

        Raises :class:`~windlass.errors.StoreError` saying what to do.
        """
        while self.client.prepare is not None:
            with self._lock:
                flight, mine = self._opening, Future[None]()
                if flight is None:
                    self._opening = mine
            if flight is None:
                await self._open(mine)
            else:
                # Another loop or task is at it. Whether it failed is its own business: look again.
                await asyncio.shield(asyncio.wrap_future(flight))

    async def close(self) -> None:
        """End synchronous callers, then the store, which finishes what it accepted. Idempotent.

        Whatever uses the app afterwards opens it again.
        """
        if self._portal is not None:
            await asyncio.to_thread(self._portal.close)
        await self.store.close()
        self.client.prepare = self.open

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def use_store(self, store: Store) -> None:
        """Keep jobs in *store* from now on; it is opened at its first use. For tests and tools."""
        self.store = observed(store, self.events, self.clock)
        self.client = Client(self.store, self.registry, self.events, prepare=self.open)
        self._control = None

    async def _open(self, flight: Future[None]) -> None:
        client, store = self.client, self.store
        try:
            for warning in self.settings.warnings:
                _log.warning(warning)
            await store.open()
            limits = list(self._limits.values())
            if limits:
                await store.set_limits(limits)
            if limits == list(self._limits.values()):
                client.prepare = None
        finally:
            self._opening = None
            flight.set_result(None)

    def _make_store(self) -> Store:
        from windlass.stores import open_store

        settings = self.settings
        return open_store(
            settings.url,
            capacity=settings.capacity,
            clock=self.clock,
            durability=settings.durability,
        )

    def _after_fork(self) -> None:
        """A child process has none of the parent's threads, and must not touch its connections."""
        self._lock = threading.Lock()
        self._opening = None
        self._portal = None
        if self.store is self._made:
            # Kept alive: collecting it would close connections that are the parent's.
            self._inherited.append(self._made)
            self.use_store(self._make_store())
            self._made = self.store

    def __repr__(self) -> str:
        return f"<Windlass with {len(self.registry.tasks())} tasks>"


def _new(call: object) -> NewJob:
    if not isinstance(call, Call):
        raise ConfigError(
            f"enqueue_many takes calls such as task.bind(…), not {call!r:.80}: bind the arguments, "
            "and leave the enqueueing to it."
        )
    return call.new


_APPS: weakref.WeakSet[Windlass[Any]] = weakref.WeakSet()
"""Every app of this process, for what a fork does to them."""


def _after_fork_in_child() -> None:
    for app in list(_APPS):
        app._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _close_at_exit(reference: weakref.ref[Windlass[Any]]) -> None:
    app = reference()
    if app is not None and app._portal is not None and app._portal.running:
        try:
            app._portal.call(app.store.close, instead="await app.close()")
        finally:
            app._portal.close()

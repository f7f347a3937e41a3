"""How tasks become jobs: ``enqueue``, ``options``, ``bind``.

A :class:`Task` is a function that jobs can call (``tasks.py`` makes it of one). Its parameters and
return type are carried by ParamSpec through every way of enqueueing it, so that a type checker
judges a call to be made later as it judges one made now.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Literal, ParamSpec, Protocol, TypeVar, Unpack, cast

from windlass.client import Client, chosen_id, new_job_id
from windlass.errors import ConfigError
from windlass.handles import JobHandle, SyncJobHandle
from windlass.job import JobId, JobOptions, Limit, NewJob
from windlass.local import local_context, local_sync_context
from windlass.options import EnqueueOptions, merge_options
from windlass.portal import Portal
from windlass.retry import RetryPolicy
from windlass.signature import Signature

__all__ = ["AsyncTask", "BoundTask", "Call", "Home", "RunIn", "SyncTask", "Task"]

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

RunIn = Literal["loop", "thread", "process"]


class Home(Protocol):
    """What a task needs of the app that it belongs to."""

    @property
    def client(self) -> Client: ...

    @property
    def portal(self) -> Portal: ...


class Call(Generic[R_co]):
    """A call of a task, bound to its arguments and options and ready to be enqueued.

    It has its job's id from the start: enqueueing it once more, as after an error that left open
    whether it was accepted, never makes a second job.
    """

    __slots__ = ("new",)

    def __init__(self, new: NewJob) -> None:
        self.new = new

    def __repr__(self) -> str:
        return f"<Call of {self.new.type} as {self.new.id}>"


class TaskLike(Generic[P, R]):
    """What a task and a task with options have in common: ways to make a job of a call."""

    task: Task[P, R]
    defaults: JobOptions
    """Options of the jobs made here."""
    _id: JobId | None = None

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]:
        """Have the call made by a worker; answers when the job is durable.

        Raises :class:`~windlass.errors.PayloadError` for arguments that do not fit, and as
        :meth:`Client.insert <windlass.client.Client.insert>` does.
        """
        client = (self.task.home or self.task.no_home()).client
        (inserted,) = await client.insert((self._new(args, kwargs),))
        job = inserted.job
        return JobHandle(client, job.id, job, inserted.duplicate)

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> SyncJobHandle[R]:
        """:meth:`enqueue` for synchronous code, from any thread in which no event loop runs."""
        portal = (self.task.home or self.task.no_home()).portal
        handle = portal.call(
            functools.partial(self.enqueue, *args, **kwargs),
            instead=f"await {self.task.__name__}.enqueue(…)",
        )
        return SyncJobHandle(handle, portal)

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """The call as a value, for ``app.enqueue_many``. Raises PayloadError as :meth:`enqueue`."""
        return Call(self._new(args, kwargs))

    def _new(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NewJob:
        task = self.task
        payload = task.signature.encode(args, kwargs)
        if self._id is not None:
            return NewJob(self._id, task.type, payload, self.defaults, True)
        return NewJob(new_job_id(), task.type, payload, self.defaults)


class BoundTask(TaskLike[P, R]):
    """A task together with options for the jobs made through it."""

    def __init__(self, task: Task[P, R], defaults: JobOptions, id: JobId | None) -> None:
        self.task = task
        self.defaults = defaults
        self._id = id


class Task(TaskLike[P, R]):
    """A function that jobs can call. Made by ``@app.task``; see :class:`AsyncTask`, :class:`SyncTask`."""

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        type: str,
        *,
        aliases: tuple[str, ...],
        run_in: RunIn,
        defaults: JobOptions,
        retry: RetryPolicy | None,
        limit: Limit | None,
        context_param: str | None,
    ) -> None:
        functools.update_wrapper(cast("Any", self), function)
        self.task = self
        self.function = function
        self.type = type
        self.aliases = aliases
        """Other type names under which jobs may still wait, as after a renaming."""
        self.run_in = run_in
        self.defaults = defaults
        self.own_retry = retry
        self.retry = retry or RetryPolicy()
        """The policy in force: the task's own, or its app's."""
        self.limit = limit
        """What all workers together may do with this type."""
        self.context_param = context_param
        self.signature = Signature.of(function, context_param=context_param, type=type)
        self.doc = inspect.getdoc(function)
        self.home: Home | None = None

    def options(self, **options: Unpack[EnqueueOptions]) -> BoundTask[P, R]:
        """This task with other options for its jobs; keep the answer where many jobs share them.

        >>> await welcome.options(delay="5m", unique="user:42").enqueue(42)

        Raises :class:`~windlass.errors.ConfigError` for an option out of range.
        """
        given: dict[str, object] = {**options}
        chosen = chosen_id(given.pop("id", None), given.pop("key", None))
        return BoundTask(self, merge_options(self.defaults, given), chosen)

    @property
    def place(self) -> str:
        """Where the function stands, for people."""
        code = self.function.__code__
        return (
            f"{self.function.__module__}.{self.function.__qualname__} "
            f"({code.co_filename}:{code.co_firstlineno})"
        )

    def settle_in(self, home: Home, retry: RetryPolicy) -> None:
        """Belong to *home*, and follow its *retry* policy unless the task has its own."""
        self.home = home
        self.retry = self.own_retry or retry

    def no_home(self) -> Home:
        """Raise the error for a task that was declared on a registry that no app includes."""
        raise ConfigError(
            f"Task {self.type!r} belongs to no app yet: call app.include(registry) first."
        )

    def __repr__(self) -> str:
        return f"<Task {self.type}>"


class AsyncTask(Task[P, R]):
    """A task made of an ``async def``."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Run the function here and now, without a job."""
        if self.context_param is None:
            answer: Coroutine[Any, Any, R] = self.function(*args, **kwargs)
        else:
            answer = self.function(local_context(self.type), *args, **kwargs)
        return answer


class SyncTask(Task[P, R]):
    """A task made of a ``def``."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now, without a job."""
        if self.context_param is None:
            answer: R = self.function(*args, **kwargs)
        else:
            answer = self.function(local_sync_context(self.type), *args, **kwargs)
        return answer

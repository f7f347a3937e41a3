"""How functions become tasks: the ``@app.task`` decorator and the registry.

A :class:`Registry` knows tasks by their type names; it is the only way from a name in the data to
code. The overloads tell type checkers what the decorator makes of a function: its context parameter,
if it has one, is the worker's to give, and all others are the caller's.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Coroutine, Iterable
from types import FunctionType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

from windlass.annotations import resolve
from windlass.calls import AsyncTask, BoundTask, Call, Home, RunIn, SyncTask, Task
from windlass.context import Context, SyncContext
from windlass.durations import Duration
from windlass.errors import ConfigError, DuplicateTask, TaskError
from windlass.job import JobOptions, Limit, Unique
from windlass.limits import Rate, parse_rate
from windlass.options import check_name, did_you_mean, merge_options
from windlass.retry import RetryPolicy

__all__ = [
    "AsyncTask",
    "BoundTask",
    "Call",
    "Home",
    "Registry",
    "RunIn",
    "SyncTask",
    "Task",
    "TaskDeclarations",
    "TaskOptions",
    "limit_of",
    "retry_of",
]

P = ParamSpec("P")
R = TypeVar("R")
if TYPE_CHECKING:
    from typing_extensions import TypeVar as _TypeVar

    # So that a bare `Windlass` passes a strict type checker.
    Res = _TypeVar("Res", default=Any)
else:
    Res = TypeVar("Res")


class TaskOptions(TypedDict, total=False):
    """What ``@app.task(…)`` takes. All but the first six are defaults of the task's jobs."""

    name: str
    aliases: Iterable[str]
    run_in: RunIn
    retry: RetryPolicy
    concurrency: int
    rate: str | Rate
    queue: str
    priority: int
    max_attempts: int
    timeout: Duration | None
    unique: str | Unique | None
    expires: Duration | None
    on_lost: Literal["retry", "fail"]
    tags: Iterable[str]


class TaskMaker(Protocol[Res]):
    """What ``app.task(…)`` answers: a decorator."""

    @overload
    def __call__(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[Concatenate[Context[Res], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[SyncContext[Res], P], R], /
    ) -> SyncTask[P, R]: ...
    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...


class TaskDeclarations(Generic[Res]):
    """The decorator ``task``, for whatever takes in tasks: a registry, an app."""

    @overload
    def task(  # type: ignore[overload-overlap]  # the first that fits is meant
        self, function: Callable[Concatenate[Context[Res], P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(
        self, function: Callable[Concatenate[SyncContext[Res], P], R], /
    ) -> SyncTask[P, R]: ...
    @overload
    def task(  # type: ignore[overload-overlap]
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, **options: Unpack[TaskOptions]) -> TaskMaker[Res]: ...
    def task(self, function: Any = None, /, **options: Any) -> Any:  # type: ignore[misc]
        """Make a task of a function, bare or with options.

        >>> @app.task(queue="mail", timeout="30s")
        ... async def welcome(ctx: Context[Resources], user_id: int) -> str: ...

        An ``async def`` runs in the worker's event loop, a ``def`` in a thread, or with
        ``run_in="process"`` in a process of its own. A first parameter of type
        :class:`~windlass.context.Context` (``def``: :class:`~windlass.context.SyncContext`) is
        given by the worker. *name*: the type name (the function's name). *aliases*: former names.
        *retry*: a policy of its own. *concurrency*, *rate* (``"10/s"``): what all workers together
        may do. The others are defaults for the jobs.

        Raises :class:`~windlass.errors.TaskError` or :class:`~windlass.errors.ConfigError`.
        """

        def declare(function: Callable[..., Any]) -> Task[..., Any]:
            return self._take_in(make_task(function, options))

        return declare if function is None else declare(function)

    def _take_in(self, task: Task[..., Any]) -> Task[..., Any]:
        raise NotImplementedError


class Registry(TaskDeclarations[Any]):
    """Tasks by type name. An app has one; more can be declared in other modules and included.

    >>> mail = Registry()
    >>> @mail.task
    ... async def welcome(user_id: int) -> None: ...
    >>> app.include(mail)
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}
        """By type name and by alias."""
        self._followers: list[Callable[[Task[..., Any]], object]] = []

    def add(self, task: Task[..., Any]) -> None:
        """Take in *task*. Raises :class:`~windlass.errors.DuplicateTask` naming both places."""
        for name in (task.type, *task.aliases):
            there = self._tasks.get(name)
            if there is not None and there is not task:
                raise DuplicateTask(
                    f"Two tasks are called {name!r}: {there.place} and {task.place}. "
                    "Give one of them another name with @task(name=…)."
                )
        for name in (task.type, *task.aliases):
            self._tasks[name] = task

    def get(self, type: str) -> Task[..., Any] | None:
        """The task of this type name or alias."""
        return self._tasks.get(type)

    def types(self) -> tuple[str, ...]:
        """All type names, aliases included."""
        return tuple(self._tasks)

    def tasks(self) -> list[Task[..., Any]]:
        """All tasks, each once, in the order of their declaration."""
        return list(dict.fromkeys(self._tasks.values()))

    def near(self, type: str) -> tuple[str, ...]:
        """Up to three names that *type* may have meant, the best first."""
        return tuple(difflib.get_close_matches(type, self._tasks, n=3, cutoff=0.6))

    def follow(self, follower: Callable[[Task[..., Any]], object]) -> None:
        """Tell *follower* each task: those that are here, and those that are declared later."""
        self._followers.append(follower)
        for task in self.tasks():
            follower(task)

    def _take_in(self, task: Task[..., Any]) -> Task[..., Any]:
        self.add(task)
        for follower in self._followers:
            follower(task)
        return task


def make_task(function: Any, options: dict[str, Any]) -> Task[..., Any]:
    """A task of *function*, declared with *options* as in :class:`TaskOptions`."""
    _check_function(function)
    _check_options(options)
    is_async = inspect.iscoroutinefunction(function)
    name = _type_name(function, options.get("name"))
    kind = AsyncTask if is_async else SyncTask
    return kind(
        function,
        name,
        aliases=_aliases(options.get("aliases", ())),
        run_in=_run_in(function, is_async, options.get("run_in")),
        defaults=_defaults(name, options),
        retry=retry_of(options.get("retry")),
        limit=limit_of("type", name, options.get("concurrency"), options.get("rate")),
        context_param=_context_param(function, is_async),
    )


def limit_of(
    scope: Literal["queue", "type"],
    name: str,
    concurrency: object,
    rate: object,
    capacity: object = None,
) -> Limit | None:
    """The limit that these options declare, if any. Raises ConfigError for what cannot be."""
    if concurrency is None and rate is None and capacity is None:
        return None
    for value, what in ((concurrency, "concurrency"), (capacity, "capacity")):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000_000:
            raise ConfigError(
                f"{what} of {scope} {name!r} is a whole number from 1, not {value!r:.80}: "
                "to stop a queue, pause it."
            )
    if rate is not None and not isinstance(rate, Rate):
        rate = parse_rate(rate) if isinstance(rate, str) else _no_rate(rate)
    return Limit(scope=scope, name=name, concurrency=concurrency, rate=rate, capacity=capacity)  # type: ignore[arg-type]


def _no_rate(rate: object) -> Rate:
    raise ConfigError(f"A rate is text like '10/s' or a Rate, not {rate!r:.80}.")


_HOW = ("name", "aliases", "run_in", "retry", "concurrency", "rate")
_OPTIONS = frozenset(TaskOptions.__annotations__)


def _check_function(function: Any) -> None:
    if isinstance(function, Task):
        raise TaskError(f"{function.place} is a task already: decorate it once.")
    if not isinstance(function, FunctionType):
        raise TaskError(
            f"A task is made of a function (def or async def), not of {function!r:.100}: "
            "write a function that calls it."
        )
    where = _where(function)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise TaskError(f"{where} yields, and a task returns once: return a list instead.")
    first = next(iter(inspect.signature(function).parameters), None)
    if first in ("self", "cls") and "." in function.__qualname__.split("<locals>.")[-1]:
        raise TaskError(f"{where} is a method, and a job has no object: use a function.")


def _check_options(options: dict[str, Any]) -> None:
    for name in options:
        if name not in _OPTIONS:
            raise ConfigError(
                f"There is no task option {name!r}{did_you_mean(name, _OPTIONS)}; "
                f"the options are {', '.join(sorted(_OPTIONS))}."
            )


def _type_name(function: FunctionType, name: object) -> str:
    if name is None:
        name = function.__name__
        if name == "<lambda>":
            raise TaskError(f"{_where(function)} is a lambda: give the task a name with name=….")
    return check_name(name, "A task's type name")


def _aliases(aliases: object) -> tuple[str, ...]:
    if isinstance(aliases, str) or not isinstance(aliases, Iterable):
        raise ConfigError(f"aliases is a list of names, not {aliases!r:.80}.")
    return tuple(check_name(alias, "An alias") for alias in aliases)


def _run_in(function: FunctionType, is_async: bool, run_in: object) -> RunIn:
    match run_in, is_async:
        case (None, _):
            return "loop" if is_async else "thread"
        case ("loop", True):
            return "loop"
        case ("thread", False):
            return "thread"
        case ("process", False):
            if "<" in function.__qualname__:
                raise TaskError(
                    f"{_where(function)} is defined inside a function, where a process cannot find "
                    "it: move it to the top of its module."
                )
            return "process"
        case ("thread" | "process", True):
            raise TaskError(
                f"{_where(function)} is an async def, which runs in the loop: "
                f"make it a def to run it in a {run_in}."
            )
        case ("loop", False):
            raise TaskError(
                f"{_where(function)} is a def, which would block the loop: make it an async def."
            )
        case _:
            raise ConfigError(f"run_in is 'loop', 'thread' or 'process', not {run_in!r:.80}.")


def _defaults(name: str, options: dict[str, Any]) -> JobOptions:
    try:
        return merge_options(
            JobOptions(), {option: value for option, value in options.items() if option not in _HOW}
        )
    except ConfigError as error:
        raise ConfigError(f"Task {name!r}: {error}") from None


def retry_of(retry: object) -> RetryPolicy | None:
    """*retry* if it can say how to retry; else ConfigError."""
    if retry is None or isinstance(retry, RetryPolicy):
        return retry
    raise ConfigError(
        f"retry is a RetryPolicy such as RetryPolicy(initial=timedelta(seconds=5)) or NO_RETRY, "
        f"not {retry!r:.80}; for the number of attempts use max_attempts."
    )


def _context_param(function: FunctionType, is_async: bool) -> str | None:
    """The name of the parameter that the worker gives, if there is one; it comes first."""
    wanted, other = (Context, SyncContext) if is_async else (SyncContext, Context)
    found = None
    for position, parameter in enumerate(inspect.signature(function).parameters.values()):
        kind = _context_kind(parameter.annotation, function)
        if kind is None:
            continue
        if kind is other:
            raise TaskError(
                f"Parameter {parameter.name!r} of {_where(function)} is a {other.__name__}: "
                f"{'an async def' if is_async else 'a def'} gets a {wanted.__name__}."
            )
        if position > 0 or parameter.kind is parameter.KEYWORD_ONLY:
            raise TaskError(
                f"Parameter {parameter.name!r} of {_where(function)} is the context: put it first."
            )
        found = parameter.name
    return found


def _context_kind(annotation: Any, function: FunctionType) -> type[Any] | None:
    """Which context *annotation* stands for, if any."""
    try:
        hint = resolve(annotation, function)
    except Exception:
        # A name that only type checkers import, or one that is defined later: go by the text.
        text = annotation if isinstance(annotation, str) else ""
        name = text.partition("[")[0].strip().rpartition(".")[2]
        return {"Context": Context, "SyncContext": SyncContext}.get(name)
    origin = getattr(hint, "__origin__", hint)
    return origin if origin in (Context, SyncContext) else None


def _where(function: FunctionType) -> str:
    return f"{function.__module__}.{function.__qualname__}"

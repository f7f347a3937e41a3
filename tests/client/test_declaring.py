"""What the decorator makes of a function, and what it refuses to make one of."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from windlass import (
    NO_RETRY,
    ConfigError,
    Context,
    DuplicateTask,
    Registry,
    RetryPolicy,
    SyncContext,
    TaskError,
    Windlass,
)
from windlass.job import JobOptions, Limit
from windlass.limits import Rate
from windlass.tasks import AsyncTask, SyncTask


@pytest.fixture
def app() -> Windlass:
    return Windlass("memory:")


def at_module_level(n: int) -> int:
    return n


def test_a_bare_decorator_takes_everything_from_the_function(app: Windlass) -> None:
    @app.task
    async def welcome(user_id: int) -> None:
        """Greets."""

    assert isinstance(welcome, AsyncTask)
    assert (welcome.type, welcome.run_in, welcome.doc) == ("welcome", "loop", "Greets.")
    assert welcome.__name__ == "welcome"
    assert welcome.defaults == JobOptions()
    assert app.registry.get("welcome") is welcome


def test_a_decorator_with_options_keeps_them(app: Windlass) -> None:
    slow = RetryPolicy(initial=timedelta(minutes=1))

    @app.task(
        name="mail.welcome",
        aliases=["welcome"],
        queue="mail",
        priority=5,
        max_attempts=8,
        timeout="30s",
        expires="1d",
        on_lost="fail",
        tags=["mail"],
        retry=slow,
        concurrency=3,
        rate="10/s",
    )
    def welcome(user_id: int) -> None: ...

    assert isinstance(welcome, SyncTask)
    assert (welcome.type, welcome.run_in, welcome.retry) == ("mail.welcome", "thread", slow)
    assert welcome.defaults == JobOptions(
        queue="mail",
        priority=5,
        max_attempts=8,
        timeout=timedelta(seconds=30),
        expires=timedelta(days=1),
        on_lost="fail",
        tags=("mail",),
    )
    assert welcome.limit == Limit(
        scope="type", name="mail.welcome", concurrency=3, rate=Rate(10, 1.0, 10)
    )
    assert app.registry.get("welcome") is welcome
    assert app.registry.types() == ("mail.welcome", "welcome")
    assert app.registry.tasks() == [welcome]


def test_calling_a_task_runs_it_here_and_now(app: Windlass) -> None:
    @app.task
    def double(n: int) -> int:
        return 2 * n

    @app.task
    def with_context(ctx: SyncContext, n: int) -> int:
        ctx.progress(0.5)
        ctx.log("here")
        return n + ctx.attempt

    assert double(4) == 8
    assert with_context(4) == 5


async def test_a_direct_call_has_a_context_without_resources(app: Windlass) -> None:
    @app.task
    async def with_context(ctx: Context[Any], n: int) -> int:
        await ctx.progress(0.5)
        await ctx.log("here")
        return n + ctx.attempt

    @app.task
    async def needs_mail(ctx: Context[Any]) -> None:
        await ctx.resources.mail.send()

    assert await with_context(4) == 5
    with pytest.raises(
        ConfigError, match=r"was called directly, where there is no ctx\.resources\.mail"
    ):
        await needs_mail()


def test_the_context_parameter_is_found_when_only_type_checkers_import_it(app: Windlass) -> None:
    async def later(ctx: "Context[Unseen]", n: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    task = app.task(later)

    assert task.context_param == "ctx"
    assert task.signature.names == ("n",)


async def generates(n: int) -> AsyncIterator[int]:
    yield n


class Mailer:
    def send(self, to: str) -> None: ...

    def __call__(self) -> None: ...


async def context_last(n: int, ctx: Context[Any]) -> None: ...


async def context_of_a_thread(ctx: SyncContext[Any]) -> None: ...


def context_of_the_loop(ctx: Context[Any]) -> None: ...


async def asynchronous() -> None: ...


@pytest.mark.parametrize(
    ("function", "options", "says"),
    [
        (generates, {}, "yields, and a task returns once"),
        (Mailer.send, {}, "is a method, and a job has no object"),
        (Mailer(), {}, "is made of a function"),
        (partial(at_module_level, 1), {}, "is made of a function"),
        (lambda: None, {}, "is a lambda: give the task a name"),
        (context_last, {}, "'ctx' .* is the context: put it first"),
        (context_of_a_thread, {}, "is a SyncContext: an async def gets a Context"),
        (context_of_the_loop, {}, "is a Context: a def gets a SyncContext"),
        (asynchronous, {"run_in": "process"}, "is an async def, which runs in the loop"),
        (asynchronous, {"run_in": "thread"}, "is an async def, which runs in the loop"),
        (at_module_level, {"run_in": "loop"}, "is a def, which would block the loop"),
        (at_module_level, {"run_in": "fiber"}, "run_in is 'loop', 'thread' or 'process'"),
        (at_module_level, {"name": "no spaces"}, "A task's type name is 1 to 64 letters"),
        (at_module_level, {"aliases": "one"}, "aliases is a list of names, not 'one'"),
        (at_module_level, {"aliases": [""]}, "An alias is 1 to 64 letters"),
        (at_module_level, {"priority": 1000}, "'at_module_level': priority is a whole number"),
        (at_module_level, {"max_attemps": 3}, r"'max_attemps' \(did you mean 'max_attempts'\?\)"),
        (at_module_level, {"delay": 3}, "There is no task option 'delay'"),
        (at_module_level, {"rate": "fast"}, "'fast' is no rate: write it like '10/s'"),
        (at_module_level, {"rate": 10}, "A rate is text like '10/s' or a Rate, not 10"),
        (at_module_level, {"concurrency": 0}, "concurrency of type .* is a whole number from 1"),
        (at_module_level, {"retry": 3}, "retry is a RetryPolicy .* use max_attempts"),
    ],
)
def test_what_cannot_be_a_task_is_refused_in_a_sentence(
    app: Windlass, function: Callable[..., Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as refused:
        app.task(**options)(function)

    assert str(refused.value).endswith(".")
    assert app.registry.tasks() == []


def test_a_function_inside_a_function_cannot_run_in_a_process(app: Windlass) -> None:
    def inner() -> None: ...

    with pytest.raises(TaskError, match=r"defined inside a function, .* move it to the top"):
        app.task(run_in="process")(inner)

    assert app.task(run_in="process")(at_module_level).run_in == "process"


def test_a_task_is_not_decorated_twice(app: Windlass) -> None:
    task = app.task(at_module_level)

    with pytest.raises(TaskError, match="is a task already"):
        app.task(task)


def test_two_tasks_of_one_name_are_refused_naming_both_places(app: Windlass) -> None:
    app.task(at_module_level)

    with pytest.raises(DuplicateTask) as refused:
        app.task(name="other", aliases=["at_module_level"])(context_free)

    message = str(refused.value)
    assert "test_declaring.at_module_level" in message
    assert "test_declaring.context_free" in message
    assert message.count("test_declaring.py:") == 2
    assert app.registry.get("other") is None


def context_free() -> None: ...


def test_a_registry_is_included_with_its_tasks(app: Windlass) -> None:
    mail = Registry()
    own = mail.task(name="own", retry=NO_RETRY)(context_free)
    shared = mail.task(at_module_level)

    app.include(mail)
    app.include(mail)

    assert app.registry.tasks() == [own, shared]
    assert own.retry is NO_RETRY
    assert shared.retry is app.retry


async def test_a_task_declared_after_its_registry_was_included_belongs_to_the_app(
    app: Windlass,
) -> None:
    mail = Registry()
    app.include(mail)

    late = mail.task(context_free)

    assert app.registry.get("context_free") is late
    assert (await late.enqueue()).job.type == "context_free"


async def test_a_task_of_no_app_says_so_when_it_is_enqueued(app: Windlass) -> None:
    lonely = Registry().task(at_module_level)

    with pytest.raises(ConfigError, match=r"belongs to no app yet: call app\.include"):
        await lonely.enqueue(1)
    with pytest.raises(ConfigError, match=r"belongs to no app yet: call app\.include"):
        lonely.enqueue_sync(1)


def test_a_registry_belongs_to_one_app(app: Windlass) -> None:
    mail = Registry()
    mail.task(at_module_level)
    app.include(mail)

    with pytest.raises(ConfigError, match="belongs to another app"):
        Windlass("memory:").include(mail)


def test_near_names_are_found(app: Windlass) -> None:
    app.task(name="welcome_mail")(at_module_level)

    assert app.registry.near("welcom_mail") == ("welcome_mail",)
    assert app.registry.near("zzz") == ()

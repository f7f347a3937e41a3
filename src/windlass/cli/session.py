"""Which app and which store a command works on.

``--app`` (``WINDLASS_APP``, or ``app`` in the project's settings) names an app, and the store is the
app's own unless ``--url`` names another. Commands that only look need no app: ``--url`` alone, or
``sqlite:///jobs.db`` in the current directory. A checkout of Windlass has an example app, which
counts where nothing is named.
"""

from __future__ import annotations

import asyncio
import functools
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

if TYPE_CHECKING:
    from windlass.app import Windlass

__all__ = [
    "Place",
    "app_argument",
    "find_app",
    "located",
    "opened",
    "pass_place",
    "place_options",
    "run",
]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

EXAMPLE = Path("examples/job_service/app.py")
"""The app that counts in a checkout of Windlass when none is named."""


class Place(NamedTuple):
    """What the person named: either may be missing."""

    url: str | None
    app: str | None


def place_options(command: F) -> F:
    """``--url`` and ``--app``."""
    command = click.option(
        "--app", metavar="MODULE:APP", envvar="WINDLASS_APP", help="The app whose store is meant."
    )(command)
    return click.option(
        "--url", metavar="URL", envvar="WINDLASS_URL", help="The store: sqlite:///jobs.db, …"
    )(command)


def pass_place(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--url`` and ``--app`` for a command of a group that takes them too; the nearer ones count."""

    @place_options
    @click.pass_context
    @functools.wraps(command)
    def with_place(
        ctx: click.Context, url: str | None, app: str | None, *args: Any, **kwargs: Any
    ) -> Any:
        outer: Place = ctx.obj
        return command(Place(url or outer.url, app or outer.app), *args, **kwargs)

    return with_place


def app_argument(command: F) -> F:
    """``[APP]`` and ``--url``, for commands that run an app."""
    command = click.option(
        "--url", metavar="URL", envvar="WINDLASS_URL", help="Use this store, not the app's own."
    )(command)
    return click.argument("app", required=False, metavar="[MODULE:APP]")(command)


def find_app(named: str | None) -> tuple[str, str]:
    """The app to run and how it was found. Raises ConfigError telling how to name one."""
    from windlass.config import Settings
    from windlass.errors import ConfigError

    settings = Settings.load(app=named)
    if settings.app is not None:
        return settings.app, "" if named else f" (named by {settings.origins['app']})"
    for directory in (Path.cwd(), *Path.cwd().parents):
        if (directory / EXAMPLE).is_file():
            return str(directory / EXAMPLE), " (the example: no app was named)"
        if (directory / "pyproject.toml").is_file():
            break
    raise ConfigError(
        "No app was named: write `windlass serve package.module:app`, set WINDLASS_APP, or put "
        '`app = "package.module:app"` under [tool.windlass] in pyproject.toml.'
    )


def located(place: Place, *, needs_tasks: bool = False) -> Windlass[Any]:
    """The app for *place*, with its store not yet opened; one without tasks where that will do."""
    from windlass.app import Windlass
    from windlass.config import Settings, load_app
    from windlass.errors import ConfigError

    settings = Settings.load(url=place.url, app=place.app)
    store_named = settings.origins["url"] != "default"
    if place.app is None and not needs_tasks and store_named:
        return Windlass(place.url)
    try:
        target, _ = find_app(place.app)
    except ConfigError:
        if needs_tasks or settings.app is not None:
            raise
        return Windlass(place.url)
    app = load_app(target)
    if place.url is not None and place.url != app.settings.url:
        use_url(app, place.url)
    return app


def use_url(app: Windlass[Any], url: str) -> None:
    """Have *app* keep its jobs at *url*."""
    from windlass.stores import open_store

    settings = app.settings
    app.use_store(
        open_store(url, capacity=settings.capacity, clock=app.clock, durability=settings.durability)
    )


@asynccontextmanager
async def opened(
    place: Place, *, needs_tasks: bool = False, create: bool = False
) -> AsyncIterator[Windlass[Any]]:
    """The app for *place*, open. Unless *create*, a store that is not there is an error."""
    app = located(place, needs_tasks=needs_tasks)
    if not create:
        _must_exist(place.url or app.settings.url)
    async with app:
        yield app


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end. SIGTERM ends it in good order, as Ctrl-C does: what was
    made for a while is removed."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        return asyncio.run(coroutine)
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _must_exist(url: str) -> None:
    from windlass.errors import ConfigError, StoreUnavailable

    scheme, _, rest = url.partition(":")
    if scheme == "memory":
        raise ConfigError(
            "A memory store lives inside the process that made it: from here there is nothing to see."
        )
    path = rest[3:]
    if scheme == "sqlite" and path and not Path(path).exists():
        raise StoreUnavailable(
            f"There is no store {path!r} yet: start `windlass serve`, enqueue a job, or name "
            "another store with --url."
        )

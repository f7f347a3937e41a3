"""The HTTP API: an ASGI application around an app, to run alone, beside a worker, or mounted.

>>> api = create_app(app)                                   # uvicorn module:api
>>> site = Starlette(routes=[Mount("/jobs-api", api)])      # or under any path of your own

Read ``routes.py`` for the way of a request, ``guard.py`` for who may speak, ``jobs.py``,
``many.py``, ``queues.py`` and ``service.py`` for the operations, ``stream.py`` for the event stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import Route

from windlass.limits import Rate, parse_rate
from windlass.metrics import Metrics
from windlass.server import jobs, many, queues, service
from windlass.server.guard import Guard, is_loopback
from windlass.server.openapi import document
from windlass.server.routes import Answer, Ask, Endpoint, Operation, Outcome
from windlass.server.service import MetricsSource, Service
from windlass.server.views import encode

if TYPE_CHECKING:
    from windlass.app import Windlass

__all__ = ["GENEROUS", "ServerApp", "create_app"]

GENEROUS = Rate(count=1000, period=1.0, burst=2000)
"""Requests per second and address, where others than this machine can reach the service."""


class ServerApp(Starlette):
    """The ASGI application that :func:`create_app` makes."""

    def __init__(self, made: Service) -> None:
        super().__init__(lifespan=_lifespan)
        self.service = made
        self.router.redirect_slashes = False
        for path, operations in groupby(OPERATIONS, key=lambda operation: operation.path):
            self.router.routes.append(Route(path, Endpoint(made, operations)))
        self.router.default = Endpoint(made, ())

    def drain(self) -> None:
        """Begin to stop: changes are refused with 503, ``/readyz`` turns red, streams and waits end.

        Whoever runs the server calls it before the server waits for its connections to end.
        """
        self.service.drain()


def create_app(
    app: Windlass[Any],
    *,
    token: str | None = None,
    bind: str = "127.0.0.1",
    allowed_hosts: Iterable[str] = (),
    own_auth: bool = False,
    rate: Rate | str | None = None,
    readiness: Callable[[], list[str]] | None = None,
    metrics: MetricsSource | None = None,
) -> ServerApp:
    """The HTTP API of *app*.

    *token*: what clients send as ``Authorization: Bearer …``; without one, only this machine is
    answered, and a *bind* that others can reach is refused. *bind*: the address that the server
    listens on. *allowed_hosts*: names of this server beside ``localhost`` and *bind*
    (``*.example.com`` and ``*`` too). *own_auth*: the application that this is mounted in
    authenticates its callers itself. *rate*: requests per address, such as ``"100/s"``, or ``"off"``
    (by default :data:`GENEROUS`, and off on loopback). *readiness*: reasons why no work should come
    here now, as those of a worker in this process. *metrics*: what ``/metrics`` shows.

    Raises :class:`~windlass.errors.ConfigError` for what would not be safe.
    """
    guard = Guard(
        token=token,
        bind=bind,
        allowed_hosts=allowed_hosts,
        own_auth=own_auth,
        rate=_rate(rate, bind),
    )
    made = Service(
        app, guard, metrics=metrics or Metrics(app.events, app.registry.types), readiness=readiness
    )
    return ServerApp(made)


def _rate(given: Rate | str | None, bind: str) -> Rate | None:
    if given is None:
        return None if is_loopback(bind) else GENEROUS
    if isinstance(given, str):
        return None if given in ("off", "0") else parse_rate(given)
    return given


@asynccontextmanager
async def _lifespan(server: ServerApp) -> AsyncIterator[None]:
    """When run alone: open the app early, so that trouble shows at the start, and close it."""
    app = server.service.app
    await app.open()
    try:
        yield
    finally:
        server.drain()
        await app.close()


async def show_openapi(ask: Ask) -> Answer:
    guard, registry = ask.service.guard, ask.service.app.registry
    return Answer(encode(document(OPERATIONS, registry, root=ask.root, token=guard.needs_token)))


OPERATIONS: tuple[Operation, ...] = tuple(
    sorted(
        (
            *jobs.OPERATIONS,
            *many.OPERATIONS,
            *queues.OPERATIONS,
            *service.OPERATIONS,
            Operation(
                "GET", "/openapi.json", show_openapi, "This document",
                {200: Outcome("OpenAPI 3.1.", dict)},
            ),
        ),
        # Fixed paths before those with parameters, and `/jobs` first of all: it is asked most.
        key=lambda operation: ("{" in operation.path, operation.path != "/jobs", operation.path),
    )
)  # fmt: skip
"""All operations: the one table that routing, checks and documentation are made from."""

"""What the tests of the API share: an app with a few tasks, and ways to speak to it.

Most tests use an ordinary HTTP client within the process. Bodies that come in pieces and answers
that never end need ASGI itself: :func:`exchange` and :func:`streaming`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from httpx2 import Response

from windlass.app import Windlass
from windlass.context import Context
from windlass.retry import NO_RETRY
from windlass.server import ServerApp
from windlass.worker import WorkerOptions

SECONDS = 10.0
"""Longest that any wait of a test may take; it is reached only when something is broken."""

JSON = {"content-type": "application/json"}
EMAIL = {"type": "email", "payload": {"to": "user@example.com"}}
MISSING = "01a1fa68-be9e-74b8-afaa-2baab7004c36"
"""No job has this id."""


def code_of(response: Response) -> str:
    """The code of the problem that *response* is, once it is known to be a whole one."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == f"urn:windlass:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    return str(problem["code"])


def pointers(response: Response) -> list[str]:
    """What the problem points at."""
    return [error["pointer"] for error in response.json()["errors"]]


def declare(app: Windlass[Any]) -> None:
    """The tasks that the tests enqueue."""

    @app.task(aliases=["mail"])
    async def email(ctx: Context[Any], to: str, copies: int = 1) -> str:
        """Send a message."""
        await ctx.log(f"to {copies} readers")
        return to

    @app.task(retry=NO_RETRY)
    async def broken(text: str = "boom") -> None:
        raise RuntimeError(text)


async def drain(app: Windlass[Any]) -> None:
    """Run everything that can run now."""
    async with asyncio.timeout(SECONDS):
        await app.worker(WorkerOptions(drain=True)).run()


async def until(happened: Callable[[], object]) -> None:
    """Returns when *happened* says so, for what gives no signal."""
    async with asyncio.timeout(SECONDS):
        while not happened():  # noqa: ASYNC110 - there is nothing to await
            await asyncio.sleep(0.001)


def scope_of(
    method: str,
    url: str,
    headers: dict[str, str],
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 50000),
    server: tuple[str, int] = ("127.0.0.1", 8080),
    root_path: str = "",
) -> dict[str, Any]:
    path, _, query = url.partition("?")
    given = {"host": "localhost"} | headers
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": root_path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
        "client": client,
        "server": server,
    }


class Reply:
    """What came back from :func:`exchange`."""

    def __init__(self, messages: Sequence[dict[str, Any]], received: int) -> None:
        start, *rest = messages
        self.status: int = start["status"]
        self.headers = {name.decode(): value.decode() for name, value in start["headers"]}
        self.body = b"".join(message.get("body", b"") for message in rest)
        self.received = received
        """Pieces of the request's body that the application took."""

    @property
    def code(self) -> str:
        """The problem's code."""
        return str(json.loads(self.body)["code"])


async def exchange(
    api: ServerApp,
    method: str,
    url: str,
    *,
    headers: dict[str, str] | None = None,
    pieces: Iterable[bytes] = (),
    **scope: Any,
) -> Reply:
    """One request whose body comes in *pieces*, without a length announced."""
    left = iter(pieces)
    messages: list[dict[str, Any]] = []
    received = 0

    async def receive() -> dict[str, Any]:
        nonlocal received
        await asyncio.sleep(0)
        piece = next(left, None)
        if piece is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        received += 1
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message: Any) -> None:
        messages.append(message)

    async with asyncio.timeout(SECONDS):
        await api(scope_of(method, url, headers or {}, **scope), receive, send)
    return Reply(messages, received)


class EventReader:
    """The client's end of an event stream."""

    def __init__(self, messages: asyncio.Queue[dict[str, Any]]) -> None:
        self._messages = messages
        self._text = ""
        self.status = 0
        self.last_id: str | None = None
        self.ended = False

    async def started(self) -> int:
        """The status, once the answer has begun."""
        while not self.status:
            await self._take()
        return self.status

    async def block(self) -> dict[str, str]:
        """The next block of fields; an empty one when the stream has ended."""
        while "\n\n" not in self._text and not self.ended:
            await self._take()
        block, _, self._text = self._text.partition("\n\n")
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        self.last_id = fields.get("id", self.last_id)
        return fields

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The next event's name and data. Comments and bare ids are passed over."""
        while not self.ended:
            block = await self.block()
            if "data" in block:
                return block["event"], json.loads(block["data"])
        raise AssertionError("The stream ended, and an event was expected.")

    async def ready(self) -> None:
        """Returns when the stream follows what happens from now on."""
        while self.last_id is None:
            await self.block()

    async def _take(self) -> None:
        async with asyncio.timeout(SECONDS):
            message = await self._messages.get()
        self.status = message.get("status", self.status)
        self._text += message.get("body", b"").decode()
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.ended = True


@asynccontextmanager
async def streaming(
    api: ServerApp, url: str = "/events", headers: dict[str, str] | None = None
) -> AsyncIterator[EventReader]:
    """An open event stream; the client hangs up in the end."""
    messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    hung_up = asyncio.Event()
    asked = False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await messages.put(message)

    async def serve() -> None:
        await api(scope_of("GET", url, headers or {}), receive, send)

    async with asyncio.TaskGroup() as group:
        group.create_task(serve())
        try:
            yield EventReader(messages)
        finally:
            hung_up.set()

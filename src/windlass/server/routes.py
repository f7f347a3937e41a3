"""The table of operations, and the way of a request through one of them.

An :class:`Operation` says once what a method on a path does, takes and answers; from the same table
come the routing, the checks (a new operation needs a token unless it says ``public``), the 405s and
the OpenAPI document. Handlers know nothing of ASGI: they get an :class:`Ask` and return an
:class:`Answer`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec
from starlette.types import Receive, Scope, Send

from windlass.codec import safe_text
from windlass.server.guard import MAX_BODY, ClientGone, headers_of, read_body
from windlass.server.params import refuse_query
from windlass.server.problems import PROBLEM_TYPE, Problem, problem_of, retry_after
from windlass.server.waits import race, until_gone

if TYPE_CHECKING:
    from windlass.server.service import Service

__all__ = [
    "EVENTS",
    "JSON",
    "NDJSON",
    "Answer",
    "Ask",
    "Endpoint",
    "Operation",
    "Outcome",
    "Stream",
]

JSON = "application/json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"

_SEND_SECONDS = 30.0
"""A reader of a stream that takes nothing for so long is gone, whatever its connection says."""

_log = logging.getLogger("windlass.server")

Method = Literal["GET", "POST", "PUT"]

_SECURITY_HEADERS: list[tuple[bytes, bytes]] = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: a body that is encoded already, and what is special about it."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stream:
    """A response that goes on: chunks as they come, until they end or the client goes."""

    chunks: AsyncGenerator[bytes, None]
    ended: Callable[[], None]
    """Called in the end, even when not one chunk was asked for."""
    content_type: str = EVENTS
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that passed the guard, with its body read whole."""

    service: Service
    scope: Scope
    receive: Receive
    headers: Mapping[str, str]
    body: bytes

    @property
    def root(self) -> str:
        """Where the API is mounted, as it stands in a URL: empty, or ``/prefix``."""
        return quote(self.scope.get("root_path", "").rstrip("/"), safe="/-._~:")

    @property
    def query(self) -> bytes:
        """The query string as it came."""
        raw: bytes = self.scope.get("query_string", b"")
        return raw

    def path(self, name: str) -> str:
        """A parameter of the path."""
        value: str = self.scope["path_params"][name]
        return value


Handler = Callable[[Ask], Awaitable[Answer | Stream]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way in which an operation can go well, for the OpenAPI document."""

    description: str
    schema: Any = None
    """A type that msgspec can describe, or None for what is no JSON."""
    content_type: str = JSON
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path."""

    method: Method
    path: str
    handler: Handler
    summary: str
    outcomes: Mapping[int, Outcome]
    problems: tuple[str, ...] = ()
    """Codes of the catalogue that are its own; see :attr:`implied` for the others."""
    query: type[msgspec.Struct] | None = None
    body: type[msgspec.Struct] | None = None
    ndjson: bool = False
    """Takes lines of JSON as well."""
    body_limit: int = MAX_BODY
    body_optional: bool = False
    prefer_wait: bool = False
    idempotency_key: bool = False
    public: bool = False
    """Needs no token."""
    long: bool = False
    """Holds a connection open, which a page of another site must not do to us either."""

    @property
    def name(self) -> str:
        return self.handler.__name__

    @property
    def changes(self) -> bool:
        return self.method != "GET"

    @property
    def implied(self) -> tuple[str, ...]:
        """Codes that it may answer because of what it is; with a token, ``unauthorized`` as well."""
        codes = ["rate-limited", "headers-too-large", "wrong-host", "forbidden"]
        if not self.public:
            # Its query is judged, and the first request of all opens the store.
            codes += ["invalid-parameter", "store-unavailable"]
        if self.changes:
            codes += ["stopping", "request-timeout", "body-too-large", "unsupported-media-type",
                      "store-full"]  # fmt: skip
        if self.body is not None:
            codes += ["malformed-json", "invalid-body"]
        return tuple(codes)


class Endpoint:
    """The ASGI application behind one path: all its methods, HEAD, OPTIONS and 405."""

    def __init__(self, service: Service, operations: Iterable[Operation]) -> None:
        self._service = service
        self._operations: dict[str, Operation] = {op.method: op for op in operations}
        methods = {*self._operations, "OPTIONS"}
        if "GET" in self._operations:
            self._operations["HEAD"] = self._operations["GET"]
            methods.add("HEAD")
        self._allow = {"allow": ", ".join(sorted(methods))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # A WebSocket handshake: refused before it is accepted, which servers answer with 403.
            await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        request_id = _next_request_id()
        try:
            answer = await self._answer(scope, receive)
        except ClientGone:
            return
        except Exception as error:
            answer = _problem_answer(error, request_id, scope)
        await respond(scope, receive, send, answer, request_id)

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | Stream:
        service, method = self._service, scope["method"]
        operation = self._operations.get(method)
        headers = headers_of(scope)
        service.guard.check_peer(scope, headers)
        if operation is None or not operation.public:
            service.guard.check_token(headers)
        if method == "OPTIONS":
            return Answer(b"", 204, headers=self._allow)
        if operation is None:
            raise self._refusal(scope)
        if operation.changes or operation.long:
            service.guard.check_origin(headers)
        if not operation.public:
            if operation.query is None:
                refuse_query(scope.get("query_string", b""))
            await service.app.open()
        if not operation.changes:
            return await operation.handler(Ask(service, scope, receive, headers, b""))
        if service.draining:
            raise Problem(
                "stopping",
                "The server is shutting down and takes no more: try another, or again later.",
                headers=retry_after(5),
            )
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            _check_content_type(operation, headers)
        body = await read_body(scope, receive, headers, operation.body_limit)
        if body:
            # HTTP/2 announces no body.
            _check_content_type(operation, headers)
        return await operation.handler(Ask(service, scope, receive, headers, body))

    def _refusal(self, scope: Scope) -> Problem:
        if len(self._allow["allow"]) == len("OPTIONS"):
            return Problem(
                "not-found", f"There is nothing at {safe_text(scope['path'], 200)!r}: see /."
            )
        return Problem(
            "method-not-allowed",
            f"{safe_text(scope['method'], 20)} means nothing here; allowed are {self._allow['allow']}.",
            headers=self._allow,
        )


def _next_request_id() -> str:
    """Unique among all servers. Counted, because asking for randomness each time would be a call
    into the system, after which the loop would queue for the interpreter behind other threads."""
    return f"{_BOOT}{next(_COUNT):08x}"


_BOOT = secrets.token_hex(4)
_COUNT = itertools.count(1)


async def respond(
    scope: Scope, receive: Receive, send: Send, answer: Answer | Stream, request_id: str
) -> None:
    """Send *answer* with the headers that all answers bear; its body only if it was asked for."""
    headers = [
        *_SECURITY_HEADERS,
        (b"x-request-id", request_id.encode()),
        *((name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()),
    ]
    head_only = scope["method"] == "HEAD"
    if isinstance(answer, Stream):
        headers.append((b"content-type", answer.content_type.encode()))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if not head_only:
                async with aclosing(answer.chunks):
                    await race(_send_chunks(answer.chunks, send), until_gone(receive))
        except TimeoutError:
            # Nothing more can be sent, not even the end: the server will close the connection.
            return
        finally:
            answer.ended()
        await send({"type": "http.response.body", "body": b""})
        return
    if answer.status != 204:
        headers.append((b"content-type", answer.content_type.encode()))
        headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head_only else answer.body})


async def _send_chunks(chunks: AsyncIterator[bytes], send: Send) -> None:
    async for chunk in chunks:
        async with asyncio.timeout(_SEND_SECONDS):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})


def _check_content_type(operation: Operation, headers: Mapping[str, str]) -> None:
    """415 unless the body is announced as JSON. Forms, which any page can send, stop here."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == JSON or (operation.ndjson and kind == NDJSON):
        return
    kinds = f"{JSON} or {NDJSON}" if operation.ndjson else JSON
    raise Problem(
        "unsupported-media-type",
        f"Send the header `Content-Type: {kinds}` with the body"
        + (f", not {safe_text(kind, 80)!r}." if kind else "."),
    )


def _problem_answer(error: Exception, request_id: str, scope: Scope) -> Answer:
    problem = problem_of(error)
    if problem is None:
        _log.error(
            "%s %s failed (request %s)",
            scope["method"],
            safe_text(scope["path"], 200),
            request_id,
            exc_info=error,
        )
        problem = Problem(
            "internal", f"This is a bug of the server; its log has request {request_id}."
        )
    return Answer(problem.body(request_id), problem.status, PROBLEM_TYPE, problem.headers)

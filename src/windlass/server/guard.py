"""Who may speak to the API at all, and how much: what every request passes before a route sees it.

A service on loopback needs no token, and is still no open door: a page in the user's browser could
send requests to it (cross-site forgery) or give its own name the address 127.0.0.1 (DNS rebinding).
Hence the Host header must name this server, and a request that changes something must not come from
another site. Beyond loopback a token is needed; without one, only peers on this machine are heard.
Everything that a client may send is bounded: headers, body, pace, and the time it takes.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import hmac
import ipaddress
import re
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any

from starlette.types import Receive, Scope

from windlass.errors import ConfigError
from windlass.limits import Rate, opens_in, room, take
from windlass.server.problems import Problem, retry_after

__all__ = [
    "BODY_SECONDS",
    "MAX_BODY",
    "MAX_HEADERS",
    "ClientGone",
    "Guard",
    "RateLimiter",
    "headers_of",
    "is_loopback",
    "read_body",
]

MAX_BODY = 1024 * 1024
MAX_HEADERS = 16 * 1024
BODY_SECONDS = 10.0

_LEAST_TOKEN = 16
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?", re.ASCII)
_ORIGIN = re.compile(r"https?://(.+)")
_OUR_SITES = frozenset({"same-origin", "none"})
_MAX_PEERS = 10_000

Headers = Mapping[str, str]


class ClientGone(Exception):
    """The client went away before it had sent its request whole: there is nobody to answer."""


def headers_of(scope: Scope) -> dict[str, str]:
    """The request's headers by lower-case name; 431 when they are too large.

    Of a header that is given twice, the two values are joined, as HTTP says; none of ours has a
    valid value then.
    """
    raw = scope["headers"]
    size = sum(len(name) + len(value) + 4 for name, value in raw) + len(scope["path"])
    size += len(scope.get("query_string", b""))
    if size > MAX_HEADERS:
        raise Problem(
            "headers-too-large",
            f"Path, query and headers are {size:,} bytes, and {MAX_HEADERS:,} are allowed.",
        )
    found: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def is_loopback(host: str) -> bool:
    """Whether *host*, as a server binds to it, can be reached from this machine only."""
    if host.startswith(("/", "unix:")) or host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


class Guard:
    """The rules above with the settings of one service.

    Raises :class:`~windlass.errors.ConfigError` when made for a *bind* that others can reach
    without a *token*, or with one that is too short to be secret.
    """

    def __init__(
        self,
        *,
        token: str | None,
        bind: str,
        allowed_hosts: Iterable[str],
        own_auth: bool,
        rate: Rate | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if token is None and not own_auth and not is_loopback(bind):
            raise ConfigError(
                f"Listening on {bind} lets other machines in, so it needs a token: set "
                "WINDLASS_TOKEN (or token=) to a secret, or listen on 127.0.0.1."
            )
        if token is not None and (len(token) < _LEAST_TOKEN or not token.isascii()):
            raise ConfigError(
                f"The token has {len(token)} characters, and needs at least {_LEAST_TOKEN}, all "
                "ASCII: make one with `python -c 'import secrets; print(secrets.token_urlsafe())'`."
            )
        # Digests have one length, so that not even that of the token can be measured.
        self._token = None if token is None else _digest(token)
        self._own_auth = own_auth
        self._hosts = _host_patterns(bind, allowed_hosts)
        self._limiter = None if rate is None else RateLimiter(rate, clock)

    @property
    def needs_token(self) -> bool:
        return self._token is not None

    def check_peer(self, scope: Scope, headers: Headers) -> None:
        """421 for another's host, 403 for a peer from outside who cannot show a token, 429 for haste."""
        self._check_host(scope, headers)
        peer = (scope.get("client") or ("", 0))[0]
        if self._token is None and not self._own_auth:
            address = _address(peer)
            if address is not None and not address.is_loopback:
                raise Problem(
                    "forbidden",
                    "Without a token this service answers its own machine only: give the service "
                    "a token, and send it as `Authorization: Bearer …`.",
                )
        if self._limiter is not None:
            self._limiter.check(peer)

    def check_token(self, headers: Headers) -> None:
        """401 unless the request bears the token (or none is needed)."""
        if self._token is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        ours = hmac.compare_digest(_digest(given.strip()), self._token)
        if scheme.lower() != "bearer" or not ours:
            raise Problem(
                "unauthorized",
                "Send the service's token in the header `Authorization: Bearer …`.",
                headers={"www-authenticate": 'Bearer realm="windlass"'},
            )

    def check_origin(self, headers: Headers) -> None:
        """403 when a browser says that another site's page made this request."""
        site = headers.get("sec-fetch-site")
        if site is not None and site not in _OUR_SITES:
            raise Problem(
                "forbidden", f"Requests from other sites ({site:.40}) change nothing here."
            )
        origin = headers.get("origin")
        if origin is None:
            return
        match = _ORIGIN.fullmatch(origin.lower())
        if match is None or match[1] != headers.get("host", "").lower():
            raise Problem("forbidden", f"Requests from {origin!r:.80} change nothing here.")

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        match = _HOST.fullmatch(host)
        name = match[1] if match else ""
        if not name or not (_matches(name, self._hosts) or self._is_own_address(name, scope)):
            raise Problem(
                "wrong-host",
                f"This server is not {host!r:.80}: use one of its names, or add that one to the "
                "allowed hosts (WINDLASS_ALLOWED_HOSTS).",
            )

    def _is_own_address(self, name: str, scope: Scope) -> bool:
        """A rebinding attack needs a name of its own: the address that was dialled is safe."""
        own = _address((scope.get("server") or ("", 0))[0])
        return own is not None and _address(name) == own


class RateLimiter:
    """One bucket (GCRA) per peer address; those unused for longest are forgotten first."""

    def __init__(self, rate: Rate, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._tats: dict[str, float] = {}

    def check(self, peer: str) -> None:
        """Charge one request to *peer*; 429 when its bucket is empty."""
        now = self._clock()
        tat = self._tats.pop(peer, 0.0)
        if room(self._rate, tat, now) < 1:
            self._tats[peer] = tat
            raise Problem(
                "rate-limited",
                f"More than {self._rate} requests came from this address: slow down.",
                headers=retry_after(opens_in(self._rate, tat, now)),
            )
        self._tats[peer] = take(self._rate, tat, now, 1)
        if len(self._tats) > _MAX_PEERS:
            del self._tats[next(iter(self._tats))]


async def read_body(scope: Scope, receive: Receive, headers: Headers, limit: int) -> bytes:
    """The body, whole; 413 as soon as it is known to be longer than *limit*, 408 when it dawdles."""
    announced = headers.get("content-length")
    if announced is not None and announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            message = await receive()
            chunk = _chunk(message)
            if not message.get("more_body", False) and len(chunk) <= limit:
                return chunk
            parts, size = [chunk], len(chunk)
            while message.get("more_body", False) and size <= limit:
                message = await receive()
                parts.append(_chunk(message))
                size += len(parts[-1])
    except TimeoutError:
        raise Problem(
            "request-timeout",
            f"The body did not arrive within {BODY_SECONDS:g} seconds.",
            headers={"connection": "close"},
        ) from None
    if size > limit:
        raise _too_large(limit)
    return b"".join(parts)


def _chunk(message: MutableMapping[str, Any]) -> bytes:
    if message["type"] != "http.request":
        raise ClientGone
    body: bytes = message.get("body", b"")
    return body


def _too_large(limit: int) -> Problem:
    # What the client has yet to send is not read, so the connection cannot be used again.
    return Problem(
        "body-too-large",
        f"The body is larger than {limit:,} bytes: keep large data elsewhere and pass a reference.",
        headers={"connection": "close"},
    )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _host_patterns(bind: str, allowed: Iterable[str]) -> frozenset[str]:
    names = {"localhost", "127.0.0.1", "[::1]"}
    address = _address(bind)
    if address is None and not bind.startswith(("/", "unix:")):
        names.add(bind.lower())
    elif address is not None and not address.is_unspecified:
        names.add(f"[{address}]" if address.version == 6 else str(address))
    return frozenset(names | {host.strip().lower() for host in allowed if host.strip()})


def _matches(name: str, patterns: frozenset[str]) -> bool:
    if name in patterns or "*" in patterns:
        return True
    return any(name.endswith(pattern[1:]) for pattern in patterns if pattern.startswith("*."))


@functools.lru_cache(maxsize=1024)
def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address

"""``fetch``: a page over HTTP, with everything a stranger's URL asks for.

Only http and https; no address inside this network unless that is allowed; a cap on size and time;
a server that says when to come back is asked again then, and not before.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from msgspec import Meta

from windlass import NonRetryable, Registry, Retry, SyncContext
from windlass.retry import parse_retry_after

from .settings import Settings

__all__ = ["tasks"]

tasks = Registry()

_MOST_BYTES = 10_000_000
_AGENT = "windlass-job-service"
Address = Annotated[str, Meta(pattern="^https?://", max_length=2000)]
Seconds = Annotated[float, Meta(ge=0.1, le=60)]


class NotFetchable(NonRetryable):
    """Asking again would bring the same answer."""


class ServerTrouble(Exception):
    """The server could not answer now; a later attempt may do better."""


@tasks.task(timeout="2m", max_attempts=6)
def fetch(ctx: SyncContext[Settings], url: Address, seconds: Seconds = 20.0) -> dict[str, object]:
    """Get a page, and say what came: status, type, size and SHA-256 of the body."""
    opener = _opener(ctx.resources.fetch_private)
    request = urllib.request.Request(url, headers={"User-Agent": _AGENT})  # noqa: S310 - see Address

    try:
        with opener.open(request, timeout=seconds) as answer:
            size, digest = _read(ctx, answer, time.monotonic() + seconds)
            return {
                "url": answer.url,
                "status": answer.status,
                "type": answer.headers.get_content_type(),
                "bytes": size,
                "sha256": digest,
            }
    except urllib.error.HTTPError as error:
        raise _judge(error) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, NotFetchable):
            raise error.reason from None
        raise ServerTrouble(f"{url:.200} cannot be reached: {error.reason}") from None
    except (TimeoutError, http.client.HTTPException, ConnectionError) as error:
        raise ServerTrouble(f"{url:.200} broke off: {error!r}") from None
    except ValueError as error:
        raise NotFetchable(f"{url!r:.80} is no URL: {error}") from None


def _read(ctx: SyncContext[Settings], answer: Any, deadline: float) -> tuple[int, str]:
    """Size and digest of the body; read in pieces, so that a cancelled job ends between two."""
    size, digest = 0, hashlib.sha256()
    while piece := answer.read1(65_536):
        size += len(piece)
        digest.update(piece)
        if size > _MOST_BYTES:
            raise NotFetchable(f"The answer is longer than {_MOST_BYTES:,} bytes.")
        if time.monotonic() > deadline:
            raise ServerTrouble("The answer took too long.")
        ctx.check()
    if answer.length:
        raise ServerTrouble(f"The answer broke off {answer.length:,} bytes before its end.")
    return size, digest.hexdigest()


def _judge(error: urllib.error.HTTPError) -> Exception:
    """Which answers are worth another attempt, and when."""
    after: timedelta | None = None
    if wish := error.headers.get("Retry-After"):
        after = parse_retry_after(wish, datetime.now(UTC))
    error.close()
    said = f"The server answered {error.code} {error.reason}."
    if error.code in (408, 425, 429) or error.code >= 500:
        return Retry(said, after=after) if after is not None else ServerTrouble(said)
    return NotFetchable(said)


# ---------------------------------------------------------------- connections that look where they go


def _opener(private: bool) -> urllib.request.OpenerDirector:
    """An opener without proxies, cookies, files or FTP. Redirects pass through the same check."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.HTTPHandler() if private else _GuardedHTTP(),
        urllib.request.HTTPSHandler() if private else _GuardedHTTPS(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _check_peer(connection: http.client.HTTPConnection) -> None:
    """Judge the address that was really reached: a name can change its answer between two look-ups."""
    peer = ipaddress.ip_address(connection.sock.getpeername()[0].partition("%")[0])
    mapped = getattr(peer, "ipv4_mapped", None)
    if not (mapped or peer).is_global:
        connection.close()
        raise NotFetchable(
            f"{connection.host} is inside this network; JOB_SERVICE_FETCH_PRIVATE=1 would allow it."
        )


class _GuardedConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        super().connect()
        _check_peer(self)


class _GuardedTLSConnection(http.client.HTTPSConnection):
    def connect(self) -> None:
        super().connect()
        _check_peer(self)


class _GuardedHTTP(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_GuardedConnection, req)


class _GuardedHTTPS(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_GuardedTLSConnection, req)

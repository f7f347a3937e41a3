"""The event stream: a ring of what jobs last became, and the readers that follow it.

The store hints which jobs changed; the feed collects their ids, so that a job that changes ten times
before anybody looks is told of once, as it then is. Readers pull: the one that wakes first fetches
the changed jobs for all and appends them to the ring, each reader then sends what lies beyond its
own place. So there is no task in the background, no queue per reader, and a reader that is too slow
loses nothing but its place: it is told to ``reset`` and fetches anew. ADR 0012 says why no package does this.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection
from typing import NamedTuple

from windlass.errors import StoreError
from windlass.job import Job, JobId, LaneStats
from windlass.server.problems import Problem, retry_after
from windlass.server.views import JobEvent, encode
from windlass.store import Notice, Store

__all__ = ["Feed", "Wanted", "follow"]

RING = 10_000
"""Events that are kept for readers that come back."""
MAX_STREAMS = 100
PING = 15.0
"""Seconds of silence after which a comment is sent, so that proxies keep the connection."""

_BATCH = 500
_PACE = 0.1
"""Seconds between two looks at the store under load: a dashboard must not cost what the jobs cost."""
_DOUBT = 5.0
"""Seconds between two looks whether jobs changed of which no hint told."""
_LINGER = 60.0
"""Seconds for which the feed goes on listening when the last reader has left."""
_TURN = 1.0
"""A waiting reader looks this often whether the server stops."""


class Wanted(NamedTuple):
    """Which events a reader asked for; an empty part does not restrict."""

    ids: Collection[str] = ()
    types: Collection[str] = ()
    queues: Collection[str] = ()

    def fits(self, event: Event) -> bool:
        return (
            (not self.ids or event.id in self.ids)
            and (not self.types or event.type in self.types)
            and (not self.queues or event.queue in self.queues)
        )


class Event(NamedTuple):
    """One entry of the ring, encoded once for all readers."""

    number: int
    id: str
    type: str
    queue: str
    chunk: bytes


class Feed:
    """The ring, and the readers' way to it. One per server.

    *store* answers the store to listen to: an app may be given another one, as in tests.
    """

    def __init__(
        self, store: Callable[[], Store], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store = store
        self._clock = clock
        self._ring: deque[Event] = deque(maxlen=RING)
        self._changed: dict[JobId, None] = {}
        self._number = 0
        self._epoch = secrets.token_hex(4)
        self._wake = asyncio.Event()
        self._fetching = asyncio.Lock()
        self._fetched_at = -_PACE
        self._counts: list[LaneStats] | None = None
        self._counted_at = 0.0
        self._heard = False
        self._readers = 0
        self._left_at = 0.0
        self._stop_listening: Callable[[], None] | None = None
        self._closed = False

    def enter(self) -> None:
        """A reader comes. 429 when there are too many; 503 when the server stops."""
        if self._closed:
            raise Problem(
                "stopping", "The server is shutting down: come back later.", headers=retry_after(5)
            )
        if self._readers >= MAX_STREAMS:
            raise Problem(
                "too-many-streams",
                f"{MAX_STREAMS} event streams are open, which is the most: close some.",
                headers=retry_after(10),
            )
        self._readers += 1
        if self._stop_listening is None:
            self._stop_listening = self._store().listen(frozenset({"changed"}), self._noticed)

    def leave(self) -> None:
        """A reader goes. The feed listens on for a while, so that the reader may come back."""
        self._readers -= 1
        self._left_at = self._clock()
        if self._closed:
            self._end_listening()

    def close(self) -> None:
        """Let all readers end, and take no more."""
        self._closed = True
        if self._readers == 0:
            self._end_listening()
        self._turn()

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def wake(self) -> asyncio.Event:
        """Is set at the next change. Take it before looking, so that no change is missed."""
        return self._wake

    @property
    def newest(self) -> int:
        """The number of the newest event."""
        return self._number

    @property
    def place(self) -> str:
        """The place after the newest event, as clients keep it (``Last-Event-ID``)."""
        return self._place(self._number)

    def number_of(self, place: str | None) -> int | None:
        """The number in *place*; None when this feed can not go on from there."""
        epoch, _, number = (place or "").partition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdecimal()):
            return None
        return found if self.keeps(found := int(number[:18])) else None

    def keeps(self, number: int) -> bool:
        """Whether everything after *number* is still in the ring."""
        return self._number - len(self._ring) <= number <= self._number

    def after(self, number: int) -> list[Event]:
        """The events beyond *number*, which the feed keeps."""
        first = len(self._ring) - (self._number - number)
        return [self._ring[index] for index in range(first, len(self._ring))]

    async def fetch(self) -> None:
        """Turn what changed into events. Many may call; one works, the others wait for it."""
        async with self._fetching:
            await self._doubt()
            if not self._changed:
                return
            if (early := self._fetched_at + _PACE - self._clock()) > 0:
                await asyncio.sleep(early)
            self._fetched_at = self._clock()
            ids = list(self._changed)[:_BATCH]
            for changed in ids:
                del self._changed[changed]
            try:
                jobs = await self._store().get(ids)
            except BaseException:
                # They are still news to whoever looks next.
                self._changed = dict.fromkeys(ids) | self._changed
                raise
            for job in jobs:
                if job is not None:
                    self._append(job)
            if self._changed:
                self._turn()

    async def _doubt(self) -> None:
        """Hints may be lost. When the counts moved and not one hint came, all readers begin anew."""
        if self._clock() - self._counted_at < _DOUBT:
            return
        self._counted_at = self._clock()
        heard, self._heard = self._heard, False
        counts = (await self._store().stats()).lanes
        if not (heard or self._heard) and self._counts is not None and counts != self._counts:
            self._begin_anew()
        self._counts = counts

    def _append(self, job: Job) -> None:
        self._number += 1
        chunk = b"id: %s\nevent: job\ndata: %s\n\n" % (
            self._place(self._number).encode(),
            encode(JobEvent.of(job)),
        )
        self._ring.append(Event(self._number, job.id, job.type, job.queue, chunk))

    def _noticed(self, notice: Notice) -> None:
        if self._readers == 0 and self._clock() - self._left_at > _LINGER:
            self._end_listening()
            return
        self._heard = True
        self._changed.update(dict.fromkeys(notice.ids))
        if len(self._changed) > RING:
            self._begin_anew()
        self._turn()

    def _turn(self) -> None:
        """Wake all readers. They hold the old event; those that look from now on take the new one."""
        self._wake.set()
        self._wake = asyncio.Event()

    def _end_listening(self) -> None:
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None
            self._counts = None
            self._begin_anew()

    def _begin_anew(self) -> None:
        """What changed is not known any more: no place given out so far can be gone on from."""
        self._epoch = secrets.token_hex(4)
        self._number += 1
        self._ring.clear()
        self._changed.clear()

    def _place(self, number: int) -> str:
        return f"{self._epoch}-{number}"


async def follow(
    feed: Feed, wanted: Wanted, place: str | None, *, ping: float = PING
) -> AsyncGenerator[bytes, None]:
    """The chunks of one reader's stream, from *place* on (None: from now on), until the feed closes.

    The reader has entered the feed, and leaves it when it reads no more.
    """
    yield b"retry: 2000\n\n"
    number = feed.number_of(place)
    if number is None:
        number = feed.newest
        yield _reset(feed) if place else b"id: %s\n\n" % feed.place.encode()
    silent_since = time.monotonic()
    while not (feed.closed or _server_exits()):
        wake = feed.wake
        try:
            await feed.fetch()
        except StoreError:
            # The stream ends, and the client comes back to where it was when the store does.
            return
        if not feed.keeps(number):
            number = feed.newest
            yield _reset(feed)
            continue
        events = feed.after(number)
        for event in events:
            number = event.number
            if wanted.fits(event):
                silent_since = time.monotonic()
                yield event.chunk
        if not events:
            await _wait(wake, _TURN)
        if time.monotonic() - silent_since >= ping:
            silent_since = time.monotonic()
            yield b": ping\n\n"


def _reset(feed: Feed) -> bytes:
    """Events were missed: the client shall fetch what it shows, and go on from here."""
    return b"id: %s\nevent: reset\ndata: {}\n\n" % feed.place.encode()


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        pass


def _server_exits() -> bool:
    """Whether the uvicorn that runs us wants to stop, which waits for open streams to end.

    ``windlass serve`` closes the feed itself. In a user's own uvicorn nobody tells an application,
    so we look at the server, by way of the signal handler that it installed.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))

"""The heartbeat: renews the worker's lease, and watches the loop that runs the handlers.

It lives in a thread of its own with a small loop of its own, so that a handler which blocks the
worker's loop does not look like a death. Too independent a heart would keep a wedged worker alive for
ever, so the same thread asks the worker's loop every moment to show that it turns, and says so when it
does not. And because a worker that cannot reach the store will be declared dead by others, it fences
itself: past a lease without a confirmed beat, by its own monotonic clock, its runs are ended.

What an answer means for the runs is decided by :func:`compare`, on the worker's loop.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from asyncio import AbstractEventLoop
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Literal, Protocol

import msgspec

from windlass.clock import Clock
from windlass.crashpoints import crash_point
from windlass.job import Claim, Token, WorkerId, WorkerInfo
from windlass.store import Beat, Held, JobStore
from windlass.worker.backoff import Backoff

__all__ = ["STALLED_AFTER", "Findings", "Heartbeat", "Host", "compare"]

STALLED_AFTER = 5.0
"""Seconds for which the loop must not turn to be called stalled."""


class Findings(msgspec.Struct, frozen=True):
    """What a beat's answer means for the worker that sent it."""

    lost: list[Claim]
    """Runs that are no longer ours."""
    cancel: list[Claim]
    """Runs that somebody wants cancelled."""
    orphans: list[Claim]
    """Rows in our name that nobody here runs: claims whose reply was lost."""


def compare(
    answered: Collection[Held],
    held_at_send: Collection[Claim],
    held_now: Collection[Claim],
    outstanding: Collection[Token],
) -> Findings:
    """Compare the store's view of this worker's runs with the worker's own.

    *held_at_send* was taken when the beat was sent; the other two are as they are now, with the answer
    in hand. A row is an orphan only if no claim call that is still out could have made it.
    """
    rows = {held.claim for held in answered}
    now = set(held_now)
    return Findings(
        lost=[claim for claim in held_at_send if claim not in rows and claim in now],
        cancel=[held.claim for held in answered if held.cancel_requested and held.claim in now],
        orphans=[claim for claim in rows if claim not in now and claim.token not in outstanding],
    )


class Host(Protocol):
    """What the heartbeat asks of the worker; all but ``on_beat`` and ``fence`` in the heart's thread."""

    def present(self) -> tuple[WorkerInfo, list[Claim]]:
        """The worker as it is now, and the claims it holds."""

    def on_beat(self, worker: WorkerId, beat: Beat, held_at_send: list[Claim]) -> None:
        """Called on the worker's loop with the answer to a beat."""

    def fence(self) -> None:
        """Called on the worker's loop: the lease has run out unconfirmed."""

    def on_stall(self, blocked: float, stacks: str) -> None:
        """The loop has not turned for this long; told once per stall."""

    def while_stalled(self) -> Literal["beat on", "give up", "exit"]:
        """Asked every moment of a stall: keep the lease, let it run out, or end the process."""

    async def last_act(self) -> None:
        """In the heart's thread: settle what can be settled, and end the process."""


class Heartbeat:
    """The thread. :meth:`start` after registration, :meth:`stop` before leaving."""

    def __init__(
        self,
        store: JobStore,
        host: Host,
        loop: AbstractEventLoop,
        *,
        beat: float,
        lease: float,
        clock: Clock,
        backoff: Backoff,
    ) -> None:
        self._store = store
        self._host = host
        self._loop = loop
        self._beat = beat
        self._lease = lease
        self._clock = clock
        self._backoff = backoff
        self._moment = min(1.0, beat / 4)
        self._confirmed = self._turned = self._looked = clock.monotonic()
        self._asked = False
        self._stalled = False
        self._yielding = False
        self._retry_in = 0.0
        self._stopping = False
        self._handlers_thread = threading.get_ident()
        self._thread: threading.Thread | None = None
        self._own: AbstractEventLoop | None = None
        self._beats: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    def start(self) -> None:
        """Begin to beat. Called on the worker's loop, whose thread is the one to be watched.

        Raises OSError when the system has no room for it.
        """
        self._confirmed = self._turned = self._looked = self._clock.monotonic()
        self._handlers_thread = threading.get_ident()
        # The loop is made here, where a lack of descriptors ends the worker, and not in a thread whose
        # end nobody would notice.
        runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        runner.get_loop()
        self._thread = threading.Thread(
            target=self._main, args=(runner,), name="windlass-heartbeat", daemon=True
        )
        self._thread.start()

    def beat_now(self) -> None:
        """Beat at once; any thread may ask."""
        self._in_thread(self._wake.set)

    async def stop(self) -> None:
        """End the thread; a beat under way is given up."""
        self._stopping = True
        while self._thread is not None and self._thread.is_alive():
            if self._beats is not None:
                self._in_thread(self._beats.cancel)
            await asyncio.sleep(0.002)

    @property
    def fenced(self) -> bool:
        """Whether the lease has run out without a confirmed beat."""
        return self._clock.monotonic() - self._confirmed > self._lease

    @property
    def stalled(self) -> bool:
        """Whether the handlers' loop does not turn at present."""
        return self._stalled

    def _in_thread(self, function: Callable[[], object]) -> None:
        with suppress(RuntimeError):  # its loop has closed meanwhile
            if self._own is not None:
                self._own.call_soon_threadsafe(function)

    # ------------------------------------------------------------------ in the thread

    def _main(self, runner: asyncio.Runner) -> None:
        with runner:
            runner.run(self._live())

    async def _live(self) -> None:
        self._own = asyncio.get_running_loop()
        self._beats = asyncio.create_task(self._beat_for_ever())
        while not self._stopping and not self._beats.done():
            await self._watch()
            await asyncio.wait([self._beats], timeout=self._moment)
        self._beats.cancel()
        with suppress(asyncio.CancelledError):
            await self._beats

    async def _beat_for_ever(self) -> None:
        while True:
            delay = self._beat if self._yielding or await self._send() else self._retry_in
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            self._wake.clear()

    async def _send(self) -> bool:
        info, held = self._host.present()
        sent = self._clock.monotonic()
        try:
            answer = await self._store.heartbeat(info)
        except Exception as error:
            # Not only StoreError: whatever happens, the heart goes on, or the lease runs out.
            self._retry_in = self._backoff.failed(error)
            return False
        crash_point("mid-heartbeat")
        self._backoff.succeeded()
        if answer.alive:
            # Counted from when it was sent: that is when the store may have begun the lease.
            self._confirmed = max(self._confirmed, sent)
        self._on_loop(lambda: self._host.on_beat(info.id, answer, held))
        return True

    async def _watch(self) -> None:
        """Look whether the loop turns and the lease holds."""
        now = self._clock.monotonic()
        late = now - self._looked > 2 * self._moment + 1.0
        self._looked = now
        if self.fenced:
            self._on_loop(self._host.fence)
        if not self._asked or late:
            # After a pause of the whole process nothing is known about the loop: ask it anew.
            self._asked = True
            self._turned = now
            self._on_loop(self._show)
        blocked = now - self._turned
        if blocked < STALLED_AFTER:
            self._stalled = self._yielding = False
            return
        if not self._stalled:
            self._stalled = True
            self._host.on_stall(blocked, self._stacks())
        answer = self._host.while_stalled()
        self._yielding = answer == "give up"
        if answer == "exit":
            await self._host.last_act()

    def _show(self) -> None:
        """On the worker's loop: it turns."""
        self._asked = False

    def _on_loop(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The worker's loop is closed: it was not stopped but dropped.
            self._stopping = True

    def _stacks(self) -> str:
        frame = sys._current_frames().get(self._handlers_thread)
        return "".join(traceback.format_stack(frame)) if frame is not None else "<no stack>"

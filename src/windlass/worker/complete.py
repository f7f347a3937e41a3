"""Complete: collect the Acks of runs that have ended, and have the store apply them in batches.

Batching is natural: whatever has gathered while the previous flush was on its way goes with the
next, so an idle worker acks at once and a busy one by hundreds; there is no timer. While the store is
away, Acks wait here. An Ack that the store refuses because of what is in it is offered again with
less in it, so that a job is never held for ever by its own result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from windlass.codec import safe_text
from windlass.context import Run
from windlass.crashpoints import crash_point
from windlass.errors import StoreFull, StoreUnavailable
from windlass.job import Failure, Status
from windlass.lifecycle import Ack, Change
from windlass.store import AckAnswer, JobStore
from windlass.worker.backoff import Backoff

__all__ = ["Completer", "Done", "reduced"]

_MAX_BATCH = 1_000
_MAX_TEXT = 16 * 1024

Done = tuple[Run, Ack]
"""A run that has ended, and what is asked of the store for it."""


class Completer:
    """Acks that wait for the store. Nothing leaves it but by an answer."""

    def __init__(
        self,
        store: JobStore,
        answered: Callable[[list[Done], list[AckAnswer]], None],
        backoff: Backoff,
    ) -> None:
        self._store = store
        self._answered = answered
        self._backoff = backoff
        self._waiting: list[Done] = []
        self._some = asyncio.Event()

    @property
    def backlog(self) -> int:
        """How many Acks have no answer yet."""
        return len(self._waiting)

    @property
    def unanswered(self) -> list[Ack]:
        """The Acks that have no answer yet."""
        return [ack for _, ack in self._waiting]

    def add(self, done: Done) -> None:
        """Have the Ack stored with the next flush."""
        self._waiting.append(done)
        self._some.set()

    async def run(self) -> None:
        """Flush whatever comes, for ever."""
        while True:
            await self._some.wait()
            await self.flush()

    async def flush(self) -> None:
        """Have everything that waits stored. Tries again for as long as the store is away."""
        while self._waiting:
            batch = self._waiting[:_MAX_BATCH]
            try:
                answers = await self._store.ack([ack for _, ack in batch])
            except (StoreUnavailable, StoreFull) as error:
                await asyncio.sleep(self._backoff.failed(error))
                continue
            except Exception as error:
                await self._one_by_one(batch, error)
                continue
            crash_point("after-ack-commit")
            self._settled(batch, answers)
        self._some.clear()

    async def _one_by_one(self, batch: list[Done], error: Exception) -> None:
        """Find the Acks that the store will not take, and offer each with less and less in it."""
        for done in batch:
            for ack in (done[1], reduced(done[1], 1), reduced(done[1], 2)):
                try:
                    answers = await self._store.ack([ack])
                except (StoreUnavailable, StoreFull) as outage:
                    await asyncio.sleep(self._backoff.failed(outage))
                    return
                except Exception as refusal:
                    error = refusal
                else:
                    self._settled([(done[0], ack)], answers)
                    break
            else:
                # Not even the bare change was taken: that is the store's trouble and not the Ack's.
                await asyncio.sleep(self._backoff.failed(error))
                return

    def _settled(self, batch: list[Done], answers: list[AckAnswer]) -> None:
        self._backoff.succeeded()
        del self._waiting[: len(batch)]
        self._answered(batch, answers)


def reduced(ack: Ack, level: int) -> Ack:
    """*ack* with what a store might choke on taken out of it.

    Level 1: texts cleaned and cut; a result that cannot be stored fails the job, since its effects
    are done and a repetition would not help. Level 2: no free text at all.
    """
    return replace(
        ack,
        then=_reduced(ack.then, level),
        if_cancel_requested=_reduced(ack.if_cancel_requested, level),
    )


def _reduced(change: Change, level: int) -> Change:
    if change.result is not None:
        return Change(Status.FAILED, counted=True, reason="its result could not be stored")
    fields: dict[str, Any] = {"failure": None, "reason": None}
    if level == 1:
        fields = {"failure": _cleaned(change.failure), "reason": _text(change.reason)}
    elif change.reason is not None:
        fields["reason"] = "what it said could not be stored"
    return replace(change, **fields)


def _cleaned(failure: Failure | None) -> Failure | None:
    if failure is None:
        return None
    return replace(
        failure,
        type=safe_text(failure.type, 200),
        message=safe_text(failure.message, 1_000),
        traceback=_text(failure.traceback),
    )


def _text(text: str | None) -> str | None:
    return None if text is None else safe_text(text, _MAX_TEXT)

"""How long to wait while the store does not answer, said once for everything that calls it.

Delays double and are spread at random over their upper half, so that many workers do not come back
to a recovering store at one moment. The first failure in a row and the recovery are events; what
lies between is silence, so that a store that is away for an hour fills no log.
"""

from __future__ import annotations

from random import Random

from windlass.codec import safe_text
from windlass.events import EventBus, StoreFailed, StoreRecovered

__all__ = ["Backoff"]


class Backoff:
    """The failures in a row of one *operation*."""

    def __init__(
        self, operation: str, events: EventBus, rng: Random, *, first: float = 0.1, cap: float = 5.0
    ) -> None:
        self._operation = operation
        self._events = events
        self._rng = rng
        self._first = first
        self._cap = cap
        self.failures = 0

    def failed(self, error: BaseException) -> float:
        """Note a failure; how many seconds to wait before the next try."""
        if self.failures == 0:
            text = f"{type(error).__name__}: {safe_text(error, 500)}"
            self._events.emit(StoreFailed(self._operation, text))
        delay = min(self._cap, self._first * 2.0 ** min(self.failures, 16))
        self.failures += 1
        return delay * (0.5 + self._rng.random() / 2)

    def succeeded(self) -> None:
        """Note that it works (again)."""
        if self.failures:
            self.failures = 0
            self._events.emit(StoreRecovered(self._operation))

"""The clock as a thing that is passed in, so that tests can move it.

Stores own the time that decides (leases, schedules, retention); workers measure only durations, on
the monotonic clock. Nothing else in Windlass reads a clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "FakeClock", "SystemClock"]


class Clock(Protocol):
    """What the time is, twice: for people and for durations."""

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds that never run backwards, from an arbitrary start."""


class SystemClock:
    """The host's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class FakeClock:
    """A clock that stands still until it is told to move.

    >>> clock = FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
    >>> clock.advance(timedelta(hours=2))
    >>> clock.now().hour
    2
    """

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def advance(self, by: timedelta) -> None:
        """Move both clocks forward by *by*."""
        if by < timedelta(0):
            raise ValueError("Time does not run backwards here: use step() for the wall clock.")
        self._now += by
        self._monotonic += by.total_seconds()

    def step(self, by: timedelta) -> None:
        """Set the wall clock forward or back, as an operator or NTP would; durations do not notice."""
        self._now += by

"""Rate limits as arithmetic: the generic cell rate algorithm (GCRA), with no clock and no state.

A limit is one stored number, the *theoretical arrival time* (TAT, Unix seconds): the moment at which
the bucket would be full again. Whoever holds the number decides with :func:`room`, then stores what
:func:`take` or :func:`refund` answers. Source: ITU-T I.371, annex A (virtual scheduling).
"""

from __future__ import annotations

import math
import re

import msgspec

from windlass.errors import ConfigError

__all__ = ["Rate", "opens_in", "parse_rate", "refund", "room", "take"]

_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
          "h": 3600.0, "hour": 3600.0, "d": 86400.0, "day": 86400.0}  # fmt: skip
_RATE = re.compile(r"\s*(\d{1,9})\s*(?:/|per)\s*(\d{0,6})\s*([a-z]+?)s?\s*", re.IGNORECASE)
_SLACK = 1e-6
"""Stored times have microseconds; less than that is rounding, not lateness."""


class Rate(msgspec.Struct, frozen=True):
    """``count`` starts per ``period`` seconds, at most ``burst`` of them at one moment."""

    count: int
    period: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 1_000_000_000:
            raise ConfigError(f"A rate needs a count of at least 1, not {self.count}.")
        if not 0 < self.period <= 366 * 86400:
            raise ConfigError(f"A rate's period is 1 second to 1 year, not {self.period} s.")
        if self.burst < 1:
            raise ConfigError(f"A rate's burst is at least 1, not {self.burst}.")

    @property
    def interval(self) -> float:
        """Seconds between two starts at a steady pace."""
        return self.period / self.count

    def __str__(self) -> str:
        return f"{self.count}/{self.period:g}s"


def parse_rate(text: str) -> Rate:
    """``"10/s"``, ``"100 per minute"``, ``"5/10s"`` → :class:`Rate`.

    The burst is the count: what a period allows may be used at once. Raises
    :class:`~windlass.errors.ConfigError` for anything else.
    """
    match = _RATE.fullmatch(text)
    unit = _UNITS.get(match[3].lower()) if match else None
    if match is None or unit is None:
        raise ConfigError(f"{text!r} is no rate: write it like '10/s', '100/minute' or '5/10s'.")
    count = int(match[1])
    return Rate(count=count, period=unit * int(match[2] or 1), burst=max(count, 1))


def room(rate: Rate, tat: float, now: float) -> int:
    """How many may start at *now*."""
    free = (now - tat) / rate.interval + rate.burst
    return max(0, min(rate.burst, math.floor(free + _SLACK)))


def take(rate: Rate, tat: float, now: float, count: int) -> float:
    """The TAT after *count* (≤ :func:`room`) were started at *now*."""
    return max(tat, now) + count * rate.interval


def refund(rate: Rate, tat: float, count: int) -> float:
    """The TAT after *count* that were charged turned out not to have started."""
    return tat - count * rate.interval


def opens_in(rate: Rate, tat: float, now: float) -> float:
    """Seconds from *now* until one more may start; 0 when one may start at once."""
    if room(rate, tat, now) > 0:
        return 0.0
    return max(0.0, tat - now - (rate.burst - 1) * rate.interval)

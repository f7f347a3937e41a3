"""Durations as people write them: ``30``, ``1.5``, ``"30s"``, ``"5m"``, ``"1h30m"``, ``"2d"``.

Every option that takes a time span takes it in each of these forms and is parsed here, once; inside
Windlass a duration is a :class:`~datetime.timedelta` and nothing else.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta

from windlass.errors import ConfigError

__all__ = ["Duration", "format_duration", "parse_duration"]

Duration = timedelta | float | str
"""A timedelta, a number of seconds, or text such as ``"90s"``, ``"5m"``, ``"1h30m"``, ``"1d"``."""

_UNITS = {"w": 604_800.0, "d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(ms|[wdhms])", re.ASCII)
_NUMBER = re.compile(r"\s*\d{1,12}(?:\.\d{1,9})?\s*", re.ASCII)
_LONGEST = timedelta(days=36_600)


def parse_duration(value: Duration, *, what: str = "A duration") -> timedelta:
    """*value* as a timedelta between zero and a hundred years.

    >>> parse_duration("1h30m")
    datetime.timedelta(seconds=5400)

    Raises :class:`~windlass.errors.ConfigError`, naming *what*, for anything else.
    """
    seconds = _seconds(value)
    if seconds is None:
        raise ConfigError(
            f"{what} is a number of seconds, or text like '30s', '5m' or '1h30m', "
            f"not {value!r:.80}."
        )
    if not 0 <= seconds <= _LONGEST.total_seconds():
        raise ConfigError(f"{what} lies between 0 and 100 years, not {value!r:.80}.")
    return value if isinstance(value, timedelta) else timedelta(seconds=seconds)


def format_duration(value: timedelta) -> str:
    """*value* in the form that :func:`parse_duration` reads, to the millisecond.

    >>> format_duration(timedelta(hours=1, minutes=30))
    '1h30m'
    """
    rest = round(abs(value.total_seconds()) * 1000)
    text = ""
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return ("-" if value < timedelta(0) and text else "") + (text or "0s")


def _seconds(value: object) -> float | None:
    """The seconds that *value* says; None when it says none. Not a number is no number."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return None if value != value else value  # NaN equals nothing, not even itself
    if not isinstance(value, str):
        return None
    if _NUMBER.fullmatch(value):
        return float(value)
    return _sum_of_parts(value)


def _sum_of_parts(text: str) -> float | None:
    total, at, last = 0.0, 0, math.inf
    end = len(text.rstrip())
    while at < end:
        part = _PART.match(text, at)
        # Units fall from large to small, each once: '5m5m' and '5s2h' are slips, not durations.
        if part is None or _UNITS[part[2]] >= last:
            return None
        last = _UNITS[part[2]]
        total += float(part[1]) * last
        at = part.end()
    return total if at else None

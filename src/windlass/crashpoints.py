"""Named places at which a test can kill this process, to see what survives.

``WINDLASS_CRASH_AT=name`` (or ``name:3`` for the third time it is passed) makes the process end there
by SIGKILL, as if the machine had taken it. Without the variable a crash point is an empty function.
The names are those of the reliability tests; a misspelt one is refused at import.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Literal, get_args

from windlass.errors import ConfigError

__all__ = ["VARIABLE", "CrashPoint", "crash_point"]

VARIABLE = "WINDLASS_CRASH_AT"

CrashPoint = Literal[
    "after-insert-commit",
    "after-claim",
    "before-run",
    "after-run",
    "after-ack-commit",
    "mid-reclaim",
    "mid-flush",
    "mid-heartbeat",
    "mid-promote",
    "mid-migration",
]


def _armed(where: str, at: int) -> Callable[[CrashPoint], None]:
    passed = 0

    def crash_point(name: CrashPoint) -> None:
        nonlocal passed
        if name != where:
            return
        passed += 1
        if passed == at:
            os.kill(os.getpid(), signal.SIGKILL)

    return crash_point


def _inert(name: CrashPoint) -> None:
    """Do nothing: no crash was asked for."""


def _chosen(setting: str) -> Callable[[CrashPoint], None]:
    if not setting:
        return _inert
    where, _, at = setting.partition(":")
    if where not in get_args(CrashPoint) or not (at or "1").isdecimal():
        known = ", ".join(get_args(CrashPoint))
        raise ConfigError(f"{VARIABLE}={setting!r} names no crash point: there are {known}.")
    return _armed(where, int(at or "1"))


crash_point: Callable[[CrashPoint], None] = _chosen(os.environ.get(VARIABLE, ""))
"""Die here if the environment says so."""

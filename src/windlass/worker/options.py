"""What a worker is told about itself: how much it runs at once, and how patient it is."""

from __future__ import annotations

import os
from datetime import timedelta

import msgspec

from windlass.errors import ConfigError
from windlass.options import check_name

__all__ = ["WorkerOptions"]

_DAY = timedelta(days=1)


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of one worker. Raises :class:`~windlass.errors.ConfigError` for one out of range."""

    queues: frozenset[str] | None = None
    """Queues to serve; None: all."""
    concurrency: int = 100
    """``async def`` tasks that run at once."""
    threads: int = 16
    """``def`` tasks that run at once."""
    processes: int = msgspec.field(default_factory=lambda: os.cpu_count() or 1)
    """Tasks in processes of their own that run at once."""
    grace: timedelta = timedelta(seconds=30)
    """How long a stop waits for running jobs before it hands them back."""
    lease: timedelta = timedelta(seconds=12)
    """How long the worker is presumed alive after each beat."""
    beat: timedelta = timedelta(seconds=4)
    """Time between two beats: at most half of the lease."""
    poll: timedelta = timedelta(seconds=1)
    """How often to look for work that no hint told of."""
    check: timedelta = timedelta(seconds=2)
    """How often to look for workers that died."""
    quarantine: bool = False
    """Run suspects, one at a time, and nothing else; end when there are none."""
    drain: bool = False
    """End when nothing is left that could run now."""

    def __post_init__(self) -> None:
        if self.queues is not None:
            # A text is a collection, too: of letters.
            if not isinstance(self.queues, frozenset | set):
                raise ConfigError(
                    f"A worker's queues are a set such as {{'mail'}}, not {self.queues!r:.80}."
                )
            for name in self.queues:
                check_name(name, "A queue's name")
        _within("concurrency", self.concurrency, 0, 100_000)
        _within("threads", self.threads, 0, 10_000)
        _within("processes", self.processes, 0, 1_000)
        if not self.concurrency + self.threads + self.processes:
            raise ConfigError("A worker needs a slot: concurrency, threads or processes above 0.")
        for name in ("lease", "beat", "poll", "check"):
            value = _span(name, getattr(self, name))
            if not timedelta(milliseconds=10) <= value <= _DAY:
                raise ConfigError(f"A worker's {name} lies between 10 ms and 1 day, not {value}.")
        if not timedelta(0) <= _span("grace", self.grace) <= _DAY:
            raise ConfigError(f"A worker's grace lies between 0 and 1 day, not {self.grace}.")
        if self.beat * 2 > self.lease:
            raise ConfigError(
                f"A beat every {self.beat} cannot keep a lease of {self.lease}: "
                "choose a beat of a third of the lease."
            )


def _span(name: str, value: object) -> timedelta:
    if not isinstance(value, timedelta):
        raise ConfigError(
            f"A worker's {name} is a timedelta such as timedelta(seconds=30), not {value!r:.80}."
        )
    return value


def _within(name: str, value: int, least: int, most: int) -> None:
    if type(value) is not int:
        raise ConfigError(f"A worker's {name} is a whole number, not {value!r:.80}.")
    if not least <= value <= most:
        raise ConfigError(f"A worker's {name} lies between {least} and {most:,}, not {value}.")

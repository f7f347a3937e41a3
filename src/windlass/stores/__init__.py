"""Where jobs live: one module for each kind of store, siblings that never import each other.

:func:`open_store` is the one place that turns a URL into a store, and imports only the kind that the
URL names.
"""

from __future__ import annotations

import difflib
from typing import Literal

from windlass.clock import Clock, SystemClock
from windlass.errors import ConfigError
from windlass.store import DEFAULT_CAPACITY, Store

__all__ = ["open_store"]

_SCHEMES = {"memory": "memory:", "sqlite": "sqlite:///jobs.db"}
"""Scheme → what a URL of it looks like."""


def open_store(
    url: str,
    *,
    capacity: int = DEFAULT_CAPACITY,
    clock: Clock | None = None,
    durability: Literal["full", "normal"] = "full",
) -> Store:
    """The store that *url* names, not yet opened.

    ``memory:``, ``sqlite:///relative.db`` or ``sqlite:////absolute.db``. *capacity*: jobs of one
    queue that may wait. Raises :class:`~windlass.errors.ConfigError` for anything else.
    """
    scheme, _, rest = url.partition(":")
    clock = clock or SystemClock()
    if scheme == "memory":
        if rest.strip("/"):
            raise ConfigError(f"{url!r} says too much: the memory store is just 'memory:'.")
        from windlass.stores.memory import MemoryStore

        return MemoryStore(capacity=capacity, clock=clock)
    if scheme == "sqlite":
        from windlass.stores.sqlite import SQLiteStore

        return SQLiteStore(_path(url, rest), capacity=capacity, clock=clock, durability=durability)
    raise ConfigError(_unknown(url, scheme))


def _path(url: str, rest: str) -> str:
    if not rest.startswith("///") or not rest.strip("/"):
        raise ConfigError(
            f"{url!r} names no file: write 'sqlite:///jobs.db' for a file in the current "
            "directory, or 'sqlite:////var/lib/jobs.db' (four slashes) for an absolute path."
        )
    if "?" in rest:
        raise ConfigError(
            f"{url!r} has parameters, and the store takes none: end the URL with the file's name."
        )
    return rest[3:]


def _unknown(url: str, scheme: str) -> str:
    shown = scheme if scheme != url else url[:40]  # what follows the scheme may be a secret
    near = difflib.get_close_matches(scheme.lower(), _SCHEMES, n=1)
    if near:
        return f"There is no store {shown!r}. Did you mean {_SCHEMES[near[0]]!r}?"
    known = " or ".join(repr(example) for example in _SCHEMES.values())
    return f"There is no store {shown!r}. Write its URL like {known}."

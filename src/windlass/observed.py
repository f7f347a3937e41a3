"""A store whose operations are timed for whoever wants to know.

The app puts every store behind one of these. While nobody subscribed to
:class:`~windlass.events.StoreAnswered` a call costs one more function call, and nothing is measured.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from windlass.clock import Clock
from windlass.events import EventBus, StoreAnswered
from windlass.store import ControlStore, JobStore, Store

__all__ = ["observed", "plain"]

_OPERATIONS = frozenset(
    name
    for port in (JobStore, ControlStore)
    for name in vars(port)
    if not name.startswith("_") and name != "listen"
)


def observed(store: Store, events: EventBus, clock: Clock) -> Store:
    """*store*, telling *events* how long each operation of the port took."""
    return store if isinstance(store, _Observed) else cast("Store", _Observed(store, events, clock))


def plain(store: Store) -> Store:
    """The store behind *store*, of its own class."""
    return store._store if isinstance(store, _Observed) else store


class _Observed:
    def __init__(self, store: Store, events: EventBus, clock: Clock) -> None:
        self._store = store
        self._events = events
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        # Asked for once per name: what it answers is kept as an attribute.
        value = getattr(self._store, name)
        if name in _OPERATIONS:
            value = self._timed(name, value)
        elif not callable(value):
            return value
        setattr(self, name, value)
        return value

    def _timed(
        self, name: str, operation: Callable[..., Awaitable[object]]
    ) -> Callable[..., Awaitable[object]]:
        async def timed(*args: Any, **kwargs: Any) -> object:
            began = self._clock.monotonic()
            answer = await operation(*args, **kwargs)
            took = self._clock.monotonic() - began
            self._events.emit(StoreAnswered(name, took))
            return answer

        def call(*args: Any, **kwargs: Any) -> Awaitable[object]:
            if self._events.wants(StoreAnswered):
                return timed(*args, **kwargs)
            return operation(*args, **kwargs)

        return call

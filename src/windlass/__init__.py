"""Windlass: durable background jobs for Python.

A program says what shall happen later; Windlass makes sure that it does. Importing this package
must stay cheap: what needs a server, a worker or a store is imported when it is used.
"""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version

        return version("windlass")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""What a process of the program under torture is told to do: one JSON object.

It comes as the first argument, and is passed on by the environment to processes that a worker starts
itself.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

import msgspec

__all__ = ["ORDERS", "Orders", "label", "read_orders"]

ORDERS = "RELIABILITY_ORDERS"
"""The orders again, for the processes that a worker starts itself."""


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What a process of this program shall do."""

    mode: Literal["worker", "produce"] = "worker"
    name: str
    store: str
    """Path of the SQLite file."""
    ledger: str
    durability: Literal["full", "normal"] = "full"
    plant: str = ""
    """A bug to plant, from :mod:`tests.reliability.plants`."""
    # A worker's.
    queues: list[str] | None = None
    concurrency: int = 8
    threads: int = 4
    processes: int = 1
    lease: float = 1.0
    grace: float = 5.0
    drain: bool = False
    freeze_at_ack: bool = False
    """Stop this process by SIGSTOP when its first outcome is about to be stored."""
    clock: str = ""
    """Path of a file that says how many seconds the store's clock is ahead."""
    memory: int | None = None
    """Limit of the address space, in bytes beyond what is in use at the start."""
    # A producer's.
    count: int = 0
    """Jobs to enqueue, all in all."""
    clients: int = 1
    """Concurrent enqueuers."""
    pause: float = 0.0
    """Seconds between two jobs of one enqueuer."""
    seconds: float = 0.02
    """How long each job takes."""


def read_orders() -> Orders:
    """The orders of this process."""
    text = os.environ.get(ORDERS) or sys.argv[1]
    os.environ[ORDERS] = text
    return msgspec.json.decode(text, type=Orders)


def label(name: str, pid: int) -> str:
    """What the ledger calls a process."""
    return f"{name}-{pid}"

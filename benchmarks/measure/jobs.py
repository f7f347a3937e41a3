"""The app that is measured, and the ledger in which its jobs report themselves.

The ledger is a file outside the store: 16 bytes per entry, appended by one ``write`` (which is whole
between processes and threads), so that what was delivered is counted by someone else than the store.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from pathlib import Path
from typing import NamedTuple

from windlass import Windlass

STARTED, ENDED = 0, 1
SLEEP = 0.1
_entry = struct.Struct("<qii")
_path = os.environ.get("BENCH_LEDGER")
_ledger = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666) if _path else -1

# Room for every job of a measurement: being refused is measured nowhere here.
app = Windlass(capacity=100_000_000)


@app.task
async def noop(i: int) -> None:
    os.write(_ledger, _entry.pack(time.monotonic_ns(), i, STARTED))


@app.task
async def sleep(i: int) -> None:
    os.write(_ledger, _entry.pack(time.monotonic_ns(), i, STARTED))
    await asyncio.sleep(SLEEP)
    os.write(_ledger, _entry.pack(time.monotonic_ns(), i, ENDED))


class Entry(NamedTuple):
    at: int
    """Monotonic nanoseconds: the same clock in every process."""
    i: int
    kind: int


def entries(path: Path) -> list[Entry]:
    raw = path.read_bytes()
    return [
        Entry(*each) for each in _entry.iter_unpack(raw[: len(raw) // _entry.size * _entry.size])
    ]


def size_of(count: int) -> int:
    """Bytes of a ledger with this many entries."""
    return count * _entry.size

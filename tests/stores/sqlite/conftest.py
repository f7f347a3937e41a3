"""A store in a file of its own, and ways to look at the file from outside."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from windlass.clock import FakeClock
from windlass.stores.sqlite import SQLiteStore

Program = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def store(path: Path, clock: FakeClock) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(path, clock=clock, durability="normal")
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def db(path: Path) -> Iterator[sqlite3.Connection]:
    """A user's own connection to the file."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=20)) as db:
        yield db


@pytest.fixture
def program() -> Iterator[Program]:
    """Starts Python programs given as text, and ends what is left of them."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *arguments: object) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", text, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        started.append(child)
        return child

    yield start
    for child in started:
        with child:
            child.kill()

"""When the disk fills up: what runs can still finish, and all comes back by itself."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.stores.support import claim, insert_one, new_job, settled
from windlass.errors import StoreFull
from windlass.lifecycle import Returned
from windlass.stores.sqlite import SQLiteStore, files

MIB = 2**20


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Free bytes of the disk, as the store sees them; each look finds the latest."""
    bytes_free = [10**9]
    monkeypatch.setattr(files.Space, "free", lambda self: bytes_free[0])
    monkeypatch.setattr(files, "_LOOK_EVERY", 0.0)
    return bytes_free


async def until(works: Callable[[], Awaitable[object]]) -> None:
    """Wait until *works* raises StoreFull no more."""
    deadline = time.monotonic() + 20
    while True:
        try:
            await works()
        except StoreFull:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        else:
            return


async def test_below_the_low_water_mark_nothing_begins_and_everything_ends(
    store: SQLiteStore, free: list[int]
) -> None:
    for _ in range(2):
        await insert_one(store)
    [job] = await claim(store, 1)

    free[0] = MIB

    with pytest.raises(StoreFull, match="free some space"):
        await insert_one(store)
    with pytest.raises(StoreFull):
        await claim(store)
    assert await store.progress(job.claim, 0.5, None)
    assert await store.ack([settled(job, Returned())]) == ["applied"]
    assert any("nearly full" in warning for warning in (await store.info()).warnings)

    free[0] = 10**9
    await insert_one(store)


async def test_the_ballast_takes_room_from_the_start(store: SQLiteStore, path: Path) -> None:
    await insert_one(store)

    ballast = Path(f"{path}-ballast").stat()
    assert ballast.st_size == 4 * MIB
    assert ballast.st_blocks * 512 >= 4 * MIB
    assert ballast.st_mode & 0o077 == 0


async def test_a_full_file_gives_up_its_ballast_and_recovers(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LOOK_EVERY", 0.05)
    await insert_one(store)
    assert store._threads is not None
    db = store._threads.writer._db
    [(pages,)] = db.execute("PRAGMA page_count").fetchall()
    db.execute(f"PRAGMA max_page_count = {pages + 3}").fetchall()
    big = new_job(payload=b'"%s"' % (b"x" * 100_000))

    with pytest.raises(StoreFull):
        await store.insert([big])
    assert not Path(f"{path}-ballast").exists()

    db.execute("PRAGMA max_page_count = 1000000").fetchall()
    await until(lambda: store.insert([big]))
    assert Path(f"{path}-ballast").exists()
    assert await store.check() == []


async def test_an_insert_too_large_for_the_disk_harms_no_ack_beside_it(
    store: SQLiteStore,
) -> None:
    await insert_one(store)
    [job] = await claim(store, 1)
    assert store._threads is not None
    db = store._threads.writer._db
    [(pages,)] = db.execute("PRAGMA page_count").fetchall()
    db.execute(f"PRAGMA max_page_count = {pages + 3}").fetchall()

    refused, applied = await asyncio.gather(
        store.insert([new_job(payload=b'"%s"' % (b"x" * 100_000))]),
        store.ack([settled(job, Returned())]),
        return_exceptions=True,
    )

    assert isinstance(refused, StoreFull)
    assert applied == ["applied"]


FILL = """
import asyncio, os, sys
from tests.stores.support import *
from windlass.errors import StoreFull
from windlass.stores.sqlite import SQLiteStore
async def main():
    store = SQLiteStore(sys.argv[1], low_water=0, ballast=512 * 1024)
    await store.open()
    await register(store)
    accepted = []
    while True:
        try:
            [inserted] = await store.insert([new_job(payload=b'"%s"' % (b"x" * 3000))])
        except StoreFull:
            break
        accepted.append(inserted.job.id)
        if len(accepted) % 20 == 1:
            running = await claim(store, 20)
    answers = await store.ack([settled(job, Returned(b'"%s"' % (b"y" * 500))) for job in running])
    stats = await store.stats()
    print(len(accepted) > 30, len(accepted) == stats.count(), set(answers), await store.check())
    await store.close()
asyncio.run(main())
"""


def test_on_a_disk_that_is_full_what_was_accepted_stays_and_what_runs_ends(tmp_path: Path) -> None:
    """A real one of 3 MiB, in a mount namespace of its own."""
    mount = f'mount -t tmpfs -o size=3m none {tmp_path} && exec {sys.executable} -c "$0" "$1"'
    flags = ["--mount"] if os.getuid() == 0 else ["--user", "--map-root-user", "--mount"]

    answer = subprocess.run(
        ["unshare", *flags, "sh", "-c", mount, FILL, str(tmp_path / "jobs.db")],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip

    assert answer == "True True {'applied'} []\n"

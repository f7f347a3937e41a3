"""A user's own connections to the file, and what may be done to it while it is in use."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from tests.stores.sqlite.conftest import Program
from tests.stores.support import all_jobs, end, insert_one, line, new_job, raised, start_one
from windlass.clock import FakeClock
from windlass.errors import ConfigError, StoreInvalid, StoreUnavailable
from windlass.job import JobFilter, Retention
from windlass.lifecycle import Returned
from windlass.retry import NO_RETRY
from windlass.stores.sqlite import SQLiteStore, files, find, lock, writer

NOTE = "INSERT INTO notes VALUES (1)"


def notes_written(path: Path, stop: threading.Event) -> int:
    """Write by connections that come and go, as a web application's do, until told to stop."""
    count = 0
    while not stop.is_set():
        with contextlib.closing(sqlite3.connect(path, timeout=20)) as db, db:
            db.execute(NOTE)
        count += 1
    return count


async def test_connections_that_come_and_go_in_this_process_harm_nothing(
    store: SQLiteStore, path: Path, db: sqlite3.Connection
) -> None:
    db.execute("CREATE TABLE notes (x)")
    stop = threading.Event()
    neighbours = [asyncio.to_thread(notes_written, path, stop) for _ in range(2)]
    running = asyncio.gather(*neighbours)

    for _ in range(150):
        await store.insert([new_job(), new_job()])
    stop.set()
    written = sum(await running)

    assert written > 0
    assert db.execute("SELECT count(*) FROM notes").fetchone() == (written,)
    assert len(await all_jobs(store)) == 300
    assert await store.check() == []


NEIGHBOUR = """
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
print("ready", flush=True)
for _ in range(300):
    with db:
        db.execute("INSERT INTO notes VALUES (1)")
print("done")
"""


async def test_a_neighbour_in_another_process_harms_nothing(
    store: SQLiteStore, path: Path, db: sqlite3.Connection, program: Program
) -> None:
    db.execute("CREATE TABLE notes (x)")
    children = [program(NEIGHBOUR, path) for _ in range(2)]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()

    for _ in range(150):
        await insert_one(store)

    assert [child.communicate()[0] for child in children] == ["done\n", "done\n"]
    assert db.execute("SELECT count(*) FROM notes").fetchone() == (600,)
    assert len(await all_jobs(store)) == 150
    assert await store.check() == []


async def test_a_long_write_transaction_of_a_neighbour_makes_us_wait(
    store: SQLiteStore, db: sqlite3.Connection
) -> None:
    db.execute("BEGIN IMMEDIATE")
    insert = asyncio.ensure_future(insert_one(store))
    finished, _ = await asyncio.wait([insert], timeout=0.3)
    assert not finished

    db.execute("COMMIT")

    assert (await insert).type == "t"


async def test_waiting_for_a_neighbour_has_an_end(
    store: SQLiteStore, db: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_PATIENCE", 0.2)
    db.execute("BEGIN IMMEDIATE")

    answers = await asyncio.gather(*(insert_one(store) for _ in range(5)), return_exceptions=True)

    assert {type(each) for each in answers} == {StoreUnavailable}
    assert "long write transaction" in str(answers[0])
    db.execute("ROLLBACK")
    await insert_one(store)


async def test_a_stopped_process_that_keeps_the_lock_is_reported(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_PATIENCE", 0.2)
    store = SQLiteStore(path, durability="normal")
    await store.open()
    holder = lock.ProcessLock(f"{path}-lock", 1.0)

    with holder.held(), pytest.raises(StoreUnavailable, match="hanging process"):
        await insert_one(store)

    await insert_one(store)
    holder.close()
    await store.close()


HOLDER = """
import sys, time
from windlass.stores.sqlite.lock import ProcessLock
lock = ProcessLock(sys.argv[1], 10.0)
print("ready", flush=True)
end = float(sys.stdin.readline())
turns = 0
while time.time() < end:
    with lock.held():
        time.sleep(0.001)
    turns += 1
print(turns)
"""


def test_processes_that_want_the_lock_all_the_time_take_turns(
    tmp_path: Path, program: Program
) -> None:
    children = [program(HOLDER, tmp_path / "lock") for _ in range(3)]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()

    end = time.time() + 0.6
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{end}\n")
        child.stdin.flush()
    turns = [int(child.communicate()[0]) for child in children]

    assert min(turns) > max(turns) / 10


async def test_a_backup_is_whole_and_leaves_the_store_in_use(
    store: SQLiteStore, tmp_path: Path
) -> None:
    before = [await insert_one(store) for _ in range(50)]
    copy_path = tmp_path / "copy.db"

    inserts = [asyncio.ensure_future(insert_one(store)) for _ in range(50)]
    await store.backup(copy_path)
    await asyncio.gather(*inserts)

    copy = SQLiteStore(copy_path, durability="normal")
    await copy.open()
    assert await copy.get([job.id for job in before]) == before
    assert await copy.check() == []
    await copy.close()
    assert not Path(f"{copy_path}.partial").exists()
    assert copy_path.stat().st_mode & 0o077 == 0


async def test_a_backup_overwrites_nothing(store: SQLiteStore, tmp_path: Path) -> None:
    present = tmp_path / "present"
    present.write_text("mine")

    with pytest.raises(ConfigError, match="exists"):
        await store.backup(present)

    assert present.read_text() == "mine"


async def test_a_check_finds_wrong_counts(store: SQLiteStore, db: sqlite3.Connection) -> None:
    await insert_one(store)
    assert await store.check() == []

    db.execute("UPDATE lanes SET pending = 5")

    [problem] = await store.check()
    assert "1 jobs are pending, but 5 are counted" in problem


async def test_damage_is_named_as_such(path: Path) -> None:
    store = SQLiteStore(path, durability="normal")
    await store.open()
    await store.insert([new_job(payload=b'"%s"' % (b"x" * 2000)) for _ in range(200)])
    await store.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: -(2**17)] + bytes(2**17))

    store = SQLiteStore(path, durability="normal")
    await store.open()
    with pytest.raises(StoreInvalid, match="damaged"):
        await all_jobs(store)
    assert await store.check() != []
    await store.close()


async def test_a_search_that_takes_too_long_is_ended(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.insert([new_job(payload=b'"%s"' % (b"x" * 5000)) for _ in range(2000)])
    monkeypatch.setattr(find, "_TEXT_SECONDS", 0.0)

    with pytest.raises(ConfigError, match="narrow the filter"):
        await store.find(JobFilter(text="needle"), 10)

    assert len((await store.find(JobFilter(), 10)).jobs) == 10


async def test_a_number_is_never_given_twice(store: SQLiteStore, clock: FakeClock) -> None:
    kept_long = await start_one(store)
    await end(store, kept_long, raised(), NO_RETRY)
    job = await insert_one(store)
    await store.cancel([job.id], reason="no")
    for kept in (Retention().cancelled, Retention().failed):
        clock.advance(kept)
        assert await store.prune(Retention(), 10) == 1
    await store.close()
    await store.open()

    assert (await insert_one(store)).seq > job.seq


async def test_nothing_is_left_of_a_job_that_was_pruned(
    store: SQLiteStore, clock: FakeClock, db: sqlite3.Connection
) -> None:
    job = await start_one(store)
    await store.log(job.claim, [line("a"), line("b")])
    await end(store, job, Returned())
    clock.advance(Retention().completed)

    await store.prune(Retention(), 10)

    tables = [db.execute(f"SELECT count(*) FROM {name}").fetchone() for name in ("jobs", "logs")]
    assert tables == [(0,), (0,)]


async def test_the_log_is_brought_into_the_file_when_idle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_IDLE", 0.01)
    store = SQLiteStore(path, durability="normal")
    await store.open()
    before = path.stat().st_size

    await store.insert([new_job(payload=b'"%s"' % (b"x" * 50_000)) for _ in range(10)])

    deadline = time.monotonic() + 20
    while path.stat().st_size < before + 500_000:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await store.close()


async def fill(store: SQLiteStore) -> None:
    for _ in range(2000):
        await store.insert([new_job(payload=b'"%s"' % (b"x" * 50_000))])


async def test_a_reader_that_stays_is_reported_and_let_go_of(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_CHECKPOINT_AFTER", 10)
    monkeypatch.setattr(writer, "_IDLE", 0.01)
    monkeypatch.setattr(writer, "_LONG_WAL", 2**20)
    monkeypatch.setattr(writer, "_FULL_WAL", 2**22)
    store = SQLiteStore(path, durability="normal")
    await store.open()
    await insert_one(store)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM jobs").fetchall()

        with pytest.raises(StoreUnavailable, match="long read transaction"):
            await fill(store)
        assert files.wal_bytes(str(path)) < 2**23
        reader.execute("COMMIT")

    deadline = time.monotonic() + 20
    while files.wal_bytes(str(path)) > 2**20:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    await insert_one(store)
    await store.close()

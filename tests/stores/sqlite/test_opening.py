"""Where a store may lie, and what happens to the file when it is opened."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from tests.stores.sqlite.conftest import Program
from tests.stores.support import all_jobs, in_threads, insert_one, new_job
from windlass.errors import (
    Closed,
    ConfigError,
    SchemaMismatch,
    StoreError,
    StoreInvalid,
    StoreUnavailable,
)
from windlass.stores.sqlite import SQLiteStore
from windlass.stores.sqlite.files import SCHEMA, file_system


async def opening(path: Path) -> StoreError:
    """The error of an attempt to open *path*, which must be one sentence or two for a person."""
    with pytest.raises(StoreError) as raised:
        await SQLiteStore(path).open()
    assert str(raised.value).endswith(".")
    assert raised.value.__cause__ is None
    return raised.value


async def test_the_file_and_what_lies_beside_it_are_for_this_user_alone(
    store: SQLiteStore, path: Path
) -> None:
    await insert_one(store)

    for each in path.parent.iterdir():
        assert stat.S_IMODE(each.stat().st_mode) & 0o077 == 0, each


@pytest.mark.parametrize("name", [":memory:", "file:jobs.db", "", "a\0b"])
def test_a_path_that_sqlite_would_take_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="memory:"):
        SQLiteStore(name)


async def test_a_missing_directory_is_said(tmp_path: Path) -> None:
    error = await opening(tmp_path / "missing" / "jobs.db")

    assert isinstance(error, StoreUnavailable)
    assert "no directory" in str(error)


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert isinstance(await opening(tmp_path), StoreInvalid)


async def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"dear diary" * 1000)

    error = await opening(path)

    assert isinstance(error, StoreInvalid)
    assert path.read_bytes() == b"dear diary" * 1000


async def test_a_database_of_another_program_is_refused_and_left_alone(
    path: Path, db: sqlite3.Connection
) -> None:
    db.execute("CREATE TABLE theirs (x)")

    error = await opening(path)

    assert "another program" in str(error)
    assert db.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
    assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
async def test_a_network_file_system_is_refused(path: Path, kind: str) -> None:
    store = SQLiteStore(path, file_system=lambda _: kind)

    with pytest.raises(StoreInvalid, match="network file system"):
        await store.open()
    assert not path.exists()


def test_the_file_system_of_a_directory_is_that_of_its_nearest_mount() -> None:
    assert file_system("/proc/self") == "proc"
    assert file_system("/processes") == file_system("/")


async def test_a_schema_that_this_code_does_not_know_is_refused(
    store: SQLiteStore, path: Path, db: sqlite3.Connection
) -> None:
    db.execute(f"UPDATE meta SET value = {SCHEMA + 1} WHERE key = 'min_code'")
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")

    error = await opening(path)

    assert isinstance(error, SchemaMismatch)
    assert "upgrade Windlass" in str(error)


async def test_a_newer_schema_that_still_serves_this_code_is_opened_and_kept(
    store: SQLiteStore, path: Path, db: sqlite3.Connection
) -> None:
    db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    older = SQLiteStore(path, durability="normal")

    await older.open()
    await insert_one(older)
    await older.close()

    assert len(await all_jobs(store)) == 1
    assert (await store.info()).schema == SCHEMA + 1


async def test_opening_that_failed_may_succeed_later(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "later" / "jobs.db", durability="normal")
    with pytest.raises(StoreUnavailable):
        await store.open()

    (tmp_path / "later").mkdir()
    await store.open()
    await insert_one(store)
    await store.close()


async def test_opening_twice_and_at_once_is_harmless(path: Path) -> None:
    store = SQLiteStore(path, durability="normal")

    await asyncio.gather(*(store.open() for _ in range(5)))
    await store.open()
    await insert_one(store)

    await store.close()
    await store.close()


async def test_what_was_accepted_is_there_after_closing_and_opening(store: SQLiteStore) -> None:
    job = await insert_one(store)

    await store.close()
    await store.open()

    assert await store.get([job.id]) == [job]


async def test_closing_leaves_one_file_with_everything_in_it(
    store: SQLiteStore, path: Path
) -> None:
    await insert_one(store)

    await store.close()

    assert not Path(f"{path}-wal").exists()
    assert not Path(f"{path}-shm").exists()


async def test_closing_finishes_what_was_submitted(store: SQLiteStore) -> None:
    inserts = [asyncio.ensure_future(insert_one(store)) for _ in range(50)]
    await asyncio.sleep(0)

    await store.close()

    assert {(await each).type for each in inserts} == {"t"}


async def test_a_closed_store_says_so(path: Path) -> None:
    store = SQLiteStore(path)

    for use in (store.insert([new_job()]), store.stats(), store.info()):
        with pytest.raises(Closed, match="open it first"):
            await use
    with pytest.raises(Closed):
        store.listen(frozenset({"ready"}), lambda notice: None)


async def test_one_path_by_two_names_is_one_store(tmp_path: Path, store: SQLiteStore) -> None:
    link = tmp_path / "link.db"
    link.symlink_to("jobs.db")
    other = SQLiteStore(link, durability="normal")
    await other.open()

    job = await insert_one(other)
    await other.close()

    assert await store.get([job.id]) == [job]


async def test_info_tells_what_it_is(store: SQLiteStore, path: Path) -> None:
    info = await store.info()

    assert (info.kind, info.location, info.durability) == ("sqlite", str(path), "process")
    assert info.version == sqlite3.sqlite_version
    assert info.size_bytes is not None
    assert info.size_bytes > 0
    assert info.free_bytes is not None
    warned = any("3.51.3" in warning for warning in info.warnings)
    assert warned == (sqlite3.sqlite_version_info < (3, 51, 3))


async def test_full_durability_is_the_default(path: Path) -> None:
    store = SQLiteStore(path)
    await store.open()

    assert (await store.info()).durability == "host"
    await store.close()


def test_event_loops_in_several_threads_share_one_store(path: Path) -> None:
    store = SQLiteStore(path, durability="normal")

    async def work(index: int) -> int:
        await store.open()
        jobs = [await insert_one(store) for _ in range(20)]
        return len({job.seq for job in jobs})

    assert in_threads(4, work) == [20] * 4

    async def count_and_close() -> int:
        count = (await store.stats()).count()
        await store.close()
        return count

    assert asyncio.run(count_and_close()) == 80


MIGRATOR = """
import asyncio, sys
from windlass.stores.sqlite import SQLiteStore
async def main():
    store = SQLiteStore(sys.argv[1], durability="normal")
    print("ready", flush=True)
    sys.stdin.readline()
    await store.open()
    print((await store.info()).schema, flush=True)
    await store.close()
asyncio.run(main())
"""


def test_four_processes_that_create_the_file_at_once_agree(path: Path, program: Program) -> None:
    children = [program(MIGRATOR, path) for _ in range(4)]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"

    answers = [child.communicate("go\n")[0] for child in children]

    assert answers == [f"{SCHEMA}\n"] * 4


def test_a_migration_killed_half_way_leaves_nothing(
    path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_CRASH_AT", "mid-migration")
    victim = program(MIGRATOR, path)
    victim.communicate("go\n")
    assert victim.returncode == -9
    monkeypatch.delenv("WINDLASS_CRASH_AT")

    answer, _ = program(MIGRATOR, path).communicate("go\n")

    assert answer.splitlines()[1:] == [str(SCHEMA)]


FORKER = """
import asyncio, os, sys
from tests.stores.support import insert_one
from windlass.stores.sqlite import SQLiteStore
async def parent(store):
    await store.open()
    await insert_one(store)
async def child(store):
    for _ in range(50):
        await insert_one(store)
store = SQLiteStore(sys.argv[1], durability="normal")
asyncio.run(parent(store))
children = []
for _ in range(3):
    pid = os.fork()
    if not pid:
        asyncio.run(child(store))
        os._exit(0)
    children.append(pid)
asyncio.run(child(store))
print([os.waitpid(pid, 0)[1] for pid in children])
async def rest(store):
    print((await store.stats()).count(), await store.check())
    await store.close()
asyncio.run(rest(store))
"""


def test_children_of_a_fork_open_their_own(path: Path, program: Program) -> None:
    answer, _ = program(FORKER, path).communicate()

    assert answer.splitlines() == ["[0, 0, 0]", "201 []"]


FORK_UNDER_LOAD = """
import asyncio, os, sys, threading
from tests.stores.support import insert_one
from windlass.stores.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1], durability="normal")
asyncio.run(store.open())
stop = threading.Event()
def load():
    async def body():
        while not stop.is_set():
            await asyncio.gather(insert_one(store), store.stats(), store.get([]))
    asyncio.run(body())
threads = [threading.Thread(target=load) for _ in range(2)]
for thread in threads: thread.start()
statuses = []
for _ in range(20):
    pid = os.fork()
    if not pid:
        async def child():
            await insert_one(store, "child")
            await store.close()
        asyncio.run(child())
        os._exit(0)
    statuses.append(os.waitpid(pid, 0)[1])
stop.set()
for thread in threads: thread.join()
async def rest():
    lanes = {lane.type: sum(lane.counts.values()) for lane in (await store.stats()).lanes}
    print(set(statuses), lanes["child"], await store.check())
    await store.close()
asyncio.run(rest())
"""


def test_a_fork_in_the_midst_of_writing_harms_neither(path: Path, program: Program) -> None:
    answer, _ = program(FORK_UNDER_LOAD, path).communicate()

    assert answer == "{0} 20 []\n"


async def test_a_child_that_lives_on_does_not_keep_its_dead_parents_lock(
    path: Path, program: Program
) -> None:
    forker = program(FORK_AND_HOLD, path)
    assert forker.stdout is not None
    child = int(forker.stdout.readline())
    forker.kill()
    forker.wait()

    store = SQLiteStore(path, durability="normal")
    await store.open()
    await insert_one(store)
    await store.close()

    os.kill(child, 0)  # it did live on
    os.kill(child, 9)


FORK_AND_HOLD = """
import asyncio, os, sys, time
from windlass.stores.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1], durability="normal")
asyncio.run(store.open())
with store._threads.writer._lock.held():
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    print(pid, flush=True)
    time.sleep(60)
"""


async def test_nothing_is_accepted_into_a_file_that_was_deleted_under_the_store(
    store: SQLiteStore, path: Path
) -> None:
    await insert_one(store)
    path.unlink()

    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        await insert_one(store)
    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        await store.info()


async def test_a_replaced_file_is_noticed_and_one_that_comes_back_is_used_again(
    store: SQLiteStore, path: Path
) -> None:
    await insert_one(store)
    path.rename(path.with_name("aside.db"))
    path.write_bytes(b"")

    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        await insert_one(store)

    path.with_name("aside.db").replace(path)
    await insert_one(store)
    assert len(await all_jobs(store)) == 2

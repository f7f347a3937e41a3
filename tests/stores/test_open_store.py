"""``open_store``: the one place where a URL becomes a store."""

from datetime import timedelta
from pathlib import Path

import pytest

from tests.stores.support import insert_one, new_job
from windlass.clock import FakeClock
from windlass.errors import ConfigError, QueueFull
from windlass.stores import open_store
from windlass.stores.memory import MemoryStore
from windlass.stores.sqlite import SQLiteStore


@pytest.mark.parametrize("url", ["memory:", "memory://", "memory"])
def test_the_memory_store_has_no_place(url: str) -> None:
    assert isinstance(open_store(url), MemoryStore)


async def test_three_slashes_are_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    store = open_store("sqlite:///here.db")

    assert isinstance(store, SQLiteStore)
    await store.open()
    await store.close()
    assert (tmp_path / "here.db").exists()


async def test_four_slashes_are_an_absolute_path(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/there.db", durability="normal")

    await store.open()
    await store.close()

    assert (tmp_path / "there.db").exists()


@pytest.mark.parametrize("url", ["memory:", "sqlite:///jobs.db"])
async def test_capacity_and_clock_are_passed_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clock = FakeClock()
    clock.advance(timedelta(days=9))
    store = open_store(url, capacity=1, clock=clock)
    await store.open()

    job = await insert_one(store)

    assert job.created_at == clock.now()
    with pytest.raises(QueueFull):
        await store.insert([new_job()])
    await store.close()


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("sqlit:///jobs.db", "Did you mean 'sqlite:///jobs.db'?"),
        ("SQLite:///jobs.db", "Did you mean 'sqlite:///jobs.db'?"),
        ("mem:", "Did you mean 'memory:'?"),
        ("mysql://user:secret@host/db", "Write its URL like 'memory:' or 'sqlite:///jobs.db'."),
        ("jobs.db", "Write its URL like"),
        ("", "Write its URL like"),
        ("sqlite:", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:jobs.db", "names no file"),
        ("sqlite://jobs.db", "names no file"),
        ("memory:jobs.db", "just 'memory:'"),
    ],
)
def test_what_names_no_store_is_refused_with_advice(url: str, advice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)

    assert advice in str(caught.value)
    assert "secret" not in str(caught.value)

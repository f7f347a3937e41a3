"""Windlass on SQLite, as the peer harness asks for it: two jobs, an enqueue side, a worker."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import common

from windlass import Windlass
from windlass.worker import WorkerOptions

_DATABASE = Path(common.TMP).resolve() / "windlass.db"

app = Windlass(f"sqlite:///{_DATABASE}", durability="full", capacity=10_000_000)


@app.task
async def noop(i: int) -> None:
    common.noop(i)


@app.task
async def sleep(i: int) -> None:
    await common.sleep_async(i)


TASKS = {"noop": noop, "sleep": sleep}


def setup() -> None:
    for old in _DATABASE.parent.glob(_DATABASE.name + "*"):
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink()


def worker(given: argparse.Namespace) -> None:
    app.run_worker(WorkerOptions(concurrency=given.conc))


class Enqueuer(common.Enqueuer):
    async def open(self) -> None:
        await app.open()

    async def one(self, kind: str, i: int) -> None:
        await TASKS[kind].enqueue(i)

    async def bulk(self, kind: str, ids: list[int]) -> None:
        await app.enqueue_many(TASKS[kind].bind(i) for i in ids)

    async def close(self) -> None:
        await app.close()


CLI = (Enqueuer, setup, worker)

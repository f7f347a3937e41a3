"""A worker program on an SQLite file, to be started, signalled and killed by tests.

    python -m tests.worker.program FILE [--quarantine] [--workers N] [--fail CODE]

Tasks write what they do to a ledger beside the file, each line by one append.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from datetime import timedelta
from pathlib import Path

from windlass.context import Context
from windlass.events import EventBus
from windlass.stores.sqlite import SQLiteStore
from windlass.tasks import Registry
from windlass.worker import Supervisor, Worker, WorkerOptions, run_as_program
from windlass.worker.signals import handle_signals

registry = Registry()


def note(ledger: str, text: str) -> None:
    with open(ledger, "a", buffering=1) as file:
        file.write(text + "\n")


@registry.task
async def good(ctx: Context, ledger: str) -> None:
    note(ledger, f"good {ctx.job.id} {os.getpid()}")


@registry.task
async def hold(ctx: Context, ledger: str, seconds: float) -> None:
    note(ledger, f"hold {ctx.fence} {os.getpid()}")
    if ctx.fence == 1:
        await asyncio.sleep(seconds)


@registry.task
async def kill_worker(ledger: str) -> None:
    note(ledger, f"kill {os.getpid()}")
    await asyncio.sleep(0.05)
    os._exit(1)


@registry.task(timeout=3600)
async def block(ledger: str) -> None:
    note(ledger, f"block {os.getpid()}")
    time.sleep(600)


async def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--quarantine", action="store_true")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--fail", type=int)
    given = parser.parse_args()
    if given.fail is not None:
        return int(given.fail)
    command = [sys.executable, "-m", "tests.worker.program", str(given.file)]
    store, events = SQLiteStore(given.file), EventBus()
    await store.open()
    try:
        if given.workers:
            supervisor = Supervisor(command, given.workers, store, events)
            restore = handle_signals(supervisor)
            code = await supervisor.run()
            restore()
            return code
        options = WorkerOptions(
            lease=timedelta(seconds=30), beat=timedelta(seconds=5), poll=timedelta(seconds=0.2),
            check=timedelta(seconds=0.2), grace=timedelta(seconds=10), concurrency=10,
            quarantine=given.quarantine,
        )  # fmt: skip
        await run_as_program(
            Worker(store, registry, events, options), quarantine=[*command, "--quarantine"]
        )
        return 0
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))

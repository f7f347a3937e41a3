"""The program under torture: an app whose tasks note in the ledger what they do.

``python -m tests.reliability.program '{"mode": "worker", …}'`` is a worker, ``"produce"`` a producer:
real processes, to be killed and frozen. The orders are one JSON object, see ``orders.py``. A child
whose parent goes away ends too, so that nothing is left behind by an interrupted test.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

from tests.reliability.checker import value_of
from tests.reliability.ledger import Kind, Ledger
from tests.reliability.orders import label, read_orders
from tests.reliability.plants import plant
from windlass import Context, SyncContext, Windlass
from windlass.client import new_job_id
from windlass.clock import SystemClock
from windlass.errors import StoreError
from windlass.events import AckStale
from windlass.stores.sqlite.ack import ack
from windlass.stores.sqlite.request import Request
from windlass.stores.sqlite.writer import Writer
from windlass.worker import WorkerOptions

__all__ = ["app"]

orders = read_orders()
ledger = Ledger(Path(orders.ledger), label(orders.name, os.getpid()))
if orders.plant:
    plant(orders.plant)


class SteppedClock(SystemClock):
    """The host's clock, set forward or back by whoever writes the file."""

    def now(self) -> datetime:
        return super().now() + timedelta(seconds=float(Path(orders.clock).read_text()))


app = Windlass(
    f"sqlite:///{orders.store}",
    durability=orders.durability,
    clock=SteppedClock() if orders.clock else None,
)
app.events.subscribe(AckStale, lambda event: ledger.note(Kind.STALE, event.id))

# ---------------------------------------------------------------- tasks


@app.task(name="work")
async def work(ctx: Context, seconds: float) -> str:
    """Take some time on the loop."""
    ledger.note(Kind.STARTED, ctx.job.id, ctx.fence)
    try:
        await asyncio.sleep(seconds)
    except BaseException:
        ledger.note(Kind.BROKEN_OFF, ctx.job.id, ctx.fence)
        raise
    ledger.note(Kind.FINISHED, ctx.job.id, ctx.fence)
    return value_of(ctx.fence)


@app.task(name="gated")
async def gated(ctx: Context, gate: str, first: bool) -> str:
    """Wait until the file *gate* is there; the *first* hand-out may wait as well, or not."""
    ledger.note(Kind.STARTED, ctx.job.id, ctx.fence)
    # Another process touches it.
    while not os.path.exists(gate) and (first or ctx.fence > 1):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    ledger.note(Kind.FINISHED, ctx.job.id, ctx.fence)
    return value_of(ctx.fence)


@app.task(name="crunch")
def crunch(ctx: SyncContext, seconds: float) -> str:
    """Take some time in a thread."""
    ledger.note(Kind.STARTED, ctx.job.id, ctx.fence)
    time.sleep(seconds)
    ledger.note(Kind.FINISHED, ctx.job.id, ctx.fence)
    return value_of(ctx.fence)


@app.task(name="grind", run_in="process")
def grind(ctx: SyncContext, seconds: float) -> str:
    """Take some time in a process of its own, on behalf of the worker that is its parent."""
    of = label(orders.name, os.getppid())
    ledger.note(Kind.STARTED, ctx.job.id, ctx.fence, worker=of)
    time.sleep(seconds)
    ledger.note(Kind.FINISHED, ctx.job.id, ctx.fence, worker=of)
    return value_of(ctx.fence)


@app.task(name="poison")
async def poison(ctx: Context, how: str) -> None:
    """End the whole process, in one of the ways in which that happens."""
    ledger.note(Kind.STARTED, ctx.job.id, ctx.fence)
    # A moment, so that others are in flight when it goes down.
    await asyncio.sleep(0.05)
    ledger.note(Kind.KILLED)
    match how:
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "killed":
            # As the kernel does when memory runs out.
            os.kill(os.getpid(), signal.SIGKILL)


@app.task(name="hog")
async def hog(ctx: Context) -> None:
    """Take more memory than there is."""
    ledger.note(Kind.STARTED, ctx.job.id, ctx.fence)
    taken = []
    try:
        while True:
            taken.append(bytearray(16 * 1024 * 1024))
    finally:
        taken.clear()
        ledger.note(Kind.BROKEN_OFF, ctx.job.id, ctx.fence)


# ---------------------------------------------------------------- modes


def worker_options() -> WorkerOptions:
    """Quick ones: a lease of a second, and everything else in proportion."""
    lease = timedelta(seconds=orders.lease)
    return WorkerOptions(
        queues=None if orders.queues is None else frozenset(orders.queues),
        concurrency=orders.concurrency,
        threads=orders.threads,
        processes=orders.processes,
        lease=lease,
        beat=lease / 4,
        check=lease / 5,
        poll=timedelta(seconds=0.2),
        grace=timedelta(seconds=orders.grace),
        drain=orders.drain,
    )


async def produce() -> None:
    """Enqueue jobs one by one, telling the ledger before and after each."""
    async with app:
        share = orders.count // orders.clients
        async with asyncio.TaskGroup() as group:
            for _ in range(orders.clients):
                group.create_task(_produce(share))


async def _produce(count: int) -> None:
    for number in range(count):
        task = grind if number % 40 == 39 else crunch if number % 4 == 3 else work
        job = new_job_id()
        ledger.note(Kind.TRIED, job)
        try:
            await task.options(id=job).enqueue(orders.seconds)
        except StoreError:
            # Perhaps accepted, perhaps not: the ledger says tried, and no more.
            continue
        ledger.note(Kind.ACCEPTED, job)
        await asyncio.sleep(orders.pause)


def _freeze_at_ack() -> None:
    """As when the machine sleeps at the worst moment: the run has ended, and nobody knows yet.

    In the thread that writes, so that it does not sleep with the lock of the file in its hands.
    """
    serve = Writer._serve

    def late(self: Writer, requests: list[Request]) -> None:
        if any(request.handler is ack for request in requests):
            Writer._serve = serve  # type: ignore[method-assign] # only the first one is late
            # To this very thread, which so goes no further.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        serve(self, requests)

    Writer._serve = late  # type: ignore[method-assign]


def _limit_memory(beyond: int) -> None:
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + beyond
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _end_with_parent() -> None:
    """Standard input is a pipe that the parent holds: its end is the parent's."""
    while os.read(0, 1):
        pass
    os._exit(9)


def main() -> None:
    """Do as the orders say."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if orders.freeze_at_ack:
        _freeze_at_ack()
    if orders.memory is not None:
        _limit_memory(orders.memory)
    if orders.mode == "produce":
        asyncio.run(produce())
    else:
        app.run_worker(worker_options())


if __name__ == "__main__":
    main()

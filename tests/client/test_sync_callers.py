"""Synchronous callers: the portal and what goes through it."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from windlass import Closed, ConfigError, PayloadError, Status, Windlass
from windlass.portal import Portal
from windlass.testing import drain_sync, in_memory

app = Windlass("memory:")


@app.task
def double(n: int) -> int:
    return 2 * n


@pytest.fixture(autouse=True)
def _jobs_in_memory() -> Iterator[None]:
    with in_memory(app):
        yield
    app.portal.close()


def test_a_job_is_enqueued_watched_and_cancelled_without_a_loop() -> None:
    job, other = double.enqueue_sync(4), double.options(delay="1h").enqueue_sync(n=5)
    assert job.status().status is Status.PENDING

    drain_sync(app)

    assert job.result(timeout=5) == 8
    assert job.job.status is Status.COMPLETED
    assert other.cancel().status is Status.CANCELLED


def test_many_jobs_are_enqueued_without_a_loop() -> None:
    jobs = app.enqueue_many_sync(double.bind(n) for n in range(3))

    drain_sync(app)

    assert [job.result() for job in jobs] == [0, 2, 4]


def test_errors_reach_the_synchronous_caller() -> None:
    with pytest.raises(PayloadError, match="does not fit"):
        double.enqueue_sync("x")  # type: ignore[arg-type]


def test_any_number_of_threads_share_one_portal_thread() -> None:
    together = threading.Barrier(8)

    def enqueue(n: int) -> str:
        together.wait(timeout=10)
        return double.enqueue_sync(n).id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(enqueue, range(8)))

    assert len(ids) == 8
    portals = [t for t in threading.enumerate() if t.name == "windlass-portal"]
    assert len(portals) == 1
    assert portals[0].daemon


async def test_where_a_loop_runs_the_way_to_await_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"use `await double\.enqueue\(…\)` here"):
        double.enqueue_sync(1)
    with pytest.raises(ConfigError, match=r"use `await app\.enqueue_many\(…\)` here"):
        app.enqueue_many_sync([double.bind(1)])

    job = await asyncio.to_thread(double.enqueue_sync, 1)
    with pytest.raises(ConfigError, match=r"use `await job\.status\(\)` here"):
        job.status()


async def test_nothing_was_enqueued_where_it_was_refused() -> None:
    with pytest.raises(ConfigError):
        double.enqueue_sync(1)

    assert (await app.store.stats()).count() == 0


def test_a_portal_closes_with_what_runs_in_it_and_can_be_used_again() -> None:
    portal = Portal()
    begun = threading.Event()

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def answer() -> int:
        return 42

    with ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(portal.call, forever, instead="await")
        assert begun.wait(timeout=10)
        portal.close()
        with pytest.raises(Closed, match="closed during this call"):
            hanging.result(timeout=10)

    assert not portal.running
    assert portal.call(answer, instead="await") == 42
    portal.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_enqueues_through_a_store_of_its_own(tmp_path: Path) -> None:
    program = f"""
import os
from windlass import Windlass
app = Windlass("sqlite:///{tmp_path}/jobs.db")

@app.task
def double(n: int) -> int:
    return 2 * n

ids = [double.enqueue_sync(0).id]
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    for n in range(3):
        os.write(writer, double.enqueue_sync(n).id.encode())
    os._exit(0)
os.close(writer)
ids += [double.enqueue_sync(9).id]
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
with os.fdopen(reader) as pipe:
    text = pipe.read()
ids += [text[at : at + 36] for at in range(0, len(text), 36)]
found = [app.portal.call(app.job(id).status, instead="") for id in ids]
print(len({{job.id for job in found}}))
"""

    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, timeout=50
    )

    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "5", "")


def test_a_program_that_never_closes_its_app_ends_by_itself(tmp_path: Path) -> None:
    program = f"""
from windlass import Windlass
app = Windlass("sqlite:///{tmp_path}/jobs.db")

@app.task
def double(n: int) -> int:
    return 2 * n

print(double.enqueue_sync(1).status().status)
"""

    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50
    )

    assert (ended.returncode, ended.stdout.strip(), ended.stderr) == (0, "pending", "")

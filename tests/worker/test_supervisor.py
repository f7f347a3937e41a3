"""Worker processes: supervised, restarted, buried, governed by signals. All of it with real processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.worker import program
from tests.worker.support import SOON, eventually, soon
from windlass.client import new_job_id
from windlass.events import EventBus
from windlass.job import FINAL, Job, JobId, JobOptions, NewJob, Status
from windlass.stores.memory import MemoryStore
from windlass.stores.sqlite import SQLiteStore
from windlass.tasks import Task
from windlass.worker import Supervisor

LONG = 25.0


class Service:
    """An SQLite file, its ledger, and processes that work on it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "jobs.db"
        self.ledger = folder / "ledger"
        self.ledger.touch()
        self.store = SQLiteStore(self.file)
        self.command = [sys.executable, "-m", "tests.worker.program", str(self.file)]
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*self.command, *arguments], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.processes.append(process)
        return process

    def supervisor(self, count: int, *arguments: str, **options: Any) -> Supervisor:
        return Supervisor([*self.command, *arguments], count, self.store, EventBus(), **options)

    async def put(self, task: Task[..., Any], **arguments: Any) -> JobId:
        payload = task.signature.encode((), {"ledger": str(self.ledger), **arguments})
        job_id = new_job_id()
        await self.store.insert([NewJob(job_id, task.type, payload, JobOptions())])
        return job_id

    async def job(self, job_id: JobId) -> Job:
        (job,) = await self.store.get([job_id])
        assert job is not None
        return job

    async def ended(self, job_id: JobId, seconds: float = SOON) -> Job:
        async with asyncio.timeout(seconds):
            while (job := await self.job(job_id)).status not in FINAL:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return job

    def notes(self, what: str) -> list[list[str]]:
        lines = [line.split() for line in self.ledger.read_text().splitlines()]
        return [line for line in lines if line[0] == what]

    async def exit_code(self, process: subprocess.Popen[str]) -> int:
        await eventually(lambda: process.poll() is not None)
        assert process.returncode is not None
        return process.returncode


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    service = Service(tmp_path)
    await service.store.open()
    yield service
    for process in service.processes:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
    await service.store.close()


def children_of(pid: int) -> Iterator[int]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            yield int(stat.parent.name)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---------------------------------------------------------------------- the supervisor


async def test_the_jobs_of_a_killed_child_run_elsewhere_within_two_seconds(
    service: Service,
) -> None:
    supervisor = service.supervisor(2)
    run = asyncio.create_task(supervisor.run())
    held = await service.put(program.hold, seconds=600)
    await eventually(lambda: bool(service.notes("hold")))
    victim = int(service.notes("hold")[0][2])

    os.kill(victim, signal.SIGKILL)
    before = time.monotonic()
    job = await service.ended(held)
    took = time.monotonic() - before
    # The dead one has a successor, and both work.
    await eventually(lambda: len(supervisor.pids) == 2 and victim not in supervisor.pids)
    supervisor.stop()
    code = await soon(run)

    assert (job.status, job.fence, job.crashes, job.charges) == (Status.COMPLETED, 2, 1, 0)
    assert took < 2.5  # two seconds, and what this machine needs to notice
    assert code == 0
    assert await service.store.workers() == []


async def test_a_stop_is_passed_on_and_every_child_leaves_cleanly(service: Service) -> None:
    supervisor = service.supervisor(2)
    run = asyncio.create_task(supervisor.run())
    held = await service.put(program.hold, seconds=0.6)
    await eventually(lambda: bool(service.notes("hold")))

    supervisor.stop()
    code = await soon(run)

    assert (code, (await service.job(held)).status) == (0, Status.COMPLETED)
    assert len(service.notes("hold")) == 1
    assert await service.store.workers() == []


async def test_a_second_stop_hands_back_at_once(service: Service) -> None:
    supervisor = service.supervisor(1)
    run = asyncio.create_task(supervisor.run())
    held = await service.put(program.hold, seconds=600)
    await eventually(lambda: bool(service.notes("hold")))

    supervisor.stop()
    await asyncio.sleep(0.2)
    supervisor.stop()
    await soon(run)

    job = await service.job(held)
    assert (job.status, job.failures, job.crashes) == (Status.PENDING, 0, 0)


async def test_children_that_cannot_start_are_given_up(service: Service) -> None:
    deaths: list[str] = []
    supervisor = service.supervisor(1, "--fail", "3", on_death=lambda pid, how: deaths.append(how))

    code = await soon(supervisor.run())

    assert code == 3
    assert deaths == ["ended with exit code 3"] * 3


async def test_children_end_with_their_supervisor(service: Service) -> None:
    parent = service.start("--workers", "2")
    held = await service.put(program.hold, seconds=600)
    await eventually(lambda: bool(service.notes("hold")))
    children = list(children_of(parent.pid))

    parent.kill()
    before = time.monotonic()
    await eventually(lambda: not any(map(alive, children)))

    assert len(children) == 2
    assert time.monotonic() - before < 2.0
    # They had time to hand their jobs back.
    assert (await service.job(held)).status is Status.PENDING


async def test_a_poison_job_ends_in_quarantine_and_the_innocent_complete(service: Service) -> None:
    supervisor = service.supervisor(2)
    run = asyncio.create_task(supervisor.run())
    poison = await service.put(program.kill_worker)
    innocent = [await service.put(program.good) for _ in range(50)]

    job = await service.ended(poison, LONG)
    others = [await service.ended(job_id) for job_id in innocent]
    supervisor.stop()
    await soon(run)

    assert (job.status, job.reason) == (Status.FAILED, "crashed its worker")
    assert (job.crashes, job.charges) == (5, 3)
    assert len(service.notes("kill")) == 5
    assert {other.status for other in others} == {Status.COMPLETED}


# ---------------------------------------------------------------------- signals


async def started(service: Service, task: Task[..., Any] = program.hold) -> Any:
    """A worker that runs one long job."""
    process = service.start()
    arguments = {"seconds": 600} if task is program.hold else {}
    job_id = await service.put(task, **arguments)
    await eventually(lambda: bool(service.notes(task.type)))
    return process, job_id


async def test_sigterm_lets_the_job_end_and_leaves(service: Service) -> None:
    process = service.start()
    held = await service.put(program.hold, seconds=0.5)
    await eventually(lambda: bool(service.notes("hold")))

    process.terminate()

    assert await service.exit_code(process) == 0
    assert (await service.job(held)).status is Status.COMPLETED
    assert await service.store.workers() == []


async def test_a_second_signal_hands_everything_back_now(service: Service) -> None:
    process, held = await started(service)

    process.send_signal(signal.SIGINT)
    await asyncio.sleep(0.2)
    process.send_signal(signal.SIGINT)

    assert await service.exit_code(process) == 0
    job = await service.job(held)
    assert (job.status, job.failures) == (Status.PENDING, 0)


async def test_a_third_signal_exits_even_from_a_blocked_loop(service: Service) -> None:
    process, _ = await started(service, program.block)

    for _ in range(3):
        process.terminate()
        await asyncio.sleep(0.2)

    assert await service.exit_code(process) == 128 + signal.SIGTERM


async def test_a_quiet_worker_claims_nothing_until_it_is_continued(service: Service) -> None:
    process = service.start()
    await service.ended(await service.put(program.good))

    process.send_signal(signal.SIGUSR1)
    await asyncio.sleep(0.3)
    waiting = await service.put(program.good)
    await asyncio.sleep(0.6)
    untouched = await service.job(waiting)
    process.send_signal(signal.SIGCONT)

    assert untouched.status is Status.PENDING
    assert (await service.ended(waiting)).status is Status.COMPLETED


async def test_status_and_stacks_are_told_on_stderr(service: Service) -> None:
    process, held = await started(service)

    process.send_signal(signal.SIGUSR2)
    await asyncio.sleep(0.2)
    process.send_signal(signal.SIGQUIT)
    await asyncio.sleep(0.2)
    process.kill()
    _, said = await asyncio.to_thread(process.communicate)

    assert f"running, runs hold {held}" in said
    assert "most recent call first" in said
    assert "in hold\n    await asyncio.sleep(seconds)" in said


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.15, 0.3, 0.5])
async def test_a_storm_of_signals_at_any_moment_ends_it_and_loses_nothing(
    service: Service, delay: float
) -> None:
    process = service.start()
    held = await service.put(program.hold, seconds=0.1)
    await asyncio.sleep(delay)

    for _ in range(2):
        process.terminate()
        await asyncio.sleep(0.03)

    # Before Python is up, the signal simply kills it.
    assert await service.exit_code(process) in (0, -signal.SIGTERM)
    assert (await service.job(held)).status in (Status.PENDING, Status.COMPLETED)


async def test_a_system_that_starts_no_process_is_told_of_and_given_up() -> None:
    refusals: list[str] = []
    supervisor = Supervisor(
        ["/nowhere/windlass"], 2, MemoryStore(), EventBus(), on_refusal=refusals.append
    )

    async with asyncio.timeout(SOON):
        code = await supervisor.run()

    assert code != 0
    assert refusals[:3] == ["No such file or directory"] * 3

"""Threads and processes: what they can do, how they are ended, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.worker import tasks
from tests.worker.support import QUICK, SOON, Bench, eventually, soon
from windlass.clock import FakeClock
from windlass.context import Context, SyncContext
from windlass.executors.processes import Processes
from windlass.job import Job, JobId, Status


def result_of(job: Job) -> Any:
    return msgspec.json.decode(bytes(job.result or b"null"))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


async def gone(pid: int) -> None:
    await eventually(lambda: not alive(pid))


# ---------------------------------------------------------------------- threads


async def test_threads_run_side_by_side_up_to_their_slots() -> None:
    bench = Bench()
    together = threading.Barrier(4)

    @bench.registry.task
    def meet() -> int:
        return together.wait(SOON)

    async with bench.working():
        ids = await bench.put_many(meet, [()] * 4)
        jobs = [await bench.until(job_id) for job_id in ids]

    assert {result_of(job) for job in jobs} == {0, 1, 2, 3}
    assert {limit for want, limit in bench.store.claims if limit > QUICK.threads} == set()


async def test_a_thread_has_the_context_too() -> None:
    bench = Bench()

    @bench.registry.task
    def talk(ctx: SyncContext[Any]) -> int:
        ctx.log("from a thread")
        ctx.progress(1.0, "done")
        return ctx.attempt

    async with bench.working():
        job = await bench.until(await bench.put(talk))

    assert (result_of(job), job.progress, job.note) == (1, 1.0, "done")
    assert [line.message for line in await bench.store.logs(job.id)] == ["from a thread"]


async def test_a_timed_out_thread_keeps_its_slot_until_it_ends() -> None:
    clock = FakeClock()
    bench = Bench(clock=clock)
    gate, started = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @bench.registry.task(timeout=60)
    def slow() -> str:
        loop.call_soon_threadsafe(started.set)
        assert gate.wait(SOON)
        return "too late"

    options = msgspec.structs.replace(QUICK, threads=1)
    async with bench.working(options) as worker:
        first, second = await bench.put_many(slow, [(), ()])
        await soon(started.wait())
        # Beats are confirmed on the same clock: a minute is more than a lease.
        clock._monotonic += 61
        await eventually(lambda: any(run.ending for run in worker._runs.active))
        waiting = await bench.job(second)
        gate.set()
        job = await bench.until(first, Status.SCHEDULED, Status.PROCESSING)

    assert waiting.status is Status.PENDING
    assert job.id == first


async def test_a_line_of_a_thread_that_outlived_its_loop_is_dropped() -> None:
    bench = Bench()
    gate, answer = threading.Event(), threading.Event()
    seen: list[str] = []

    @bench.registry.task
    def late(ctx: SyncContext[Any]) -> None:
        assert gate.wait(SOON)
        try:
            ctx.log("anybody there?")
        except Exception as error:
            seen.append(type(error).__name__)
        answer.set()

    def program() -> None:
        async def main() -> None:
            worker = bench.worker()
            run = asyncio.create_task(worker.run())
            job_id = await bench.put(late)
            await bench.until(job_id, Status.PROCESSING)
            run.cancel()
            await asyncio.wait([run])

        asyncio.run(main())

    await asyncio.to_thread(program)
    gate.set()
    await asyncio.to_thread(answer.wait, SOON)

    assert seen == ["ClaimLost"]


# ---------------------------------------------------------------------- processes


async def run_in_process(task: Any, *args: Any, until: tuple[Status, ...] = ()) -> Job:
    bench = Bench()
    bench.registry.add(task)
    async with bench.working():
        return await bench.until(await bench.put(task, *args), *until)


async def test_a_process_has_the_context_and_is_used_again() -> None:
    bench = Bench()
    bench.registry.add(tasks.add)

    async with bench.working():
        first = await bench.until(await bench.put(tasks.add, 1))
        second = await bench.until(await bench.put(tasks.add, 2, 3))

    assert result_of(first)["sum"] == 2
    assert result_of(second)["sum"] == 5
    assert (first.progress, first.note) == (0.5, "half")
    assert [line.message for line in await bench.store.logs(first.id)] == ["adding"]
    assert result_of(first)["pid"] == result_of(second)["pid"] != os.getpid()
    await gone(result_of(first)["pid"])


async def test_a_child_is_replaced_after_its_share_of_jobs() -> None:
    bench = Bench()
    bench.registry.add(tasks.add)
    worker = bench.worker()
    worker._processes._jobs_per_child = 2

    async with bench.working(worker=worker):
        jobs = [await bench.until(await bench.put(tasks.add, n)) for n in range(4)]

    first, second, third, fourth = (result_of(job)["pid"] for job in jobs)
    assert first == second != third == fourth


async def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    bench = Bench()
    bench.registry.add(tasks.add)
    bench.registry.add(tasks.too_slow)

    async with bench.working():
        # The time-out counts from the start of the child, so have one that is up already.
        await bench.until(await bench.put(tasks.add, 1))
        job = await bench.until(await bench.put(tasks.too_slow, str(pid_file)), Status.SCHEDULED)

    assert (job.failures, job.errors[-1].kind) == (1, "timeout")
    assert not alive(int(pid_file.read_text()))


@pytest.mark.parametrize(
    ("task", "args", "message"),
    [
        (tasks.segfault, (), "The process that ran the job was killed by SIGSEGV."),
        (tasks.leave, (0,), "The process that ran the job ended with exit code 0."),
        (tasks.leave, (7,), "The process that ran the job ended with exit code 7."),
    ],
)
async def test_a_child_that_dies_charges_its_own_job_alone(
    task: Any, args: tuple[int, ...], message: str
) -> None:
    bench = Bench()
    bench.registry.add(task)
    bench.registry.add(tasks.add)

    async with bench.working():
        dead = await bench.until(await bench.put(task, *args), Status.SCHEDULED)
        other = await bench.until(await bench.put(tasks.add, 1))

    assert (dead.crashes, dead.charges, dead.failures) == (1, 1, 0)
    assert (dead.errors[-1].kind, dead.errors[-1].message) == ("crash", message)
    assert other.status is Status.COMPLETED


async def test_a_child_that_dies_is_noticed_whoever_holds_its_socket(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    job = await run_in_process(tasks.leave_a_child_behind, str(pid_file), until=(Status.SCHEDULED,))

    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert job.errors[-1].message.endswith("ended with exit code 9.")


async def test_what_a_process_raises_means_what_it_means_elsewhere() -> None:
    bench = Bench()
    bench.registry.add(tasks.fail)
    async with bench.working():
        hows = ["plain", "mapped", "retry", "throttled", "discard", "snooze", "exit"]
        ids = await bench.put_many(tasks.fail, [[how] for how in hows])
        plain, mapped, retry, throttled, discard, snooze, exited = [
            await bench.until(
                job_id, Status.SCHEDULED, Status.FAILED, when=lambda job: job.fence == 1
            )
            for job_id in ids
        ]

    assert (plain.status, plain.errors[-1].type) == (Status.SCHEDULED, "ValueError")
    assert "raise errors[how]" in (plain.errors[-1].traceback or "")
    assert (mapped.status, mapped.reason) == (Status.FAILED, "not to be retried")
    assert (retry.ready_at - retry.created_at).total_seconds() >= 60
    assert (throttled.ready_at - throttled.created_at).total_seconds() >= 120
    assert (discard.status, discard.reason) == (Status.FAILED, "discarded by the task")
    assert (snooze.status, snooze.failures) == (Status.SCHEDULED, 0)
    assert (exited.status, exited.errors[-1].type) == (Status.SCHEDULED, "SystemExit")


async def test_a_process_result_that_cannot_be_stored_fails_for_good() -> None:
    job = await run_in_process(tasks.unserialisable)

    assert (job.status, job.reason) == (Status.FAILED, "not to be retried")


async def test_resources_do_not_follow_into_a_process() -> None:
    job = await run_in_process(tasks.resources, until=(Status.SCHEDULED,))

    assert "has no ctx.resources" in job.errors[-1].message


async def test_programs_started_by_a_task_are_no_children_of_the_worker() -> None:
    job = await run_in_process(tasks.chatter)

    assert result_of(job) == "[]"


async def test_middleware_around_a_process_sees_its_result_as_json() -> None:
    bench = Bench()
    bench.registry.add(tasks.add)
    seen: list[object] = []

    async def look(ctx: Context[Any], call_next: Any) -> object:
        seen.append(await call_next(ctx))
        return seen[-1]

    async with bench.working(middleware=[look]):
        job = await bench.until(await bench.put(tasks.add, 1))

    assert job.status is Status.COMPLETED
    (raw,) = seen
    assert isinstance(raw, msgspec.Raw)
    assert msgspec.json.decode(raw)["sum"] == 2


async def test_a_child_ends_with_its_parent_even_when_it_is_busy_in_c(tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text(
        textwrap.dedent(
            """
            import os, re
            from windlass.tasks import Registry

            registry = Registry()

            @registry.task(run_in="process")
            def greedy(pid_file: str) -> None:
                with open(pid_file + ".new", "w") as file:
                    file.write(str(os.getpid()))
                os.rename(pid_file + ".new", pid_file)
                re.match("(a+)+$", "a" * 64 + "b")  # never ends, and keeps the GIL
            """
        )
    )
    pid_file = tmp_path / "pid"
    program = textwrap.dedent(
        f"""
        import asyncio, sys
        sys.path.insert(0, {str(tmp_path)!r})
        import greedy
        from windlass.client import new_job_id
        from windlass.events import EventBus
        from windlass.job import JobOptions, NewJob
        from windlass.stores.memory import MemoryStore
        from windlass.worker import Worker

        async def main():
            store = MemoryStore()
            payload = greedy.greedy.signature.encode(({str(pid_file)!r},), {{}})
            await store.insert([NewJob(new_job_id(), "greedy", payload, JobOptions())])
            await Worker(store, greedy.registry, EventBus()).run()

        asyncio.run(main())
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program])
    try:
        await eventually(pid_file.exists)
    finally:
        parent.kill()
        parent.wait()

    before = time.monotonic()
    await gone(int(pid_file.read_text()))
    assert time.monotonic() - before < 1.0


async def test_tasks_of_the_main_module_run_in_a_process_too(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        textwrap.dedent(
            """
            import asyncio
            from windlass.client import new_job_id
            from windlass.events import EventBus
            from windlass.job import JobFilter, JobOptions, NewJob
            from windlass.stores.memory import MemoryStore
            from windlass.tasks import Registry
            from windlass.worker import Worker, WorkerOptions

            registry = Registry()

            @registry.task(run_in="process")
            def square(x: int) -> int:
                return x * x

            async def main():
                store = MemoryStore()
                await store.insert([NewJob(new_job_id(), "square", b'{"x":7}', JobOptions())])
                await Worker(store, registry, EventBus(), WorkerOptions(drain=True)).run()
                (job,) = (await store.find(JobFilter(), 10)).jobs
                print(job.status, bytes(job.result), [e.message for e in job.errors])

            if __name__ == "__main__":
                asyncio.run(main())
            """
        )
    )

    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, str(program)], capture_output=True, text=True, timeout=30
    )

    assert (done.stdout, done.stderr) == ("completed b'49' []\n", "")


async def test_no_child_is_left_when_its_run_is_cancelled_from_outside(tmp_path: Path) -> None:
    from windlass.context import Run

    bench = Bench()
    bench.registry.add(tasks.too_slow)
    job_id: JobId = await bench.put(tasks.too_slow, str(tmp_path / "pid"))
    job = await bench.job(job_id)
    processes = Processes()
    call = asyncio.create_task(processes.call(Run(job, bench.store), tasks.too_slow))
    pid_file = tmp_path / "pid"
    await eventually(lambda: pid_file.exists() and pid_file.read_text() != "")

    call.cancel()
    await asyncio.wait([call])

    assert call.cancelled()
    assert not alive(int((tmp_path / "pid").read_text()))


async def test_ending_a_run_after_its_process_answered_harms_no_other(tmp_path: Path) -> None:
    bench = Bench()
    bench.registry.add(tasks.add)
    returned, gate = asyncio.Event(), asyncio.Event()

    async def linger(ctx: Context[Any], call_next: Any) -> object:
        result = await call_next(ctx)
        if ctx.job.id == first:
            returned.set()
            await gate.wait()
        return result

    async with bench.working(middleware=[linger]):
        first = await bench.put(tasks.add, 1)
        await soon(returned.wait())
        before = await bench.until(await bench.put(tasks.add, 2))
        await bench.store.cancel([first], reason="asked for")
        cancelled = await bench.until(first)
        after = await bench.until(await bench.put(tasks.add, 3))

    assert cancelled.status is Status.CANCELLED
    assert result_of(before)["pid"] == result_of(after)["pid"]

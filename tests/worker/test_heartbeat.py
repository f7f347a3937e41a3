"""A worker keeps its lease while it lives, learns what it has lost, and fences itself."""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from tests.worker.support import QUICK, SOON, Bench, eventually, soon
from windlass.clock import FakeClock
from windlass.context import Context
from windlass.errors import ClaimLost, StoreUnavailable
from windlass.events import AckStale, LoopStalled, WorkerLost, WorkerStarted
from windlass.job import Claim, JobId, Status, Token, WorkerInfo
from windlass.lifecycle import Ack, Change
from windlass.store import Beat, Held
from windlass.worker import heartbeat
from windlass.worker.heartbeat import Findings, compare
from windlass.worker.presence import EXIT_STALLED

A, B, C = (Claim(JobId(name), Token(f"token of {name}")) for name in "abc")


@pytest.mark.parametrize(
    ("answered", "at_send", "now", "outstanding", "expected"),
    [
        ([], [], [], [], Findings([], [], [])),
        ([A, B], [A, B], [A, B], [], Findings([], [], [])),
        # Held when the beat was sent, and the store knows nothing of it: lost.
        ([B], [A, B], [A, B], [], Findings([A], [], [])),
        # It ended meanwhile: nothing to lose.
        ([B], [A, B], [B], [], Findings([], [], [])),
        # Claimed after the beat was sent: the answer cannot know of it yet.
        ([], [], [A], [], Findings([], [], [])),
        # Nobody here runs it, and no claim is out that could have made it: its reply was lost.
        ([A], [], [], [], Findings([], [], [A])),
        # A claim is out that may yet bring it.
        ([A], [], [], [A.token], Findings([], [], [])),
        # The same job under another token is another claim.
        ([Claim(A.id, B.token)], [A], [A], [], Findings([A], [], [Claim(A.id, B.token)])),
    ],
)
def test_what_an_answer_means(
    answered: list[Claim],
    at_send: list[Claim],
    now: list[Claim],
    outstanding: list[Token],
    expected: Findings,
) -> None:
    rows = [Held(claim, False) for claim in answered]

    assert compare(rows, at_send, now, outstanding) == expected


def test_a_cancel_request_concerns_only_what_runs_here() -> None:
    found = compare([Held(A, True), Held(B, True), Held(C, False)], [A, C], [A, C], [B.token])

    assert found == Findings([], [A], [])


async def test_a_worker_registers_before_it_claims_and_beats_with_rising_numbers() -> None:
    bench = Bench()

    @bench.registry.task(aliases=["old"])
    async def work() -> None:
        pass

    async with bench.working() as worker:
        await eventually(lambda: len(bench.store.beats) >= 4)
        (listed,) = await bench.store.workers()
        assert (listed.id, worker.ready) == (worker.id, True)

    assert [info.beat for info in bench.store.beats[:4]] == [0, 1, 2, 3]
    assert listed.types == ("work", "old")
    assert (listed.slots, listed.state) == (QUICK.concurrency, "running")
    assert await bench.store.workers() == []


async def test_a_blocked_loop_does_not_stop_the_beats() -> None:
    bench = Bench()

    @bench.registry.task
    async def block() -> None:
        before = len(bench.store.beats)
        time.sleep(1.5)  # longer than the lease
        assert len(bench.store.beats) >= before + 3

    async with bench.working():
        job = await bench.until(await bench.put(block))

    assert (job.status, job.fence) == (Status.COMPLETED, 1)


async def test_a_run_whose_job_was_taken_away_is_ended_and_its_outcome_dropped() -> None:
    bench = Bench()
    ended = asyncio.Event()

    @bench.registry.task
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with bench.working() as worker:
        job_id = await bench.put(work)
        job = await bench.until(job_id, Status.PROCESSING)
        change = Change(Status.FAILED, reason="taken")
        await bench.store.ack([Ack(job.claim, job.lane, change, change, reclaimed=True)])
        await soon(ended.wait())
        await eventually(lambda: not worker._runs.held)

    assert (await bench.job(job_id)).reason == "taken"
    # Only the Ack of this test was ever sent.
    assert sum(map(len, bench.store.acks)) == 1
    assert bench.of(AckStale) == []


async def test_what_a_run_writes_after_it_lost_its_job_raises() -> None:
    bench = Bench()
    gate = asyncio.Event()
    seen: list[Exception] = []
    options = msgspec.structs.replace(QUICK, lease=timedelta(hours=1), beat=timedelta(minutes=1))

    @bench.registry.task
    async def work(ctx: Context[Any]) -> None:
        await gate.wait()
        for write in (ctx.progress(0.5), ctx.log("still here")):
            try:
                await write
            except ClaimLost as error:
                seen.append(error)

    async with bench.working(options) as worker:
        job_id = await bench.put(work)
        job = await bench.until(job_id, Status.PROCESSING)
        change = Change(Status.PENDING)
        await bench.store.pause("default", True)
        await bench.store.ack([Ack(job.claim, job.lane, change, change, reclaimed=True)])
        gate.set()
        await eventually(lambda: not worker._runs.held)

    assert len(seen) == 2
    assert [event.operation for event in bench.of(AckStale)] == ["progress", "log"]
    assert (await bench.job(job_id)).progress is None


async def test_a_worker_that_was_declared_dead_ends_everything_and_returns_under_a_new_name() -> (
    None
):
    bench = Bench()
    runs: list[int] = []

    @bench.registry.task
    async def work(ctx: Context[Any]) -> None:
        runs.append(ctx.fence)
        if ctx.fence == 1:
            await asyncio.Event().wait()

    async with bench.working() as worker:
        job_id = await bench.put(work)
        await bench.until(job_id, Status.PROCESSING)
        first = worker.id
        await bench.store.leave(first, died=True)
        await bench.event(WorkerLost, lambda event: event.worker == first)
        await bench.event(WorkerStarted, lambda event: event.worker != first)
        job = await bench.until(job_id)
        assert worker.id != first

    assert (job.status, runs, job.crashes) == (Status.COMPLETED, [1, 2], 1)


async def test_a_worker_cut_off_for_a_lease_fences_itself() -> None:
    clock = FakeClock()
    bench = Bench(clock=clock)
    cut_off = False
    ended = asyncio.Event()
    runs = 0

    async def fail(worker: WorkerInfo) -> None:
        if cut_off:
            raise StoreUnavailable("away")

    bench.store.before["heartbeat"] = fail

    @bench.registry.task
    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    async with bench.working() as worker:
        job_id = await bench.put(work)
        await bench.until(job_id, Status.PROCESSING)
        cut_off = True
        # Only the worker's own clock moves on; nobody has declared it dead.
        clock._monotonic += 1.3
        await soon(ended.wait())
        assert not worker.ready
        waiting = await bench.put(work)
        await asyncio.sleep(0.3)
        untouched = await bench.job(waiting)
        still_held = await bench.job(job_id)
        cut_off = False
        first, second = await bench.until(job_id), await bench.until(waiting)

    assert (untouched.status, still_held.status) == (Status.PENDING, Status.PROCESSING)
    # The first run came to nothing, and was handed back when the store could be reached.
    assert (first.status, second.status, runs) == (Status.COMPLETED, Status.COMPLETED, 3)
    assert (first.failures, first.crashes) == (0, 0)


async def test_a_stalled_loop_is_reported_with_its_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "STALLED_AFTER", 0.3)
    bench = Bench()
    states: list[str] = []

    @bench.registry.task
    async def block_the_loop() -> None:
        time.sleep(1.0)

    async with bench.working() as worker:
        bench.events.subscribe(LoopStalled, lambda event: states.append(worker.state))
        job_id = await bench.put(block_the_loop)
        event = await bench.event(LoopStalled)
        await bench.until(job_id)
        await eventually(lambda: worker.state == "running")

    assert event.blocked >= timedelta(seconds=0.3)
    assert "block_the_loop" in event.stacks
    assert states == ["stalled"]
    assert len(bench.of(LoopStalled)) == 1


async def test_a_loop_blocked_beyond_its_time_out_and_grace_ends_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "STALLED_AFTER", 0.2)
    bench = Bench()
    codes: list[int] = []
    exited, other_started = threading.Event(), asyncio.Event()
    acked_before_exit: list[int] = []

    def leave(code: int) -> None:
        acked_before_exit.append(sum(map(len, bench.store.acks)))
        codes.append(code)
        exited.set()

    @bench.registry.task
    async def other() -> None:
        other_started.set()
        await asyncio.Event().wait()

    @bench.registry.task(timeout=0.3)
    async def block() -> None:
        exited.wait(SOON)  # as good as for ever

    options = msgspec.structs.replace(QUICK, grace=timedelta(seconds=0.2))
    async with bench.working(options, embedded=False, exit=leave):
        innocent = await bench.put(other)
        await soon(other_started.wait())
        job_id = await bench.put(block)
        await asyncio.to_thread(exited.wait, SOON)
        # In real life the process is gone by now.
        blocked, interrupted = await bench.job(job_id), await bench.job(innocent)

    assert set(codes) == {EXIT_STALLED}
    assert acked_before_exit[0] == 2
    assert (blocked.status, blocked.errors[-1].kind) == (Status.SCHEDULED, "timeout")
    assert (interrupted.failures, interrupted.crashes) == (0, 0)


async def test_an_embedded_worker_gives_up_its_lease_instead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "STALLED_AFTER", 0.2)
    bench = Bench()
    beats: list[float] = []
    blocked: list[float] = []

    async def note(worker: WorkerInfo) -> None:
        beats.append(time.monotonic())

    bench.store.before["heartbeat"] = note

    @bench.registry.task(timeout=0.2)
    async def block() -> None:
        blocked.append(time.monotonic())
        time.sleep(1.5)
        blocked.append(time.monotonic())

    def leave(code: int) -> None:
        raise AssertionError("not the worker's process")

    options = msgspec.structs.replace(QUICK, grace=timedelta(0), lease=timedelta(seconds=30))
    async with bench.working(options, exit=leave):
        job_id = await bench.put(block)
        await bench.until(job_id, Status.SCHEDULED, Status.COMPLETED)
        turned = len(beats)
        await eventually(lambda: len(beats) >= turned + 2)

    since = blocked[0] + 0.7  # stalled, and one beat that was due by then
    assert [beat for beat in beats if since < beat < blocked[1]] == []


async def test_registration_waits_for_a_store_that_is_away() -> None:
    bench = Bench()
    failures = iter([StoreUnavailable("away")] * 2)

    async def fail(worker: WorkerInfo) -> None:
        for error in failures:
            raise error

    bench.store.before["heartbeat"] = fail

    @bench.registry.task
    async def work() -> None:
        pass

    job_id = await bench.put(work)
    async with bench.working():
        assert (await bench.until(job_id)).status is Status.COMPLETED

    # The first incarnation that the store heard of is the one that worked.
    assert bench.of(WorkerLost) == []


async def test_a_lost_reply_to_a_beat_ends_nothing() -> None:
    bench = Bench()
    gate = asyncio.Event()
    lost = iter([False, True, True])

    async def lose(answer: Beat) -> None:
        if next(lost, False):
            raise StoreUnavailable("the reply was lost")

    bench.store.after["heartbeat"] = lose

    @bench.registry.task
    async def work() -> None:
        await gate.wait()

    async with bench.working():
        job_id = await bench.put(work)
        await bench.until(job_id, Status.PROCESSING)
        await eventually(lambda: len(bench.store.beats) >= 5)
        gate.set()
        job = await bench.until(job_id)

    assert (job.status, job.fence) == (Status.COMPLETED, 1)


async def test_a_worker_that_cannot_beat_ends_and_does_not_live_on_as_a_zombie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench()

    @bench.registry.task
    async def nothing() -> None: ...

    def refuse() -> asyncio.AbstractEventLoop:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio, "new_event_loop", refuse)

    with pytest.raises(OSError, match="Too many open files"):
        async with asyncio.timeout(SOON):
            await bench.worker(embedded=False).run()

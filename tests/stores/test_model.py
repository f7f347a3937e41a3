"""Random programs on a store and on the memory store side by side: they must agree at every step.

The memory store is the oracle: its code says what the port says in words. After each step the answers
and everything that can be seen of both stores are compared, and what must hold of any store is checked.
"""

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec.structs import replace

from tests.stores.support import (
    ALL,
    EVERYTHING,
    KINDS,
    LOST,
    hand_out,
    line,
    new_job,
    raised,
    settled,
    worker_info,
)
from windlass.clock import FakeClock
from windlass.errors import DuplicateJob, IdConflict, QueueFull
from windlass.job import (
    ACTIVE,
    FINAL,
    WAITING,
    Claim,
    Job,
    JobId,
    Lane,
    Limit,
    LogLine,
    NewJob,
    QueueInfo,
    Retention,
    Status,
    Token,
    Unique,
    WorkerId,
    WorkerInfo,
)
from windlass.lifecycle import (
    Cancelled,
    Crashed,
    Expired,
    Interrupted,
    Outcome,
    Returned,
    Snoozed,
)
from windlass.limits import Rate
from windlass.retry import NO_RETRY
from windlass.store import Store
from windlass.stores.memory import MemoryStore

T = TypeVar("T")
CAPACITY = 8
TORTURE = bool(os.environ.get("WINDLASS_TORTURE"))

seconds = st.sampled_from([0, 1, 2, 5, 13, 60, 61, 3600]).map(lambda n: timedelta(seconds=n))
queues = st.sampled_from(["a", "b"])
types = st.sampled_from(["t", "u"])
some_queues = st.none() | st.none() | st.frozensets(queues)
some_types = st.sampled_from(["tu", "tu", "t", "u"]).map(frozenset)
picks = st.integers(0, 9)
uniques = st.builds(
    Unique,
    st.sampled_from(["k", "l"]),
    st.sampled_from([ACTIVE, WAITING, ACTIVE | {Status.COMPLETED}, WAITING | FINAL]),
    st.sampled_from(["return", "replace", "reject"]),
)
bodies = st.fixed_dictionaries(
    {"type": types, "queue": queues},
    optional={
        "priority": st.sampled_from([-1, 1, 2]),
        "delay": seconds,
        "expires": seconds.filter(bool),
        "unique": uniques,
        "max_attempts": st.just(1),
        "on_lost": st.just("fail"),
        "tags": st.just(("x", "y")),
    },
)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.just(Returned(b'{"n": 1}')),
    st.just(raised()),
    st.just(Expired(LOST)),
    st.just(Crashed(LOST)),
    seconds.map(Snoozed),
    st.booleans().map(Interrupted),
    st.just(Cancelled()),
)
few = st.sampled_from([None, None, None, 0, 1, 2, 3])
rates = st.none() | st.none() | st.sampled_from([Rate(1, 5.0), Rate(3, 60.0, 3), Rate(10, 1.0, 2)])
limits = st.builds(
    Limit,
    scope=st.just("queue"),
    name=queues,
    concurrency=few,
    rate=rates,
    capacity=st.sampled_from([None, None, 0, 3, 10]),
    operator=st.booleans(),
) | st.builds(
    Limit,
    scope=st.just("type"),
    name=types,
    concurrency=few,
    rate=rates,
    operator=st.booleans(),
)


@dataclass
class View:
    """All that can be seen of a store, in a form in which two stores can be compared."""

    jobs: list[Job]
    logs: list[list[LogLine]]
    counts: dict[tuple[Lane, Status], int]
    oldest: dict[Lane, datetime]
    queues: list[QueueInfo]
    limits: list[Limit]
    workers: list[WorkerInfo]


async def view(store: Store) -> View:
    jobs = (await store.find(ALL, EVERYTHING, oldest_first=True)).jobs
    stats = await store.stats()
    return View(
        # Numbers of `seq` may have gaps: their order is what counts.
        jobs=[replace(job, seq=index) for index, job in enumerate(jobs)],
        logs=[[replace(each, seq=0) for each in await store.logs(job.id)] for job in jobs[-5:]],
        counts={
            (Lane(lane.queue, lane.type), status): number
            for lane in stats.lanes
            for status, number in lane.counts.items()
            if number
        },
        oldest={
            Lane(lane.queue, lane.type): lane.oldest_ready_at
            for lane in stats.lanes
            if lane.oldest_ready_at is not None
        },
        queues=[
            replace(queue, counts={status: n for status, n in queue.counts.items() if n})
            for queue in await store.queues()
        ],
        limits=sorted(await store.limits(), key=lambda limit: (limit.scope, limit.name)),
        workers=await store.workers(),
    )


class SideBySide(RuleBasedStateMachine):
    """Runs each operation on both stores; ``kind`` is set by the test."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = FakeClock()
        self.folder = Path(tempfile.mkdtemp(prefix="windlass-model-"))
        self.place = KINDS[self.kind](self.folder, self.clock)
        self.oracle: Store = MemoryStore(capacity=CAPACITY, clock=self.clock)
        self.subject = self.place.connect(CAPACITY)
        self.runner.run(self.subject.open())
        self.made: list[NewJob] = []
        self.claimed: list[Job] = []
        self.workers: list[WorkerInfo] = []

    def teardown(self) -> None:
        self.runner.run(self.subject.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    # ------------------------------------------------------------ helpers

    def both(self, operation: Callable[[Store], Awaitable[T]]) -> tuple[T, T]:
        """What the oracle answers, and what the subject does."""

        async def run() -> tuple[T, T]:
            return await operation(self.oracle), await operation(self.subject)

        return self.runner.run(run())

    def same(self, operation: Callable[[Store], Awaitable[T]]) -> T:
        expected, answered = self.both(operation)
        assert answered == expected
        return expected

    def pick_ids(self, numbers: list[int]) -> list[JobId]:
        """Of the latest jobs; sometimes one that does not exist."""
        made = [new.id for new in self.made[-9:]]
        return [made[n] if n < len(made) else JobId(f"{0:036d}") for n in numbers]

    def pick_worker(self, number: int) -> WorkerId:
        """Mostly one that lives; sometimes any."""
        living = self.runner.run(self.oracle.workers())
        if number == 9:
            return self.workers[-1 - len(self.claimed) % len(self.workers)].id
        if not living:
            self.register(quarantine=False)
            return self.workers[-1].id
        return living[-1 - number % len(living)].id

    def pick_claim(self, number: int) -> Job:
        return self.claimed[-1 - number % min(len(self.claimed), 8)]

    # ------------------------------------------------------------ enqueueing and running

    @initialize()
    def start(self) -> None:
        self.register(quarantine=False)

    @rule(batch=st.lists(bodies, min_size=1, max_size=3))
    def insert(self, batch: list[dict[str, Any]]) -> None:
        # Every other id counts as chosen by the caller.
        numbers = range(len(self.made), len(self.made) + len(batch))
        self._insert(
            [
                new_job(**body, id=f"0190aaaa-0000-7000-8000-{number:012d}", keyed=number % 2 == 0)
                for number, body in zip(numbers, batch, strict=True)
            ]
        )

    @precondition(lambda self: self.made)
    @rule(number=picks, other_body=st.booleans())
    def insert_again(self, number: int, other_body: bool) -> None:
        new = self.made[-1 - number % len(self.made)]
        if other_body and new.keyed:
            self._insert([NewJob(new.id, new.type, b'{"other": 1}', new.options, True)])
        else:
            self._insert([new])

    def _insert(self, jobs: list[NewJob]) -> None:
        async def insert(store: Store) -> object:
            try:
                answers = await store.insert(jobs)
            except IdConflict as error:
                return "id", error.existing_id
            except DuplicateJob as error:
                return "key", error.existing.id
            except QueueFull as error:
                return "full", error.queue, error.capacity
            return [(answer.job.id, answer.duplicate) for answer in answers]

        self.same(insert)
        known = {new.id for new in self.made}
        self.made += [new for new in jobs if new.id not in known]

    @rule(
        number=picks, limit=st.sampled_from([0, 1, 2, 6]), queues=some_queues, types=some_types,
        suspects=st.sampled_from([False, False, False, True]),
    )  # fmt: skip
    def claim(
        self,
        number: int,
        limit: int,
        queues: frozenset[str] | None,
        types: frozenset[str],
        suspects: bool,
    ) -> None:
        worker = self.pick_worker(number)
        token = Token(f"{len(self.claimed):032x}-{self.clock.monotonic()}-{number}")
        expected, answered = self.both(
            lambda store: hand_out(
                store, limit, worker=worker, queues=queues, types=types, suspects=suspects,
                token=token,
            )
        )  # fmt: skip
        assert _unnumbered(answered.jobs) == _unnumbered(expected.jobs)
        if len(expected.jobs) < limit:
            _assert_close(answered.opens_in, expected.opens_in)
        self.claimed += expected.jobs

    @rule(suspects=st.booleans())
    def claim_all(self, suspects: bool) -> None:
        self.claim(0, EVERYTHING, None, frozenset("tu"), suspects)

    @rule(batch=st.lists(st.tuples(bodies, outcomes, st.booleans()), min_size=2, max_size=4))
    def run_some(self, batch: list[tuple[dict[str, Any], Outcome, bool]]) -> None:
        """The usual way, so that random programs get far."""
        for body, outcome, last in batch:
            self.insert([body])
            self.promote()
            self.claim(0, 6, None, frozenset("tu"), False)
            if self.claimed:
                self.ack([(0, outcome, last)])

    @rule(batch=st.lists(bodies, min_size=2, max_size=4))
    def start_some(self, batch: list[dict[str, Any]]) -> None:
        self.insert(batch)
        self.claim(0, 6, None, frozenset("tu"), False)

    @precondition(lambda self: self.claimed)
    @rule(chosen=st.lists(st.tuples(picks, outcomes, st.booleans()), min_size=1, max_size=4))
    def ack(self, chosen: list[tuple[int, Outcome, bool]]) -> None:
        acks = []
        for number, outcome, last in chosen:
            job = self.pick_claim(number)
            acks.append(settled(job, outcome, NO_RETRY) if last else settled(job, outcome))
        self.same(lambda store: store.ack(acks))

    @precondition(lambda self: self.claimed)
    @rule(
        number=picks,
        fraction=st.sampled_from([None, 0.0, 0.5]),
        note=st.sampled_from([None, "n"]),
        lines=st.integers(0, 3),
    )
    def progress_and_log(
        self, number: int, fraction: float | None, note: str | None, lines: int
    ) -> None:
        claim = self.pick_claim(number).claim
        self.same(lambda store: store.progress(claim, fraction, note))
        self.same(lambda store: store.log(claim, [line(str(each)) for each in range(lines)]))

    # ------------------------------------------------------------ workers

    def register(self, quarantine: bool) -> None:
        # Registered a moment apart, so that "oldest first" is an order.
        self.clock.advance(timedelta(milliseconds=1))
        info = worker_info(f"w{len(self.workers)}", quarantine=quarantine)
        self.same(lambda store: store.heartbeat(info))
        self.workers.append(info)

    @rule(number=picks, step=st.sampled_from([0, 1, 1, 1]))
    def heartbeat(self, number: int, step: int) -> None:
        index = number % len(self.workers)
        self.workers[index] = info = replace(
            self.workers[index], beat=self.workers[index].beat + step
        )
        expected, answered = self.both(lambda store: store.heartbeat(info))
        assert answered.alive == expected.alive

        def order(held: Any) -> Claim:
            claim: Claim = held.claim
            return claim

        assert sorted(answered.held, key=order) == sorted(expected.held, key=order)

    def promote(self) -> None:
        self.same(lambda store: store.promote(EVERYTHING))

    @rule(numbers=st.lists(picks, max_size=3), by=st.none() | picks, settle=st.booleans())
    def reclaim(self, numbers: list[int], by: int | None, settle: bool) -> None:
        workers = [self.workers[number % len(self.workers)] for number in numbers]
        suspected = [(worker.id, worker.beat) for worker in workers]
        reclaimer = None if by is None else self.workers[by % len(self.workers)].id
        expected, answered = self.both(
            lambda store: store.reclaim(suspected, EVERYTHING, by=reclaimer)
        )
        orphans = sorted(_unnumbered(expected), key=lambda job: job.id)
        assert sorted(_unnumbered(answered), key=lambda job: job.id) == orphans
        if settle:
            acks = [settled(job, Expired(LOST)) for job in orphans]
            self.same(lambda store: store.ack(acks))

    def leave(self, number: int, died: bool) -> None:
        worker = self.pick_worker(number)
        self.same(lambda store: store.leave(worker, died=died))

    # ------------------------------------------------------------ people, and time

    @precondition(lambda self: self.made)
    @rule(numbers=st.lists(picks, min_size=1, max_size=3))
    def cancel(self, numbers: list[int]) -> None:
        ids = self.pick_ids(numbers)
        expected, answered = self.both(lambda store: store.cancel(ids, reason="operator"))
        assert _unnumbered(answered) == _unnumbered(expected)

    @precondition(lambda self: self.made)
    @rule(numbers=st.lists(picks, min_size=1, max_size=3))
    def retry(self, numbers: list[int]) -> None:
        ids = self.pick_ids(numbers)
        expected, answered = self.both(lambda store: store.retry(ids))
        assert [each.skipped for each in answered] == [each.skipped for each in expected]
        assert _unnumbered([each.job for each in answered]) == _unnumbered(
            [each.job for each in expected]
        )

    def prune(self, kept: timedelta) -> None:
        retention = Retention(completed=kept, cancelled=kept, failed=kept)
        self.same(lambda store: store.prune(retention, EVERYTHING))

    def pause(self, queue: str, paused: bool) -> None:
        self.same(lambda store: store.pause(queue, paused, reason="so"))

    def set_limits(self, chosen: list[Limit]) -> None:
        self.same(lambda store: store.set_limits(chosen))

    @rule(by=seconds, promote=st.booleans())
    def advance(self, by: timedelta, promote: bool) -> None:
        self.clock.advance(by)
        if promote:
            self.promote()

    @rule(data=st.data(), what=st.sampled_from(["register", "leave", "prune", "pause", "limits"]))
    def now_and_then(self, data: st.DataObject, what: str) -> None:
        """One rule for what shall happen less often than the rest."""
        match what:
            case "register":
                self.register(quarantine=data.draw(st.booleans()))
            case "leave":
                self.leave(data.draw(picks), died=data.draw(st.booleans()))
            case "prune":
                self.prune(data.draw(st.sampled_from([timedelta(0), timedelta(hours=1)])))
            case "pause":
                self.pause(data.draw(queues), data.draw(st.sampled_from([True, False, False])))
            case _:
                self.set_limits(data.draw(st.lists(limits, min_size=1, max_size=2)))

    @precondition(lambda self: self.place.persistent)
    @rule()
    def reopen(self) -> None:
        self.runner.run(self.subject.close())
        self.subject = self.place.connect(CAPACITY)
        self.runner.run(self.subject.open())

    # ------------------------------------------------------------ at every step

    @invariant()
    def all_that_can_be_seen_is_equal(self) -> None:
        expected, answered = self.both(view)

        assert answered == expected
        _assert_sound(answered)


def _assert_sound(seen: View) -> None:
    """What holds of any store at any time."""
    assert seen.counts == Counter((job.lane, job.status) for job in seen.jobs)
    keys = [job.unique_key for job in seen.jobs if job.unique_key is not None]
    assert len(keys) == len(set(keys))
    for job in seen.jobs:
        assert (job.finished_at is not None) == (job.status in FINAL)
        if job.status is Status.PROCESSING:
            assert job.token
            assert job.worker
            assert job.fence > 0
        if job.fence == 0:
            assert (job.token, job.worker, job.started_at) == (None, None, None)
        assert job.result is None or job.status is Status.COMPLETED


def _unnumbered(jobs: list[Any]) -> list[Any]:
    return [job and replace(job, seq=0) for job in jobs]


def _assert_close(answered: timedelta | None, expected: timedelta | None) -> None:
    """Equal up to the rounding of a rate's stored number."""
    assert (answered is None) == (expected is None)
    if answered is not None and expected is not None:
        assert abs(answered - expected) < timedelta(milliseconds=1)


@pytest.mark.timeout(600 if TORTURE else 120)
@pytest.mark.torture
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_does_whatever_the_memory_store_does(kind: str) -> None:
    machine = type(f"SideBySide_{kind}", (SideBySide,), {"kind": kind})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=200 if TORTURE else 40,
            stateful_step_count=50 if TORTURE else 30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

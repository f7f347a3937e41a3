"""What the conformance tests say things with: kinds of stores, and short ways to make jobs.

A new kind of store joins every test of this folder by one entry in :data:`KINDS`.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from windlass.clock import Clock, FakeClock
from windlass.job import (
    Failure,
    Job,
    JobFilter,
    JobId,
    JobOptions,
    Limit,
    LogLine,
    NewJob,
    Status,
    Token,
    WorkerId,
    WorkerInfo,
)
from windlass.lifecycle import Ack, Cancelled, Change, Outcome, Raised, Returned, settle
from windlass.retry import NO_RETRY, RetryPolicy
from windlass.store import DEFAULT_CAPACITY, AckAnswer, Beat, HandOut, Store, Want
from windlass.stores.memory import MemoryStore
from windlass.stores.sqlite import SQLiteStore

T = TypeVar("T")

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ALL = JobFilter()
EVERYTHING = 10_000
STEADY = RetryPolicy(jitter=0)

# ---------------------------------------------------------------- kinds of stores


class Place:
    """Where the stores of one kind live for the length of one test."""

    persistent = True
    """Jobs outlive the store object that accepted them."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock

    def connect(self, capacity: int = DEFAULT_CAPACITY) -> Store:
        """A store on this place, not yet opened: each call is as good as another process's."""
        raise NotImplementedError


class MemoryPlace(Place):
    persistent = False
    _store: MemoryStore | None = None

    def connect(self, capacity: int = DEFAULT_CAPACITY) -> Store:
        if self._store is None:
            self._store = MemoryStore(capacity=capacity, clock=self.clock)
        return self._store


class SQLitePlace(Place):
    def connect(self, capacity: int = DEFAULT_CAPACITY) -> Store:
        path = self.folder / "jobs.db"
        return SQLiteStore(path, capacity=capacity, clock=self.clock, durability="normal")


KINDS: dict[str, type[Place]] = {"memory": MemoryPlace, "sqlite": SQLitePlace}


# ---------------------------------------------------------------- jobs

_numbers = count(1)


def new_id() -> JobId:
    return JobId(str(uuid.uuid4()))


def new_token() -> Token:
    return Token(uuid.uuid4().hex)


def new_job(
    type: str = "t",
    *,
    id: str | None = None,
    payload: bytes = b"{}",
    keyed: bool = False,
    **options: Any,
) -> NewJob:
    """A job of type ``t`` in queue ``default``; *options* are those of ``JobOptions``."""
    return NewJob(JobId(id) if id else new_id(), type, payload, JobOptions(**options), keyed)


async def insert_one(store: Store, type: str = "t", **options: Any) -> Job:
    """A new job, accepted."""
    [inserted] = await store.insert([new_job(type, **options)])
    assert not inserted.duplicate
    return inserted.job


async def get_one(store: Store, id: JobId) -> Job:
    [job] = await store.get([id])
    assert job is not None
    return job


async def all_jobs(store: Store) -> list[Job]:
    """Every job of the store, oldest first."""
    return (await store.find(ALL, EVERYTHING, oldest_first=True)).jobs


# ---------------------------------------------------------------- workers and claims


def worker_info(worker: str = "w1", beat: int = 0, **fields: Any) -> WorkerInfo:
    stated: dict[str, Any] = {
        "host": "host", "pid": 1, "version": "1", "queues": None, "types": ("t",), "slots": 10,
    }  # fmt: skip
    return WorkerInfo(id=WorkerId(worker), beat=beat, **(stated | fields))


async def register(store: Store, worker: str = "w1", **fields: Any) -> WorkerId:
    beat = await store.heartbeat(worker_info(worker, **fields))
    assert beat.alive
    return WorkerId(worker)


async def beat(store: Store, worker: str = "w1", number: int = 1, **fields: Any) -> Beat:
    return await store.heartbeat(worker_info(worker, number, **fields))


async def hand_out(
    store: Store,
    limit: int = 1,
    *,
    worker: str = "w1",
    types: Iterable[str] = ("t",),
    queues: Iterable[str] | None = None,
    suspects: bool = False,
    token: Token | None = None,
) -> HandOut:
    """What a claim by a worker that exists answers."""
    want = Want(None if queues is None else frozenset(queues), frozenset(types), suspects)
    return await store.claim(want, limit, WorkerId(worker), token or new_token())


async def claim(store: Store, limit: int = 1, *, worker: str = "w1", **want: Any) -> list[Job]:
    """Register *worker* (harmless when it is) and claim."""
    await register(store, worker)
    return (await hand_out(store, limit, worker=worker, **want)).jobs


async def claim_one(store: Store, **want: Any) -> Job:
    [job] = await claim(store, **want)
    return job


async def start_one(store: Store, type: str = "t", *, worker: str = "w1", **options: Any) -> Job:
    """A new job, claimed by *worker*; nothing else may be claimable."""
    inserted = await insert_one(store, type, **options)
    job = await claim_one(store, worker=worker, types=(type,))
    assert job.id == inserted.id
    return job


# ---------------------------------------------------------------- Acks

FAILURE = Failure(attempt=1, kind="error", type="ValueError", message="no")
LOST = Failure(attempt=1, kind="lost", type="WorkerLost", message="its worker died")


def raised(message: str = "no") -> Raised:
    return Raised(replace(FAILURE, message=message), ValueError(message))


def settled(job: Job, outcome: Outcome, policy: RetryPolicy = STEADY) -> Ack:
    return settle(job, outcome, policy, 0.0)


def ack_with(job: Job, then: Change, if_cancel_requested: Change | None = None) -> Ack:
    """An Ack that says exactly *then*."""
    otherwise = if_cancel_requested or Change(Status.CANCELLED, reason="cancelled on request")
    return Ack(job.claim, job.lane, then, otherwise)


async def ack(store: Store, *acks: Ack) -> list[AckAnswer]:
    return await store.ack(acks)


async def end(store: Store, job: Job, outcome: Outcome, policy: RetryPolicy = STEADY) -> Job:
    """Ack a claimed job and answer it as it then is."""
    assert await ack(store, settled(job, outcome, policy)) == ["applied"]
    return await get_one(store, job.id)


async def job_in(store: Store, status: Status, *, worker: str = "w1", **options: Any) -> Job:
    """A job in *status*, got there by the usual way; nothing else may be claimable."""
    match status:
        case Status.SCHEDULED:
            return await insert_one(store, **(options | {"delay": HOUR}))
        case Status.PENDING:
            return await insert_one(store, **options)
        case Status.PROCESSING:
            job = await start_one(store, worker=worker, **options)
            return await get_one(store, job.id)
        case Status.COMPLETED:
            job = await start_one(store, worker=worker, **options)
            return await end(store, job, Returned(b'"done"'))
        case Status.FAILED:
            job = await start_one(store, worker=worker, **options)
            return await end(store, job, raised(), NO_RETRY)
        case Status.CANCELLED:
            job = await start_one(store, worker=worker, **options)
            return await end(store, job, Cancelled())


async def suspect(store: Store, clock: FakeClock, **options: Any) -> Job:
    """A pending job that two workers died with."""
    job = await insert_one(store, **options)
    for _ in range(2):
        held = await claim_one(store)
        assert held.id == job.id
        await ack(store, ack_with(held, Change(Status.SCHEDULED, failure=LOST, crashed=True)))
        await store.promote(EVERYTHING)
    return await get_one(store, job.id)


def line(message: str, level: Any = "info") -> LogLine:
    return LogLine(level=level, message=message, attempt=1)


def queue_limit(name: str = "default", **fields: Any) -> Limit:
    return Limit(scope="queue", name=name, **fields)


def type_limit(name: str = "t", **fields: Any) -> Limit:
    return Limit(scope="type", name=name, **fields)


# ---------------------------------------------------------------- several callers


def in_threads(number: int, work: Callable[[int], Awaitable[T]]) -> list[T]:
    """Run *work* in so many threads, each with an event loop of its own, started together."""
    together = threading.Barrier(number)
    answers: dict[int, T] = {}
    errors: list[BaseException] = []

    def run(index: int) -> None:
        async def body() -> T:
            together.wait(timeout=30)
            return await work(index)

        try:
            answers[index] = asyncio.run(body())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [answers[index] for index in range(number)]

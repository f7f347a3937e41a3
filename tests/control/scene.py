"""A memory store with a clock that stands still, and the few verbs that the control tests speak in."""

from __future__ import annotations

import itertools
from datetime import timedelta

import msgspec

from windlass.clock import FakeClock
from windlass.control import Control
from windlass.errors import Discard
from windlass.job import Failure, Job, JobId, JobOptions, NewJob, Token, WorkerId, WorkerInfo
from windlass.lifecycle import Outcome, Raised, Returned, Snoozed, settle
from windlass.retry import RetryPolicy
from windlass.store import Want
from windlass.stores.memory import MemoryStore

__all__ = ["Registry", "Returned", "Scene", "Snoozed"]

_numbers = itertools.count(1)


class Registry:
    """Knows one near name, as a registry of tasks would."""

    def near(self, type: str) -> tuple[str, ...]:
        return ("email",) if type == "emial" else ()


class Scene:
    """One store under one clock, and its control."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(clock=self.clock)
        self.control = Control(self.store, Registry())

    async def job(self, type: str = "email", payload: bytes = b"{}", **options: object) -> Job:
        new = JobId(f"00000000-0000-7000-8000-{next(_numbers):012d}")
        chosen = msgspec.structs.replace(JobOptions(), **options)
        (inserted,) = await self.store.insert([NewJob(new, type, payload, chosen)])
        return inserted.job

    async def worker(
        self,
        name: str = "w1",
        *,
        types: tuple[str, ...] = ("email",),
        queues: tuple[str, ...] | None = None,
        slots: int = 10,
        **more: object,
    ) -> WorkerInfo:
        info = WorkerInfo(
            id=WorkerId(name),
            host="box",
            pid=7,
            version="0",
            queues=queues,
            types=types,
            slots=slots,
        )
        info = msgspec.structs.replace(info, **more)
        await self.store.heartbeat(msgspec.structs.replace(info, beat=0))
        return info

    async def claim(self, name: str = "w1", limit: int = 1, *types: str) -> list[Job]:
        want = Want(queues=None, types=frozenset(types or ("email",)))
        token = Token(f"token-{next(_numbers)}")
        return (await self.store.claim(want, limit, WorkerId(name), token)).jobs

    async def end(self, job: Job, outcome: Outcome, policy: RetryPolicy | None = None) -> Job:
        await self.store.ack([settle(job, outcome, policy or RetryPolicy(jitter=0), 0.0)])
        (now,) = await self.store.get([job.id])
        assert now is not None
        return now

    async def fail(
        self, job: Job, message: str = "boom", *, traceback: str | None = None, retry: bool = False
    ) -> Job:
        failure = Failure(job.attempt, "error", "ValueError", message, traceback)
        cause = ValueError() if retry else Discard()
        return await self.end(job, Raised(failure, cause))

    async def failed(self, message: str = "boom", *, traceback: str | None = None) -> Job:
        job = await self.job()
        (claimed,) = await self.claim()
        assert claimed.id == job.id
        return await self.fail(claimed, message, traceback=traceback)

    async def why(self, job: Job) -> str:
        return (await self.control.why(job.id)).sentence

    def later(self, seconds: float) -> None:
        self.clock.advance(timedelta(seconds=seconds))

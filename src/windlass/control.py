"""What people and their tools do with jobs that exist: look, explain, cancel, retry, pause, prune.

:class:`Control` mirrors the store's control operations in the words of people: ids by their last
characters, whole sets by filter with a dry run first, failures in groups. The HTTP API and the
command line are thin layers over it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from windlass.errors import ConfigError, JobNotFound
from windlass.job import (
    ACTIVE,
    FINAL,
    Job,
    JobFilter,
    JobId,
    Limit,
    LogLine,
    Page,
    QueueInfo,
    Retention,
    Stats,
    Status,
    WorkerInfo,
)
from windlass.options import check_name
from windlass.store import ControlStore
from windlass.why import Ahead, Situation, Why, explain

__all__ = ["BulkAnswer", "Control", "FailureGroup", "Why"]

_BATCH = 500
"""Jobs read and changed in one step of a bulk action: a step holds up nobody for long."""
_SAMPLE = 1_000
"""Ids that a bulk answer names; its counts are of all."""
_FEW = 5
_MOST_COUNTED = 5_000
"""Pending jobs looked at to find a place in line; beyond that, "at least" is said."""
_ID = re.compile(r"[0-9a-f-]{6,36}")
_FRAME = re.compile(
    r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<name>.+)$', re.MULTILINE
)


class BulkAnswer(msgspec.Struct, frozen=True):
    """What a bulk action did, or with a dry run: would do.

    ``skipped`` counts by reason. ``ids`` are the jobs changed (at most the first 1,000).
    """

    matched: int
    changed: int
    skipped: dict[str, int]
    ids: list[JobId]
    dry_run: bool = False


class FailureGroup(msgspec.Struct, frozen=True):
    """Failed jobs that look alike: same task type, same exception, raised at the same place."""

    type: str
    error: str
    """The exception's class, or what happened, as in :class:`~windlass.job.Failure`."""
    where: str
    """``file:line in function`` where it was raised; the message when no traceback was kept."""
    message: str
    """Of the newest."""
    count: int
    first: datetime | None
    last: datetime | None
    ids: list[JobId]
    """The newest, at most 5."""


class KnownTypes(Protocol):
    """The part of a task registry that explanations use."""

    def near(self, type: str) -> tuple[str, ...]: ...


class Control:
    """Looks at jobs and intervenes. Safe to share; holds no state of its own."""

    def __init__(self, store: ControlStore, registry: KnownTypes | None = None) -> None:
        self._store = store
        self._registry = registry

    # -------------------------------------------------------------- looking

    async def get(self, id_or_suffix: str) -> Job:
        """The job of this id, or the only one whose id ends so (at least 6 characters).

        Raises :class:`~windlass.errors.JobNotFound`, or :class:`~windlass.errors.ConfigError` when
        more than one job fits.
        """
        text = id_or_suffix.strip().lower()
        if len(text) < 6:
            raise ConfigError(
                f"{id_or_suffix!r} is too short for a job: give at least the last 6 characters."
            )
        if len(text) == 36:
            found = [job for job in await self._store.get([JobId(text)]) if job is not None]
        elif _ID.fullmatch(text):
            found = (await self._store.find(JobFilter(id_suffix=text), 6)).jobs
        else:
            found = []
        if not found:
            raise JobNotFound(
                f"There is no job {id_or_suffix!r}: it never was, or it was pruned.", id_or_suffix
            )
        if len(found) > 1:
            names = ", ".join(job.id for job in found[:5]) + (" and more" if len(found) > 5 else "")
            raise ConfigError(f"{id_or_suffix!r} fits several jobs: {names}. Give more characters.")
        return found[0]

    async def get_many(self, ids: Sequence[JobId]) -> list[Job | None]:
        """The jobs of these ids, in order; None where there is none."""
        return await self._store.get(ids)

    async def find(
        self,
        where: JobFilter,
        limit: int = 50,
        *,
        after: int | None = None,
        oldest_first: bool = False,
    ) -> Page:
        """A page of matching jobs, newest first; ``after`` is the ``next`` of the page before."""
        return await self._store.find(where, limit, after=after, oldest_first=oldest_first)

    async def logs(self, id: JobId, *, after: int = 0, limit: int = 1000) -> list[LogLine]:
        """What a job's runs wrote with ``ctx.log``, in order."""
        return await self._store.logs(id, after=after, limit=limit)

    async def stats(self) -> Stats:
        """The counts per queue and type."""
        return await self._store.stats()

    async def queues(self) -> list[QueueInfo]:
        """Every queue, by name."""
        return await self._store.queues()

    async def limits(self) -> list[Limit]:
        """All limits, declared and operator's."""
        return await self._store.limits()

    async def workers(self) -> list[WorkerInfo]:
        """Workers that are not known to be dead, oldest first."""
        return await self._store.workers()

    async def why(self, id_or_suffix: str) -> Why:
        """Why a job is not running, or how it ended, in plain words."""
        job = await self.get(id_or_suffix)
        queues, limits = await self._store.queues(), await self._store.limits()
        workers, stats = await self._store.workers(), await self._store.stats()
        known = {name for worker in workers for name in worker.types}
        near = self._registry.near(job.type) if self._registry and job.type not in known else ()
        return explain(
            Situation(
                job=job,
                queues=queues,
                limits=limits,
                workers=workers,
                stats=stats,
                ahead=await self._ahead(job),
                near=near,
            )
        )

    async def failures(
        self, where: JobFilter | None = None, *, limit: int = 10_000
    ) -> list[FailureGroup]:
        """Failed jobs in groups, largest first; the newest *limit* of them are looked at."""
        chosen = msgspec.structs.replace(where or JobFilter(), status=frozenset({Status.FAILED}))
        groups: dict[tuple[str, str, str], FailureGroup] = {}
        async for page in self._pages(chosen, limit):
            for job in page:
                signature = _signature(job)
                groups[signature] = _joined(groups.get(signature), job, signature)
        return sorted(groups.values(), key=lambda group: (-group.count, group.type, group.error))

    # -------------------------------------------------------------- intervening

    async def cancel(
        self,
        which: Sequence[JobId] | JobFilter,
        *,
        reason: str = "cancelled by an operator",
        dry_run: bool = False,
        limit: int | None = None,
    ) -> BulkAnswer:
        """Cancel waiting jobs, and ask running ones to end.

        A filter without a status means all that have not ended. At most *limit* jobs are matched.
        """
        if isinstance(which, JobFilter) and not which.status:
            which = msgspec.structs.replace(which, status=ACTIVE)

        async def change(ids: Sequence[JobId]) -> list[str | None]:
            jobs = await self._store.cancel(ids, reason=reason)
            return ["not found" if job is None else _not_cancelled(job) for job in jobs]

        return await self._bulk(which, _cannot_cancel, change, dry_run=dry_run, limit=limit)

    async def retry(
        self,
        which: Sequence[JobId] | JobFilter,
        *,
        dry_run: bool = False,
        limit: int | None = None,
    ) -> BulkAnswer:
        """Run ended jobs again, and scheduled ones now.

        A filter without a status means the failed ones: that is how a dead letter is redriven.
        """
        if isinstance(which, JobFilter) and not which.status:
            which = msgspec.structs.replace(which, status=frozenset({Status.FAILED}))

        async def change(ids: Sequence[JobId]) -> list[str | None]:
            return [answer.skipped for answer in await self._store.retry(ids)]

        return await self._bulk(which, _cannot_retry, change, dry_run=dry_run, limit=limit)

    async def pause(self, queue: str, *, reason: str | None = None) -> None:
        """Stop claiming from *queue*, on all workers and across restarts; what runs goes on."""
        await self._store.pause(check_name(queue, "A queue's name"), True, reason=reason)

    async def resume(self, queue: str) -> None:
        """Go on claiming from *queue*."""
        await self._store.pause(check_name(queue, "A queue's name"), False)

    async def set_limit(self, limit: Limit) -> None:
        """Set a queue's or type's limit as an operator: what code declares no longer counts."""
        await self._store.set_limits([msgspec.structs.replace(limit, operator=True)])

    async def prune(self, retention: Retention, *, limit: int | None = None) -> int:
        """Delete ended jobs that were kept long enough; how many."""
        deleted = 0
        while limit is None or deleted < limit:
            step = _BATCH if limit is None else min(_BATCH, limit - deleted)
            done = await self._store.prune(retention, step)
            deleted += done
            if done < step:
                break
        return deleted

    # -------------------------------------------------------------- steps

    async def _bulk(
        self,
        which: Sequence[JobId] | JobFilter,
        cannot: Callable[[Job], str | None],
        change: Callable[[Sequence[JobId]], Awaitable[list[str | None]]],
        *,
        dry_run: bool,
        limit: int | None,
    ) -> BulkAnswer:
        matched, changed, skipped = 0, 0, Counter[str]()
        ids: list[JobId] = []
        async for batch in self._batches(which, limit):
            matched += len(batch)
            able = list[JobId]()
            for job in batch:
                why_not = "not found" if job is None else cannot(job)
                if job is not None and why_not is None:
                    able.append(job.id)
                else:
                    skipped[why_not or "not found"] += 1
            # Between looking and changing a job may have moved: the store's answer counts.
            answers = [None] * len(able) if dry_run or not able else await change(able)
            for job_id, why_not in zip(able, answers, strict=True):
                if why_not is not None:
                    skipped[why_not] += 1
                    continue
                changed += 1
                if len(ids) < _SAMPLE:
                    ids.append(job_id)
        return BulkAnswer(matched, changed, dict(skipped), ids, dry_run)

    async def _batches(
        self, which: Sequence[JobId] | JobFilter, limit: int | None
    ) -> AsyncIterator[Sequence[Job | None]]:
        if isinstance(which, JobFilter):
            async for page in self._pages(which, limit):
                yield page
            return
        wanted = list(dict.fromkeys(which))[:limit]
        for start in range(0, len(wanted), _BATCH):
            yield await self._store.get(wanted[start : start + _BATCH])

    async def _pages(self, where: JobFilter, limit: int | None) -> AsyncIterator[list[Job]]:
        after, left = None, limit
        while left is None or left > 0:
            page = await self._store.find(
                where, _BATCH if left is None else min(_BATCH, left), after=after
            )
            if page.jobs:
                yield page.jobs
            if page.next is None:
                return
            after = page.next
            left = None if left is None else left - len(page.jobs)

    async def _ahead(self, job: Job) -> Ahead | None:
        """How many pending jobs of its queue come before *job*; None when it is not in line."""
        if job.status is not Status.PENDING:
            return None
        line = JobFilter(status=frozenset({Status.PENDING}), queue=frozenset({job.queue}))
        place, seen, first = _place(job), 0, 0
        async for page in self._pages(line, _MOST_COUNTED):
            seen += len(page)
            first += sum(_place(other) < place for other in page)
        return Ahead(first, exact=seen < _MOST_COUNTED)


def _place(job: Job) -> tuple[float, int]:
    """The order of claims: rank, then arrival."""
    return job.ready_at.timestamp() - 60 * job.priority, job.seq


def _cannot_cancel(job: Job) -> str | None:
    if job.status in FINAL:
        return f"already {job.status}"
    return "cancellation already requested" if job.cancel_requested else None


def _not_cancelled(job: Job) -> str | None:
    """Why *job*, as it is after the request, was not touched by it; None when it was."""
    if job.status is Status.CANCELLED or job.cancel_requested:
        return None
    return f"already {job.status}"


def _cannot_retry(job: Job) -> str | None:
    return str(job.status) if job.status in {Status.PENDING, Status.PROCESSING} else None


def _signature(job: Job) -> tuple[str, str, str]:
    last = job.errors[-1] if job.errors else None
    if last is None:
        return job.type, "", job.reason or ""
    frames = list(_FRAME.finditer(last.traceback or ""))
    if frames:
        top: Mapping[str, str] = frames[-1].groupdict()
        return job.type, last.type, f"{top['file']}:{top['line']} in {top['name']}"
    return job.type, last.type, last.message.strip().partition("\n")[0][:200]


def _joined(group: FailureGroup | None, job: Job, signature: tuple[str, str, str]) -> FailureGroup:
    """*group* with *job*, which is older than those in it."""
    ended = job.finished_at
    if group is None:
        message = job.errors[-1].message if job.errors else job.reason or ""
        return FailureGroup(*signature, message, 1, ended, ended, [job.id])
    times = [at for at in (group.first, group.last, ended) if at is not None]
    return msgspec.structs.replace(
        group,
        count=group.count + 1,
        first=min(times, default=None),
        last=max(times, default=None),
        ids=group.ids if len(group.ids) == _FEW else [*group.ids, job.id],
    )

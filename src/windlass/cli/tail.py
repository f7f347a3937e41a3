"""``windlass tail``: what becomes of jobs, live.

The store's hints tell which jobs changed; a slow look at the newest ones beside it finds what a hint
did not tell of, since hints may be lost.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.exits import WAITED
from windlass.cli.output import COLORS, emit, json_option, say
from windlass.cli.session import Place, opened, place_options, run

if TYPE_CHECKING:
    from windlass.control import Control
    from windlass.job import Job, JobId
    from windlass.store import Notice

__all__ = ["tail"]

_PACE = 0.1
_LOOK = 2.0
_NEWEST = 200
_REMEMBERED = 20_000


@click.command
@click.option("--type", "-t", "types", multiple=True, help="Only of this task type.")
@click.option("--queue", "-q", "queues", multiple=True, help="Only of this queue.")
@click.option("--id", "ids", multiple=True, help="Only this job; ends when all of them have ended.")
@click.option("--limit", "-n", type=click.IntRange(1), help="End after so many lines.")
@click.option("--for", "seconds", metavar="SPAN", help="End after this long: 30s, 5m.")
@place_options
@json_option
def tail(
    url: str | None,
    app: str | None,
    types: tuple[str, ...],
    queues: tuple[str, ...],
    ids: tuple[str, ...],
    limit: int | None,
    seconds: str | None,
    as_json: bool,
) -> None:
    """Follow what becomes of jobs, live.

    Ends with Ctrl-C, or when the jobs named by --id have ended.

    \b
    windlass tail
    windlass tail --type email --json
    windlass tail --id 5d1e0b2f --for 1m
    """
    try:
        run(_tail(Place(url, app), types, queues, ids, limit, seconds, as_json))
    except KeyboardInterrupt:
        # The usual way to end it, and no failure.
        raise click.exceptions.Exit(0) from None


async def _tail(
    place: Place,
    types: tuple[str, ...],
    queues: tuple[str, ...],
    ids: tuple[str, ...],
    limit: int | None,
    seconds: str | None,
    as_json: bool,
) -> None:
    from windlass.cli.exits import as_usage
    from windlass.durations import parse_duration
    from windlass.errors import ConfigError

    try:
        span = None if seconds is None else parse_duration(seconds, what="--for").total_seconds()
    except ConfigError as error:
        raise as_usage(error) from None
    async with opened(place) as app:
        wanted = {(await app.control.get(name)).id for name in ids}
        follower = _Follower(app.control, types, queues, wanted, limit, as_json)
        end = app.store.listen(frozenset({"changed", "ready"}), follower.noticed)
        try:
            if not as_json:
                say("Following. Ctrl-C ends it.")
            async with asyncio.timeout(span):
                await follower.follow()
        except TimeoutError:
            if wanted:
                raise click.exceptions.Exit(WAITED) from None
        finally:
            end()


class _Follower:
    """Prints each job's steps once."""

    def __init__(
        self,
        control: Control,
        types: tuple[str, ...],
        queues: tuple[str, ...],
        ids: set[JobId],
        limit: int | None,
        as_json: bool,
    ) -> None:
        self.control = control
        self.types, self.queues, self.ids = types, queues, ids
        self.left = limit
        self.as_json = as_json
        self.changed: dict[JobId, None] = {}
        self.wake = asyncio.Event()
        self.seen: dict[JobId, tuple[object, ...]] = {}
        self.open = set(ids)

    def noticed(self, notice: Notice) -> None:
        self.changed.update(dict.fromkeys(notice.ids))
        self.wake.set()

    async def follow(self) -> None:
        await self._look(quietly=not self.ids)
        while self.left != 0 and (self.open or not self.ids):
            try:
                async with asyncio.timeout(_LOOK):
                    await self.wake.wait()
            except TimeoutError:
                pass
            self.wake.clear()
            await self._look()
            await asyncio.sleep(_PACE)

    async def _look(self, *, quietly: bool = False) -> None:
        from windlass.job import JobFilter

        where = JobFilter(type=frozenset(self.types), queue=frozenset(self.queues))
        changed = list(self.changed)
        self.changed.clear()
        jobs = [job for job in await self.control.get_many([*changed, *self.ids]) if job]
        if not self.ids:
            jobs += (await self.control.find(where, _NEWEST)).jobs
        for job in sorted({job.id: job for job in jobs}.values(), key=_moment):
            self._take(job, quietly)

    def _take(self, job: Job, quietly: bool) -> None:
        if (
            (self.ids and job.id not in self.ids)
            or (self.types and job.type not in self.types)
            or (self.queues and job.queue not in self.queues)
        ):
            return
        mark = (job.status, job.fence, job.generation, job.progress, job.note)
        if self.seen.get(job.id) == mark or self.left == 0:
            return
        while len(self.seen) >= _REMEMBERED:
            del self.seen[next(iter(self.seen))]
        self.seen[job.id] = mark
        if job.finished_at is not None:
            self.open.discard(job.id)
        if quietly:
            return
        if self.left is not None:
            self.left -= 1
        self._print(job)

    def _print(self, job: Job) -> None:
        if self.as_json:
            from windlass.server.views import JobEvent

            emit(JobEvent.of(job))
            return
        from windlass.logs import escaped

        status = click.style(f"{job.status.value:<10}", fg=COLORS[job.status.value])
        at = f"{_moment(job).astimezone():%H:%M:%S}"
        what = escaped(f"{job.type} · {job.queue}")
        click.echo(f"{at} {status} {what}  {job.id}  {_more(job)}".rstrip())


def _moment(job: Job) -> datetime:
    return job.finished_at or job.started_at or job.created_at


def _more(job: Job) -> str:
    from windlass.logs import escaped
    from windlass.why import span

    parts: list[Any] = []
    if job.status.value in ("completed", "failed") and job.started_at and job.finished_at:
        parts.append(f"in {span(job.finished_at - job.started_at)}")
    if job.failures:
        parts.append(f"attempt {min(job.attempt, job.max_attempts)}")
    if job.status.value == "processing" and (job.progress is not None or job.note):
        parts.append(f"{job.progress or 0:.0%} {job.note or ''}".strip())
    if job.reason:
        parts.append(job.reason)
    elif job.errors and job.status.value in ("scheduled", "failed"):
        parts.append(f"{job.errors[-1].type}: {job.errors[-1].message}".partition("\n")[0][:100])
    return escaped(" · ".join(parts))

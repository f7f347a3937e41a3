"""``windlass jobs``, ``show`` and ``why``: looking at jobs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from windlass.cli.filters import filter_of, filter_options
from windlass.cli.output import (
    ago,
    attempt_of,
    clock,
    emit,
    fields,
    json_option,
    say,
    short,
    state,
    table,
)
from windlass.cli.session import Place, opened, place_options, run

if TYPE_CHECKING:
    from datetime import datetime

    from windlass.job import Job, JobFilter, LogLine

__all__ = ["jobs", "show", "why"]

_PAGE = 500


@click.command
@filter_options
@click.option(
    "--limit", "-n", type=click.IntRange(1), default=30, show_default=True, help="At most so many."
)
@click.option("--all", "everything", is_flag=True, help="All that match, however many.")
@click.option("--oldest-first", is_flag=True, help="The oldest first.")
@place_options
@json_option
def jobs(
    url: str | None,
    app: str | None,
    limit: int,
    everything: bool,
    oldest_first: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """List jobs.

    \b
    windlass jobs                          the newest
    windlass jobs -s failed -t email       the failed e-mails
    windlass jobs --since 1h --json        of the last hour, for machines
    """
    where = filter_of(given)
    run(_list(Place(url, app), where, None if everything else limit, oldest_first, as_json))


async def _list(
    place: Place, where: JobFilter, limit: int | None, oldest_first: bool, as_json: bool
) -> None:
    from windlass.server.views import JobView

    found: list[Job] = []
    async with opened(place) as app:
        after, left = None, limit
        while left is None or left > 0:
            page = await app.control.find(
                where,
                _PAGE if left is None else min(_PAGE, left),
                after=after,
                oldest_first=oldest_first,
            )
            if as_json:
                for job in page.jobs:
                    emit(JobView.of(job))
            else:
                found += page.jobs
            left = None if left is None else left - len(page.jobs)
            after = page.next
            if after is None:
                break
        now = (await app.control.stats()).at
    if as_json:
        return
    if not found:
        say("No job matches.")
        return
    table(
        ["id", "type", "queue", "status", ">attempt", "made", "~what"],
        [
            [
                short(job.id), job.type, job.queue, state(job), attempt_of(job),
                ago(job.created_at, now), _what(job, now),
            ]
            for job in found
        ],
    )  # fmt: skip
    if after is not None:
        say(f"There are more than these {len(found)}: --limit shows more, --all everything.")


def _what(job: Job, now: datetime) -> str:
    """The one thing that matters about a job in its status."""
    last = job.errors[-1] if job.errors else None
    match job.status.value:
        case "scheduled":
            cause = f" after {last.type}" if last and job.failures else ""
            return f"runs {ago(job.ready_at, now)}{cause}"
        case "processing":
            share = f"{job.progress:.0%} " if job.progress is not None else ""
            asked = "cancellation requested, " if job.cancel_requested else ""
            return f"{asked}{share}{job.note or ''}".strip() or f"since {ago(job.started_at, now)}"
        case "failed":
            error = f"{last.type}: {last.message}".partition("\n")[0] if last else job.reason or ""
            return error[:120]
        case "cancelled":
            return job.reason or ""
        case _:
            return job.note or ""


@click.command
@click.argument("id")
@place_options
@json_option
def show(url: str | None, app: str | None, id: str, as_json: bool) -> None:
    """Show one job, whole.

    ID may be the end of the job's id, at least 6 characters.

    \b
    windlass show 5d1e0b2f
    windlass show 5d1e0b2f --json | jq .result
    """
    run(_show(Place(url, app), id, as_json))


async def _show(place: Place, id: str, as_json: bool) -> None:
    from windlass.server.views import JobView, LogLineView

    async with opened(place) as app:
        job = await app.control.get(id)
        lines = await app.control.logs(job.id)
    if as_json:
        document = json.loads(_encoded(JobView.of(job)))
        document["log"] = json.loads(_encoded([LogLineView.of(line) for line in lines]))
        emit(document)
        return
    _print_job(job, lines)


def _encoded(value: object) -> bytes:
    import msgspec

    return msgspec.json.encode(value)


def _print_job(job: Job, lines: list[LogLine]) -> None:
    fields(
        {
            "id": job.id,
            "type": job.type,
            "queue": job.queue,
            "status": state(job),
            "reason": job.reason,
            "attempt": f"{attempt_of(job)} of {job.max_attempts}",
            "priority": job.priority or None,
            "made": clock(job.created_at),
            "ready": clock(job.ready_at),
            "started": clock(job.started_at),
            "ended": clock(job.finished_at),
            "expires": clock(job.expires_at),
            "worker": job.worker,
            "progress": f"{job.progress:.0%} {job.note or ''}"
            if job.progress is not None
            else job.note,
            "unique key": job.unique_key,
            "tags": ", ".join(job.tags) or None,
            "meta": ", ".join(f"{key}={value}" for key, value in job.meta.items()) or None,
            "cancellation": "requested" if job.cancel_requested else None,
            "crashes": job.crashes or None,
            "hand-outs": job.fence,
            "operator's retries": job.generation or None,
        }
    )
    say_data("payload", _pretty(bytes(job.payload)))
    if job.result is not None:
        say_data("result", _pretty(bytes(job.result)))
    for failure in job.errors:
        title = f"error of attempt {failure.attempt}, {clock(failure.at) or ''}"
        text = f"{failure.type}: {failure.message}"
        say_data(title, failure.traceback.rstrip() if failure.traceback else text)
    if lines:
        said = [f"{clock(line.at) or ''} {line.level:<7} {line.message}" for line in lines]
        say_data("log", "\n".join(said))


def say_data(title: str, text: str) -> None:
    """A titled block on stdout."""
    from windlass.logs import escaped

    body = "\n".join("  " + escaped(line) for line in text.split("\n"))
    click.echo(f"\n{click.style(title, bold=True)}\n{body}")


def _pretty(data: bytes) -> str:
    import msgspec

    return msgspec.json.format(data, indent=2).decode("utf-8", "replace")


@click.command
@click.argument("id")
@place_options
@json_option
def why(url: str | None, app: str | None, id: str, as_json: bool) -> None:
    """Say in plain words why a job is not running.

    ID may be the end of the job's id, at least 6 characters.

    \b
    windlass why 5d1e0b2f
    """
    run(_why(Place(url, app), id, as_json))


async def _why(place: Place, id: str, as_json: bool) -> None:
    async with opened(place) as app:
        answer = await app.control.why(id)
    job = answer.job
    if as_json:
        emit(
            {
                "id": job.id,
                "status": job.status,
                "sentence": answer.sentence,
                "details": answer.details,
                "next_step": answer.next_step,
            }
        )
        return
    from windlass.logs import escaped

    click.echo(f"Job {job.id} ({job.type}, queue {job.queue}) is {job.status}.")
    click.echo(click.style(escaped(answer.sentence), bold=True))
    for detail in answer.details:
        click.echo(f"  · {escaped(detail)}")
    if answer.next_step:
        click.echo(f"→ {escaped(answer.next_step)}")

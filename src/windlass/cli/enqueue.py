"""``windlass enqueue``: one job from arguments, or many from lines of JSON."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import islice
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import click

from windlass.cli.exits import CONFLICT, FAILED, USAGE, Told, as_usage
from windlass.cli.filters import moment
from windlass.cli.output import emit, json_option, progress, say
from windlass.cli.session import Place, opened, place_options, run

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.job import Job, NewJob

__all__ = ["enqueue"]

_BATCH = 1_000
_PATIENCE = timedelta(seconds=60)
"""How long a bulk waits for room in a queue before it gives up."""
_PLACES = {"type", "payload", "id", "key", "options"}
"""What a line without a TYPE may say beside the options' names."""


@click.command
@click.argument("type", required=False)
@click.argument("arguments", nargs=-1, metavar="[NAME=VALUE]...")
@click.option("--file", "lines", type=click.File("rb"), metavar="FILE",
              help="Many jobs: lines of JSON from FILE, or - for stdin.")  # fmt: skip
@click.option("--queue", "-q", help="In this queue.")
@click.option("--priority", "-p", type=int, help="-100…100, higher first.")
@click.option("--delay", metavar="SPAN", help="Not before this long: 30s, 5m, 1h30m.")
@click.option("--at", metavar="TIME", help="Not before this time: 2026-01-31T12:00.")
@click.option("--unique", metavar="KEY", help="At most one active job with this key.")
@click.option("--max-attempts", type=int, help="Give up after so many.")
@click.option("--timeout", metavar="SPAN", help="A run may take so long.")
@click.option("--expires", metavar="SPAN", help="Cancel it unless it starts within this.")
@click.option("--tag", multiple=True, help="To find it by; may be repeated.")
@click.option("--meta", multiple=True, metavar="NAME=VALUE", help="Kept with the job.")
@click.option("--key", help="Idempotency key: the same key is the same job.")
@click.option("--id", "job_id", help="A UUID of your own making.")
@click.option("--wait", is_flag=True, help="Wait for the end; the exit code tells how it ended.")
@click.option("--wait-timeout", metavar="SPAN", help="Wait at most so long (exit code 7).")
@place_options
@json_option
def enqueue(
    type: str | None,
    arguments: tuple[str, ...],
    lines: IO[bytes] | None,
    url: str | None,
    app: str | None,
    as_json: bool,
    wait: bool,
    wait_timeout: str | None,
    **given: Any,
) -> None:
    """Have a job done, or many from lines of JSON.

    The arguments of TYPE are checked against the task's signature. A VALUE is taken as JSON where
    it is JSON, and as text otherwise. The id of the job goes to stdout.
    With --file each line is the arguments of one job of TYPE, as a JSON object; or, without TYPE, an
    object with "type", "payload" and options.

    \b
    windlass enqueue email to=a@b.c subject="Hello there"
    windlass enqueue report rows=1000 --wait
    windlass enqueue email --queue mail --file addresses.ndjson
    """
    place = Place(url, app)
    options, key, job_id = _options(given)
    if lines is not None:
        if arguments or wait or key or job_id:
            raise click.UsageError("--file takes its arguments, ids and keys from its lines.")
        run(_bulk(place, type, lines, options, as_json))
        return
    if type is None:
        raise click.UsageError("Say what to do: windlass enqueue TYPE NAME=VALUE …, or --file.")
    call = _Call(type, _payload(arguments), options, key, job_id)
    run(_one(place, call, as_json, wait or wait_timeout is not None, wait_timeout))


# ------------------------------------------------------------------ one


class _Call(NamedTuple):
    type: str
    payload: dict[str, tuple[str, Any]]
    """Name → the value as it was typed, and as JSON if it is."""
    options: dict[str, object]
    key: str | None
    id: str | None


def _payload(arguments: Sequence[str]) -> dict[str, tuple[str, Any]]:
    payload: dict[str, tuple[str, Any]] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{argument!r} is no argument: write it as NAME=VALUE.")
        if name in payload:
            raise click.UsageError(f"{name!r} is given twice: leave one of them out.")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        payload[name] = text, value
    return payload


def _options(given: dict[str, Any]) -> tuple[dict[str, object], str | None, str | None]:
    key, job_id = given.pop("key"), given.pop("job_id")
    at, tags, meta = given.pop("at"), given.pop("tag"), given.pop("meta")
    options = {name: value for name, value in given.items() if value is not None}
    if at is not None:
        options["run_at"] = moment(at, "--at", ahead=True)
    if tags:
        options["tags"] = list(tags)
    if meta:
        pairs = [pair.partition("=") for pair in meta]
        if not all(equals for _, equals, _ in pairs):
            raise click.UsageError("--meta takes NAME=VALUE.")
        options["meta"] = {name: value for name, _, value in pairs}
    return options, key, job_id


async def _one(
    place: Place, call: _Call, as_json: bool, wait: bool, wait_timeout: str | None
) -> None:
    from windlass.server.views import JobView

    async with opened(place, needs_tasks=True, create=True) as app:
        inserted = (await app.client.insert([_new(app, call)]))[0]
        job = inserted.job
        if wait:
            if not as_json:
                say(f"Waiting for job {job.id}.")
            job = await app.client.wait(job.id, wait_timeout)
    if as_json:
        emit(JobView.of(job, duplicate=inserted.duplicate))
    elif not wait:
        click.echo(job.id)
        if inserted.duplicate:
            say("It stood already.")
    else:
        _tell_end(job)
    if wait and job.status.value != "completed":
        raise click.exceptions.Exit(FAILED)


def _new(app: Windlass[Any], call: _Call) -> NewJob:
    """The job of *call*. A value that is JSON but does not fit is tried as the text that was typed."""
    from windlass.errors import ConfigError, PayloadError

    values = {name: value for name, (_, value) in call.payload.items()}
    try:
        try:
            return _checked(app, call, values)
        except PayloadError as error:
            wrong = {each.pointer.split("/")[1] for each in error.errors if "/" in each.pointer}
            texts = {name: text for name, (text, _) in call.payload.items() if name in wrong}
            if all(isinstance(values[name], str) for name in texts):
                raise
            return _checked(app, call, values | texts)
    except ConfigError as error:
        raise as_usage(error) from None


def _checked(app: Windlass[Any], call: _Call, values: dict[str, Any]) -> NewJob:
    raw = json.dumps(values).encode()
    return app.client.new_job(call.type, raw, call.options, id=call.id, key=call.key)


def _tell_end(job: Job) -> None:
    from windlass.logs import escaped

    if job.status.value == "completed":
        if job.result is not None:
            click.echo(bytes(job.result))
        say(f"Job {job.id} completed.")
        return
    last = job.errors[-1] if job.errors else None
    cause = f": {last.type}: {last.message}" if last else f": {job.reason}" if job.reason else ""
    say(f"Job {job.id} is {job.status}{escaped(cause)}")


# ------------------------------------------------------------------ many


async def _bulk(
    place: Place, type: str | None, lines: IO[bytes], options: dict[str, object], as_json: bool
) -> None:
    accepted = 0
    async with opened(place, needs_tasks=True, create=True) as app:
        with progress("Enqueueing") as bar:
            numbered = ((n, line) for n, line in enumerate(lines, 1) if line.strip())
            for batch in _batches(numbered):
                try:
                    jobs = [_from_line(app, n, line, type, options) for n, line in batch]
                except Told as error:
                    raise Told(f"{error} {_so_far(accepted)}", error.exit_code) from None
                for inserted in await _when_room(app, jobs, accepted, bar):
                    if as_json:
                        emit({"id": inserted.job.id, "duplicate": inserted.duplicate})
                    else:
                        click.echo(inserted.job.id)
                accepted += len(jobs)
                bar.update(accepted)
    say(f"{accepted:,} jobs accepted.")


def _batches(numbered: Iterator[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    while batch := list(islice(numbered, _BATCH)):
        yield batch


def _from_line(
    app: Windlass[Any], number: int, line: bytes, type: str | None, options: dict[str, object]
) -> NewJob:
    from windlass.errors import ConfigError, PayloadError, UnknownTask

    try:
        if type is not None:
            return app.client.new_job(type, line.strip(), options)
        said = json.loads(line)
        if not isinstance(said, dict) or not isinstance(said.get("type"), str):
            raise Told(f'Line {number} is no object with a "type".', USAGE)
        own = {name: value for name, value in said.items() if name not in _PLACES}
        own |= said.get("options") or {}
        return app.client.new_job(
            said["type"],
            json.dumps(said.get("payload", {})).encode(),
            options | own,
            id=said.get("id"),
            key=said.get("key"),
        )
    except ValueError as error:
        if isinstance(error, PayloadError | ConfigError):
            raise Told(f"Line {number}: {error}", USAGE) from None
        raise Told(f"Line {number} is no JSON: {error}.", USAGE) from None
    except UnknownTask as error:
        raise Told(f"Line {number}: {error}", 5) from None


async def _when_room(app: Windlass[Any], jobs: list[NewJob], accepted: int, bar: Any) -> Any:
    """Insert *jobs*, waiting for workers to make room where a queue is full."""
    from windlass.errors import QueueFull

    loop = asyncio.get_running_loop()
    give_up = loop.time() + _PATIENCE.total_seconds()
    step = len(jobs)
    done: list[Any] = []
    while len(done) < len(jobs):
        try:
            done += await app.client.insert(jobs[len(done) : len(done) + step])
        except QueueFull as full:
            if step > 1:
                step = max(1, step // 4)
                continue
            if loop.time() > give_up:
                raise Told(f"{full} {_so_far(accepted + len(done))}", CONFLICT) from None
            bar.update(accepted + len(done), f"queue {full.queue!r} is full, waiting")
            await asyncio.sleep(min(full.retry_after.total_seconds(), 0.2))
    return done


def _so_far(accepted: int) -> str:
    return f"({accepted:,} jobs of the lines before were accepted.)"

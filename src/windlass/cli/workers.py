"""``windlass workers`` and ``failures``: who works, and what went wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from windlass.cli.filters import filter_of, filter_options
from windlass.cli.output import ago, emit, json_option, say, short, table
from windlass.cli.session import Place, opened, place_options, run

if TYPE_CHECKING:
    from windlass.control import FailureGroup

__all__ = ["failures", "workers"]


@click.command
@place_options
@json_option
def workers(url: str | None, app: str | None, as_json: bool) -> None:
    """List the workers that live.

    \b
    windlass workers
    windlass workers --json | jq .types
    """
    run(_workers(Place(url, app), as_json))


async def _workers(place: Place, as_json: bool) -> None:
    from windlass.server.views import WorkerView

    async with opened(place) as app:
        found = await app.control.workers()
        now = (await app.control.stats()).at
    if as_json:
        for worker in found:
            emit(WorkerView.of(worker))
        return
    if not found:
        say("No worker is running. Start one: windlass worker")
        return
    table(
        ["worker", "host", ">process", "state", ">busy", ">slots", "~queues", ">types", "started", "seen"],
        [
            [
                worker.id, worker.host, worker.pid,
                "quarantine" if worker.quarantine else worker.state, worker.busy, worker.slots,
                "all" if worker.queues is None else ", ".join(worker.queues), len(worker.types),
                ago(worker.started_at, now), ago(worker.seen_at, now),
            ]
            for worker in found
        ],
    )  # fmt: skip


@click.command
@filter_options
@place_options
@json_option
def failures(url: str | None, app: str | None, as_json: bool, **given: Any) -> None:
    """Show failed jobs in groups that look alike.

    \b
    windlass failures
    windlass failures --since 1d --type email
    """
    where = msgspec.structs.replace(filter_of(given), status=frozenset())
    run(_failures(Place(url, app), where, as_json))


async def _failures(place: Place, where: Any, as_json: bool) -> None:
    async with opened(place) as app:
        groups = await app.control.failures(where)
        now = (await app.control.stats()).at
    if as_json:
        for group in groups:
            emit(group)
        return
    if not groups:
        say("No job has failed.")
        return
    table(
        [">jobs", "type", "~what went wrong", "last", "e.g."],
        [
            [
                f"{group.count:,}",
                group.type,
                _what(group),
                ago(group.last, now),
                short(group.ids[0]),
            ]
            for group in groups
        ],
    )
    say("To look into one: windlass show ID. To run a group again: windlass retry --type TYPE")


def _what(group: FailureGroup) -> str:
    message = group.message.partition("\n")[0][:120]
    text = f"{group.error}: {message}" if group.error else message
    return f"{text}\n{group.where}" if group.where != message else text

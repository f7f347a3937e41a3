"""``windlass queues``: list, pause, resume, limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from windlass.cli.output import ago, emit, json_option, say, table
from windlass.cli.session import Place, opened, pass_place, place_options, run

if TYPE_CHECKING:
    from windlass.job import QueueInfo

__all__ = ["queues"]

_SHOWN = ("scheduled", "pending", "processing", "failed")


@click.group(invoke_without_command=True)
@place_options
@json_option
@click.pass_context
def queues(ctx: click.Context, url: str | None, app: str | None, as_json: bool) -> None:
    """List, pause, resume and limit queues.

    \b
    windlass queues
    windlass queues pause mail --reason "provider down"
    windlass queues resume mail
    windlass queues limit mail --rate 10/s --concurrency 4
    """
    ctx.obj = Place(url, app)
    if ctx.invoked_subcommand is None:
        run(_list(ctx.obj, as_json))


async def _list(place: Place, as_json: bool) -> None:
    from windlass.server.views import QueueView

    async with opened(place) as app:
        found = await app.control.queues()
        now = (await app.control.stats()).at
    if as_json:
        for queue in found:
            emit(QueueView.of(queue))
        return
    if not found:
        say("There are no queues yet: they appear with their first job.")
        return
    table(
        ["queue", *(f">{name}" for name in _SHOWN), "oldest", "~rules"],
        [
            [
                queue.name, *(queue.counts.get(_status(name), 0) or "·" for name in _SHOWN),
                ago(queue.oldest_ready_at, now), _rules(queue),
            ]
            for queue in found
        ],
    )  # fmt: skip


def _rules(queue: QueueInfo) -> str:
    """What keeps work back: the pause first, because it is what a person did."""
    rules = []
    if queue.paused:
        rules.append(f"paused{': ' + queue.reason if queue.reason else ''}")
    if queue.limit is not None and queue.limit.concurrency:
        rules.append(f"{queue.limit.concurrency} at once")
    if queue.limit is not None and queue.limit.rate:
        rules.append(str(queue.limit.rate))
    rules.append(f"{queue.capacity:,} may wait")
    return ", ".join(rules)


def _status(name: str) -> Any:
    from windlass.job import Status

    return Status(name)


@queues.command
@click.argument("queue")
@click.option("--reason", help="Is shown to whoever wonders.")
@pass_place
def pause(place: Place, queue: str, reason: str | None) -> None:
    """Stop claiming from QUEUE, on all workers and across restarts. What runs goes on."""

    async def act() -> None:
        async with opened(place) as app:
            await app.control.pause(queue, reason=reason)

    run(act())
    say(f"Queue {queue!r} is paused. To let it go on: windlass queues resume {queue}")


@queues.command
@click.argument("queue")
@pass_place
def resume(place: Place, queue: str) -> None:
    """Go on claiming from QUEUE."""

    async def act() -> None:
        async with opened(place) as app:
            await app.control.resume(queue)

    run(act())
    say(f"Queue {queue!r} goes on.")


@queues.command
@click.argument("name")
@click.option("--type", "of_type", is_flag=True, help="NAME is a task type, not a queue.")
@click.option("--concurrency", type=click.IntRange(0), help="So many at once; 0: no limit.")
@click.option("--rate", help="So many per time: 10/s, 100/minute; none: no limit.")
@click.option(
    "--capacity", type=click.IntRange(0), help="So many may wait; 0: the store's default."
)
@pass_place
def limit(
    place: Place,
    name: str,
    of_type: bool,
    concurrency: int | None,
    rate: str | None,
    capacity: int | None,
) -> None:
    """Set what all workers together may do with a queue or a task type.

    What is not mentioned stays. Limits set here are not overwritten by what code declares.
    """
    if concurrency is None and rate is None and capacity is None:
        raise click.UsageError("Say what to limit: --concurrency, --rate or --capacity.")
    if of_type and capacity is not None:
        raise click.UsageError("A task type has no capacity: queues have.")
    run(_limit(place, name, "type" if of_type else "queue", concurrency, rate, capacity))


async def _limit(
    place: Place,
    name: str,
    scope: Any,
    concurrency: int | None,
    rate: str | None,
    capacity: int | None,
) -> None:
    import msgspec

    from windlass.cli.exits import as_usage
    from windlass.errors import ConfigError
    from windlass.job import Limit
    from windlass.limits import parse_rate
    from windlass.options import check_name

    changes: dict[str, object] = {}
    try:
        check_name(name, "A name")
        if concurrency is not None:
            changes["concurrency"] = concurrency or None
        if capacity is not None:
            changes["capacity"] = capacity or None
        if rate is not None:
            changes["rate"] = None if rate == "none" else parse_rate(rate)
    except ConfigError as error:
        raise as_usage(error) from None
    async with opened(place) as app:
        known = {(each.scope, each.name): each for each in await app.control.limits()}
        before = known.get((scope, name), Limit(scope=scope, name=name))
        now = msgspec.structs.replace(before, **changes)
        await app.control.set_limit(now)
    shown = [f"{now.concurrency} at once"] if now.concurrency else []
    shown += [f"{now.rate}"] if now.rate else []
    shown += [f"{now.capacity:,} may wait"] if now.capacity else []
    say(f"{scope.capitalize()} {name!r}: {', '.join(shown) or 'no limits'}.")

"""``windlass retry`` and ``cancel``: by id, or all that match a filter, after a look at how many."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from windlass.cli.exits import CONFLICT, NOT_FOUND, Told
from windlass.cli.filters import filter_of, filter_options
from windlass.cli.output import emit, json_option, say
from windlass.cli.session import Place, opened, place_options, run

if TYPE_CHECKING:
    from windlass.control import BulkAnswer, Control
    from windlass.job import JobFilter, JobId

__all__ = ["cancel", "retry"]

F = TypeVar("F", bound=Callable[..., Any])
Verb = Literal["cancel", "retry"]


def _bulk_options(command: F) -> F:
    options: tuple[Callable[[Any], Any], ...] = (
        json_option,
        place_options,
        click.option("--limit", type=click.IntRange(1), help="At most so many jobs."),
        click.option("--dry-run", is_flag=True, help="Say what would happen, and do nothing."),
        click.option("--yes", "-y", is_flag=True, help="Do not ask."),
        filter_options,
        click.argument("ids", nargs=-1, metavar="[ID]..."),
    )
    for option in options:
        command = option(command)
    return command


@click.command
@_bulk_options
def retry(ids: tuple[str, ...], **given: Any) -> None:
    """Run ended jobs again, and scheduled ones now.

    Name jobs by (the end of) their ids, or choose them by options; without --status those are the
    failed ones.

    \b
    windlass retry 5d1e0b2f
    windlass retry --type email --since 2h --dry-run
    windlass retry --type email --since 2h --yes
    """
    _change("retry", ids, given)


@click.command
@click.option("--reason", default="cancelled by an operator", help="Is kept with the jobs.")
@_bulk_options
def cancel(ids: tuple[str, ...], reason: str, **given: Any) -> None:
    """Cancel waiting jobs, and ask running ones to end.

    Name jobs by (the end of) their ids, or choose them by options.

    \b
    windlass cancel 5d1e0b2f
    windlass cancel --queue mail --yes --reason "wrong list"
    """
    _change("cancel", ids, given, reason=reason)


def _change(verb: Verb, ids: tuple[str, ...], given: dict[str, Any], **more: str) -> None:
    as_json, yes = given.pop("as_json"), given.pop("yes")
    dry_run, limit = given.pop("dry_run"), given.pop("limit")
    place = Place(given.pop("url"), given.pop("app"))
    where = filter_of(given)
    chosen = where != type(where)()
    if ids and chosen:
        raise click.UsageError("Name jobs by id or choose them by options, not both.")
    if not ids and not chosen:
        raise click.UsageError(
            f"Say which jobs: windlass {verb} ID, or options like --type or --status."
        )
    answer = run(_ask_and_do(verb, place, ids, where, dry_run, limit, yes or as_json, more))
    if as_json:
        emit(answer)
    else:
        _tell(verb, answer)
    if ids and not answer.changed:
        missing = set(answer.skipped) == {"not found"}
        raise click.exceptions.Exit(NOT_FOUND if missing else CONFLICT)


async def _ask_and_do(
    verb: Verb,
    place: Place,
    ids: tuple[str, ...],
    where: JobFilter,
    dry_run: bool,
    limit: int | None,
    sure: bool,
    more: dict[str, str],
) -> BulkAnswer:
    async with opened(place) as app:
        control = app.control
        which: list[JobId] | JobFilter = where
        if ids:
            which = [(await control.get(name)).id for name in ids]
        elif not dry_run and not sure:
            _confirm(verb, await _act(verb, control, where, limit, {}, dry_run=True))
        return await _act(verb, control, which, limit, more, dry_run=dry_run)


async def _act(
    verb: Verb,
    control: Control,
    which: list[JobId] | JobFilter,
    limit: int | None,
    more: dict[str, str],
    *,
    dry_run: bool,
) -> BulkAnswer:
    if verb == "retry":
        return await control.retry(which, limit=limit, dry_run=dry_run)
    return await control.cancel(which, limit=limit, dry_run=dry_run, **more)


def _confirm(verb: Verb, would: BulkAnswer) -> None:
    if not sys.stdin.isatty():
        raise Told(
            f"{would.changed:,} jobs match: add --yes to {verb} them, or --dry-run to see more.", 2
        )
    if would.changed:
        click.confirm(f"{verb.capitalize()} {would.changed:,} jobs?", abort=True, err=True)


def _tell(verb: Verb, answer: BulkAnswer) -> None:
    done = {"retry": "run again", "cancel": "cancelled"}[verb]
    would = "would be " if answer.dry_run else ""
    click.echo(f"{answer.changed:,} of {answer.matched:,} {would}{done}")
    for reason, count in sorted(answer.skipped.items()):
        say(f"  {count:,} skipped: {reason}")

"""Options that say which jobs are meant, shared by every command that takes a set of jobs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from windlass.job import JobFilter

__all__ = ["FILTERS", "filter_of", "filter_options", "moment"]

F = TypeVar("F", bound=Callable[..., Any])

STATUSES = ("scheduled", "pending", "processing", "completed", "failed", "cancelled")

_OPTIONS = (
    click.option(
        "--status", "-s", multiple=True, type=click.Choice(STATUSES, case_sensitive=False),
        help="In this status (several: in any of them).",
    ),
    click.option("--type", "-t", "type", multiple=True, help="Of this task type."),
    click.option("--queue", "-q", multiple=True, help="In this queue."),
    click.option("--tag", multiple=True, help="With this tag."),
    click.option("--worker", multiple=True, help="Last run by this worker."),
    click.option("--since", metavar="TIME", help="Made at or after: 2026-01-31T12:00, or 2h (ago)."),
    click.option("--until", metavar="TIME", help="Made before."),
    click.option("--text", help="With this text in its payload."),
    click.option("--unique", metavar="KEY", help="With this unique key."),
)  # fmt: skip
FILTERS = ("status", "type", "queue", "tag", "worker", "since", "until", "text", "unique")


def filter_options(command: F) -> F:
    """All filters, as options of *command*."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def filter_of(given: dict[str, Any]) -> JobFilter:
    """The filter that the options in *given* say; takes them out of it."""
    from windlass.job import JobFilter, Status

    values = {name: given.pop(name) for name in FILTERS}
    return JobFilter(
        status=frozenset(Status(status) for status in values["status"]),
        type=frozenset(values["type"]),
        queue=frozenset(values["queue"]),
        tag=frozenset(values["tag"]),
        worker=frozenset(values["worker"]),
        created_from=moment(values["since"], "--since"),
        created_to=moment(values["until"], "--until"),
        text=values["text"],
        unique_key=values["unique"],
    )


def moment(text: str | None, option: str, *, ahead: bool = False) -> datetime | None:
    """An ISO time (local unless it says otherwise), or a duration before now (*ahead*: after)."""
    from windlass.durations import parse_duration
    from windlass.errors import ConfigError

    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        pass
    else:
        return at.astimezone(UTC)
    try:
        span: timedelta = parse_duration(text)
    except ConfigError:
        raise click.UsageError(
            f"{option} takes a time like 2026-01-31T12:00 or a span like 2h, not {text!r}."
        ) from None
    now = datetime.now(UTC)
    return now + span if ahead else now - span

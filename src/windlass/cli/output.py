"""What commands print: tables for people, one JSON document per line for machines.

Text that came from jobs is escaped before a terminal sees it. ``rich`` is imported when a table or a
progress bar is drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec

if TYPE_CHECKING:
    from rich.table import Table

    from windlass.job import Job

__all__ = [
    "COLORS", "Bar", "ago", "attempt_of", "clock", "emit", "fields", "json_option", "progress", "say",
    "short", "state", "table",
]  # fmt: skip

COLORS = {
    "scheduled": "blue", "pending": "yellow", "processing": "cyan", "completed": "green",
    "failed": "red", "cancelled": "magenta",
}  # fmt: skip
_PIPE_WIDTH = 250
"""Characters of a table row where no terminal says how many it has."""

_LEAST_TEXT = 16
"""Characters that remain of a column that may be wrapped."""

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON, one document per line."
)


def emit(document: object) -> None:
    """A JSON document on a line of its own, on stdout."""
    click.echo(msgspec.json.encode(document))


def say(text: str) -> None:
    """Something for the person, on stderr. Nobody may be there to read it: the terminal was closed."""
    with suppress(OSError):
        click.echo(text, err=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print *rows* under *columns*.

    A column named with a leading ``>`` is aligned to the right, one with ``~`` may be wrapped when
    the terminal is narrow."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    drawn = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in columns:
        drawn.add_column(
            name.lstrip(">~"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=not name.startswith("~"),
            overflow="fold" if name.startswith("~") else "ellipsis",
            min_width=_LEAST_TEXT if name.startswith("~") else None,
        )
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    _draw(drawn)


def fields(pairs: Mapping[str, object]) -> None:
    """Print names and values in two columns; what is None is left out."""
    from rich.table import Table

    drawn = Table(box=None, show_header=False, pad_edge=False)
    drawn.add_column(style="dim")
    drawn.add_column(overflow="fold")
    for name, value in pairs.items():
        if value is not None:
            drawn.add_row(name, _cell(value))
    _draw(drawn)


def _draw(drawn: Table) -> None:
    """Print as wide as the terminal; wide, and without blanks at the ends, where there is none."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(drawn)
        return
    plain = Console(width=_PIPE_WIDTH, highlight=False)
    with plain.capture() as text:
        plain.print(drawn)
    lines = [line.rstrip() for line in text.get().splitlines()]
    click.echo("\n".join(line for line in lines if line))


class Bar(Protocol):
    """Something that shows how far a long piece of work is."""

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        """*done* so far, of *total* if that is known only now."""

    def say(self, text: str) -> None:
        """A line for the person, above the bar."""


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Bar]:
    """A bar on stderr; where that is no terminal, a plain line every few seconds."""
    if not sys.stderr.isatty():
        plain = _PlainBar(title, total)
        yield plain
        plain.end()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=20),
        MofNCompleteColumn(table_column=Column(no_wrap=True, min_width=9)),
        TextColumn("{task.fields[rate]}"), TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=total, rate="", note="")

        class RichBar:
            def update(self, done: int, note: str = "", total: int | None = None) -> None:
                seconds = shown.tasks[0].elapsed or 0.0
                rate = f"{done / seconds:,.0f}/s" if seconds > 0.5 else ""
                known = shown.tasks[0].total if total is None else total
                shown.update(task, total=known, completed=done, rate=rate, note=note)

            def say(self, text: str) -> None:
                shown.console.print(text, highlight=False, markup=False)

        yield RichBar()


class _PlainBar:
    def __init__(self, title: str, total: int | None) -> None:
        import time

        self._title, self._total, self._now = title, total, time.monotonic
        self._next = self._now() + 2.0
        self._last = ""

    def update(self, done: int, note: str = "", total: int | None = None) -> None:
        self._total = self._total if total is None else total
        of = f" of {self._total:,}" if self._total is not None else ""
        self._last = f"{self._title}: {done:,}{of}{' · ' + note if note else ''}"
        if self._now() >= self._next:
            self._next = self._now() + 2.0
            self._print()

    def say(self, text: str) -> None:
        say(text)

    def end(self) -> None:
        if self._last:
            self._print()

    def _print(self) -> None:
        say(self._last)
        self._last = ""


def short(id: str) -> str:
    """The end of an id, enough to name the job with."""
    return id[-8:]


def state(job: Job) -> Any:
    """A job's status, in its colour."""
    from rich.text import Text

    return Text(job.status.value, style=COLORS[job.status.value])


def attempt_of(job: Job) -> int:
    """Number of the attempt that matters: of a failed job the last one, else the present or next."""
    return job.failures if job.status.value == "failed" and job.failures else job.attempt


def ago(moment: datetime | None, now: datetime) -> str:
    """How far off a moment is."""
    from windlass.why import span

    if moment is None:
        return ""
    off = moment - now
    return f"in {span(off)}" if off > timedelta(0) else f"{span(off)} ago"


def clock(moment: datetime | None) -> str | None:
    """A moment to the millisecond, in UTC."""
    return (
        None if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    )


def _cell(value: object) -> Any:
    from rich.text import Text

    from windlass.logs import escaped

    if isinstance(value, Text):
        return value
    lines = str("" if value is None else value).split("\n")
    return Text("\n".join(escaped(line) for line in lines))

"""The parts of the reference that are made from the code, between marks in the hand-written pages.

A page holds ``<!-- made: NAME -->`` and ``<!-- end -->``; what stands between them is made by the
function NAME here. ``python -m tests.docs.tables`` writes all pages anew, and a test holds that doing
so changes nothing: so the reference cannot fall behind the code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from tests.docs.blocks import ROOT
from windlass import errors, events
from windlass.cli import cli
from windlass.errors import TaskSignal, WindlassError
from windlass.events import Event, EventBus
from windlass.job import FINAL, Status
from windlass.lifecycle import TRANSITIONS
from windlass.metrics import Metrics
from windlass.server import OPERATIONS
from windlass.server.problems import PROBLEMS

__all__ = ["filled", "pages_with_tables"]

_MADE = re.compile(r"(?<=<!-- made: )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
_ROLE = re.compile(r":(?:class|meth|attr|func|mod|data):`(?:[^`<]*<)?~?([^`>]*)>?`")


def pages_with_tables() -> list[Path]:
    """The pages in which something is made from code."""
    return [p for p in sorted(ROOT.glob("docs/**/*.md")) if "<!-- made: " in p.read_text("utf-8")]


def filled(text: str) -> str:
    """A page's *text* with everything between its marks made anew."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}\n{MADE[match[1]]().strip()}\n\n"

    return _MADE.sub(fill, text)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _plain(docstring: str | None) -> str:
    """A docstring as Markdown: reStructuredText's roles and double backticks become single ones."""
    text = inspect.cleandoc(docstring or "").replace("``", "`")
    text = _ROLE.sub(lambda match: f"`{match[1].rpartition('.')[2]}`", text)
    return re.sub(r"\*(\w+)\*", r"`\1`", text)


def _first_paragraph(docstring: str | None) -> str:
    return " ".join(_plain(docstring).partition("\n\n")[0].split())


# ---------------------------------------------------------------- statuses


def statuses() -> str:
    source = inspect.getsource(Status)
    said = dict(re.findall(r'(\w+) = "\w+"\n\s+"""(.*?)"""', source, re.DOTALL))
    rows = (
        (f"`{s}`", " ".join(_plain(said[s.name]).split()), "yes" if s in FINAL else "")
        for s in Status
    )
    return _table(("status", "meaning", "final"), rows)


def transitions() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for verb, changes in TRANSITIONS.items():
            for before, after in changes.items():
                names = sorted("*deleted*" if status is None else f"`{status}`" for status in after)
                yield f"{verb}", "*new*" if before is None else f"`{before}`", ", ".join(names)

    return _table(("what happens", "from", "to"), rows())


# ---------------------------------------------------------------- errors and events


def error_classes() -> str:
    """Every class of the tree, in the order of its drawing."""
    return "\n\n".join(
        f"### `{kind.__name__}`\n\nA kind of {_bases(kind)}. {_first_paragraph(kind.__doc__)}"
        for name in _drawn()
        if (kind := getattr(errors, name)) is not WindlassError
    )


def _bases(kind: type) -> str:
    return " and ".join(f"`{base.__name__}`" for base in kind.__bases__)


def _drawn() -> list[str]:
    """The names of the tree in the module's docstring, and of the signals after it."""
    tree = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    rest = [name for name in errors.__all__ if name not in tree and name != "FieldError"]
    signals = [name for name in rest if issubclass(getattr(errors, name), TaskSignal)]
    return [*tree, *sorted(signals, key=lambda name: name != "TaskSignal"), "NonRetryable"]


def event_classes() -> str:
    def rows() -> Iterator[tuple[str, ...]]:
        for name in events.__all__:
            kind = getattr(events, name)
            if isinstance(kind, type) and issubclass(kind, Event) and kind is not Event:
                fields = ", ".join(f"`{field}`" for field in kind.__struct_fields__)
                yield f"`{name}`", " ".join(_plain(kind.__doc__).split()), fields

    return _table(("event", "meaning", "fields"), rows())


# ---------------------------------------------------------------- metrics


def metrics() -> str:
    return _table(("name", "kind", "labels", "meaning"), _metric_rows())


def _metric_rows() -> Iterator[tuple[str, ...]]:
    from windlass.clock import SystemClock
    from windlass.job import LaneStats, Stats

    made = Metrics(EventBus())
    lane = LaneStats("q", "t", dict.fromkeys(Status, 1))
    stats = Stats(SystemClock().now(), [lane])
    own = sorted(made.registry.collect(), key=lambda family: family.name)
    for family in [*made._store_metrics(stats, []), *own]:
        labels = _labels(made, family)
        suffix = "_total" if family.type == "counter" else ""
        listed = ", ".join(f"`{label}`" for label in labels)
        yield f"`{family.name}{suffix}`", family.type, listed, family.documentation


def _labels(made: Metrics, family: object) -> list[str]:
    samples = getattr(family, "samples", [])
    if samples:
        return [label for label in samples[0].labels if label != "le"]
    # Nothing was counted yet, so nothing bears labels: ask the collector itself.
    for collector in made.registry._collector_to_names:
        if getattr(collector, "_name", None) == getattr(family, "name", ""):
            return list(getattr(collector, "_labelnames", ()))
    return []


# ---------------------------------------------------------------- HTTP


def operations() -> str:
    return "\n\n".join(
        f"### `{op.method} {op.path}`\n\n{op.summary}.\n\n{_answers(op)}"
        for op in sorted(OPERATIONS, key=lambda op: (op.path, op.method))
    )


def _answers(op: object) -> str:
    outcomes = getattr(op, "outcomes", {})
    lines = [f"* {status}: {outcome.description}" for status, outcome in sorted(outcomes.items())]
    if query := getattr(getattr(op, "query", None), "__struct_fields__", ()):
        lines.append(f"* query: {', '.join(f'`{name}`' for name in query)}")
    if body := getattr(getattr(op, "body", None), "__struct_fields__", ()):
        lines.append(f"* body: {', '.join(f'`{name}`' for name in body)}")
    if problems := getattr(op, "problems", ()):
        ordered = sorted(problems, key=lambda code: (PROBLEMS[code].status, code))
        lines.append(f"* problems: {', '.join(f'`{code}`' for code in ordered)}")
    return "\n".join(lines)


def problems() -> str:
    rows = (
        (str(kind.status), f"`{code}`", kind.title)
        for code, kind in sorted(PROBLEMS.items(), key=lambda item: (item[1].status, item[0]))
    )
    return _table(("status", "code", "title"), rows)


# ---------------------------------------------------------------- command line


def commands() -> str:
    return "\n\n".join(_command(cli, ["windlass"]))


def _command(group: click.Group, path: list[str]) -> Iterator[str]:
    context = click.Context(group, info_name=path[-1])
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield _section(command, [*path, name])
        if isinstance(command, click.Group):
            yield from _command(command, [*path, name])


def _section(command: click.Command, path: list[str]) -> str:
    usage = " ".join([*path, *command.collect_usage_pieces(click.Context(command))])
    said = inspect.cleandoc(command.help or "")
    text = re.sub(r"\n\x08\n(.*?)(?=\n\n|\Z)", _as_code, said, flags=re.DOTALL)
    parts = [f"## `{' '.join(path)}`", f"    {usage}", _plain(text)]
    options = [
        each for each in command.params if isinstance(each, click.Option) and not each.hidden
    ]
    if options:
        parts.append(_table(("option", "meaning"), map(_option, options)))
    return "\n\n".join(parts)


def _as_code(match: re.Match[str]) -> str:
    """Examples, which click leaves as they are, as an indented block."""
    return "\n" + "\n".join(f"    {line}" for line in match[1].splitlines())


def _option(option: click.Option) -> tuple[str, str]:
    names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
    value = "" if option.is_flag or option.count else f" {option.make_metavar(_NOWHERE)}"
    default = option.show_default and option.default is not None
    return f"{names}{value}", (option.help or "") + (
        f" (default: {option.default})" if default else ""
    )


_NOWHERE = click.Context(click.Command("nothing"))


MADE: dict[str, Callable[[], str]] = {
    "statuses": statuses,
    "transitions": transitions,
    "errors": error_classes,
    "events": event_classes,
    "metrics": metrics,
    "operations": operations,
    "problems": problems,
    "commands": commands,
}


def main() -> None:
    for page in pages_with_tables():
        page.write_text(filled(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()

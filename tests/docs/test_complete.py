"""The reference leaves nothing out: every setting, option, name and command has its place there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

import windlass
from tests.docs.blocks import ROOT, Block, blocks, pages
from tests.docs.tables import filled, pages_with_tables
from windlass.calls import Task
from windlass.cli import cli
from windlass.config import Settings
from windlass.context import Context, SyncContext
from windlass.job import Job, Retention, Unique
from windlass.options import EnqueueOptions
from windlass.retry import RetryPolicy
from windlass.server import OPERATIONS
from windlass.tasks import TaskOptions

REFERENCE = ROOT / "docs" / "reference"


def page(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def missing(names: object, text: str) -> list[str]:
    """Those of *names* that stand nowhere in *text* in code quotes."""
    quoted = re.findall(r"`([^`\n]+)`", text)
    words = {word for code in quoted for word in re.findall(r"\w+", code)}
    return sorted(name for name in names if name not in words)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", pages_with_tables(), ids=lambda path: path.name)
def test_what_is_made_from_code_is_as_the_code_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    assert filled(text) == text, "Run `python -m tests.docs.tables` and commit what it writes."


def test_every_part_that_can_be_made_stands_in_a_page() -> None:
    from tests.docs.tables import MADE

    used = {
        name
        for path in pages_with_tables()
        for name in re.findall(r"<!-- made: (\w+) -->", path.read_text(encoding="utf-8"))
    }

    assert used == set(MADE)


def test_every_setting_is_described() -> None:
    names = set(Settings.__struct_fields__) - {"origins", "warnings"}

    assert missing(names, page("settings.md")) == []
    assert missing({f"WINDLASS_{name.upper()}" for name in names}, page("settings.md")) == []


def test_every_setting_of_the_example_is_described() -> None:
    code = "".join(
        path.read_text(encoding="utf-8") for path in ROOT.glob("examples/job_service/*.py")
    )
    readme = (ROOT / "examples/job_service/README.md").read_text(encoding="utf-8")

    named = set(re.findall(r'env\.get\(\s*"(\w+)"', code))

    assert named
    assert missing(named, readme) == []


def test_every_option_is_described() -> None:
    names = {*EnqueueOptions.__annotations__, *TaskOptions.__annotations__}
    for kind in (Unique, RetryPolicy, Retention):
        names |= set(kind.__struct_fields__)

    assert missing(names, page("options.md")) == []


def test_every_public_name_is_described() -> None:
    everything = "".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))

    assert missing(set(windlass.__all__) - {"__version__"}, everything) == []


@pytest.mark.parametrize("kind", [windlass.Windlass, Context, SyncContext, windlass.JobHandle, Job])
def test_every_public_member_is_described(kind: type) -> None:
    names = {name for name in dir(kind) if not name.startswith("_")}
    # What frameworks and stores use, and what is another name's business.
    names -= {"use_store", "portal", "claim", "lane", "token"}

    assert missing(names, page("python.md")) == []


def test_the_ways_to_call_a_task_are_described() -> None:
    names = {"enqueue", "enqueue_sync", "options", "bind"}

    assert names <= set(dir(Task))
    assert missing(names, page("python.md")) == []


# ---------------------------------------------------------------- command lines and requests


def requests() -> list[tuple[str, str]]:
    """Method and path of every ``curl`` line of the pages."""
    found = []
    for path in pages():
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")
        for line in re.findall(r"^ *curl .*localhost:8080.*", text, re.MULTILINE):
            method = re.search(r"-X (\w+)", line)
            place = re.search(r"localhost:8080(/[^\s\"'?]*)", line)
            assert place is not None, line
            posts = "--data" in line or " -d " in line
            found.append((method[1] if method else "POST" if posts else "GET", place[1]))
    return sorted(set(found))


@pytest.mark.parametrize(("method", "path"), requests())
def test_a_request_of_the_pages_has_an_operation(method: str, path: str) -> None:
    def fits(template: str) -> bool:
        return re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) is not None

    assert any(each.method == method and fits(each.path) for each in OPERATIONS)


def command_lines() -> list[tuple[Block, str]]:
    """Every ``windlass …`` in the shell blocks of the pages."""
    return [
        (block, line)
        for block in blocks("sh")
        for line in re.findall(r"^ *(windlass .*)", block.code.replace("\\\n", " "), re.MULTILINE)
    ]


@pytest.mark.parametrize(
    ("block", "line"), command_lines(), ids=lambda each: each if isinstance(each, str) else ""
)
def test_a_command_line_of_the_pages_is_understood(block: Block, line: str) -> None:
    command: click.Command = cli
    words = shlex.split(line, comments=True)[1:]
    context = click.Context(cli, info_name="windlass")
    while isinstance(command, click.Group) and words:
        name = words[0]
        inner = command.get_command(context, name)
        assert inner is not None, f"{block.name}: there is no command {name!r}"
        command, words = inner, words[1:]

    # Raises for options and arguments that do not exist; runs nothing.
    command.make_context(command.name or "", words, parent=context)

"""Help: complete, with examples, quick because little is imported; and "did you mean"."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from windlass.cli import _COMMANDS, cli
from windlass.config import _TWINS

HEAVY = ("starlette", "uvicorn", "rich", "sqlite3", "prometheus_client", "asyncio", "msgspec")


def command(name: str) -> click.Command:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", list(_COMMANDS))
def test_the_list_of_commands_says_what_the_commands_say(name: str) -> None:
    said = command(name).help or ""

    assert said.startswith(_COMMANDS[name][1] + "\n") or said == _COMMANDS[name][1]
    assert command(name).callback is not None


@pytest.mark.parametrize("name", [name for name in _COMMANDS if name != "version"])
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    answer = CliRunner().invoke(cli, [name, "--help"])

    assert answer.exit_code == 0
    assert f"  windlass {name}" in answer.output


def test_the_overview_names_every_command() -> None:
    answer = CliRunner().invoke(cli, ["--help"])

    assert all(f"  {name} " in answer.output for name in _COMMANDS)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["jobs", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from windlass.cli import cli\n"
        f"cli({arguments!r}, standalone_mode=False)\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    allowed = {"asyncio", "msgspec"} if arguments[0] == "jobs" else set()

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert set(eval(run.stderr)) <= allowed


def test_every_command_imports_without_server_tables_or_store() -> None:
    modules = sorted({f"windlass.cli.{module}" for module, _ in _COMMANDS.values()})
    program = (
        f"import sys, importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
        "heavy = {'starlette', 'uvicorn', 'rich', 'prometheus_client', 'windlass.stores.sqlite'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )

    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize(
    ("typed", "meant"), [("jbos", "jobs"), ("enque", "enqueue"), ("worke", "worker")]
)
def test_a_slip_is_answered_with_what_was_meant(typed: str, meant: str) -> None:
    answer = CliRunner().invoke(cli, [typed])

    assert answer.exit_code == 2
    assert f"Did you mean '{meant}'?" in answer.stderr


def test_an_option_that_does_not_exist_is_answered_with_one_that_does() -> None:
    answer = CliRunner().invoke(cli, ["jobs", "--statsu", "failed"])

    assert answer.exit_code == 2
    assert "--status" in answer.stderr


def test_python_m_windlass_is_the_same_program() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "windlass", "--version"], capture_output=True, text=True, check=True
    )

    assert run.stdout.startswith("windlass ")


def test_the_settings_know_the_environment_twins_of_all_commands() -> None:
    assert sorted(_TWINS) == sorted(f"WINDLASS_{name.upper()}_" for name in _COMMANDS)


def test_every_option_has_a_sentence() -> None:
    for name in _COMMANDS:
        for parameter in command(name).params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert parameter.help, f"{name} {parameter.opts}"
        importlib.import_module(f"windlass.cli.{_COMMANDS[name][0]}")

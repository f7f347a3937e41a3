"""The command line: ``windlass COMMAND``.

This module knows the names of the commands and one sentence about each, and imports a command when it
is used: so ``--help`` costs little more than starting Python. Data goes to stdout, talk to stderr;
``--json`` prints one JSON document per line. Exit codes stand in ``exits.py``.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import threading
from typing import Any

import click

__all__ = ["cli", "main"]

_COMMANDS = {
    "serve": ("serve", "Run the HTTP API and a worker, in one process."),
    "worker": ("worker", "Run workers only."),
    "demo": ("demo", "Watch a few hundred jobs, failures and a killed worker; ends by itself."),
    "enqueue": ("enqueue", "Have a job done, or many from lines of JSON."),
    "jobs": ("jobs", "List jobs."),
    "show": ("jobs", "Show one job, whole."),
    "why": ("jobs", "Say in plain words why a job is not running."),
    "tail": ("tail", "Follow what becomes of jobs, live."),
    "retry": ("change", "Run ended jobs again, and scheduled ones now."),
    "cancel": ("change", "Cancel waiting jobs, and ask running ones to end."),
    "queues": ("queues", "List, pause, resume and limit queues."),
    "workers": ("workers", "List the workers that live."),
    "failures": ("workers", "Show failed jobs in groups that look alike."),
    "bench": ("bench", "Measure what this machine and store can do."),
    "db": ("db", "Check, back up, migrate and prune the store."),
    "doctor": ("doctor", "Check everything that Windlass needs, and say what is wrong."),
    "version": ("doctor", "Print the versions of Windlass and what it stands on."),
}
"""Name → (module, what it does). A test holds the sentences equal to those of the commands."""


class Commands(click.Group):
    """Imports a command when it is asked for, and makes errors of ours into one sentence."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"windlass.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], _COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else " See windlass --help."
            raise click.UsageError(f"There is no command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(130) from None
        except (click.exceptions.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            from windlass.cli.exits import told

            raise told(error, debug=bool(ctx.params.get("debug"))) from None


@click.group(
    cls=Commands,
    context_settings={
        "auto_envvar_prefix": "WINDLASS",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    epilog="Each option can be set in the environment: --queue of enqueue as "
    "WINDLASS_ENQUEUE_QUEUE, --debug as WINDLASS_DEBUG. WINDLASS_URL and WINDLASS_APP serve all "
    "commands.",
)
@click.option("--debug", is_flag=True, help="Show the stack of an error.")
@click.version_option(package_name="windlass", message="windlass %(version)s")
def cli(debug: bool) -> None:
    """Durable background jobs for Python.

    \b
    windlass serve                     run the app of this project on port 8080
    windlass enqueue email to=a@b.c    have a job done
    windlass jobs --status failed      look
    windlass why 1a2b3c                understand
    windlass retry --status failed     intervene
    """


def main() -> None:
    """The entry point of the ``windlass`` program."""
    if sys.stdout is None or sys.stderr is None:  # closed by whoever started us
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        cli(prog_name="windlass")
    except SystemExit as end:
        if threading.active_count() > 1:
            from windlass.cli.exits import end_soon

            end_soon(end.code if isinstance(end.code, int) else 0)
        raise

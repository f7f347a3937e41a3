"""What ``serve`` and ``worker`` have in common as long-running processes.

How children are started (the same program with the same app and options), on which event loop a process
runs, and which exit code it ends with. What signals mean stands in ``windlass.worker.signals``.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import click

from windlass.cli.output import say

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.config import Settings
    from windlass.worker import Worker
    from windlass.worker.signals import Governed
    from windlass.worker.supervisor import Supervisor

__all__ = [
    "Forcible", "make_supervisor", "make_worker", "run_loop", "set_up_logs", "work_options",
    "worker_command",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

_PASSED_ON = ("url", "durability", "queues", "concurrency", "threads", "processes", "grace",
              "log_level", "log_format")  # fmt: skip
"""Settings that children get as options when they were given as options; others they find as we did."""


def work_options(command: F) -> F:
    """Options that say how a worker works."""
    options: tuple[Callable[[Any], Any], ...] = (
        click.option("--log-format", envvar="WINDLASS_LOG_FORMAT",
                     help="auto, console, json or logfmt."),
        click.option("--log-level", envvar="WINDLASS_LOG_LEVEL",
                     help="debug, info, warning or error."),
        click.option("--reload", is_flag=True, help="Start anew when a Python file changes."),
        click.option("--grace", envvar="WINDLASS_GRACE", metavar="SPAN",
                     help="Running jobs may go on so long at shutdown.  [default: 30s]"),
        click.option("--processes", envvar="WINDLASS_PROCESSES", type=click.IntRange(1),
                     help='Tasks with run_in="process" at once.  [default: one per core]'),
        click.option("--threads", envvar="WINDLASS_THREADS", type=click.IntRange(1),
                     help="Plain (def) tasks at once.  [default: 16]"),
        click.option("--concurrency", envvar="WINDLASS_CONCURRENCY", type=click.IntRange(1),
                     help="Async tasks at once.  [default: 100]"),
        click.option("--queues", envvar="WINDLASS_QUEUES", metavar="A,B",
                     help="Take jobs from these queues only."),
    )  # fmt: skip
    for option in options:
        command = option(command)
    return command


def set_up_logs(settings: Settings, app: Windlass[Any]) -> None:
    """Log to stderr as the settings say."""
    from windlass.logs import configure_logging

    configure_logging(settings.log_format, settings.log_level)  # type: ignore[arg-type] # checked
    app.log_events()


def worker_command(target: str, settings: Settings, *more: str) -> list[str]:
    """The command that runs one worker process of the app *target* with these settings."""
    command = [sys.executable, "-m", "windlass", "worker", target, "--workers", "1", *more]
    shown = settings.shown()
    for name in _PASSED_ON:
        value, origin = shown[name]
        if origin == "argument":
            command += [f"--{name.replace('_', '-')}", value]
    return command


def make_worker(
    app: Windlass[Any],
    target: str,
    settings: Settings,
    *,
    quarantine: bool = False,
    drain: bool = False,
) -> Worker:
    """The worker of this process, which is a program of its own."""
    import msgspec

    from windlass.worker.parent import ParentLink

    options = msgspec.structs.replace(settings.worker_options(), quarantine=quarantine, drain=drain)
    worker = app.worker(options)
    parent = ParentLink.find()
    worker.as_program(None if parent is None else parent.announce)
    if parent is not None:
        parent.watch(worker.stop)
    if not quarantine:
        worker.quarantine_command = worker_command(target, settings, "--quarantine")
    return worker


def make_supervisor(app: Windlass[Any], target: str, settings: Settings, *more: str) -> Supervisor:
    """The parent of ``settings.workers`` worker processes."""
    from windlass.worker.supervisor import Supervisor

    return Supervisor(
        worker_command(target, settings, *more),
        settings.workers,
        app.store,
        app.events,
        grace=settings.grace,
        on_death=lambda pid, how: say(f"Worker process {pid} {how}; another takes its place."),
        on_refusal=lambda why: say(f"The system starts no worker process: {why}."),
    )


class Forcible:
    """Passes signals on to *target*, and keeps in mind whether it was asked more than once."""

    def __init__(self, target: Governed, *, talk: bool = True) -> None:
        self._target = target
        self._talk = talk
        self._asked = 0

    @property
    def exit_code(self) -> int:
        """0 after a clean stop; 143 when somebody could not wait."""
        return 0 if self._asked < 2 else 128 + signal.SIGTERM

    def stop(self, grace: timedelta | None = None) -> None:
        self._asked += 1
        if self._asked == 1 and self._talk:
            say("Stopping: running jobs may end. Once more hands them back at once.")
        self._target.stop(grace)

    def quiet(self) -> None:
        if self._talk:
            say("Claiming nothing more, until SIGCONT.")
        self._target.quiet()

    def resume(self) -> None:
        self._target.resume()

    def status(self) -> str:
        return self._target.status()


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run *main* on the fastest event loop that is installed; its exit code."""
    from windlass.cli.exits import end_soon

    with contextlib.ExitStack() as after:

        async def to_the_end() -> int:
            code = await main
            # Closing the loop waits for the threads that it has started, however long they take.
            after.callback(end_soon(code).cancel)
            return code

        return _run(to_the_end())


def _run(main: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(main)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)

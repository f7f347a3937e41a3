"""``--reload``: a parent that starts the command anew whenever a Python file changes.

For development only: each restart is a clean stop, so jobs in flight are handed back and run again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from windlass.cli.exits import CONFIG, Told
from windlass.cli.output import say

__all__ = ["run_reloading"]

_END = 40.0
"""Seconds that the child may take to stop before it is killed."""


def run_reloading(command: str, arguments: Sequence[str]) -> int:
    """Run ``windlass`` with *arguments* in a child, again after each change; its last exit code."""
    try:
        from watchfiles import PythonFilter, watch
    except ImportError:
        raise Told(
            "--reload needs the package watchfiles: pip install 'windlass[reload]'.", CONFIG
        ) from None
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    child = _start(command, arguments)
    changes = watch(
        Path.cwd(), watch_filter=PythonFilter(), stop_event=stopping, raise_interrupt=False
    )
    for changed in changes:
        names = sorted(os.path.relpath(path) for _, path in changed)
        say(
            f"{names[0]}{f' and {len(names) - 1} more' if names[1:] else ''} changed: starting anew."
        )
        _end(child)
        child = _start(command, arguments)
    return _end(child)


def _start(command: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    # The environment's twin of the option must not make the child a parent too.
    environment = os.environ | {f"WINDLASS_{command.upper()}_RELOAD": "0"}
    rest = [argument for argument in arguments if argument != "--reload"]
    return subprocess.Popen([sys.executable, "-m", "windlass", *rest], env=environment)


def _end(child: subprocess.Popen[bytes]) -> int:
    if child.poll() is None:
        child.terminate()
    try:
        return child.wait(_END)
    except subprocess.TimeoutExpired:
        child.kill()
        return child.wait()

"""Tasks for child processes: they must stand in a module that a child can import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from windlass.context import SyncContext, current_context
from windlass.errors import Discard, Retry, Snooze
from windlass.retry import RetryPolicy
from windlass.tasks import Registry

registry: Registry = Registry()


class Throttled(Exception):
    retry_after = 120


@registry.task(run_in="process")
def dawdle(ctx: SyncContext[Any]) -> None:
    ctx.progress(None, "dawdling")
    time.sleep(600)


@registry.task(run_in="process", timeout=0.5)
def too_slow(pid_file: str) -> None:
    with open(pid_file, "w") as file:
        file.write(str(os.getpid()))
    time.sleep(600)


@registry.task(run_in="process")
def add(ctx: SyncContext[Any], a: int, b: int = 1) -> dict[str, int]:
    assert current_context() is ctx
    ctx.progress(0.5, "half")
    ctx.log("adding", level="debug")
    assert not ctx.cancelled
    return {"sum": a + b, "pid": os.getpid(), "fence": ctx.fence}


@registry.task(run_in="process")
def segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


@registry.task(run_in="process")
def leave(code: int) -> None:
    os._exit(code)


@registry.task(run_in="process")
def leave_a_child_behind(pid_file: str) -> None:
    """Dies while a grandchild holds everything open that it inherited."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
    with open(pid_file, "w") as file:
        file.write(str(pid))
    os._exit(9)


@registry.task(run_in="process", retry=RetryPolicy(exceptions={LookupError: None}))
def fail(how: str) -> None:
    errors: dict[str, BaseException] = {
        "plain": ValueError("plain"),
        "mapped": KeyError("mapped"),
        "retry": Retry("later", after=60),
        "throttled": Throttled("slow down"),
        "discard": Discard("never"),
        "snooze": Snooze(90),
        "exit": SystemExit(2),
    }
    raise errors[how]


@registry.task(run_in="process")
def unserialisable() -> Any:
    return object()


@registry.task(run_in="process")
def resources(ctx: SyncContext[Any]) -> Any:
    return ctx.resources


@registry.task(run_in="process")
def chatter() -> str:
    print("a task may print")
    return subprocess.run(
        [sys.executable, "-c", "import os; print(sorted(k for k in os.environ if 'PARENT' in k))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip

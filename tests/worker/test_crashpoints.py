"""Crash points kill the process at the named place and time, and are nothing without the variable."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from windlass import crashpoints

PROGRAM = """
from windlass.crashpoints import crash_point
for name in ("after-claim", "before-run", "after-claim"):
    crash_point(name)
    print(name, flush=True)
"""


def run(setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != crashpoints.VARIABLE}
    if setting is not None:
        environment[crashpoints.VARIABLE] = setting
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("setting", "lines", "code"),
    [
        (None, ["after-claim", "before-run", "after-claim"], 0),
        ("after-run", ["after-claim", "before-run", "after-claim"], 0),
        ("after-claim", [], -signal.SIGKILL),
        ("after-claim:2", ["after-claim", "before-run"], -signal.SIGKILL),
    ],
)
def test_the_process_dies_where_it_was_told_to(
    setting: str | None, lines: list[str], code: int
) -> None:
    done = run(setting)

    assert (done.stdout.split(), done.returncode) == (lines, code)


@pytest.mark.parametrize("setting", ["nowhere", "after-claim:x"])
def test_a_place_that_does_not_exist_is_refused(setting: str) -> None:
    done = run(setting)

    assert done.returncode == 1
    assert "names no crash point: there are after-insert-commit," in done.stderr

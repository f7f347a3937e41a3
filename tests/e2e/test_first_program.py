"""What the README asks a newcomer to do, done: its first program, its commands, and the demo."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT, blocks
from tests.e2e.service import WINDLASS, environment


def run(folder: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_first_program_of_the_readme_is_done_by_a_worker(tmp_path: Path) -> None:
    program = next(block for block in blocks("python") if block.file == "README.md")
    (tmp_path / "first.py").write_text(program.code, encoding="utf-8")

    enqueued = run(tmp_path, sys.executable, "first.py").strip()
    run(tmp_path, WINDLASS, "worker", "first.py:app", "--drain")
    listed = run(tmp_path, WINDLASS, "jobs", "--json")

    (job,) = [json.loads(line) for line in listed.splitlines()]
    assert (job["id"], job["status"], job["result"]) == (enqueued, "completed", "Hello, Ada!")


def test_the_demo_ends_by_itself_and_its_count_comes_out(tmp_path: Path) -> None:
    said = run(tmp_path, WINDLASS, "demo")

    count = re.search(
        r"(\d+) accepted = (\d+) completed \+ (\d+) failed on purpose \+ (\d+) cancelled", said
    )
    assert count is not None, said
    accepted, *ended = map(int, count.groups())
    assert accepted == sum(ended) >= 300
    assert list(tmp_path.iterdir()) == []


def test_make_serve_runs_what_the_readme_says() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert re.search(r"^serve: .*\n\t\$\(V\)/windlass serve \$\(ARGS\)$", makefile, re.MULTILINE)

"""What a person can get wrong at the start: each is one sentence and an exit code, and costs nothing."""

from __future__ import annotations

import sqlite3
import subprocess
from pathlib import Path

import pytest

from tests.e2e.service import WINDLASS, environment

APP = """
from windlass import Windlass
app = Windlass({url!r})

@app.task
async def greet(name: str) -> None: ...
"""


def serve(folder: Path, *arguments: str, **env: str) -> tuple[int, str]:
    """Exit code and stderr of a ``serve`` that must not start."""
    done = subprocess.run(
        [WINDLASS, "serve", *arguments], cwd=folder, capture_output=True, text=True, timeout=30,
        env=environment(WINDLASS_PORT="0", **env),
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def app(folder: Path, url: str = "sqlite:///jobs.db", more: str = "") -> str:
    (folder / "shop.py").write_text(APP.format(url=url) + more, encoding="utf-8")
    return "shop:app"


@pytest.mark.parametrize("url", ["mysql://localhost/jobs", "sqlite://jobs.db", "jobs.db"])
def test_an_unknown_store(tmp_path: Path, url: str) -> None:
    code, said = serve(tmp_path, app(tmp_path), WINDLASS_URL=url)
    other_code, other = serve(tmp_path, app(tmp_path, url))

    assert (code, other_code) == (3, 3)
    assert url.partition(":")[0] in said
    assert url.partition(":")[0] in other


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("This is a shopping list.\n" * 100)

    code, said = serve(tmp_path, app(tmp_path))

    assert code == 4
    assert "jobs.db" in said
    assert (tmp_path / "jobs.db").read_text().startswith("This is a shopping list.")


def test_a_database_of_somebody_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "jobs.db") as other:
        other.execute("CREATE TABLE customers (name TEXT)")
    other.close()

    code, said = serve(tmp_path, app(tmp_path))

    assert code == 4
    assert "jobs.db" in said


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    code, said = serve(tmp_path, app(tmp_path, "sqlite:///nowhere/jobs.db"))

    assert code == 4
    assert "nowhere" in said


def test_a_module_that_does_not_import(tmp_path: Path) -> None:
    code, said = serve(tmp_path, app(tmp_path, more="\nimport no_such_module\n"))

    assert code == 3
    assert "no_such_module" in said


def test_two_tasks_of_one_name(tmp_path: Path) -> None:
    twice = "\n@app.task(name='greet')\nasync def welcome() -> None: ...\n"

    code, said = serve(tmp_path, app(tmp_path, more=twice))

    assert code == 3
    assert "'greet'" in said


def test_an_option_out_of_range(tmp_path: Path) -> None:
    wild = "\n@app.task(priority=1000)\nasync def urgent() -> None: ...\n"

    code, said = serve(tmp_path, app(tmp_path, more=wild))

    assert code == 3
    assert "priority" in said


def test_an_address_that_lets_others_in_without_a_token(tmp_path: Path) -> None:
    code, said = serve(tmp_path, app(tmp_path), "--host", "0.0.0.0")

    assert code == 3
    assert "token" in said

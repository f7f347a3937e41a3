"""Type checkers find every planted mistake in the use of Windlass, and none in its correct use.

``planted.py.txt`` is no module of the tests, since the project's own check would stumble over it; it
is judged in a folder of its own, as a user's module would be.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PLANTED = (HERE / "planted.py.txt").read_text(encoding="utf-8")
WRONG = {
    number: line.strip()
    for number, line in enumerate(PLANTED.splitlines(), start=1)
    if "# WRONG" in line
}


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A project of a user's: the correct module, and the one with mistakes."""
    (tmp_path / "planted.py").write_text(PLANTED, encoding="utf-8")
    shutil.copy(HERE / "correct.py", tmp_path / "users_correct.py")
    return tmp_path


def test_there_are_mistakes_of_every_kind() -> None:
    assert len(WRONG) >= 30


@pytest.mark.timeout(240)
def test_mypy_reports_each_planted_mistake_and_nothing_else(users_folder: Path) -> None:
    answer = subprocess.run(
        [
            sys.executable, "-m", "mypy", "--strict", "--config-file=", "--output=json",
            f"--cache-dir={users_folder / 'cache'}", "planted.py", "users_correct.py",
        ],
        cwd=users_folder,
        env={**os.environ, "MYPYPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
        timeout=200,
    )  # fmt: skip

    found = [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]
    errors = [(each["file"], each["line"]) for each in found if each["severity"] == "error"]
    assert {line for file, line in errors if file == "planted.py"} == set(WRONG), answer.stderr
    assert [each for each in found if each["file"] != "planted.py"] == []


@pytest.mark.timeout(240)
@pytest.mark.skipif(
    shutil.which("pyright") is None and "TESTS_NEED_PYRIGHT" not in os.environ,
    reason="pyright needs Node; neither is ours",
)
def test_pyright_reports_each_planted_mistake_and_nothing_else(users_folder: Path) -> None:
    settings = {
        "typeCheckingMode": "strict",
        "pythonVersion": "3.11",
        "extraPaths": [str(ROOT / "src"), str(ROOT)],
    }
    (users_folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")

    answer = subprocess.run(
        ["pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=users_folder,
        capture_output=True,
        text=True,
        timeout=200,
    )

    found = json.loads(answer.stdout)["generalDiagnostics"]
    errors = [
        (Path(each["file"]).name, each["range"]["start"]["line"] + 1)
        for each in found
        if each["severity"] == "error"
    ]
    assert {line for file, line in errors if file == "planted.py"} == set(WRONG)
    assert [each for each in found if Path(each["file"]).name != "planted.py"] == []

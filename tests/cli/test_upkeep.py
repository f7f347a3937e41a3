"""db, doctor, bench: the store looked after, the surroundings examined, the machine measured."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.cli.shell import Shell
from windlass.job import Status


@pytest.fixture
def stocked(shell: Shell) -> Shell:
    for n in range(5):
        shell.enqueue("email", f"to={n}")
    return shell


def test_status_tells_file_schema_and_counts(stocked: Shell) -> None:
    (found,) = stocked("db", "status", "--json").documents

    assert found["file"] == str(stocked.path)
    assert found["schema"] == found["schema_known"]
    assert found["jobs"]["pending"] == 5
    assert "5 pending" in stocked("db", "status").out


def test_a_sound_file_passes_and_a_damaged_one_does_not(stocked: Shell, tmp_path: Path) -> None:
    assert stocked("db", "check").out == "sound\n"
    copy = tmp_path / "copy.db"
    stocked("db", "backup", str(copy))
    with sqlite3.connect(copy) as db:
        db.execute("UPDATE lanes SET pending = pending + 1")
    db.close()

    damaged = stocked("db", "check", "--url", f"sqlite:///{copy}")

    assert damaged.code == 1
    assert "are counted" in damaged.out


def test_a_backup_is_a_store_with_the_same_jobs(stocked: Shell, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"

    assert stocked("db", "backup", str(copy)).code == 0
    stocked.enqueue("email", "to=after")

    jobs = stocked("jobs", "--json", "--url", f"sqlite:///{copy}").documents
    assert len(jobs) == 5
    assert stocked("db", "backup", str(copy)).code == 6


def test_a_backup_that_cannot_be_written_is_said_so(stocked: Shell, tmp_path: Path) -> None:
    answer = stocked("db", "backup", str(tmp_path / "nowhere" / "copy.db"))

    assert answer.code == 1
    assert "cannot be written" in answer.err


def test_migrating_what_is_new_already_is_harmless(stocked: Shell) -> None:
    assert "already" in stocked("db", "migrate").err


def test_a_newer_schema_is_refused(stocked: Shell) -> None:
    with sqlite3.connect(stocked.path) as db:
        db.execute("UPDATE meta SET value = 99 WHERE key = 'min_code'")
        db.execute("PRAGMA user_version = 99")
    db.close()

    answer = stocked("jobs")

    assert answer.code == 4
    assert "upgrade Windlass" in answer.err


def test_prune_deletes_what_was_kept_long_enough(stocked: Shell) -> None:
    stocked("cancel", "--type", "email", "--yes")

    nothing = stocked("db", "prune", "--json").documents
    wrong = stocked("db", "prune", "--failed", "soon")

    assert nothing == [{"deleted": 0}]
    assert wrong.code == 2
    assert stocked.statuses() == {Status.CANCELLED: 5}


def test_other_stores_have_no_file(shell: Shell) -> None:
    answer = shell("db", "status", "--url", "memory:")

    assert answer.code == 4
    assert "no file" in answer.err


def test_doctor_finds_everything_well(stocked: Shell) -> None:
    answer = stocked("doctor", "--json")

    found = {each["check"]: each for each in answer.documents}
    assert answer.code == 0
    assert found["store"]["verdict"] in ("ok", "warning")
    assert found["tasks"]["text"] == "email, fail"
    assert found["clock"]["verdict"] == "ok"
    assert "none is running" in found["workers"]["text"]


@pytest.mark.parametrize(
    ("app", "said"), [("nowhere:app", "no module"), ("broken_app:app", "does not import")]
)
def test_doctor_names_the_problem(shell: Shell, tmp_path: Path, app: str, said: str) -> None:
    (tmp_path / "broken_app.py").write_text("1 / 0\n")

    answer = shell("doctor", "--app", app)

    assert answer.code == 1
    assert said in answer.out


def test_doctor_warns_of_settings_that_do_nothing(
    stocked: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WINDLASS_CAPACTIY", "5")

    assert "WINDLASS_CAPACTIY" in stocked("doctor").out


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_bench_measures_and_counts(shell: Shell, tmp_path: Path, store: str) -> None:
    before = sorted(tmp_path.iterdir())

    answer = shell("bench", "--jobs", "300", "--store", store, "--json")

    (found,) = answer.documents
    assert answer.code == 0
    assert found["exact"] is True
    assert found["run to the end"] > 0
    assert found["enqueue to start, p50"] <= found["enqueue to start, p99"]
    assert sorted(tmp_path.iterdir()) == before

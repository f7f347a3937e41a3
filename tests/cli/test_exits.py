"""Errors become one sentence and an exit code; the stack comes with --debug only."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.cli.shell import Shell
from windlass.cli.exits import told
from windlass.errors import (
    ConfigError,
    IdConflict,
    JobGone,
    JobNotFound,
    PayloadError,
    QueueFull,
    ResultTimeout,
    SchemaMismatch,
    StoreUnavailable,
    TaskError,
    UnknownTask,
    WindlassError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (PayloadError("x"), 2),
        (ConfigError("x"), 3),
        (TaskError("x"), 3),
        (StoreUnavailable("x"), 4),
        (SchemaMismatch("x"), 4),
        (JobNotFound("x", "id"), 5),
        (JobGone("x", "id"), 5),
        (UnknownTask("x"), 5),
        (IdConflict("id"), 6),
        (QueueFull("q", 1), 6),
        (ResultTimeout("x", "id"), 7),
        (WindlassError("x"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: Exception, code: int) -> None:
    assert told(error).exit_code == code
    assert told(ExceptionGroup("several", [error])).exit_code == code


def test_an_error_that_is_a_bug_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        told(ZeroDivisionError())


def test_a_missing_store_is_named_and_none_is_made(shell: Shell, tmp_path: Path) -> None:
    answer = shell("jobs", "--url", "sqlite:///missing.db")

    assert answer.code == 4
    assert answer.err.count("\n") == 1
    assert "'missing.db'" in answer.err
    assert not (tmp_path / "missing.db").exists()


def test_a_file_that_is_no_database_is_refused(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir, " * 1000)

    for command in (["jobs"], ["db", "status"], ["db", "check"]):
        answer = shell(*command, "--url", f"sqlite:///{tmp_path}/letter.txt")
        assert answer.code == 4, command
        assert "letter.txt" in answer.err


@pytest.mark.parametrize("url", ["memory:", "mysql://x", "sqlite:"])
def test_urls_that_cannot_work_are_configuration_errors(shell: Shell, url: str) -> None:
    answer = shell("jobs", "--url", url)

    assert (answer.code, answer.err.count("\n")) == (3, 1)


def test_an_app_that_does_not_import_is_told_in_a_sentence_without_a_stack(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "broken_app.py").write_text("import nowhere_to_be_found\n")

    plain = shell("enqueue", "email", "--app", "broken_app:app")
    debug = shell("--debug", "enqueue", "email", "--app", "broken_app:app")

    assert (plain.code, debug.code) == (3, 3)
    assert "nowhere_to_be_found" in plain.err
    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err


def test_without_an_app_it_is_said_how_to_name_one(shell: Shell) -> None:
    answer = shell("serve", place=False)

    assert answer.code == 3
    assert "windlass serve package.module:app" in answer.err


def test_each_option_can_be_set_by_the_environment(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        shell.enqueue("email", f"to={n}")
    monkeypatch.setenv("WINDLASS_JOBS_LIMIT", "2")

    assert len(shell("jobs", "--json").documents) == 2


def test_what_the_system_refuses_is_told_without_a_stack(shell: Shell) -> None:
    assert told(FileNotFoundError(2, "No such file or directory", "x.db")).message == (
        "The system refuses: No such file or directory ('x.db')."
    )
    assert told(OSError("no more")).message == "The system refuses: no more."


@pytest.mark.parametrize("command", ["status", "check", "migrate"])
def test_the_database_of_another_program_is_not_looked_after(
    shell: Shell, tmp_path: Path, command: str
) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE birds (name TEXT)")

    answer = shell("db", command, "--url", f"sqlite:///{other}")

    assert answer.code == 4
    assert "another program" in answer.err


def test_a_queue_that_cannot_be_is_not_paused(shell: Shell) -> None:
    shell.enqueue("email", "to=a@b.c")

    answer = shell("queues", "pause", "a b")

    assert answer.code == 3
    assert "A queue's name is" in answer.err


def test_the_url_of_a_file_takes_no_parameters(shell: Shell) -> None:
    answer = shell("jobs", "--url", "sqlite:///jobs.db?mode=ro")

    assert answer.code == 3
    assert "takes none" in answer.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tail", "--for", "x"], "--for is a number of seconds"),
        (["enqueue", "email", "to=a", "to=b"], "'to' is given twice"),
    ],
)
def test_what_was_typed_wrong_is_wrong_usage(shell: Shell, arguments: list[str], says: str) -> None:
    answer = shell(*arguments)

    assert answer.code == 2
    assert says in answer.err

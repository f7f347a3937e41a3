"""enqueue, retry, cancel: one by one and in bulk, careful with many."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.shell import Shell
from windlass.job import Status


def test_a_job_is_enqueued_with_its_options(shell: Shell) -> None:
    job_id = shell.enqueue(
        "email", "to=a@b.c", "copies=2", "--queue", "bulk", "-p", "5", "--delay", "5m",
        "--unique", "k", "--tag", "x", "--meta", "from=cli", "--max-attempts", "3",
    )  # fmt: skip

    job = shell("show", job_id, "--json").documents[0]

    assert job["payload"] == {"to": "a@b.c", "copies": 2}
    assert (job["queue"], job["priority"], job["max_attempts"]) == ("bulk", 5, 3)
    assert (job["status"], job["unique_key"]) == ("scheduled", "k")
    assert (job["tags"], job["meta"]) == (["x"], {"from": "cli"})


def test_a_value_that_looks_like_json_may_be_text(shell: Shell) -> None:
    job = shell("enqueue", "email", "to=12345", "copies=2", "--json").documents[0]

    assert job["payload"] == {"to": "12345", "copies": 2}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["emial", "to=a"], 5, "did you mean 'email'"),
        (["email", "too=a"], 2, "/too"),
        (["email", "to"], 2, "NAME=VALUE"),
        (["email", "to=a", "--priority", "300"], 2, "-100 to 100"),
        (["email", "to=a", "--delay", "soon"], 2, "delay"),
        (["email", "to=a", "--at", "soon"], 2, "--at"),
        (["email", "to=a", "--meta", "x"], 2, "--meta"),
        ([], 2, "enqueue TYPE"),
    ],
)
def test_what_cannot_be_enqueued_is_refused_in_a_sentence(
    shell: Shell, arguments: list[str], code: int, said: str
) -> None:
    answer = shell("enqueue", *arguments)

    assert answer.code == code
    assert said in answer.err


def test_a_unique_key_or_an_idempotency_key_gives_the_job_that_stands(shell: Shell) -> None:
    first = shell.enqueue("email", "to=a", "--unique", "u")
    again = shell("enqueue", "email", "to=a", "--unique", "u")
    keyed = shell.enqueue("email", "to=a", "--key", "k")

    assert again.out.strip() == first
    assert "stood already" in again.err
    assert shell("enqueue", "email", "to=a", "--key", "k").out.strip() == keyed
    assert shell("enqueue", "email", "to=OTHER", "--key", "k").code == 6


def test_waiting_longer_than_allowed_ends_with_7(shell: Shell) -> None:
    answer = shell("enqueue", "email", "to=a", "--wait", "--wait-timeout", "50ms")

    assert answer.code == 7
    assert shell.statuses() == {Status.PENDING: 1}


def test_waiting_for_a_job_that_has_ended_tells_how(shell: Shell) -> None:
    shell.enqueue("email", "to=a", "--key", "good")
    shell.enqueue("fail", "code=1", "--key", "bad")
    shell.work()

    good = shell("enqueue", "email", "to=a", "--key", "good", "--wait")
    bad = shell("enqueue", "fail", "code=1", "--key", "bad", "--wait")

    assert (good.code, good.out.strip()) == (0, '"1 to a"')
    assert bad.code == 1
    assert "ValueError: bad code 1" in bad.err


def test_many_jobs_come_as_lines_of_json(shell: Shell) -> None:
    lines = "".join(json.dumps({"to": f"u{n}"}) + "\n" for n in range(2500)) + "\n"

    answer = shell(
        "enqueue", "email", "--queue", "a", "--file", "-", stdin=lines[: len(lines) // 2]
    )
    full = lines[: len(lines) // 2].count("\n")

    assert answer.code == 2  # the input was cut within a line
    assert f"Line {full + 1}" in answer.err
    assert "1,000 jobs of the lines before were accepted" in answer.err
    assert len(answer.out.splitlines()) == 1000


def test_lines_without_a_type_name_their_own(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "jobs.ndjson").write_text(
        '{"type": "email", "payload": {"to": "a"}, "queue": "x", "key": "one"}\n'
        '{"type": "fail", "payload": {"code": 3}, "options": {"priority": 7}}\n'
    )

    answer = shell("enqueue", "--file", "jobs.ndjson", "--json")

    assert [line["duplicate"] for line in answer.documents] == [False, False]
    fail, email = shell("jobs", "--json").documents
    assert (email["queue"], fail["priority"]) == ("x", 7)


@pytest.mark.parametrize(
    ("line", "code"),
    [('{"payload": {}}', 2), ("[1]", 2), ('{"type": "nope"}', 5), ('{"type": "email"}', 2)],
)
def test_a_bad_line_is_named(shell: Shell, line: str, code: int) -> None:
    answer = shell("enqueue", "--file", "-", stdin=line + "\n")

    assert answer.code == code
    assert "Line 1" in answer.err
    assert shell.statuses() == {}


def test_cancel_and_retry_by_id(shell: Shell) -> None:
    ids = [shell.enqueue("email", f"to={n}") for n in range(2)]

    cancelled = shell("cancel", ids[0][-8:], ids[1], "--reason", "typo")
    again = shell("cancel", ids[0])
    retried = shell("retry", ids[0], "--json")

    assert (cancelled.code, cancelled.out) == (0, "2 of 2 cancelled\n")
    assert again.code == 6
    assert "already cancelled" in again.err
    assert retried.documents[0]["changed"] == 1
    assert shell.statuses() == {Status.PENDING: 1, Status.CANCELLED: 1}
    assert shell("show", ids[1], "--json").documents[0]["reason"] == "typo"


def test_many_at_once_want_a_yes(shell: Shell) -> None:
    for n in range(3):
        shell.enqueue("email", f"to={n}")

    unsure = shell("cancel", "--type", "email")
    dry = shell("cancel", "--type", "email", "--dry-run")
    some = shell("cancel", "--type", "email", "--limit", "2", "--yes")

    assert unsure.code == 2
    assert "3 jobs match: add --yes" in unsure.err
    assert dry.out == "3 of 3 would be cancelled\n"
    assert some.out == "2 of 2 cancelled\n"
    assert shell.statuses() == {Status.PENDING: 1, Status.CANCELLED: 2}


def test_failed_jobs_are_redriven(shell: Shell) -> None:
    for n in range(2):
        shell.enqueue("fail", f"code={n}")
    shell.enqueue("email", "to=a")
    shell.work()

    answer = shell("retry", "--type", "fail", "--type", "email", "--yes")

    assert answer.out == "2 of 2 run again\n"
    assert shell.statuses() == {Status.PENDING: 2, Status.COMPLETED: 1}


@pytest.mark.parametrize("command", ["cancel", "retry"])
def test_nothing_or_two_things_chosen_is_wrong_usage(shell: Shell, command: str) -> None:
    assert shell(command).code == 2
    assert shell(command, "abcdef", "--type", "email").code == 2

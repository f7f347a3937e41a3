"""jobs, show, why, queues, workers, failures, tail: what is seen, for people and for machines."""

from __future__ import annotations

import json

import pytest

from tests.cli.shell import Shell
from windlass.app import Windlass


@pytest.fixture
def stocked(shell: Shell) -> Shell:
    """Three done, two failed, one waiting for its time."""
    for n in range(3):
        shell.enqueue("email", f"to=user{n}")
    for n in range(2):
        shell.enqueue("fail", f"code={n}")
    shell.work()
    shell.enqueue("email", "to=later", "--delay", "1h", "--tag", "slow")
    return shell


def test_jobs_are_listed_newest_first(stocked: Shell) -> None:
    found = stocked("jobs", "--json").documents
    oldest = stocked("jobs", "--json", "--oldest-first", "-n", "1").documents

    assert [job["status"] for job in found[:3]] == ["scheduled", "failed", "failed"]
    assert len(found) == 6
    assert oldest[0]["id"] == found[-1]["id"]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["-s", "failed"], 2),
        (["-s", "failed", "-s", "scheduled"], 3),
        (["--type", "email"], 4),
        (["--queue", "mail", "--status", "completed"], 3),
        (["--tag", "slow"], 1),
        (["--text", "user1"], 1),
        (["--since", "1h"], 6),
        (["--until", "1h"], 0),
        (["-n", "2"], 2),
        (["--all"], 6),
    ],
)
def test_jobs_are_filtered(stocked: Shell, options: list[str], count: int) -> None:
    assert len(stocked("jobs", "--json", *options).documents) == count


def test_the_table_shows_what_matters_and_says_that_there_is_more(stocked: Shell) -> None:
    answer = stocked("jobs", "-n", "5")

    assert "ValueError: bad code 1" in answer.out
    assert "runs in " in answer.out
    assert "There are more than these 5" in answer.err


def test_a_time_that_is_none_is_wrong_usage(stocked: Shell) -> None:
    answer = stocked("jobs", "--since", "yesterday-ish")

    assert answer.code == 2
    assert "2026-01-31T12:00" in answer.err


def test_show_tells_everything_about_a_job_by_the_end_of_its_id(stocked: Shell) -> None:
    job = stocked("jobs", "--json", "-s", "failed").documents[0]

    people = stocked("show", job["id"][-8:])
    machine = stocked("show", job["id"], "--json").documents[0]

    assert job["id"] in people.out
    assert "raise ValueError" in people.out
    assert "attempt  " in people.out
    assert "1 of 1" in people.out
    assert machine["errors"][0]["type"] == "ValueError"
    assert machine["log"] == []


def test_terminal_commands_in_a_payload_do_not_reach_the_terminal(shell: Shell) -> None:
    job_id = shell.enqueue("email", "to=\x1b[2J\u202eevil", "--queue", "mail")

    for command in (["show", job_id], ["jobs"], ["why", job_id]):
        assert "\x1b" not in shell(*command).out
        assert "\u202e" not in shell(*command).out


def test_a_job_that_is_not_there_ends_with_5(stocked: Shell) -> None:
    for command in ("show", "why"):
        answer = stocked(command, "ffffffffffff")
        assert answer.code == 5
        assert "no job" in answer.err


def test_why_answers_in_words_and_names_the_next_step(stocked: Shell) -> None:
    job_id = stocked.enqueue("email", "to=now")

    people = stocked("why", job_id)
    machine = stocked("why", job_id, "--json").documents[0]

    assert "No worker is running." in people.out
    assert "→ Start a worker: windlass worker" in people.out
    assert machine["sentence"] == "No worker is running."


def test_queues_are_listed_paused_limited_and_resumed(stocked: Shell) -> None:
    assert stocked("queues", "pause", "mail", "--reason", "flood").code == 0
    assert stocked("queues", "limit", "mail", "--rate", "10/s", "--concurrency", "2").code == 0
    mail = {each["name"]: each for each in stocked("queues", "--json").documents}["mail"]
    table = stocked("queues").out
    stocked("queues", "resume", "mail")
    stocked("queues", "limit", "mail", "--rate", "none", "--concurrency", "0")
    after = {each["name"]: each for each in stocked("queues", "--json").documents}["mail"]

    assert (mail["paused"], mail["reason"]) == (True, "flood")
    assert mail["limit"]["rate"]["count"] == 10
    assert "paused: flood, 2 at once, 10/1s" in table
    assert not after["paused"]
    assert after["limit"]["rate"] is after["limit"]["concurrency"] is None


@pytest.mark.parametrize(
    "wrong",
    [["limit", "mail"], ["limit", "mail", "--rate", "often"], ["limit", "m\n", "--rate", "1/s"]],
)
def test_limits_that_make_no_sense_are_wrong_usage(stocked: Shell, wrong: list[str]) -> None:
    assert stocked("queues", *wrong).code == 2


def test_failures_are_grouped(stocked: Shell) -> None:
    groups = stocked("failures", "--json").documents
    table = stocked("failures").out

    assert [(group["type"], group["count"]) for group in groups] == [("fail", 2)]
    assert "ValueError: bad code 1" in table
    assert "in fail" in table


def test_nothing_to_show_is_said_and_is_no_failure(shell: Shell) -> None:
    shell.within(_nothing)

    for command in ("jobs", "queues", "workers", "failures"):
        answer = shell(command)
        assert (answer.code, answer.out) == (0, ""), command
        assert answer.err.endswith("\n")


async def _nothing(app: Windlass[object]) -> None:
    return None


def test_tail_ends_when_the_jobs_it_follows_have_ended(stocked: Shell) -> None:
    job = stocked("jobs", "--json", "-s", "failed").documents[0]

    lines = stocked("tail", "--id", job["id"], "--json").documents
    people = stocked("tail", "--id", job["id"][-8:])

    assert [line["status"] for line in lines] == ["failed"]
    assert "payload" not in lines[0]
    assert "attempts used up" in people.out


def test_tail_gives_up_in_time(stocked: Shell) -> None:
    waiting = stocked("jobs", "--json", "-s", "scheduled").documents[0]

    assert stocked("tail", "--id", waiting["id"], "--for", "50ms").code == 7
    assert stocked("tail", "--for", "50ms").code == 0


def test_version_tells_what_it_stands_on(shell: Shell) -> None:
    found = json.loads(shell("version", "--json").out)

    assert {"windlass", "python", "sqlite", "msgspec"} <= set(found)
    assert "windlass" in shell("version").out

"""The kit for users' own tests, used as a user would."""

import subprocess
import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from windlass import ConfigError, Context, Retry, Status, Windlass
from windlass.testing import (
    ManualClock,
    assert_enqueued,
    drain,
    drain_sync,
    enqueued,
    in_memory,
)


@asynccontextmanager
async def outbox(app: Windlass) -> AsyncGenerator[list[str]]:
    yield sent


sent: list[str] = []
app = Windlass("sqlite:///never-made.db", lifespan=outbox)


@app.task(queue="mail")
async def welcome(ctx: Context[list[str]], to: str, lang: str = "en") -> None:
    ctx.resources.append(f"{to} {lang}")


@app.task
def in_a_thread(to: str) -> str:
    welcome.enqueue_sync(to)
    return to.upper()


@app.task(max_attempts=2)
async def fails() -> None:
    raise LookupError("no such user")


@app.task
async def asks_for_a_retry() -> None:
    raise Retry(after=60)


@app.task(rate="1/h")
async def limited(n: int) -> None: ...


@pytest.fixture(autouse=True)
def clock() -> Iterator[ManualClock]:
    sent.clear()
    with in_memory(app) as clock:
        yield clock
    app.portal.close()


async def test_the_app_s_own_store_is_untouched_and_comes_back() -> None:
    own = Windlass("memory:")
    before = own.store

    with in_memory(own):
        own.task(name="w")(nothing)
        assert own.store is not before

    assert own.store is before
    assert not Path("never-made.db").exists()


async def nothing() -> None: ...


async def test_drain_runs_what_is_due_and_what_that_enqueues() -> None:
    await in_a_thread.enqueue("ann")

    ran = await drain(app)

    assert {job.type: job.status for job in ran} == {
        "in_a_thread": Status.COMPLETED,
        "welcome": Status.COMPLETED,
    }
    assert sent == ["ann en"]
    assert await drain(app) == []


async def test_a_scheduled_job_runs_once_the_clock_was_moved(clock: ManualClock) -> None:
    await welcome.options(delay="2h").enqueue("ann")

    assert await drain(app) == []
    clock.advance("1h59m")
    assert await drain(app) == []
    clock.advance(60)
    await drain(app)

    assert sent == ["ann en"]


async def test_a_failing_job_is_retried_as_the_clock_moves_until_it_is_given_up(
    clock: ManualClock,
) -> None:
    handle = await fails.enqueue()

    (job,) = await drain(app)
    assert (job.status, job.failures) == (Status.SCHEDULED, 1)
    clock.advance("1m")
    await drain(app)

    job = await handle.status()
    assert (job.status, job.failures) == (Status.FAILED, 2)


async def test_fail_fast_raises_what_the_task_raised() -> None:
    await fails.enqueue()

    with pytest.raises(LookupError, match="no such user"):
        await drain(app, fail_fast=True)

    await asks_for_a_retry.enqueue()
    (job,) = await drain(app, fail_fast=True)
    assert job.status is Status.SCHEDULED


async def test_a_rate_limit_does_not_stop_a_drain() -> None:
    await app.enqueue_many(limited.bind(n) for n in range(3))

    assert len(await drain(app)) == 3


def test_synchronous_tests_drain_too() -> None:
    welcome.enqueue_sync("ann", lang="fr")

    (job,) = drain_sync(app)

    assert job.status is Status.COMPLETED
    assert sent == ["ann fr"]


async def test_enqueued_finds_jobs_by_task_call_and_queue() -> None:
    await welcome.enqueue("ann")
    await welcome.options(queue="slow").enqueue("bob", lang="en")
    await fails.enqueue()

    assert [job.type for job in enqueued(app)] == ["welcome", "welcome", "fails"]
    assert len(enqueued(app, welcome)) == 2
    assert [job.queue for job in enqueued(app, welcome.bind("bob"))] == ["slow"]
    assert len(enqueued(app, welcome.bind(to="ann", lang="en"))) == 1
    assert enqueued(app, welcome.bind("ann"), queue="slow") == []
    assert enqueued(app, in_a_thread) == []


async def test_assert_enqueued_answers_the_latest_job() -> None:
    await welcome.enqueue("ann")
    second = await welcome.options(priority=9).enqueue("ann")

    job = assert_enqueued(app, welcome.bind("ann"), queue="mail", times=2)

    assert (job.id, job.priority) == (second.id, 9)


async def test_a_failed_assertion_tells_what_is_there() -> None:
    await welcome.enqueue("ann")

    with pytest.raises(AssertionError) as failed:
        assert_enqueued(app, welcome.bind("bob"), queue="mail")
    with pytest.raises(AssertionError, match="Expected 2 times welcome, found 1"):
        assert_enqueued(app, welcome, times=2)
    with pytest.raises(ConfigError, match="write `assert not enqueued"):
        assert_enqueued(app, welcome, times=0)

    assert str(failed.value) == (
        'Expected welcome {"to":"bob"} in queue \'mail\', found 0; '
        "of 1 jobs enqueued, the latest are:\n"
        '  welcome {"to":"ann"} in queue \'mail\', pending'
    )


def test_nothing_enqueued_is_said_so() -> None:
    with pytest.raises(AssertionError, match="found 0; no job at all"):
        assert_enqueued(app, welcome)


def test_looking_needs_jobs_in_memory() -> None:
    with pytest.raises(ConfigError, match="use `with in_memory"):
        enqueued(Windlass("sqlite:///never-made.db"))


def test_the_clock_begins_now_and_moves_only_when_told(clock: ManualClock) -> None:
    chosen = ManualClock(datetime(2027, 1, 1, tzinfo=UTC))
    chosen.advance("1h30m")

    assert abs(clock.now() - datetime.now(UTC)) < timedelta(minutes=1)
    assert chosen.now() == datetime(2027, 1, 1, 1, 30, tzinfo=UTC)
    with pytest.raises(ConfigError, match="The time to advance is a number of seconds"):
        clock.advance("soon")


USERS_APP = """
from windlass import Windlass
app = Windlass("sqlite:///never-made.db")

@app.task
async def remind(who: str) -> None: ...
"""

USERS_TEST = """
import pytest
from windlass.testing import assert_enqueued, drain
from jobs import remind

@pytest.mark.anyio
async def test_a_reminder_follows_after_two_hours(windlass_app, windlass_clock):
    await remind.options(delay="2h").enqueue("ann")
    windlass_clock.advance("2h")
    assert [job.status for job in await drain(windlass_app)] == ["completed"]

def test_each_test_begins_with_no_jobs(windlass_app, windlass_clock):
    from windlass.testing import enqueued
    assert enqueued(windlass_app) == []

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("windlass.toml", 'app = "jobs:app"\n'),
        (
            "conftest.py",
            "import jobs, pytest\n@pytest.fixture\ndef windlass_app():\n    return jobs.app\n",
        ),
    ],
)
def test_the_pytest_plugin_gives_an_app_in_memory_and_its_clock(
    tmp_path: Path, file: str, text: str
) -> None:
    (tmp_path / "jobs.py").write_text(USERS_APP)
    (tmp_path / "test_jobs.py").write_text(USERS_TEST)
    (tmp_path / file).write_text(text)

    ended = _pytest(tmp_path)

    assert "2 passed" in ended.stdout, ended.stdout
    assert not (tmp_path / "never-made.db").exists()


def test_the_pytest_plugin_says_what_to_do_when_no_app_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_jobs.py").write_text("def test_it(windlass_clock): ...\n")

    ended = _pytest(tmp_path)

    assert "Override the fixture `windlass_app` in conftest.py" in ended.stdout


def _pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
    )

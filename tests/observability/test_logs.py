"""Log lines: what they tell, what they never tell, and that nobody can forge one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from datetime import timedelta

import pytest

from tests.observability.facts import SECRET, W1, a_job, ended, enqueued, started
from windlass import Windlass
from windlass.context import Run, running
from windlass.errors import ConfigError
from windlass.events import (
    AckStale,
    BackgroundFailed,
    Event,
    EventBus,
    JobEnqueued,
    JobStarted,
    LoopStalled,
    StoreFailed,
    StoreRecovered,
    SuspectsWait,
    WorkerLost,
    WorkerStarted,
    WorkerStopped,
)
from windlass.job import Status
from windlass.logs import Format, JobContextFilter, attach_logging, configure_logging
from windlass.stores.memory import MemoryStore
from windlass.worker.options import WorkerOptions

EVERY_EVENT: list[Event] = [
    enqueued(),
    started(),
    ended(),
    ended(Status.FAILED, error="boom", reason="attempts used up (3)"),
    AckStale(a_job().id, W1, "ack"),
    WorkerStarted(W1, 10, None),
    WorkerStopped(W1, 2),
    WorkerLost(W1),
    SuspectsWait(W1),
    LoopStalled(W1, timedelta(seconds=6), "File x.py, line 3"),
    StoreFailed("claim", "disk I/O error"),
    StoreRecovered("claim"),
    BackgroundFailed("cleanup", "ValueError: x", "Traceback"),
]


@pytest.fixture
def untouched_logging() -> Iterator[None]:
    """Puts logging back as it was."""
    loggers = [logging.getLogger(), logging.getLogger("windlass")]
    before = [(each, each.level, list(each.handlers)) for each in loggers]
    yield
    for logger, level, handlers in before:
        logger.setLevel(level)
        logger.handlers[:] = handlers
    logging.captureWarnings(False)


class Lines:
    """Logging set up to a buffer, and an event bus that is logged there."""

    def __init__(self, format: Format, level: str = "debug") -> None:
        self.out = io.StringIO()
        configure_logging(format, level, self.out)
        self.events = EventBus()
        self.detach = attach_logging(self.events)

    def of(self, *events: Event) -> list[str]:
        for event in events:
            self.events.emit(event)
        return self.out.getvalue().splitlines()


pytestmark = pytest.mark.usefixtures("untouched_logging")


def test_json_names_job_type_queue_attempt_worker_and_duration() -> None:
    (line,) = Lines("json").of(ended())

    got = json.loads(line)
    assert got.pop("ts").endswith("Z")
    assert got == {
        "level": "debug",
        "event": "job.completed",
        "logger": "windlass.jobs",
        "job_id": a_job().id,
        "task": "email",
        "queue": "mail",
        "attempt": 1,
        "worker": "w1",
        "duration_ms": 250.0,
    }


@pytest.mark.parametrize(
    ("status", "error", "event", "level"),
    [
        (Status.COMPLETED, None, "job.completed", "debug"),
        (Status.CANCELLED, None, "job.cancelled", "debug"),
        (Status.PENDING, None, "job.interrupted", "debug"),
        (Status.SCHEDULED, None, "job.snoozed", "debug"),
        (Status.SCHEDULED, "boom", "job.retried", "warning"),
        (Status.FAILED, "boom", "job.failed", "warning"),
    ],
)
def test_steps_are_debug_and_failures_warnings(
    status: Status, error: str | None, event: str, level: str
) -> None:
    (line,) = Lines("json").of(ended(status, error=error))

    got = json.loads(line)
    assert (got["event"], got["level"]) == (event, level)
    assert got.get("error.type") == (None if error is None else "ValueError")


@pytest.mark.parametrize("format", ["console", "json", "logfmt"])
def test_every_event_is_one_line_without_arguments_or_results(format: Format) -> None:
    log = Lines(format)

    for event in EVERY_EVENT:
        before = len(log.of())
        lines = log.of(event)[before:]
        heads = [line for line in lines if not line.startswith("    ")]
        assert len(heads) == 1, event
        assert SECRET not in "".join(lines)


def test_at_info_a_job_costs_no_line_and_its_steps_no_event() -> None:
    log = Lines("json", "info")

    assert not log.events.wants(JobEnqueued)
    assert not log.events.wants(JobStarted)
    assert log.of(enqueued(), started(), ended()) == []
    assert len(log.of(ended(Status.FAILED, error="boom"))) == 1


def test_detaching_ends_it() -> None:
    log = Lines("json")
    log.detach()

    assert log.of(*EVERY_EVENT) == []


@pytest.mark.parametrize("format", ["console", "json", "logfmt"])
def test_a_job_cannot_forge_a_line_or_move_the_cursor(format: Format) -> None:
    evil = 'x\r\nlevel=error event=forged \x1b[2J\u2028\x9b\u202e\ud800 " = \\'

    lines = Lines(format).of(ended(Status.FAILED, error="boom", reason=evil))

    assert len(lines) == 1
    assert all(character.isprintable() for character in lines[0])
    lines[0].encode()


def test_json_keeps_what_it_escapes() -> None:
    (line,) = Lines("json").of(ended(Status.FAILED, error="é", reason="a\n\x1b ü"))

    assert json.loads(line)["reason"] == "a\n\x1b ü"


def test_logfmt_quotes_what_needs_it_and_nothing_else() -> None:
    (line,) = Lines("logfmt").of(ended(Status.FAILED, error='say "no"', reason="plain"))

    assert "task=email queue=mail attempt=1 worker=w1 duration_ms=250.0 reason=plain" in line
    assert r'error.message="say \"no\""' in line


def test_console_puts_stacks_on_lines_of_their_own() -> None:
    lines = Lines("console").of(BackgroundFailed("cleanup", "ValueError: x", "Traceback\n  File a"))

    assert "background.failed" in lines[0]
    assert lines[1:] == ["    Traceback", "      File a"]


def test_users_own_lines_inside_a_task_say_which_job_they_belong_to() -> None:
    log = Lines("json")
    context = running.set(Run(a_job(), MemoryStore()))
    try:
        logging.getLogger("shop.mail").warning("sent %s", "one")
    finally:
        running.reset(context)
    logging.getLogger("shop.mail").warning("outside")

    inside, outside = (json.loads(line) for line in log.of())
    assert inside["message"] == "sent one"
    assert (inside["event"], inside["job_id"], inside["task"]) == ("log", a_job().id, "email")
    assert (inside["queue"], inside["attempt"]) == ("mail", 1)
    assert "job_id" not in outside


def test_the_filter_serves_users_own_format_strings() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.addFilter(JobContextFilter())
    handler.setFormatter(logging.Formatter("%(task)s[%(attempt)s] %(message)s"))
    logger = logging.getLogger("shop.own")
    logger.addHandler(handler)
    context = running.set(Run(a_job(), MemoryStore()))
    try:
        logger.warning("hello")
    finally:
        running.reset(context)
        logger.removeHandler(handler)

    assert out.getvalue() == "email[1] hello\n"


def test_an_exception_is_told_by_type_and_stack() -> None:
    log = Lines("json")
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("windlass.other").exception("went wrong")

    (line,) = (json.loads(line) for line in log.of())
    assert line["error.type"] == "KeyError"
    assert "Traceback" in line["error.stack"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("terminal", "environment", "colored"),
    [
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
        (False, {"FORCE_COLOR": "1"}, True),
    ],
)
def test_colors_are_for_terminals_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, environment: dict[str, str], colored: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    out = Terminal() if terminal else io.StringIO()

    configure_logging("console", "info", out)
    logging.getLogger("windlass.test").warning("hello")

    assert ("\x1b[" in out.getvalue()) is colored


def test_auto_is_console_on_a_terminal_and_logfmt_elsewhere() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        configure_logging("auto", "info", out)
        logging.getLogger("windlass.test").warning("hello")

    assert "ts=" not in terminal.getvalue()
    assert pipe.getvalue().startswith("ts=")


def test_unknown_formats_and_levels_are_refused() -> None:
    with pytest.raises(ConfigError, match="choose auto, console"):
        configure_logging("xml")  # type: ignore[arg-type] # what it is to refuse
    with pytest.raises(ConfigError, match="choose debug, info"):
        configure_logging("json", "loud")


async def test_a_failure_is_told_whole_by_whatever_logging_the_program_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Windlass("memory:")

    @app.task(max_attempts=1)
    async def divide(by: int) -> float:
        return 1 / by

    async with app:
        job = await divide.enqueue(0)
        await app.worker(WorkerOptions(drain=True)).run()

    (said,) = [record for record in caplog.records if record.name == "windlass.jobs"]
    assert said.levelname == "WARNING"
    assert said.getMessage().startswith(f"job.failed job_id={job.id} task=divide queue=default")
    assert "error.type=ZeroDivisionError" in said.getMessage()


async def test_two_workers_of_one_app_log_each_failure_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = Windlass("memory:")
    app.worker()
    app.worker()

    app.events.emit(ended(Status.FAILED, error="boom"))

    assert len(caplog.records) == 1

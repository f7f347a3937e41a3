"""Events as log lines, and log lines as text: for terminals, for JSON collectors, for logfmt.

Only the standard library's ``logging`` is used. :func:`attach_logging` makes the events of an app
into records of the loggers ``windlass.*``, which any set-up of the user's can take; who wants ours
calls :func:`configure_logging`, as the command line does. No line ever holds a job's arguments or
result. Text that came from outside is escaped, so that no job can forge a line or move a cursor.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import IO, Literal

from windlass.context import current_context
from windlass.errors import ConfigError
from windlass.events import (
    AckStale,
    BackgroundFailed,
    EventBus,
    JobEnded,
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
from windlass.job import Job

__all__ = [
    "ConsoleFormatter",
    "Format",
    "JobContextFilter",
    "JsonFormatter",
    "LogfmtFormatter",
    "attach_logging",
    "configure_logging",
    "escaped",
]

Format = Literal["auto", "console", "json", "logfmt"]

_jobs = logging.getLogger("windlass.jobs")
_worker = logging.getLogger("windlass.worker")
_store = logging.getLogger("windlass.store")
_background = logging.getLogger("windlass.background")

_FIELDS = (
    "job_id", "task", "queue", "attempt", "worker", "duration_ms", "wait_ms", "status", "reason",
    "error.type", "error.message", "operation", "slots", "handed_back", "name", "error.stack",
)  # fmt: skip
"""Keys of a line after the fixed ones, in this order."""
_LONGEST = 500


# ------------------------------------------------------------------ events → records


def attach_logging(events: EventBus) -> Callable[[], None]:
    """Log what happens: each step of a job's life at DEBUG, each failure at WARNING.

    Steps are listened to only if ``windlass.jobs`` logs DEBUG at this moment, since an event that
    nobody wants costs nothing. The answer ends it.
    """
    ends = [
        events.subscribe(JobEnded, _job_ended),
        events.subscribe(AckStale, _ack_stale),
        events.subscribe(WorkerStarted, _worker_started),
        events.subscribe(WorkerStopped, _worker_stopped),
        events.subscribe(WorkerLost, _worker_lost),
        events.subscribe(SuspectsWait, _suspects_wait),
        events.subscribe(LoopStalled, _loop_stalled),
        events.subscribe(StoreFailed, _store_failed),
        events.subscribe(StoreRecovered, _store_recovered),
        events.subscribe(BackgroundFailed, _background_failed),
    ]
    if _jobs.isEnabledFor(logging.DEBUG):
        ends.append(events.subscribe(JobEnqueued, _job_enqueued))
        ends.append(events.subscribe(JobStarted, _job_started))

    def detach() -> None:
        for end in ends:
            end()

    return detach


def _job_enqueued(event: JobEnqueued) -> None:
    name = "job.duplicate" if event.duplicate else "job.enqueued"
    _emit(_jobs, logging.DEBUG, name, _of(event.job))


def _job_started(event: JobStarted) -> None:
    fields = _of(event.job) | {"worker": event.worker, "wait_ms": _ms(event.waited)}
    _emit(_jobs, logging.DEBUG, "job.started", fields)


def _job_ended(event: JobEnded) -> None:
    level = logging.DEBUG if event.failure is None else logging.WARNING
    if not _jobs.isEnabledFor(level):
        return
    fields = _of(event.job) | {"worker": event.worker, "duration_ms": _ms(event.ran)}
    if event.reason:
        fields["reason"] = event.reason
    if event.failure is not None:
        fields["error.type"] = event.failure.type
        if event.failure.message:
            fields["error.message"] = event.failure.message.partition("\n")[0]
    _emit(_jobs, level, f"job.{event.outcome}", fields)


def _ack_stale(event: AckStale) -> None:
    fields = {"job_id": event.id, "worker": event.worker, "operation": event.operation}
    _emit(_jobs, logging.WARNING, "ack.stale", fields)


def _worker_started(event: WorkerStarted) -> None:
    queues = "all" if event.queues is None else ",".join(event.queues)
    fields = {"worker": event.worker, "slots": event.slots, "queue": queues}
    _emit(_worker, logging.INFO, "worker.started", fields)


def _worker_stopped(event: WorkerStopped) -> None:
    fields = {"worker": event.worker, "handed_back": event.handed_back}
    _emit(_worker, logging.INFO, "worker.stopped", fields)


def _worker_lost(event: WorkerLost) -> None:
    _emit(_worker, logging.ERROR, "worker.lost", {"worker": event.worker})


def _suspects_wait(event: SuspectsWait) -> None:
    _emit(_worker, logging.WARNING, "suspects.wait", {"worker": event.worker})


def _loop_stalled(event: LoopStalled) -> None:
    fields = {
        "worker": event.worker, "duration_ms": _ms(event.blocked), "error.stack": event.stacks,
    }  # fmt: skip
    _emit(_worker, logging.ERROR, "loop.stalled", fields)


def _store_failed(event: StoreFailed) -> None:
    fields = {"operation": event.operation, "error.message": event.error}
    _emit(_store, logging.WARNING, "store.failed", fields)


def _store_recovered(event: StoreRecovered) -> None:
    _emit(_store, logging.INFO, "store.recovered", {"operation": event.operation})


def _background_failed(event: BackgroundFailed) -> None:
    fields = {"name": event.name, "error.message": event.error, "error.stack": event.traceback}
    _emit(_background, logging.ERROR, "background.failed", fields)


def _emit(logger: logging.Logger, level: int, event: str, fields: Mapping[str, object]) -> None:
    logger.log(level, _Message(event, fields), extra={"event": event, "fields": fields})


class _Message:
    """What a record says where our formatters are not set up: the event with its fields."""

    __slots__ = ("_event", "_fields")

    def __init__(self, event: str, fields: Mapping[str, object]) -> None:
        self._event = event
        self._fields = fields

    def __str__(self) -> str:
        short = (item for item in self._fields.items() if item[0] != "error.stack")
        return " ".join([self._event, *(f"{key}={_quoted(value)}" for key, value in short)])


def _of(job: Job) -> dict[str, object]:
    return {"job_id": job.id, "task": job.type, "queue": job.queue, "attempt": job.attempt}


def _ms(span: timedelta) -> float:
    return round(span.total_seconds() * 1000, 3)


# ------------------------------------------------------------------ records → text


class JobContextFilter(logging.Filter):
    """Adds ``job_id``, ``task``, ``queue`` and ``attempt`` to records made inside a running task.

    Put it on a handler: then users' own lines, from any logger, say which job they belong to. For
    format strings the same names are attributes of the record (empty outside of tasks).
    """

    def filter(self, record: logging.LogRecord) -> bool:
        fields = getattr(record, "fields", None)
        if fields is None:
            context = current_context()
            fields = record.fields = {} if context is None else _of(context.job)
        for name in ("job_id", "task", "queue", "attempt"):
            if not hasattr(record, name):
                setattr(record, name, fields.get(name, ""))
        return True


class _Formatter(logging.Formatter):
    """What the three have in common: which fields a record has, and times in UTC."""

    def fields(self, record: logging.LogRecord) -> Iterator[tuple[str, object]]:
        given: dict[str, object] = dict(getattr(record, "fields", None) or {})
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            given.setdefault("error.type", type(error).__qualname__)
            given.setdefault("error.stack", "".join(traceback.format_exception(error)))
        for name in _FIELDS:
            if name in given:
                yield name, given[name]

    def head(self, record: logging.LogRecord) -> dict[str, object]:
        at = datetime.fromtimestamp(record.created, UTC)
        event = _event_of(record)
        head: dict[str, object] = {
            "ts": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": event or "log",
            "logger": record.name,
        }
        if event is None:
            head["message"] = record.getMessage()
        return head


def _event_of(record: logging.LogRecord) -> str | None:
    """The name of the event that *record* tells of; None: it is a line of somebody else's."""
    return record.msg._event if isinstance(record.msg, _Message) else None


class JsonFormatter(_Formatter):
    """One JSON object per line, in ASCII: safe for every collector and every terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.head(record) | dict(self.fields(record)), default=str)


class LogfmtFormatter(_Formatter):
    """``key=value`` pairs on one line."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = self.head(record) | dict(self.fields(record))
        return " ".join(f"{key}={_quoted(value)}" for key, value in pairs.items())


class ConsoleFormatter(_Formatter):
    """For people: time, level, what happened, then the rest; stacks on lines of their own."""

    def __init__(self, *, color: bool = False) -> None:
        super().__init__()
        self._color = color

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).astimezone()
        fields = dict(self.fields(record))
        stack = fields.pop("error.stack", None)
        level = self._painted(f"{record.levelname:<7}", _COLORS.get(record.levelno, ""))
        rest = " ".join(
            self._painted(f"{key}=", "2") + _quoted(value) for key, value in fields.items()
        )
        said = _event_of(record) or escaped(record.getMessage())
        text = f"{at:%H:%M:%S}.{at.microsecond // 1000:03d} {level} {said}"
        line = f"{text}  {rest}" if rest else text
        if stack:
            line += "".join("\n    " + escaped(each) for each in str(stack).rstrip().split("\n"))
        return line

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._color and code else text


_COLORS = {
    logging.DEBUG: "2", logging.INFO: "36", logging.WARNING: "33", logging.ERROR: "31",
    logging.CRITICAL: "1;31",
}  # fmt: skip

# C0 and C1 controls, lone surrogates, and what reorders or breaks lines in a terminal.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_PLAIN = re.compile(r"[^\s\"=\\]+")


def escaped(value: object) -> str:
    """*value* as text on one line that no terminal takes for a command."""
    return _UNSAFE.sub(lambda found: _escape(ord(found[0])), str(value))


def _escape(code: int) -> str:
    short = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t"}.get(code)
    return short or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _quoted(value: object) -> str:
    text = str(value)
    if len(text) > _LONGEST and "\n" not in text:
        text = text[: _LONGEST - 1] + "…"
    if escaped(text) == text and _PLAIN.fullmatch(text):
        return text
    return '"' + escaped(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


# ------------------------------------------------------------------ set-up of a process of ours


def configure_logging(
    format: Format = "auto",
    level: str | int = "info",
    stream: IO[str] | None = None,
) -> None:
    """Send all records of this process to *stream* (stderr) in *format*.

    ``auto``: ``console`` on a terminal, else ``logfmt``. Colours by terminal, ``NO_COLOR`` and
    ``FORCE_COLOR``. For processes that are Windlass's own; a library does not do this to its user.
    """
    out = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(format, out))
    handler.addFilter(JobContextFilter())
    root = logging.getLogger()
    for other in list(root.handlers):
        root.removeHandler(other)
    root.addHandler(handler)
    chosen = _level(level)
    # Users' own lines come too; other libraries' DEBUG is seldom what somebody asks us for.
    root.setLevel(max(chosen, logging.INFO))
    logging.getLogger("windlass").setLevel(chosen)
    logging.captureWarnings(True)


def _formatter(format: Format, stream: IO[str]) -> logging.Formatter:
    terminal = stream.isatty()
    match format:
        case "json":
            return JsonFormatter()
        case "console":
            return ConsoleFormatter(color=_wants_color(terminal))
        case "logfmt":
            return LogfmtFormatter()
        case "auto":
            return ConsoleFormatter(color=_wants_color(terminal)) if terminal else LogfmtFormatter()
    raise ConfigError(f"{format!r} is no log format: choose auto, console, json or logfmt.")


def _wants_color(terminal: bool) -> bool:
    """As no-color.org and force-color.org say: set and not empty."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or (terminal and os.environ.get("TERM") != "dumb")


def _level(level: str | int) -> int:
    if isinstance(level, int):
        return level
    known = logging.getLevelNamesMapping()
    if level.upper() not in known:
        raise ConfigError(f"{level!r} is no log level: choose debug, info, warning or error.")
    return known[level.upper()]

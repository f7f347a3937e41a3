"""A job's options as callers write them, checked once and made into :class:`JobOptions`.

Everything that can be said about a job beside its arguments passes here, whether it was said in
``@app.task(…)``, ``task.options(…)``, an HTTP body or on the command line; so each rule, and the
sentence that explains it, stands in one place. What comes out is valid, frozen, and shared by all
jobs that are enqueued with it.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypedDict

import msgspec

from windlass.durations import Duration, parse_duration
from windlass.errors import ConfigError
from windlass.job import ACTIVE, WAITING, JobId, JobOptions, Status, Unique

__all__ = [
    "EnqueueOptions",
    "check_name",
    "did_you_mean",
    "job_id",
    "key_to_id",
    "merge_options",
]


class EnqueueOptions(TypedDict, total=False):
    """What ``task.options(…)`` takes."""

    delay: Duration
    run_at: datetime
    queue: str
    priority: int
    unique: str | Unique | None
    timeout: Duration | None
    max_attempts: int
    expires: Duration | None
    tags: Iterable[str]
    meta: Mapping[str, str]
    on_lost: Literal["retry", "fail"]
    id: str | uuid.UUID
    key: str


_NAME = re.compile(r"[A-Za-z0-9._:-]{1,64}", re.ASCII)
_KEYS = uuid.UUID("6f9a3c1e-43a5-5f0e-9d0b-0a4e1f0c7a55")
"""Namespace of ids made from idempotency keys. Changing it would forget every key in use."""

_YEAR = timedelta(days=365.25)


def merge_options(base: JobOptions, overrides: Mapping[str, object]) -> JobOptions:
    """*base* with each of *overrides* checked and put in its place.

    Values may be as Python callers or as JSON have them (``"5m"``, an ISO date, a list of tags).
    Raises :class:`~windlass.errors.ConfigError` that names the option and what it may be.
    """
    if not overrides:
        return base
    checked: dict[str, Any] = {}
    for name, value in overrides.items():
        check = _CHECKS.get(name)
        if check is None:
            raise ConfigError(
                f"There is no job option {name!r:.80}{did_you_mean(name, _CHECKS)}; "
                f"the options are {', '.join(_CHECKS)}."
            )
        checked[name] = check(value)
    if checked.get("delay") is not None and checked.get("run_at") is not None:
        raise ConfigError("A job has either a delay or a run_at: give one of them.")
    # The one that is given replaces the other one in the defaults.
    if checked.get("delay") is not None:
        checked.setdefault("run_at", None)
    elif checked.get("run_at") is not None:
        checked.setdefault("delay", None)
    return msgspec.structs.replace(base, **checked)


def check_name(name: object, what: str) -> str:
    """*name* if it can name a queue or a task type; else ConfigError, which says *what* it was."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} is 1 to 64 letters, digits, dots, dashes, colons or underscores, "
            f"not {name!r:.80}."
        )
    return name


def job_id(value: object) -> JobId:
    """An id that a caller chose, in the one form in which ids are compared."""
    try:
        return JobId(str(value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))))
    except ValueError:
        raise ConfigError(
            f"A job's id is a UUID, not {value!r:.80}: for other texts use key=."
        ) from None


def key_to_id(key: object) -> JobId:
    """The id that stands for an idempotency *key*: the same key, the same job."""
    return JobId(str(uuid.uuid5(_KEYS, _text(key, "An idempotency key", 256))))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'delay'?)"``, or nothing when no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _text(value: object, what: str, longest: int) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= longest or not value.isprintable():
        raise ConfigError(f"{what} is 1 to {longest} printable characters, not {value!r:.80}.")
    return value


def _whole(least: int, most: int, what: str) -> Callable[[object], int]:
    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(
                f"{what} is a whole number from {least} to {most}, not {value!r:.80}."
            )
        return int(value)

    return check


def _span(
    least: timedelta, most: timedelta, what: str, said: str
) -> Callable[[object], timedelta | None]:
    def check(value: object) -> timedelta | None:
        if value is None:
            return None
        span = parse_duration(value, what=what)  # type: ignore[arg-type]  # it judges any object
        if not least <= span <= most:
            raise ConfigError(f"{what} lies between {said}, not {value!r:.80}.")
        return span

    return check


def _queue(value: object) -> str:
    return check_name(value, "A queue's name")


def _run_at(value: object) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            value = repr(value)
    if not isinstance(value, datetime):
        raise ConfigError(
            f"run_at is a datetime, or its ISO 8601 text like '2027-01-31T09:00:00+01:00', "
            f"not {value!s:.80}."
        )
    if value.utcoffset() is None:
        raise ConfigError(
            f"run_at needs a time zone, and {value.isoformat()} has none: "
            "use datetime(…, tzinfo=UTC) or another zone."
        )
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ConfigError(
            f"run_at lies between the years 1 and 9999 in UTC, not {value}."
        ) from None


def _unique(value: object) -> Unique | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        value = _unique_of_json(value)
    if not isinstance(value, Unique):
        value = Unique(_text(value, "A unique key", 256))
    _text(value.key, "A unique key", 256)
    if not value.within or not all(isinstance(status, Status) for status in value.within):
        raise ConfigError("A unique key counts within at least one status: see Unique(within=…).")
    if value.on_conflict not in _ON_CONFLICT:
        raise ConfigError(
            f"on_conflict is 'return', 'replace' or 'reject', not {value.on_conflict!r:.80}."
        )
    return value


_ON_CONFLICT = ("return", "replace", "reject")
_WITHIN = {"waiting": WAITING, "active": ACTIVE}


def _unique_of_json(data: Mapping[Any, Any]) -> Unique:
    """``{"key": …, "within": "waiting" | "active" | [status, …], "on_conflict": …}``."""
    if unknown := [str(name) for name in data if name not in ("key", "within", "on_conflict")]:
        raise ConfigError(f"unique has key, within and on_conflict, not {unknown[0]!r:.80}.")
    within = data.get("within", "active")
    try:
        statuses = _WITHIN[within] if isinstance(within, str) else frozenset(map(Status, within))
    except (KeyError, TypeError, ValueError):
        raise ConfigError(
            "unique.within is 'waiting', 'active' or a list of statuses "
            f"({', '.join(Status)}), not {within!r:.80}."
        ) from None
    return Unique(data.get("key", ""), statuses, data.get("on_conflict", "return"))


def _tags(value: object) -> tuple[str, ...]:
    if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"tags is a list of texts, not {value!r:.80}.")
    tags = tuple(dict.fromkeys(_text(tag, "A tag", 64) for tag in value))
    if len(tags) > 20:
        raise ConfigError(f"A job has at most 20 tags, not {len(tags)}.")
    return tags


def _meta(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"meta is an object of texts, not {value!r:.80}.")
    if len(value) > 20:
        raise ConfigError(f"meta has at most 20 entries, not {len(value)}.")
    for key, text in value.items():
        _text(key, "A key of meta", 64)
        if not isinstance(text, str) or len(text) > 1024 or not _storable(text):
            raise ConfigError(
                f"meta[{key!r}] is text of at most 1024 characters without NUL, not {text!r:.80}."
            )
    return dict(value)


def _storable(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= char <= "\udfff" for char in text)


def _on_lost(value: object) -> str:
    if value not in ("retry", "fail"):
        raise ConfigError(f"on_lost is 'retry' or 'fail', not {value!r:.80}.")
    return str(value)


_LEAST = timedelta(milliseconds=10)
_CHECKS: dict[str, Callable[[object], object]] = {
    "delay": _span(timedelta(0), 10 * _YEAR, "delay", "0 and 10 years"),
    "run_at": _run_at,
    "queue": _queue,
    "priority": _whole(-100, 100, "priority"),
    "unique": _unique,
    "timeout": _span(_LEAST, timedelta(days=30), "timeout", "10 ms and 30 days"),
    "max_attempts": _whole(1, 1000, "max_attempts"),
    "expires": _span(_LEAST, 10 * _YEAR, "expires", "10 ms and 10 years"),
    "tags": _tags,
    "meta": _meta,
    "on_lost": _on_lost,
}

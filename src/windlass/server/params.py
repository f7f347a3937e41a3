"""What clients send, as values: query strings and JSON bodies, each described by a struct.

The struct is both the check and the documentation: ``openapi.py`` reads the same one. JSON bodies
pass ``codec.check_json`` first, so that what the library refuses to store is refused here as well,
in whatever part of the body it stands. Names that are not known are errors: a misspelt filter that
is silently ignored would act on everything.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Meta, UnsetType

from windlass.codec import check_json, pointer_token
from windlass.errors import ConfigError, FieldError, PayloadError
from windlass.job import JobFilter, Status
from windlass.options import did_you_mean
from windlass.server.guard import MAX_BODY
from windlass.server.problems import Problem

__all__ = [
    "BulkBody",
    "CancelBody",
    "EnqueueBody",
    "EventQuery",
    "FailureQuery",
    "FilterBody",
    "JobQuery",
    "LimitBody",
    "LogQuery",
    "NoQuery",
    "PauseBody",
    "RateBody",
    "WaitQuery",
    "cursor_of",
    "faulty_option",
    "filter_of",
    "preferred_wait",
    "read_cursor",
    "read_json",
    "read_query",
    "utc",
]

T = TypeVar("T")

MAX_WAIT = 60.0
"""Seconds that a request may wait for a job to end."""

NAME_PATTERN = "^[A-Za-z0-9._:-]{1,64}$"
# Without NUL, which no store keeps: asking for it can find nothing.
_TEXT_PATTERN = "^[^\\u0000]*$"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(min_length=1, max_length=256, pattern=_TEXT_PATTERN)]
When = Annotated[datetime, Meta(tz=True)]
Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT)]


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For operations that take no parameters."""


class WaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``wait``: seconds to wait for the job's end."""

    wait: Wait | UnsetType = UNSET


class LogQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``after``: only lines with a higher ``seq``."""

    after: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class FilterBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs: fields are ANDed, the values of one field ORed."""

    status: list[Status] = []
    type: list[Name] = []
    queue: list[Name] = []
    tag: list[Text] = []
    worker: list[Text] = []
    created_from: When | UnsetType = UNSET
    created_to: When | UnsetType = UNSET
    q: Text | UnsetType = UNSET
    """Text that occurs in the payload's JSON."""
    unique_key: Text | UnsetType = UNSET


class JobQuery(FilterBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of a listing."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    order: Literal["newest", "oldest"] = "newest"
    cursor: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET


class EventQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs' events."""

    id: list[Annotated[str, Meta(min_length=1, max_length=64)]] = []
    type: list[Name] = []
    queue: list[Name] = []


class FailureQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose failures."""

    type: list[Name] = []
    queue: list[Name] = []


class EnqueueBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to enqueue. The options are judged where all callers' options are, by ``options.py``."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    key: str | None = None
    queue: Any = UNSET
    priority: Any = UNSET
    delay: Any = UNSET
    run_at: Any = UNSET
    max_attempts: Any = UNSET
    timeout: Any = UNSET
    expires: Any = UNSET
    unique: Any = UNSET
    tags: Any = UNSET
    meta: Any = UNSET
    on_lost: Any = UNSET

    def overrides(self) -> dict[str, Any]:
        """The options that were given."""
        found = {}
        for name in OPTION_NAMES:
            if (value := getattr(self, name)) is not UNSET:
                found[name] = value
        return found


OPTION_NAMES = EnqueueBody.__struct_fields__[4:]


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``reason``: kept with the job."""

    reason: Text = "cancelled on request"


class PauseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``reason``: shown to whoever wonders why nothing runs."""

    reason: Text | None = None


class BulkBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The jobs of ``filter``, or those of ``ids``."""

    filter: FilterBody | UnsetType = UNSET
    ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=1000)] | UnsetType = (
        UNSET
    )
    dry_run: bool = False
    """Only count."""
    limit: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    reason: Text = "cancelled on request"


class RateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``count`` starts per ``period`` seconds, at most ``burst`` (if not given: ``count``) at once."""

    count: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    period: Annotated[float, Meta(ge=0.001, le=366 * 86400)] = 1.0
    burst: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None


class LimitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit, whole: what is left out is not limited."""

    concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    rate: (
        RateBody
        | Annotated[str, Meta(max_length=40, description="Such as `10/s`, `100/minute`, `5/10s`.")]
        | None
    ) = None
    capacity: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None


def read_query(kind: type[T], raw: bytes) -> T:
    """The query string as a *kind*; 422 naming the parameter that is wrong."""
    names = kind.__struct_fields__  # type: ignore[attr-defined]
    given: dict[str, Any] = {}
    try:
        pairs = parse_qsl(
            raw.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=200
        )
    except (ValueError, UnicodeDecodeError):
        raise Problem(
            "invalid-parameter", "The query is not valid percent-encoded UTF-8."
        ) from None
    for name, value in pairs:
        if name not in names:
            raise Problem(
                "invalid-parameter",
                f"There is no parameter {name!r:.80}{did_you_mean(name, names)}"
                + (f"; there are {', '.join(names)}." if names else "; there are none."),
            )
        if name in _LISTS:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise Problem("invalid-parameter", f"The parameter {name!r} is given twice.")
        else:
            given[name] = value
    try:
        # Texts become numbers where numbers are meant; but no number is a time.
        for name in _TIMES & given.keys():
            given[name] = msgspec.convert(given[name], When)
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        field = _field(error)
        name = field.pointer.split("/")[1] if field.pointer else min(_TIMES & given.keys())
        raise Problem("invalid-parameter", f"The parameter {name!r}: {field.detail}") from None


_LISTS = frozenset({"id", "status", "type", "queue", "tag", "worker"})
_TIMES = frozenset({"created_from", "created_to"})


def read_json(kind: type[T], body: bytes, *, max_bytes: int = MAX_BODY) -> T:
    """The body as a *kind*. 400: it is no JSON; 422: it is, and not what is needed."""
    if not body:
        raise Problem("malformed-json", "The body is empty: send a JSON object.")
    try:
        check_json(body, max_bytes=max_bytes)
    except PayloadError as error:
        code = "invalid-body" if _is_json(body) else "malformed-json"
        text = str(error).replace("The value", "The body", 1)
        raise Problem(code, text, fields=error.errors) from None
    try:
        return _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        field = _known_field(_field(error), kind)
        where = f"{field.pointer}: " if field.pointer else ""
        raise Problem("invalid-body", where + field.detail, fields=(field,)) from None


def filter_of(body: FilterBody) -> JobFilter:
    """What the store is asked for."""
    return JobFilter(
        status=frozenset(body.status),
        type=frozenset(body.type),
        queue=frozenset(body.queue),
        tag=frozenset(body.tag),
        worker=frozenset(body.worker),
        created_from=utc(body.created_from, "created_from"),
        created_to=utc(body.created_to, "created_to"),
        text=body.q or None,
        unique_key=body.unique_key or None,
    )


def utc(when: datetime | UnsetType, name: str) -> datetime | None:
    """*when* in UTC; near the ends of the calendar there may be no such time."""
    try:
        return None if when is UNSET else when.astimezone(UTC)
    except OverflowError:
        raise Problem("invalid-parameter", f"{name} lies beyond the calendar.") from None


def cursor_of(seq: int, order: str) -> str:
    """A page's key as clients hand it back: opaque, so that it may change."""
    return base64.urlsafe_b64encode(f"{order[0]}{seq}".encode()).decode().rstrip("=")


def read_cursor(cursor: str | UnsetType, order: str) -> int | None:
    """The key in *cursor*; 422 if it was not made for this *order*."""
    if cursor is UNSET:
        return None
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except ValueError:
        text = ""
    match = re.fullmatch(r"([no])(\d{1,18})", text, re.ASCII)
    if match is None or match[1] != order[0]:
        raise Problem(
            "invalid-parameter",
            "The cursor does not belong to this listing: take it from the Link header, and change "
            "no other parameter.",
        )
    return int(match[2])


def preferred_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds of ``Prefer: wait=…`` (RFC 7240), at most a minute; what makes no sense is ignored."""
    for preference in headers.get("prefer", "").split(","):
        name, _, value = preference.partition(";")[0].partition("=")
        value = value.strip().strip('"')
        if name.strip().lower() == "wait" and value.isdecimal() and value.isascii():
            return min(float(value[:9]), MAX_WAIT)
    return None


_decoders: dict[Any, msgspec.json.Decoder[Any]] = {}


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    found = _decoders.get(kind)
    if found is None:
        found = _decoders[kind] = msgspec.json.Decoder(kind)
    return found


def _is_json(body: bytes) -> bool:
    try:
        body.decode()
        msgspec.json.decode(body)
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        return isinstance(error, msgspec.ValidationError)
    except RecursionError:
        return True
    return True


_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def _field(error: msgspec.ValidationError) -> FieldError:
    """What msgspec says, with its path (``$.filter.status[0]``) as a JSON pointer."""
    detail, _, path = str(error).partition(" - at `$")
    steps = [name or index for name, index in _STEP.findall(path.removesuffix("`"))]
    return FieldError("".join(f"/{step}" for step in steps if step != "..."), f"{detail}.")


def _known_field(field: FieldError, kind: Any) -> FieldError:
    """For a name that no field bears: the pointer to it, and the name that may have been meant."""
    match = re.match(r"Object contains unknown field `(.*)`", field.detail, re.DOTALL)
    if match is None:
        return field
    names = getattr(kind, "__struct_fields__", ()) if not field.pointer else ()
    known = f"; the fields are {', '.join(names)}." if names else "."
    pointer = f"{field.pointer}/{pointer_token(match[1])}"
    return FieldError(pointer, f"There is no such field{did_you_mean(match[1], names)}{known}")


def faulty_option(
    overrides: Mapping[str, Any], check: Callable[[Mapping[str, Any]], object]
) -> tuple[FieldError, ...]:
    """Which option it was that *check* refused: the error names it in words, and this by pointer."""
    for name, value in overrides.items():
        try:
            check({name: value})
        except ConfigError as error:
            return (FieldError(f"/{name}", str(error)),)
    return ()

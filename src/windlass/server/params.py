"""What clients send, made into values of the shapes in ``shapes.py``, or into a problem.

JSON bodies pass ``codec.check_json`` first, so that what the library refuses to store is refused here
as well, in whatever part of the body it stands. Names that are not known are errors: a misspelt
filter that is silently ignored would act on everything.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, UnsetType

from windlass.codec import check_json, pointer_token
from windlass.errors import ConfigError, FieldError, PayloadError
from windlass.job import JobFilter
from windlass.options import did_you_mean
from windlass.server.guard import MAX_BODY
from windlass.server.problems import Problem
from windlass.server.shapes import KEY_PATTERN, MAX_WAIT, FilterBody, When

__all__ = [
    "cursor_of",
    "faulty_option",
    "filter_of",
    "idempotency_key",
    "preferred_wait",
    "read_cursor",
    "read_json",
    "read_query",
    "refuse_query",
    "utc",
]

T = TypeVar("T")


def refuse_query(raw: bytes) -> None:
    """422 for a query string where none means anything."""
    if raw:
        raise Problem("invalid-parameter", "There are no parameters here: leave the query out.")


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
                f"; there are {', '.join(names)}.",
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


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """The header's value, which may be quoted as a structured field is."""
    text = headers.get("idempotency-key")
    if text is None:
        return None
    key = text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text
    if not re.fullmatch(KEY_PATTERN, key):
        raise Problem(
            "bad-header",
            "An Idempotency-Key is 1 to 256 printable ASCII characters, such as a UUID.",
        )
    return key


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

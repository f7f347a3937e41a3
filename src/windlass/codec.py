"""Values to JSON and back: what may be stored, and what is refused before it is.

Every payload and result passes here on its way in, whether it comes from Python, HTTP or the
command line, so that all stores may keep the bytes as they are. :func:`check_json` judges bytes
made by others; :func:`dump` makes bytes of Python values and judges those more cheaply, since an
encoder of ours wrote them. Both hold the same rules: at most 256 KiB, at most 64 levels deep, valid
UTF-8 without NUL and lone surrogates, finite numbers, integers of 64 bits, no key twice in an object.

When something is wrong, the quick checks only say *that*; :func:`find_unsafe` then walks the value
to say *where* and *why*. Binding a payload to a task's parameters is the work of ``signature.py``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from typing import Any

import msgspec

from windlass.errors import FieldError, PayloadError, ResultError

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "check_json",
    "decode_hook",
    "dump",
    "encode",
    "encode_hook",
    "encode_result",
    "find_unsafe",
    "is_plain",
    "is_pydantic",
    "parts",
    "pointer_token",
    "safe_text",
]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 64

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
# An integer beyond 64 bits has at least 19 digits; a NUL is always written as an escape.
_suspicious = re.compile(rb"[0-9]{19}|u0000").search
_unstorable = re.compile("[\x00\ud800-\udfff]")
# The closing quote is optional and repetition possessive: linear on any input, even malformed.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def check_json(raw: bytes, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> None:
    """Raise :class:`PayloadError` unless *raw* is JSON that every store can keep.

    Cost is linear in the size, and nothing recurses before size and depth are known to be small.
    """
    _check_size(raw, max_bytes)
    if _too_deep(raw, max_depth):
        _refuse(FieldError("", f"is nested deeper than {max_depth} levels: flatten it."))
    data = _parse(raw)
    if _suspicious(raw):
        _refuse(find_unsafe(data))
    if raw.count(b":") > 1 and _may_repeat_keys(raw, data):
        _refuse(find_unsafe(json.loads(raw, object_pairs_hook=_unique)))


def dump(value: object, *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> bytes:
    """Encode *value* as JSON; raise :class:`PayloadError` naming the place that has no safe form.

    What JSON would change silently (a key that is no string) is left to the caller to notice.
    """
    try:
        raw = encode(value)
    except Exception as error:
        # Any exception: the hooks run code of the user's own types.
        _refuse(find_unsafe(value, max_depth=max_depth))
        _refuse(FieldError("", f"cannot be written as JSON: {safe_text(error, 500)}."))
        raise AssertionError("unreachable") from error
    _check_size(raw, max_bytes)
    if value is not None and b"null" in raw:
        # The encoder writes NaN and infinity as null.
        _refuse(find_unsafe(value, max_depth=max_depth))
    if _suspicious(raw) or _too_deep(raw, max_depth):
        try:
            check_json(raw, max_bytes=max_bytes, max_depth=max_depth)
        except PayloadError:
            # The value tells the place as its owner knows it; a hook may have hidden the cause there.
            _refuse(find_unsafe(value, max_depth=max_depth))
            raise
    return raw


def is_plain(raw: bytes, max_bytes: int) -> bool:
    """Whether *raw*, written by :data:`encode`, is safe at first sight; else ask :func:`dump`."""
    return (
        len(raw) <= max_bytes
        and raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH
        and _suspicious(raw) is None
    )


def encode_result(value: object, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Encode what a task returned.

    Raises:
        ResultError: it has no JSON form that can be stored; the message says where and why.
    """
    try:
        raw = dump(value, max_bytes=max_bytes)
        # The keys 1 and "1" are written as the same key.
        if raw.count(b":") > 1 and encode(_loads(raw)) != raw:
            _refuse(find_unsafe(json.loads(raw, object_pairs_hook=_unique)))
    except PayloadError as error:
        where = error.errors[0].pointer if error.errors else ""
        what = error.errors[0].detail if error.errors else str(error)
        raise ResultError(
            f"The result (a {_type_name(value)}) cannot be stored: "
            f"{f'at {where}: ' if where else ''}{what}"
        ) from None
    return raw


def find_unsafe(value: object, *, max_depth: int = MAX_DEPTH) -> FieldError | None:
    """The first place in *value* that cannot be stored as JSON, with the reason; None if all can.

    Slow and thorough: called when a quick check has already failed or grown suspicious.
    """
    stack: list[tuple[str, object, int, bool]] = [("", value, 1, False)]
    while stack:
        pointer, item, depth, in_model = stack.pop()
        inner = parts(item)
        if inner is None:
            if detail := _leaf_problem(item, in_model):
                return FieldError(pointer, detail)
            continue
        if depth > max_depth:
            return FieldError(
                pointer, f"is nested deeper than {max_depth} levels, or contains itself."
            )
        # A pydantic model knows how to write types that are unknown here.
        in_model = in_model or is_pydantic(type(item))
        children = []
        for key, child in inner:
            if detail := _key_problem(key):
                return FieldError(pointer, detail)
            children.append((f"{pointer}/{pointer_token(key)}", child, depth + 1, in_model))
        stack.extend(reversed(children))
    return None


def parts(value: object) -> Iterable[tuple[object, object]] | None:
    """The (key, child) pairs of a container or object with fields; None for a leaf."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, (list, tuple, set, frozenset)):
        return enumerate(value)
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        names: Iterable[str] = value.__struct_fields__
    elif is_dataclass(kind):
        names = [field.name for field in fields(kind)]
    elif hasattr(kind, "__attrs_attrs__"):
        names = [field.name for field in kind.__attrs_attrs__]
    elif is_pydantic(kind):
        names = list(vars(value))
    else:
        return None
    return _fields(value, names)


def pointer_token(key: object) -> str:
    """*key* as one step of a JSON pointer (RFC 6901)."""
    return safe_text(key, 200).replace("~", "~0").replace("/", "~1")


def safe_text(value: object, limit: int) -> str:
    """``str(value)`` that never raises, holds no NUL or surrogate and at most *limit* characters."""
    try:
        text = str.__str__(value if isinstance(value, str) else str(value))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # A __str__ may fail in any way; the text of a failure must not become another one.
        text = f"<{_type_name(value)} whose text cannot be had: {_type_name(error)}>"
    if len(text) > limit:
        text = text[: max(limit - 1, 0)] + "…"
    return _unstorable.sub("\ufffd", text)


def is_pydantic(kind: object) -> bool:
    """Whether *kind* is a pydantic model, told by its methods so that pydantic is not imported."""
    return (
        isinstance(kind, type)
        and hasattr(kind, "__pydantic_validator__")
        and hasattr(kind, "model_validate_json")
    )


def encode_hook(value: object) -> object:
    """What msgspec shall encode in place of a value that it does not know, such as a subclass."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, datetime):
        return datetime.combine(value, value.timetz())
    if isinstance(value, date):
        return date(value.year, value.month, value.day)
    if is_pydantic(type(value)):
        model: Any = value
        # Warnings off: a field of a wrong type is refused when the bytes are read back.
        return model.model_dump(mode="json", by_alias=True, round_trip=True, warnings=False)
    raise TypeError(f"A {_type_name(value)} has no JSON form.")


def decode_hook(kind: Any, data: object) -> object:
    """Build a value of a type that msgspec does not know from its decoded JSON."""
    if kind is object:
        return data
    if not is_pydantic(kind):
        raise TypeError(f"{kind!r} cannot be built from JSON.")
    return kind.model_validate_json(encode(data))


encode = msgspec.json.Encoder(enc_hook=encode_hook).encode
_loads = msgspec.json.Decoder().decode


def _check_size(raw: bytes, max_bytes: int) -> None:
    if len(raw) > max_bytes:
        _refuse(
            FieldError(
                "",
                f"is {len(raw):,} bytes of JSON, and {max_bytes:,} are allowed: keep large data "
                "elsewhere and pass a reference to it.",
            )
        )


def _too_deep(raw: bytes, max_depth: int) -> bool:
    if raw.count(b"[") + raw.count(b"{") <= max_depth:
        return False
    depth = 0
    for bracket in _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS):
        depth += _STEP[bracket]
        if depth > max_depth:
            return True
    return False


def _parse(raw: bytes) -> object:
    try:
        # The parser does not look into every string that it skips, and reports no position.
        if not raw.isascii():
            raw.decode()
        return _loads(raw)
    except UnicodeDecodeError as error:
        problem = f"is not valid UTF-8 at byte {error.start}: send JSON encoded as UTF-8."
    except (msgspec.DecodeError, RecursionError) as error:
        _explain_malformed(raw)
        problem = f"is not valid JSON: {error}."
    raise _error(FieldError("", problem))


def _explain_malformed(raw: bytes) -> None:
    """Refuse *raw* by the standard library, which tells more and, lenient, lets us find NaN."""
    text = raw.decode()
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        at = len(text[: error.pos].encode())
        _refuse(FieldError("", f"is not valid JSON at byte {at}: {error.msg}."))
    except (ValueError, RecursionError):
        _refuse(FieldError("", "holds an integer of thousands of digits: send it as a string."))
    else:
        _refuse(find_unsafe(data))


def _may_repeat_keys(raw: bytes, data: object) -> bool:
    """Parsed and written again, an object with a repeated key has lost a colon.

    Only an escaped colon within a string makes the counts differ without that (or hides it).
    """
    return b"\\u" in raw or encode(data).count(b":") != raw.count(b":")


class _Repeated:
    """Stands for a JSON object in which *key* occurs twice."""

    def __init__(self, key: str) -> None:
        self.key = key


def _unique(pairs: list[tuple[str, object]]) -> object:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            return _Repeated(key)
        found[key] = value
    return found


def _fields(value: object, names: Iterable[str]) -> Iterator[tuple[str, object]]:
    for name in names:
        try:
            child = getattr(value, name)
        except Exception:  # noqa: S112 - an unset slot, or a property that fails: no value to judge
            continue
        if child is not msgspec.UNSET:
            yield name, child


def _leaf_problem(leaf: object, in_model: bool) -> str | None:
    match leaf:
        case None | bool():
            return None
        case _Repeated():
            return f"has the key {safe_text(leaf.key, 200)!r} twice: keep one of them."
        case int():
            return None if _INT_MIN <= leaf <= _INT_MAX else _TOO_BIG
        case float():
            return None if math.isfinite(leaf) else _NOT_FINITE
        case str():
            return _TEXT if _unstorable.search(leaf) else None
    if in_model:
        return None
    try:
        encode(leaf)
    except Exception:
        # Whatever the hooks of the user's types raise, it comes to this.
        return f"is of type {_type_name(leaf)}, which has no JSON form: pass plain data."
    return None


def _key_problem(key: object) -> str | None:
    if isinstance(key, str):
        return f"has a key that {_TEXT}" if _unstorable.search(key) else None
    try:
        encode({key: None})
    except Exception:
        # As above.
        return f"has a key of type {_type_name(key)}: keys must be strings."
    return None


_TOO_BIG = "is an integer beyond 64 bits: pass it as a string."
_NOT_FINITE = "is NaN or infinite, which JSON cannot hold: pass null or a string."
_TEXT = "holds a NUL character or half of a surrogate pair: remove or encode it."


def _type_name(value: object) -> str:
    return str(type.__getattribute__(type(value), "__qualname__"))


def _refuse(problem: FieldError | None) -> None:
    if problem is not None:
        raise _error(problem)


def _error(problem: FieldError) -> PayloadError:
    subject = problem.pointer or "The value"
    return PayloadError(f"{subject} {problem.detail}", (problem,))

"""Whether a value has survived JSON: what was given against what was read back.

``signature.py`` asks this about each argument, so that a worker runs with what the caller passed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from windlass.codec import is_pydantic, parts, pointer_token
from windlass.errors import FieldError

__all__ = ["difference"]

_Pairs = Iterable[tuple[object, object, object]]
"""(step of the pointer, given, found)"""


def difference(given: object, found: object, pointer: str = "") -> FieldError | None:
    """The first place where *found* is not as good as what was *given*; None when all is.

    As good are: a list for a tuple and the reverse, and the JSON form of a value (text for a date, an
    object for a dataclass), since HTTP brings that form as well. But text is never taken for bytes.
    """
    if _equal(given, found):
        return None
    if _is_json_form(given, found):
        return None
    pairs = _pairs(given, found)
    if pairs is None:
        return FieldError(pointer, _unlike(given, found))
    for step, before, after in pairs:
        if problem := difference(before, after, f"{pointer}/{pointer_token(step)}"):
            return problem
    return None


def _equal(given: object, found: object) -> bool:
    if (
        isinstance(given, datetime)
        and isinstance(found, datetime)
        and given.tzinfo
        and found.tzinfo
    ):
        # Python calls times within the hour of a clock change unequal to any in another zone.
        return given.astimezone(UTC) == found.astimezone(UTC)
    try:
        return bool(given == found)
    except Exception:
        # A user's __eq__ may raise or answer an array: then its fields are compared.
        return False


def _is_json_form(given: object, found: object) -> bool:
    """A plain scalar was decoded to something richer, by the annotation."""
    if found is None or isinstance(found, (bytes, bytearray, memoryview)):
        return False
    if isinstance(given, float) and not math.isfinite(given):
        return False
    return type(given) in (str, int, float) and parts(found) is None


def _pairs(given: object, found: object) -> _Pairs | None:
    """What to compare within two containers; None when they are not alike."""
    if isinstance(found, dict):
        return _dict_pairs(given, found)
    if isinstance(found, (list, tuple)):
        if not isinstance(given, (list, tuple)):
            return None
        # The JSON form of a named tuple may leave out fields that have defaults.
        if len(given) != len(found) and not hasattr(found, "_fields"):
            return None
        return zip(range(len(found)), given, found, strict=False)
    if isinstance(found, (set, frozenset)):
        return _set_pairs(given, found)
    return _object_pairs(given, found)


def _dict_pairs(given: object, found: dict[Any, Any]) -> _Pairs | None:
    """Keys keep their order in JSON, and text may stand for a richer key."""
    if not isinstance(given, dict):
        return None
    if len(found) < len(given) and all(isinstance(key, str) for key in given):
        # A TypedDict leaves out keys that it does not know, as a dataclass does.
        given = {key: value for key, value in given.items() if key in found}
    keys = list(zip(given, found, strict=False))
    if len(given) != len(found) or not all(_same_key(g, f) for g, f in keys):
        return None
    return ((g, given[g], found[f]) for g, f in keys)


def _same_key(given: object, found: object) -> bool:
    return given == found or (isinstance(given, str) and not isinstance(found, str))


def _set_pairs(given: object, found: set[Any] | frozenset[Any]) -> _Pairs | None:
    """Members have no place to be told by: each must be found again, or be a JSON form."""
    if not isinstance(given, (set, frozenset, list, tuple)):
        return None
    example = next(iter(found), None)
    for item in given:
        if _hashable(item) and item not in found and not _is_json_form(item, example):
            return None
    return ()


def _object_pairs(given: object, found: object) -> _Pairs | None:
    fields = parts(found)
    if fields is None:
        return None
    if type(given) is type(found):
        return ((name, getattr(given, str(name), None), after) for name, after in fields)
    if isinstance(given, (list, tuple)) and isinstance(found, Struct):
        # A struct declared `array_like`; any other would not have been decoded from a list.
        return ((name, before, after) for before, (name, after) in zip(given, fields, strict=False))
    if not isinstance(given, dict):
        return None
    if is_pydantic(type(found)):
        # The model has validated, and perhaps converted, its own JSON form.
        return ()
    return ((name, given[name], after) for name, after in fields if name in given)


def _hashable(item: object) -> bool:
    try:
        hash(item)
    except TypeError:
        return False
    return True


def _unlike(given: object, found: object) -> str:
    if isinstance(found, (bytes, bytearray, memoryview)):
        return "is text where bytes are expected: encode it first."
    if isinstance(given, float) and not math.isfinite(given):
        return "is NaN or infinite, which JSON cannot hold: pass null or a string."
    if isinstance(given, dict) and isinstance(found, dict):
        return "has keys that are not strings: annotate them, as in dict[int, str], or use strings."
    if isinstance(found, (set, frozenset)) and isinstance(given, (set, frozenset, list, tuple)):
        return "holds a member that would arrive as another type: annotate it, or convert it first."
    if type(given) is type(found):
        return f"is of type {type(given).__qualname__} and does not survive JSON: pass plain data."
    return (
        f"is of type {type(given).__qualname__} and would arrive as {type(found).__qualname__}: "
        "annotate the parameter with its type, or convert the value first."
    )

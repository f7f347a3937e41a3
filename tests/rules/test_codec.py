"""What may be stored as JSON: the hostile corpus, and the law that both ways in agree."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass import codec
from windlass.errors import PayloadError, ResultError

SAFE = [
    b"null",
    b"{}",
    b" [1, 2.5, -0.0, true, null] ",
    b'"\\ud83d\\ude00"',
    '"naïve 😀"'.encode(),
    b'"a\\\\u0000 is text about an escape"',
    b'{"a":":","b":"\\u003a"}',
    b'{"a":{"a":{"a":1}}}',
    b"[9223372036854775807,-9223372036854775808,18446744073709551615]",
    b"0.1234567890123456789012345678901234567890",
    b'"123456789012345678901234567890"',
    b"[" * 64 + b"]" * 64,
    b'"' + b"[" * 1000 + b'"',
    b'["\\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[["]',
    b"[" + b",".join([b"[]"] * 500) + b"]",
]

UNSAFE = [
    # bytes, JSON pointer, words of the explanation
    (b"", "", "not valid JSON at byte 0"),
    (b"nul", "", "not valid JSON"),
    (b'{"a":1} {"b":2}', "", "not valid JSON at byte 8"),
    (b'{"\xc3\xa4":1;}', "", "not valid JSON at byte 7"),
    (b"\xef\xbb\xbf{}", "", "not valid JSON at byte 0"),
    (b'"\xff"', "", "not valid UTF-8 at byte 1"),
    (b'"\xed\xa0\x80"', "", "not valid UTF-8 at byte 1"),
    (b'"a\x00b"', "", "not valid JSON"),
    (b'{"a":["x","\\u0000"]}', "/a/1", "NUL"),
    (b'{"a":{"\\u0000":1}}', "/a", "NUL"),
    (b'{"a":"\\\\\\u0000"}', "/a", "NUL"),
    (b'{"a":"\\ud800"}', "/a", "surrogate"),
    (b'{"a":"\\udc00x"}', "/a", "surrogate"),
    (b'{"a":"\\ud800\\ud800"}', "/a", "surrogate"),
    (b'{"\\ud800":1}', "", "surrogate"),
    (b"NaN", "", "NaN"),
    (b'{"a":[-Infinity]}', "/a/0", "NaN or infinite"),
    (b'{"a":1e999}', "/a", "NaN or infinite"),
    (b'{"a":18446744073709551616}', "/a", "64 bits"),
    (b'{"a":-9223372036854775809}', "/a", "64 bits"),
    (b'{"a":10000000000000000000000}', "/a", "64 bits"),
    (b"1" * 5000, "", "string"),
    (b'{"a":1,"a":1}', "", "'a' twice"),
    (b'{"a":1,"\\u0061":2}', "", "'a' twice"),
    (b'{"x":[{"k/y":{"a":1,"b":2,"a":3}}]}', "/x/0/k~1y", "'a' twice"),
    (b'{"a":"\\u003a","b":1,"b":2}', "", "'b' twice"),
    (b"[" * 65 + b"]" * 65, "", "64 levels"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "", "64 levels"),
    (b"[" * 10_000 + b"]" * 10_000, "", "64 levels"),
    (b"[" * 250_000, "", "64 levels"),
    (b'"' + b"x" * codec.MAX_BYTES + b'"', "", "bytes of JSON"),
]


@pytest.mark.parametrize("raw", SAFE)
def test_json_that_every_store_can_keep_passes(raw: bytes) -> None:
    codec.check_json(raw)


@pytest.mark.parametrize(("raw", "pointer", "words"), UNSAFE, ids=range(len(UNSAFE)))
def test_json_that_a_store_could_not_keep_is_refused_at_its_place(
    raw: bytes, pointer: str, words: str
) -> None:
    with pytest.raises(PayloadError, match=words) as caught:
        codec.check_json(raw)

    assert [error.pointer for error in caught.value.errors] == [pointer]


@pytest.mark.parametrize(
    "raw",
    [
        b"[" * 50_000_000,
        b"[" * codec.MAX_BYTES,
        b'{"":' * (codec.MAX_BYTES // 4),
        b'"\\"' * (codec.MAX_BYTES // 3),
        b"\\" * codec.MAX_BYTES,
        b"[]" * (codec.MAX_BYTES // 2),
        b"1" * codec.MAX_BYTES,
    ],
    ids=["50 MB", "open lists", "open objects", "quotes", "backslashes", "lists", "digits"],
)
def test_hostile_input_is_refused_within_a_moment(raw: bytes) -> None:
    start = time.perf_counter()

    with pytest.raises(PayloadError):
        codec.check_json(raw)

    # Each takes milliseconds; anything quadratic or recursive would take minutes, or the process.
    assert time.perf_counter() - start < 2


def test_limits_are_set_by_the_caller() -> None:
    codec.check_json(b"[[1]]", max_bytes=5, max_depth=2)

    with pytest.raises(PayloadError, match="5 bytes of JSON, and 4 are allowed"):
        codec.check_json(b"[[1]]", max_bytes=4)
    with pytest.raises(PayloadError, match="deeper than 1 levels"):
        codec.check_json(b"[[1]]" + b" " * 100, max_depth=1)


json_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | json_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_text, inner, max_size=4),
)  # fmt: skip
any_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats()
    | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(st.characters(exclude_categories=())), inner, max_size=4),
)  # fmt: skip


@given(json_values)
def test_plain_json_values_survive(value: Any) -> None:
    raw = codec.encode_result(value)

    codec.check_json(raw)
    assert json.loads(raw) == value


@given(json_values)
def test_json_in_another_spelling_passes_as_well(value: Any) -> None:
    codec.check_json(json.dumps(value, indent=1).encode())
    codec.check_json(json.dumps(value, ensure_ascii=False).encode())


@given(any_values)
def test_a_python_value_and_its_json_are_judged_alike(value: Any) -> None:
    # The standard library writes NaN, surrogates and any integer, so nothing is lost on the way.
    raw = json.dumps(value).encode()

    assert _accepts(codec.check_json, raw) == _accepts(codec.encode_result, value)
    assert _accepts(codec.check_json, raw) == (codec.find_unsafe(value) is None)


@given(st.binary(max_size=60) | st.text('[]{}":,\\u0d8e1-.Ea \n', max_size=60).map(str.encode))
def test_no_bytes_make_the_check_fail_otherwise_than_by_its_error(raw: bytes) -> None:
    accepted = _accepts(codec.check_json, raw)

    if accepted:
        assert msgspec.json.decode(raw) == json.loads(raw)


def _accepts(check: Any, value: object) -> bool:
    try:
        check(value)
    except (PayloadError, ResultError):
        return False
    return True


class Rude:
    """An object of which nothing can be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    __hash__ = None  # type: ignore[assignment]


class Vandal:
    def __str__(self) -> str:
        raise SystemExit(1)


@dataclasses.dataclass
class Point:
    x: Any
    y: Any = 0


class Colour(enum.Enum):
    RED = "red"


class Text(str):
    __slots__ = ()


class Moment(dt.datetime):
    __slots__ = ()


class Day(dt.date):
    __slots__ = ()


def itself() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def deep(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = {"a": value}
    return value


def numbers() -> Iterator[int]:
    yield 1


RESULTS = [
    # value, JSON pointer in the message, words of the explanation
    (float("nan"), "", "NaN"),
    ([None, {"a": math.inf}], "/1/a", "NaN or infinite"),
    (Point(1, -math.inf), "/y", "NaN or infinite"),
    ("\ud800", "", "surrogate"),
    ({"a": "x\0y"}, "/a", "NUL"),
    ({"\udfff": 1}, "", "surrogate"),
    ({1: "a", "1": "b"}, "", "'1' twice"),
    ({None: 1}, "", "key of type NoneType"),
    ([{(1, 2): 3}], "/0", "key of type tuple"),
    (2**64, "", "64 bits"),
    ([10**22], "/0", "64 bits"),
    (10**5000, "", "64 bits"),
    (itself(), "/0/0/0", "contains itself"),
    (deep(65), "/a/a/a", "64 levels"),
    (deep(200_000), "/a/a/a", "64 levels"),
    (Rude(), "", "type Rude"),
    ({"a": [1, Rude()]}, "/a/1", "type Rude"),
    (Point(1, object()), "/y", "type object"),
    (ValueError("x"), "", "type ValueError"),
    (numbers(), "", "type generator"),
    (sys, "", "type module"),
    (lambda: None, "", "type function"),
    (Point, "", "type type"),
    (1j, "", "type complex"),
    (b"x" * codec.MAX_BYTES, "", "bytes of JSON"),
    (["x" * codec.MAX_BYTES], "", "bytes of JSON"),
]


@pytest.mark.parametrize(("value", "pointer", "words"), RESULTS, ids=range(len(RESULTS)))
def test_a_result_that_cannot_be_stored_is_refused_with_place_and_reason(
    value: object, pointer: str, words: str
) -> None:
    with pytest.raises(ResultError, match=words) as caught:
        codec.encode_result(value)

    assert str(caught.value).startswith(f"The result (a {type(value).__name__}) cannot be stored: ")
    assert (f"at {pointer}" in str(caught.value)) if pointer else (" at /" not in str(caught.value))


@pytest.mark.parametrize(
    ("value", "raw"),
    [
        (None, b"null"),
        ([None], b"[null]"),
        ((1, 2), b"[1,2]"),
        (Point(None, 2), b'{"x":null,"y":2}'),
        ({Colour.RED: Colour.RED}, b'{"red":"red"}'),
        ({1: "a"}, b'{"1":"a"}'),
        (Text("hi"), b'"hi"'),
        ({Text("hi"): Moment(2026, 1, 2, tzinfo=dt.UTC)}, b'{"hi":"2026-01-02T00:00:00Z"}'),
        (Day(2026, 1, 2), b'"2026-01-02"'),
        (b"\x00", b'"AA=="'),
        (deep(64), b'{"a":' * 64 + b"0" + b"}" * 64),
    ],
    ids=repr,
)
def test_a_result_is_stored_as_compact_json(value: object, raw: bytes) -> None:
    assert codec.encode_result(value) == raw


def test_the_limit_of_a_result_is_set_by_the_caller() -> None:
    assert codec.encode_result("abc", max_bytes=5) == b'"abc"'

    with pytest.raises(ResultError, match="5 bytes of JSON, and 4 are allowed"):
        codec.encode_result("abc", max_bytes=4)


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        ("plain", 10, "plain"),
        (ValueError("bad"), 10, "bad"),
        ("long text", 4, "lon…"),
        ("a\0b\ud800c", 10, "a\ufffdb\ufffdc"),
        (Text("sub"), 10, "sub"),
        (Rude(), 100, "<Rude whose text cannot be had: RuntimeError>"),
        (Vandal(), 100, "<Vandal whose text cannot be had: SystemExit>"),
        (10**5000, 100, "<int whose text cannot be had: ValueError>"),
    ],
    ids=range(8),
)
def test_text_can_be_had_of_anything(value: object, limit: int, text: str) -> None:
    assert codec.safe_text(value, limit) == text


@given(st.text(st.characters(exclude_categories=())), st.integers(1, 20))
def test_safe_text_can_always_be_stored_and_is_bounded(value: str, limit: int) -> None:
    text = codec.safe_text(value, limit)

    assert len(text) <= limit
    codec.encode_result(text)

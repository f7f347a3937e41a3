"""A call becomes bytes and the same call again, or is refused at the field that is wrong."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import timeit
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass import codec
from windlass.errors import PayloadError, ResultError, TaskError
from windlass.signature import Signature

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Address:
    street: str
    zip: int = 0


class Order(msgspec.Struct):
    id: uuid.UUID
    lines: dict[str, Address] = {}


class Options(TypedDict, total=False):
    size: int
    name: str


class Pair(NamedTuple):
    left: int
    right: str = "x"


class Row(msgspec.Struct, array_like=True):
    a: int
    b: int = 0


@attrs.define
class Box:
    width: int


class User(pydantic.BaseModel):
    name: str
    born: dt.date | None = None
    tags: list[int] = []


class Account(pydantic.BaseModel):
    password: pydantic.SecretStr


@dataclasses.dataclass(eq=False)
class Unequal:
    at: tuple[int, ...]


class Slashed(msgspec.Struct, rename={"a": "a-b"}):
    a: int


def taking(annotation: Any) -> Signature:
    """The signature of a task with one parameter ``x`` of this type."""

    def task(x):  # type: ignore[no-untyped-def]  # annotated below
        raise NotImplementedError

    task.__annotations__["x"] = annotation
    return Signature.of(task)


UUID = uuid.UUID("0192f0c1-2345-7abc-8def-0123456789ab")
ACCEPTED = [
    # annotation, value given, payload of x, value decoded (None: the same)
    (int, 42, "42", None),
    (int, Level.LOW, "1", None),
    (int, 2**64 - 1, "18446744073709551615", None),
    (float, 3, "3", None),
    (float, 1.5, "1.5", None),
    (bool, True, "true", None),
    (str, "naïve 😀", '"naïve 😀"', None),
    (str, "\\u0000", '"\\\\u0000"', None),
    (bytes, b"\x00\xff", '"AP8="', None),
    (None, None, "null", None),
    (int | None, None, "null", None),
    (int | str, "a", '"a"', None),
    (int | Address | None, Address("s"), '{"street":"s","zip":0}', None),
    (Literal["a", "b"], "a", '"a"', None),
    (Annotated[int, msgspec.Meta(gt=3)], 4, "4", None),
    (Colour, Colour.RED, '"red"', None),
    (Colour, "red", '"red"', Colour.RED),
    (Level, 1, "1", None),
    (dt.datetime, dt.datetime(2026, 1, 2, 3), '"2026-01-02T03:00:00"', None),  # noqa: DTZ001
    (dt.datetime, dt.datetime(2026, 1, 2, tzinfo=dt.UTC), '"2026-01-02T00:00:00Z"', None),
    (dt.date, dt.date(2026, 1, 2), '"2026-01-02"', None),
    (dt.date, "2026-01-02", '"2026-01-02"', dt.date(2026, 1, 2)),
    (dt.time, dt.time(3), '"03:00:00"', None),
    (dt.timedelta, dt.timedelta(hours=-3), '"-PT10800S"', None),
    (uuid.UUID, UUID, f'"{UUID}"', None),
    (decimal.Decimal, decimal.Decimal("1.10"), '"1.10"', None),
    (decimal.Decimal, 0.1, "0.1", decimal.Decimal("0.1")),
    (list[int], [1, 2], "[1,2]", None),
    (list[int], (1, 2), "[1,2]", [1, 2]),
    (tuple[int, ...], (1, 2), "[1,2]", None),
    (tuple[int, str], [1, "a"], '[1,"a"]', (1, "a")),
    (set[int], {1}, "[1]", None),
    (set[int], [1, 1], "[1,1]", {1}),
    (frozenset[dt.date], frozenset([dt.date(2026, 1, 2)]), '["2026-01-02"]', None),
    (dict[str, int], {"a": 1}, '{"a":1}', None),
    (dict[int, str], {1: "a"}, '{"1":"a"}', None),
    (dict[int, str], {"1": "a"}, '{"1":"a"}', {1: "a"}),
    (dict[uuid.UUID, int], {UUID: 1}, f'{{"{UUID}":1}}', None),
    (Address, Address("s", 1), '{"street":"s","zip":1}', None),
    (Address, {"street": "s"}, '{"street":"s"}', Address("s", 0)),
    (Order, Order(UUID, {"a": Address("s")}),
     f'{{"id":"{UUID}","lines":{{"a":{{"street":"s","zip":0}}}}}}', None),
    (Slashed, {"a-b": 1}, '{"a-b":1}', Slashed(1)),
    (Options, {"size": 1}, '{"size":1}', None),
    (Pair, Pair(1), '[1,"x"]', None),
    (Pair, [1, "y"], '[1,"y"]', Pair(1, "y")),
    (Pair, [1], "[1]", Pair(1)),
    (Row, Row(1), "[1,0]", None),
    (Row, [1], "[1]", Row(1)),
    (Box, Box(3), '{"width":3}', None),
    (User, User(name="a", born=dt.date(2026, 1, 2)),
     '{"name":"a","born":"2026-01-02","tags":[]}', None),
    (User | None, {"name": "a"}, '{"name":"a"}', User(name="a")),
    (list[User], [User(name="a")], '[{"name":"a","born":null,"tags":[]}]', None),
    (Any, {"a": [1, None, {"b": 2.5}]}, '{"a":[1,null,{"b":2.5}]}', None),
    (Any, {"a": (1, 2)}, '{"a":[1,2]}', {"a": [1, 2]}),
    (object, "x", '"x"', None),
    (dict[str, object], {"a": [1]}, '{"a":[1]}', None),
    ("Address", Address("s"), '{"street":"s","zip":0}', None),
    ("list[Address | None]", [None], "[null]", None),
]  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "value", "raw", "decoded"), ACCEPTED, ids=range(len(ACCEPTED))
)
def test_a_value_of_the_right_type_comes_back_as_it_was(
    annotation: Any, value: Any, raw: str, decoded: Any
) -> None:
    signature = taking(annotation)

    payload = signature.encode((value,), {})

    assert payload == f'{{"x":{raw}}}'.encode()
    assert signature.check(payload) == payload
    args, kwargs = signature.decode(payload)
    assert args == ()
    assert kwargs == {"x": value if decoded is None else decoded}


class Autumn(dt.tzinfo):
    """A zone on the day when its clocks go back: the hour from two to three comes twice."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        assert when is not None
        summer = when.hour < 2 or (when.hour == 2 and not when.fold)
        return dt.timedelta(hours=2 if summer else 1)

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def tzname(self, when: dt.datetime | None) -> str:
        return "autumn"


@pytest.mark.parametrize("fold", [0, 1])
def test_a_time_survives_the_hour_that_comes_twice(fold: int) -> None:
    signature = taking(list[dt.datetime])
    moment = dt.datetime(2026, 10, 25, 2, 30, tzinfo=Autumn(), fold=fold)

    payload = signature.encode(([moment],), {})

    assert payload == f'{{"x":["2026-10-25T02:30:00+0{2 - fold}:00"]}}'.encode()


def test_classes_that_do_not_compare_are_compared_by_their_fields() -> None:
    signature = taking(Unequal)

    payload = signature.encode((Unequal(at=(1, 2)),), {})

    assert signature.decode(payload)[1]["x"].at == (1, 2)


REFUSED = [
    # annotation, value given, JSON pointer, words of the explanation
    (int, "42", "/x", "expected `int`, got `str`"),
    (int, True, "/x", "expected `int`, got `bool`"),
    (int, 1.0, "/x", "expected `int`, got `float`"),
    (int, None, "/x", "expected `int`, got `null`"),
    (int, 2**64, "/x", "64 bits"),
    (bool, 1, "/x", "expected `bool`, got `int`"),
    (float, "1.5", "/x", "expected `float`, got `str`"),
    (float, float("nan"), "/x", "NaN"),
    (float | None, float("inf"), "/x", "NaN or infinite"),
    (str, UUID, "/x", "is of type UUID and would arrive as str"),
    (str, Colour.RED, "/x", "is of type Colour and would arrive as str"),
    (str, b"abc", "/x", "is of type bytes and would arrive as str"),
    (str, "\ud800", "/x", "surrogate"),
    (str, "a\0b", "/x", "NUL"),
    (bytes, "abcd", "/x", "text where bytes"),
    (list[bytes], ["abcd"], "/x/0", "text where bytes"),
    (uuid.UUID, "nonsense", "/x", "invalid UUID"),
    (dt.date, dt.datetime(2026, 1, 2, tzinfo=dt.UTC), "/x", "invalid"),
    (Literal["a", "b"], "c", "/x", "'c'"),
    (Annotated[int, msgspec.Meta(gt=3)], 3, "/x", "`int` >= 4"),
    (Annotated[str, msgspec.Meta(max_length=2)], "abc", "/x", "length <= 2"),
    (list[int], [1, "2"], "/x/1", "expected `int`"),
    (set[str], {UUID}, "/x", "member that would arrive as another"),
    (dict[str, Address], {"a.b": Address("s"), "c/d": Address("s", "1")},  # type: ignore[arg-type]
     "/x/c~1d/zip", "expected `int`"),
    (dict[int, str], {"one": "a"}, "/x", "key that does not fit"),
    (Address, Address(1), "/x/street", "expected `str`"),  # type: ignore[arg-type]
    (Address, {"zip": 1}, "/x/street", "is missing"),
    (Address, Box(1), "/x/street", "is missing"),
    (Order, Order("me"), "/x/id", "invalid UUID"),  # type: ignore[arg-type]
    (Options, {"size": "L"}, "/x/size", "expected `int`"),
    (Pair, [1, 2], "/x/1", "expected `str`"),
    (User, {"name": 1, "tags": [1, "b"]}, "/x/name /x/tags/1", "string"),
    (list[User], [{"name": "a"}, {}], "/x/1/name", "required"),
    (User, User.model_construct(name=None), "/x/name", "valid string"),
    (Account, Account(password=pydantic.SecretStr("hush")), "/x/password", "does not survive JSON"),
    (Any, UUID, "/x", "is of type UUID and would arrive as str"),
    (Any, {"a": [dt.date(2026, 1, 2)]}, "/x/a/0", "is of type date and would arrive as str"),
    (Any, Address("s"), "/x", "is of type Address and would arrive as dict"),
    (Any, {1, 2}, "/x", "is of type set and would arrive as list"),
    (Any, {"a": {1: 2}}, "/x/a", "keys that are not strings"),
    (Any, {"a": [object()]}, "/x/a/0", "is of type object, which has no JSON form"),
    (Any, {"a": float("nan")}, "/x/a", "NaN"),
    (Any, "x" * codec.MAX_BYTES, "", "bytes of JSON"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("annotation", "value", "pointers", "words"), REFUSED, ids=range(len(REFUSED))
)
def test_a_value_that_does_not_fit_is_refused_at_its_place(
    annotation: Any, value: Any, pointers: str, words: str
) -> None:
    with pytest.raises(PayloadError, match=words) as caught:
        taking(annotation).encode((value,), {})

    assert " ".join(error.pointer for error in caught.value.errors) == pointers


def test_a_payload_nested_too_deeply_or_in_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    deep: Any = 0
    for _ in range(64):
        deep = [deep]

    for value in (loop, deep):
        with pytest.raises(PayloadError, match="deeper than 64 levels"):
            taking(Any).encode((value,), {})


# ---------------------------------------------------------------- binding


def plain(a: int, b: str = "en", *, c: float = 1.5, d: bool) -> None:
    raise NotImplementedError


def sloped(a: int, b: int = 2, c: int = 3, /, d: int = 4) -> None:
    raise NotImplementedError


def open_ended(a: int, **rest: int) -> None:
    raise NotImplementedError


def untyped(a, b=None, **rest):  # type: ignore[no-untyped-def]
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "raw", "call"),
    [
        (plain, (1,), {"d": True}, '{"a":1,"d":true}', ((), {"a": 1, "d": True})),
        (plain, (1, "x"), {"d": True, "c": 2}, '{"a":1,"b":"x","c":2,"d":true}',
         ((), {"a": 1, "b": "x", "c": 2.0, "d": True})),
        (plain, (), {"d": True, "a": 1}, '{"a":1,"d":true}', ((), {"a": 1, "d": True})),
        (sloped, (1,), {}, '{"a":1}', ((1,), {})),
        (sloped, (1, 5), {"d": 6}, '{"a":1,"b":5,"d":6}', ((1, 5), {"d": 6})),
        (open_ended, (1,), {"z": 2, "y": 3}, '{"a":1,"z":2,"y":3}',
         ((), {"a": 1, "z": 2, "y": 3})),
        (untyped, (1, [2]), {"z": "s"}, '{"a":1,"b":[2],"z":"s"}',
         ((), {"a": 1, "b": [2], "z": "s"})),
        (lambda: None, (), {}, "{}", ((), {})),
    ],
    ids=range(8),
)  # fmt: skip
def test_arguments_are_bound_as_python_binds_them_and_defaults_are_left_to_the_run(
    function: Any, args: Any, kwargs: Any, raw: str, call: Any
) -> None:
    signature = Signature.of(function)

    payload = signature.encode(args, kwargs)

    assert payload == raw.encode()
    assert signature.decode(payload) == call


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "errors"),
    [
        (plain, (), {}, {"/a": "is missing", "/d": "is missing"}),
        (plain, (1, "x", 2.0), {"d": True}, {"": "takes 2 positional arguments, got 3"}),
        (plain, (1,), {"a": 2, "d": True}, {"/a": "by position and by name"}),
        (plain, (1,), {"d": True, "e/f": 1}, {"/e~1f": "no parameter: the task takes a, b, c, d"}),
        (plain, (1, 2), {"c": "x", "d": 0},
         {"/b": "expected `str`", "/c": "expected `float`", "/d": "expected `bool`"}),
        (open_ended, (1,), {"z": "2"}, {"/z": "expected `int`"}),
        (lambda: None, (), {"a": 1}, {"/a": "the task takes no arguments"}),
    ],
    ids=range(7),
)  # fmt: skip
def test_every_argument_that_does_not_fit_is_named(
    function: Any, args: Any, kwargs: Any, errors: dict[str, str]
) -> None:
    with pytest.raises(PayloadError, match="does not fit task") as caught:
        Signature.of(function).encode(args, kwargs)

    found = dict(caught.value.errors)
    assert found.keys() == errors.keys()
    assert all(words in found[pointer] for pointer, words in errors.items())


def test_a_gap_before_a_positional_only_argument_gets_its_default() -> None:
    assert Signature.of(sloped).decode(b'{"a":1,"c":9}') == ((1, 2, 9), {})


def test_the_context_is_no_part_of_the_payload() -> None:
    def task(ctx: Missing, a: int) -> Missing:
        raise NotImplementedError

    signature = Signature.of(task, context_param="ctx")

    assert signature.names == ("a",)
    assert signature.decode(signature.encode((1,), {})) == ((), {"a": 1})
    with pytest.raises(PayloadError, match="no parameter"):
        signature.check(b'{"a":1,"ctx":2}')


def test_the_size_limit_is_the_tasks_own() -> None:
    signature = Signature.of(untyped, max_bytes=20)

    assert signature.encode(("x" * 12,), {}) == b'{"a":"xxxxxxxxxxxx"}'
    with pytest.raises(PayloadError, match="21 bytes of JSON, and 20 are allowed"):
        signature.encode(("x" * 13,), {})
    with pytest.raises(PayloadError, match="21 bytes of JSON, and 20 are allowed"):
        signature.check(b'{"a":"xxxxxxxxxxxxx"}')


# ---------------------------------------------------------------- declaration


def test_a_list_of_positional_arguments_is_refused_when_declared() -> None:
    def task(*urls: str) -> None:
        raise NotImplementedError

    with pytest.raises(TaskError, match=r"takes \*urls, but a payload is an object of named"):
        Signature.of(task)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (complex, "names complex, which has no JSON form"),
        (dict[str, list[Signature]], "names Signature, which has no JSON form"),
        (Address | Box, "cannot be used"),
        (Annotated[int, msgspec.Meta(pattern="x")], "cannot be used"),
    ],
)
def test_an_annotation_without_a_json_form_is_refused_when_declared(
    annotation: Any, words: str
) -> None:
    with pytest.raises(TaskError, match=f"parameter 'x' of task .*task {words}"):
        taking(annotation)


def test_a_name_that_is_defined_later_is_resolved_at_the_first_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signature = taking("list[Later]")

    with pytest.raises(TaskError, match=r"'x' of task .* cannot be resolved: name 'Later'"):
        signature.encode(([],), {})

    monkeypatch.setitem(globals(), "Later", Address)
    assert signature.decode(signature.encode(([Address("s")],), {})) == ((), {"x": [Address("s")]})


# ---------------------------------------------------------------- what arrives as bytes


@pytest.mark.parametrize(
    ("raw", "errors"),
    [
        (b"[]", {"": "no JSON object"}),
        (b"garbage", {"": "no JSON object"}),
        (b'{"a":1', {"": "no JSON object"}),
        (b"\xff\x00", {"": "no JSON object"}),
        (b'{"a":' + b"[" * 100_000, {"": "no JSON object"}),
        (b'{"a":"1","d":1,"e":2}',
         {"/a": "expected `int`", "/d": "expected `bool`", "/e": "no parameter"}),
        (b'{"b":null}', {"/a": "missing", "/d": "missing", "/b": "expected `str`"}),
    ],
    ids=range(7),
)  # fmt: skip
def test_a_stored_payload_that_does_not_fit_is_an_error_that_names_every_field(
    raw: bytes, errors: dict[str, str]
) -> None:
    for call in (Signature.of(plain).decode, Signature.of(plain).check):
        with pytest.raises(PayloadError) as caught:
            call(raw)

        if call.__name__ == "decode":
            found = dict(caught.value.errors)
            assert found.keys() == errors.keys()
            assert all(words in found[pointer] for pointer, words in errors.items())


def test_an_accepted_payload_is_kept_as_it_was_sent() -> None:
    raw = b' { "d" : true,\n "a" : 1 } '

    assert Signature.of(plain).check(raw) == raw


@pytest.mark.parametrize(
    "raw", [b'{"a":1,"a":2}', b'{"a":"\\u0000"}', b'{"a":18446744073709551616}']
)
def test_a_payload_that_fits_but_cannot_be_stored_is_refused(raw: bytes) -> None:
    with pytest.raises(PayloadError):
        Signature.of(untyped).check(raw)


def test_a_place_is_found_among_many_keys_of_mappings_in_mappings() -> None:
    data = {f"k{i}": {f"j{j}": 1 for j in range(30)} for i in range(300)}
    signature = taking(dict[str, dict[str, int]])
    signature.check(json.dumps({"x": data}).encode())
    data["k177"]["j21"] = "odd"  # type: ignore[assignment]

    with pytest.raises(PayloadError) as caught:
        signature.check(json.dumps({"x": data}).encode())

    assert [error.pointer for error in caught.value.errors] == ["/x/k177/j21"]


# ---------------------------------------------------------------- both ways in agree

text = st.text(st.characters(exclude_categories=()), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text
    | st.sampled_from(["2026-01-02", str(UUID), "red", "1", 10**22, 1, 0.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        text | st.sampled_from(["street", "zip", "id", "name", "1", "width"]), inner, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip
KINDS = [
    taking(kind)
    for kind in (
        int, float, bool, str, int | None, float | str | None, Literal["red", 1], Colour, dt.date,
        uuid.UUID, decimal.Decimal, list[int], list[Any], set[str], set[int | str], tuple[Any, ...],
        dict[str, int | None], dict[int, Any], dict[str, Any], Address, Order, Options, Pair, Row, Box,
        User | None, Any,
    )
]  # fmt: skip


@given(st.sampled_from(KINDS), json_values)
def test_python_values_and_their_json_are_accepted_and_refused_alike(
    signature: Signature, value: Any
) -> None:
    raw = json.dumps({"x": value}).encode()

    by_value = _outcome(lambda: signature.decode(signature.encode((value,), {})))
    by_bytes = _outcome(lambda: signature.decode(signature.check(raw)))

    assert by_value == by_bytes


TYPED = [
    (int, st.integers(-(2**63), 2**64 - 1)),
    (float, st.floats(allow_nan=False, allow_infinity=False)),
    (bytes, st.binary(max_size=20)),
    (dt.datetime, st.datetimes(timezones=st.sampled_from([None, dt.UTC]))),
    (dt.date, st.dates()),
    (dt.time, st.times()),
    (dt.timedelta, st.timedeltas(dt.timedelta(-100_000), dt.timedelta(100_000))),
    (uuid.UUID, st.uuids()),
    (decimal.Decimal, st.decimals(allow_nan=False)),
    (Colour | None, st.sampled_from([*Colour, None])),
    (dict[dt.date, set[uuid.UUID]], st.dictionaries(st.dates(), st.sets(st.uuids()), max_size=3)),
    (list[Address], st.lists(
        st.builds(Address, st.text(st.characters(codec="utf-8", exclude_characters="\0"))),
        max_size=3)),
    (Order, st.builds(Order, st.uuids(), st.just({"k": Address("s")}))),
    (Pair, st.builds(Pair, st.integers(0, 9), st.just("y"))),
]  # fmt: skip


@given(st.data())
@pytest.mark.parametrize(("annotation", "values"), TYPED, ids=range(len(TYPED)))
def test_what_is_accepted_comes_back_equal(annotation: Any, values: Any, data: Any) -> None:
    signature = taking(annotation)
    value = data.draw(values)

    payload = signature.encode((value,), {})

    assert signature.decode(signature.check(payload)) == ((), {"x": value})


def _outcome(call: Any) -> Any:
    try:
        return call()
    except PayloadError:
        return PayloadError


# ---------------------------------------------------------------- results and schemas


def returning(annotation: Any) -> Signature:
    def task():  # type: ignore[no-untyped-def]
        raise NotImplementedError

    task.__annotations__["return"] = annotation
    return Signature.of(task)


@pytest.mark.parametrize(
    ("annotation", "value"),
    [
        (dt.date, dt.date(2026, 1, 2)),
        (list[Address], [Address("s")]),
        (User, User(name="a")),
        (None, None),
        (Any, {"a": [1]}),
        (Signature, "a type without a JSON form says nothing"),
        ("Nowhere", "nor does one that cannot be resolved"),
    ],
)
def test_a_result_comes_back_by_the_return_annotation(annotation: Any, value: Any) -> None:
    assert returning(annotation).decode_result(codec.encode_result(value)) == value


def test_a_result_that_is_not_of_the_annotated_type_is_reported() -> None:
    with pytest.raises(ResultError, match=r"does not fit the return annotation of .*`int`"):
        returning(int).decode_result(b'"x"')


def test_the_schema_describes_the_payload() -> None:
    def task(
        user: User, order: Order, size: Annotated[int, msgspec.Meta(ge=1)] = 3, *, when: dt.date
    ) -> list[Address]:
        raise NotImplementedError

    signature = Signature.of(task)
    schema = signature.schema()

    assert schema["type"] == "object"
    assert schema["required"] == ["user", "order", "when"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["size"] == {"type": "integer", "minimum": 1, "default": 3}
    assert schema["properties"]["when"] == {"type": "string", "format": "date"}
    assert schema["properties"]["order"] == {"$ref": "#/$defs/Order"}
    assert schema["properties"]["user"]["required"] == ["name"]
    assert schema["$defs"].keys() == {"Address", "Order"}
    assert signature.result_schema("#/components/schemas/{name}") == {
        "type": "array",
        "items": {"$ref": "#/components/schemas/Address"},
        "$defs": {"Address": schema["$defs"]["Address"]},
    }


def test_the_schema_of_extra_keys_is_that_of_their_annotation() -> None:
    assert Signature.of(open_ended).schema()["additionalProperties"] == {"type": "integer"}
    assert Signature.of(untyped).schema() == {
        "type": "object",
        "properties": {"a": {}, "b": {"default": None}},
        "required": ["a"],
        "additionalProperties": {},
    }


def test_models_within_models_share_the_definitions_at_the_root() -> None:
    class Inner(pydantic.BaseModel):
        x: int

    class Outer(pydantic.BaseModel):
        inner: Inner

    schema = taking(Outer | None).schema("#/components/schemas/{name}")

    assert "#/components/schemas/Inner" in json.dumps(schema["properties"])
    assert schema["$defs"].keys() == {"Inner"}


def test_what_a_small_job_costs_is_reported(record_property: Any) -> None:
    def task(i: int) -> None:
        raise NotImplementedError

    signature = Signature.of(task)
    payload = signature.encode((1,), {})

    for name, call in {
        "encode": lambda: signature.encode((1,), {}),
        "decode": lambda: signature.decode(payload),
        "check": lambda: signature.check(payload),
    }.items():
        seconds = min(timeit.repeat(call, number=2000, repeat=3)) / 2000
        record_property(f"{name}_us", round(seconds * 1e6, 2))

    assert payload == b'{"i":1}'


def test_an_error_about_a_payload_shows_nothing_of_how_it_was_found() -> None:
    def greet(name: str) -> None: ...

    signature = Signature.of(greet)

    for call in (lambda: signature.decode(b'{"who":1}'), lambda: signature.encode((5,), {})):
        with pytest.raises(PayloadError) as raised:
            call()
        assert raised.value.__suppress_context__

"""A failure as text: what people need to see, bounded, whatever was raised."""

from __future__ import annotations

from typing import Any

import pytest

from windlass import codec
from windlass.durations import parse_duration
from windlass.errors import PayloadError
from windlass.faults import describe_exception
from windlass.middleware import compose


def caught(raise_it: Any) -> BaseException:
    try:
        raise_it()
    except BaseException as error:
        return error
    raise AssertionError("It was to raise.")


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def fail() -> None:
    raise ValueError("bad zip")


def fail_again() -> None:
    try:
        fail()
    except ValueError as error:
        raise KeyError("address") from error


def fail_in_a_group() -> None:
    bad = ValueError("bad zip")
    raise ExceptionGroup("both", [bad, ExceptionGroup("inner", [TypeError("odd")])])


def fall(depth: int = 0) -> None:
    fall(depth + 1)


def test_a_failure_tells_type_message_and_place() -> None:
    name, message, text = describe_exception(caught(fail))

    assert (name, message) == ("ValueError", "bad zip")
    assert text.startswith("Traceback (most recent call last):\n")
    assert 'raise ValueError("bad zip")' in text
    assert text.endswith("\nValueError: bad zip")


def test_a_type_that_is_not_built_in_bears_its_module() -> None:
    name, _, _ = describe_exception(PayloadError("x"))

    assert name == "windlass.errors.PayloadError"


def test_causes_come_first_and_notes_with_their_exception() -> None:
    error = caught(fail_again)
    error.add_note("while packing")

    _, _, text = describe_exception(error)

    assert text.index("ValueError: bad zip") < text.index("direct cause") < text.index("KeyError")
    assert text.endswith("KeyError: 'address'\nwhile packing")


def test_a_suppressed_context_is_not_shown() -> None:
    error = caught(fail_again)
    error.__cause__ = None
    error.__suppress_context__ = True

    assert "bad zip" not in describe_exception(error)[2]


def test_the_members_of_a_group_are_shown() -> None:
    name, message, text = describe_exception(caught(fail_in_a_group))

    assert (name, message) == ("ExceptionGroup", "both (2 sub-exceptions)")
    assert "  --- 1 of 2 ---" in text
    assert "ValueError: bad zip" in text
    assert "    TypeError: odd" in text


def test_an_exception_without_text_is_described_by_its_type() -> None:
    name, message, text = describe_exception(Mute())

    assert name.endswith("test_faults.Mute")
    assert message == "<Mute whose text cannot be had: RuntimeError>"
    assert text.endswith(message)


def test_how_windlass_got_to_the_users_code_is_left_out() -> None:
    def layer(ctx: Any, call_next: Any) -> Any:
        return fail()

    compose_any: Any = compose
    call = compose_any([layer], lambda ctx: fail())

    traceback = describe_exception(caught(lambda: call(None)))[2]

    assert "in layer" in traceback
    assert "middleware.py" not in traceback


def test_what_the_users_code_called_of_windlass_is_shown() -> None:
    traceback = describe_exception(caught(lambda: parse_duration("soon")))[2]

    assert "durations.py" in traceback


def test_a_deep_recursion_shows_its_ends() -> None:
    _, message, text = describe_exception(caught(fall))

    assert "recursion" in message
    assert "frames left out>" in text
    assert "in caught" in text
    assert len(text) < 5000


def test_an_endless_chain_is_cut_at_its_earliest_links() -> None:
    error: BaseException = ValueError(0)
    for number in range(1, 50_000):
        link = ValueError(number)
        link.__cause__ = error
        error = link

    _, message, text = describe_exception(error)

    assert message == "49999"
    assert text.startswith("<earlier causes left out>")
    assert text.endswith("ValueError: 49999")
    while error.__cause__ is not None:
        # Taken apart here: freeing such a chain at once would recurse in the interpreter.
        error, error.__cause__ = error.__cause__, None


def test_a_chain_that_closes_on_itself_ends() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first

    _, _, text = describe_exception(first)

    assert text.count("ValueError: ") == 2


def test_a_wide_group_is_bounded() -> None:
    error = ExceptionGroup("many", [ValueError(n) for n in range(10_000)])

    _, _, text = describe_exception(error)

    assert text.count("---\n") == 12


def test_long_text_is_cut_in_the_middle() -> None:
    error = ValueError("start " + "x" * 100_000 + " end")
    error.add_note("the note at the end")

    _, message, text = describe_exception(error, limit=1000)

    assert len(message) <= 1000
    assert len(text) == 1000
    assert text.startswith("ValueError: start")
    assert "characters left out" in text
    assert text.endswith("the note at the end")


@pytest.mark.parametrize(
    "error",
    [
        ValueError("\0\ud800"),
        ValueError(b"\xff", object()),
        Mute(),
        KeyboardInterrupt(),
        SystemExit(3),
        SyntaxError("bad", ("file.py", 1, 1, "x =", 1, 2)),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd"),
        type("OddName", (Exception,), {"__module__": 7})(),
        type("Noted", (Exception,), {"__notes__": 3})(),
        type("Tangled", (Exception,), {"__cause__": property(lambda self: 1 / 0)})(),
    ],
    ids=range(10),
)
def test_whatever_was_raised_can_be_stored(error: BaseException) -> None:
    for part in describe_exception(error):
        codec.encode_result(part)


def test_code_without_source_is_described_too() -> None:
    code = compile("def run():\n  raise OSError('gone')", "<no such file>", "exec")
    space: dict[str, Any] = {}
    exec(code, space)

    _, _, text = describe_exception(caught(space["run"]))

    assert 'File "<no such file>", line 2, in run' in text

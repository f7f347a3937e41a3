"""Exceptions as data: the type, message and traceback of a failure as text that can be stored.

Whatever a task raises ends here, so nothing here raises: not for an exception whose ``__str__``
fails, nor for an endless chain of causes, nor for a recursion a million frames deep. The text is
bounded, and cut in the middle, since a traceback tells most at its ends.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterator
from types import FrameType, TracebackType

from windlass.codec import safe_text

__all__ = ["Fault", "describe_exception"]

Fault = tuple[str, str, str]
"""Type name (with its module, unless built in), message, traceback."""

_FRAMES = 60
"""Of one exception, this many frames are shown: the outermost third, the innermost rest."""
_LINKS = 12
"""This many exceptions of a chain or group are shown."""
_OWN = os.path.dirname(__file__) + os.sep
_CAUSE = "The above exception was the direct cause of the following exception:"
_CONTEXT = "During handling of the above exception, another exception occurred:"


def describe_exception(error: BaseException, *, limit: int = 16 * 1024) -> Fault:
    """*error* as text, each part of at most *limit* characters. Never raises."""
    return (
        _type_name(error),
        safe_text(error, min(limit, 4096)),
        _cut_middle(_traceback_text(error), limit),
    )


def _traceback_text(error: BaseException) -> str:
    try:
        return "\n".join(_chain_lines(error))
    except Exception as failure:
        # Hooks of loaders and source files can fail in any way; the fault must be recorded still.
        return f"{_title(error)}\n<no traceback: {_type_name(failure)}>"


def _chain_lines(error: BaseException) -> Iterator[str]:
    """The chain as Python prints it: the first cause first, and of a long chain the latest links."""
    links: list[tuple[BaseException, str]] = []
    seen: set[int] = set()
    link: BaseException | None = error
    joint = ""
    while link is not None and id(link) not in seen and len(links) < _LINKS:
        seen.add(id(link))
        links.append((link, joint))
        if link.__cause__ is not None:
            link, joint = link.__cause__, _CAUSE
        else:
            link, joint = (None if link.__suppress_context__ else link.__context__), _CONTEXT
    if link is not None:
        yield "<earlier causes left out>\n"
    for shown, to_next in reversed(links):
        yield from _one_lines(shown, depth=0)
        if to_next:
            yield f"\n{to_next}\n"


def _one_lines(error: BaseException, depth: int) -> Iterator[str]:
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
        yield from _frame_lines(error.__traceback__)
    yield _title(error)
    notes = getattr(error, "__notes__", None)
    for note in notes[:_LINKS] if isinstance(notes, list) else ():
        yield safe_text(note, 1000)
    if isinstance(error, BaseExceptionGroup) and depth < 3:
        for number, member in enumerate(error.exceptions[:_LINKS], start=1):
            yield f"  --- {number} of {len(error.exceptions)} ---"
            for line in _one_lines(member, depth + 1):
                yield "  " + line.replace("\n", "\n  ")


def _frame_lines(tb: TracebackType) -> Iterator[str]:
    frames = _without_own(list(traceback.walk_tb(tb)))
    outer, inner = frames[: _FRAMES // 3], frames[_FRAMES // 3 :]
    left_out = max(len(inner) - _FRAMES * 2 // 3, 0)
    yield from _formatted(outer)
    if left_out:
        yield f"  <{left_out} frames left out>"
    yield from _formatted(inner[left_out:])


def _without_own(frames: list[tuple[FrameType, int]]) -> list[tuple[FrameType, int]]:
    """Leave out how Windlass got to the user's code; what that called of Windlass stays."""
    users = [not frame.f_code.co_filename.startswith(_OWN) for frame, _ in frames]
    last = max((i for i, by_user in enumerate(users) if by_user), default=-1)
    return [each for i, each in enumerate(frames) if users[i] or i > last]


def _formatted(frames: list[tuple[FrameType, int]]) -> Iterator[str]:
    summary = traceback.StackSummary.extract(iter(frames))
    for text in summary.format():
        yield safe_text(text, 2000).rstrip("\n")


def _title(error: BaseException) -> str:
    message = safe_text(error, 4096)
    return f"{_type_name(error)}: {message}" if message else _type_name(error)


def _type_name(error: BaseException) -> str:
    kind = type(error)
    name = type.__getattribute__(kind, "__qualname__")
    module = kind.__dict__.get("__module__")
    if not isinstance(module, str) or module in ("builtins", "__main__"):
        return safe_text(name, 200)
    return safe_text(f"{module}.{name}", 200)


def _cut_middle(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    mark = f"\n<{len(text) - limit} characters left out>\n"
    room = max(limit - len(mark), 0)
    head = room // 3
    return (text[:head] + mark + text[len(text) - (room - head) :])[:limit]

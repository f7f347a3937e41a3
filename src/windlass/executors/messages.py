"""What a worker and the child processes of its ``run_in="process"`` tasks say to each other.

Frames on a socket pair: four bytes of length, then MessagePack. Data only, on purpose: nothing is
pickled, so neither side can make the other run or build anything but what is declared here.
"""

from __future__ import annotations

import msgspec

from windlass.faults import Fault
from windlass.job import LogLine

__all__ = [
    "HEADER",
    "Failed",
    "Finished",
    "FromChild",
    "Line",
    "Order",
    "Postponed",
    "Progress",
    "Reply",
    "ToChild",
    "decode_from_child",
    "decode_to_child",
    "frame",
    "kind_name",
]

HEADER = 4
"""Bytes that give the length of what follows, the highest first."""


class Order(msgspec.Struct, frozen=True, tag=True):
    """Run this job by this function."""

    job: bytes
    """The job as JSON."""
    module: str
    qualname: str
    main: str | None
    """File of the program's main module, for functions that are defined in it."""
    path: tuple[str, ...]
    """``sys.path`` of the worker."""
    context_param: str | None
    deadline: float | None


class Reply(msgspec.Struct, frozen=True, tag=True):
    """Answer to Progress and Line: whether the claim held."""

    held: bool


class Progress(msgspec.Struct, frozen=True, tag=True):
    """``ctx.progress``."""

    fraction: float | None
    note: str | None


class Line(msgspec.Struct, frozen=True, tag=True):
    """``ctx.log``."""

    line: LogLine


class Finished(msgspec.Struct, frozen=True, tag=True):
    """The function returned: its result as JSON text."""

    result: bytes | None


class Postponed(msgspec.Struct, frozen=True, tag=True):
    """The function asked to be run later, in so many seconds."""

    delay: float


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The function raised. ``kinds`` names the exception's class and its bases, nearest first."""

    fault: Fault
    kinds: tuple[str, ...]
    after: float | None
    """Seconds of delay that the exception asks for."""


ToChild = Order | Reply
FromChild = Progress | Line | Finished | Postponed | Failed

decode_to_child = msgspec.msgpack.Decoder(ToChild).decode
decode_from_child = msgspec.msgpack.Decoder(FromChild).decode
_encode = msgspec.msgpack.Encoder().encode


def frame(message: ToChild | FromChild) -> bytes:
    """*message* as it goes over the socket."""
    body = _encode(message)
    return len(body).to_bytes(HEADER, "big") + body


def kind_name(kind: type) -> str:
    """A class by a name that both sides use; the main module has another name in a child."""
    module = "__main__" if kind.__module__ == CHILD_MAIN else kind.__module__
    return f"{module}.{kind.__qualname__}"


CHILD_MAIN = "__windlass_main__"
"""Name under which a child runs the program's main module, so that its ``if __name__`` is not taken."""

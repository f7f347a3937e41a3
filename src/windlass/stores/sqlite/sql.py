"""Loads the statements from ``queries.sql``: named blocks that may include each other by ``$name``."""

from __future__ import annotations

import re
from importlib.resources import files

__all__ = ["INSERT_SIZES", "SQL", "migrations"]

_BLOCK = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_INCLUDE = re.compile(r"\$([a-z]+)")

INSERT_SIZES = (100, 10, 1)
"""Rows per statement: large ones for speed, few sizes so that all stay prepared."""

_SHARED = 17
"""Parameters that all rows of one insert share, before each row's own three."""


def _load() -> dict[str, str]:
    text = files(__package__).joinpath("queries.sql").read_text(encoding="utf-8")
    _, *parts = _BLOCK.split(text)
    blocks: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        lines = [line for line in body.splitlines() if not line.startswith("--")]
        blocks[name] = _INCLUDE.sub(lambda found: blocks[found[1]], "\n".join(lines).strip())
    for size in INSERT_SIZES:
        blocks[f"insert_{size}"] = blocks["insert"] + _rows(size)
    return blocks


def _rows(count: int) -> str:
    """*count* rows of values: ?1 to ?17 are shared, then seq, id and payload of each row.

    The payload comes as bytes that are known to be UTF-8: casting is cheaper than decoding them.
    """
    shared = ", ".join(f"?{n}" for n in range(1, _SHARED + 1))
    return ",".join(
        f"(?{n}, ?{n + 1}, {shared}, CAST(?{n + 2} AS TEXT))"
        for n in range(_SHARED + 1, _SHARED + 1 + 3 * count, 3)
    )


def migrations() -> list[str]:
    """The script of each schema version, from 1."""
    folder = files(__package__).joinpath("migrations")
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [folder.joinpath(name).read_text(encoding="utf-8") for name in names]


SQL = _load()
"""Statement by name."""

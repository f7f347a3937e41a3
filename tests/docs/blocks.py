"""Finds the fenced code blocks of the repository's Markdown files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(?P<language>\w*)[^\n`]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    file: str
    line: int
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}"


def pages() -> list[Path]:
    """The Markdown files that users and contributors read."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])


def blocks(language: str) -> Iterator[Block]:
    """The fenced blocks of *language*, in order of appearance."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        for match in _FENCE.finditer(text):
            if match["language"] == language:
                line = text.count("\n", 0, match.start()) + 1
                yield Block(str(page.relative_to(ROOT)), line, language, match["code"])

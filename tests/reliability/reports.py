"""What the full runs counted, gathered for ``docs/reports/torture.md``."""

from __future__ import annotations

import platform
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import windlass

__all__ = ["Reports"]

_HEAD = """# The last full run of the reliability tests

Written by `make torture`. What is tested how is told in
[the evidence](../explanation/evidence.md).

"""


class Reports:
    """The sections of one run."""

    def __init__(self) -> None:
        self._sections: list[str] = []

    def add(self, title: str, numbers: Mapping[str, object], violations: Sequence[str]) -> None:
        """Keep what a test counted; print it too."""
        lines = [f"- {name}: {value}" for name, value in numbers.items()]
        lines.append(f"- violations: {len(violations)}")
        lines += [f"  - {sentence}" for sentence in violations[:20]]
        section = f"## {title}\n\n" + "\n".join(lines) + "\n"
        print(section)
        self._sections.append(section)

    def write(self, path: Path, command: str) -> None:
        """Write the report, unless nothing was counted."""
        if not self._sections:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        about = (
            f"`{command}`, {when}, Windlass {windlass.__version__}, Python"
            f" {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.system()}"
            f" {platform.machine()}.\n\n"
        )
        path.write_text(_HEAD + about + "\n".join(self._sections), encoding="utf-8")

"""Every Python block of the documentation holds.

A block fenced as ```python is a program: it runs by itself, in an empty folder, and ends well. One
fenced as ```py is a part of something, or would never end: it is compiled only.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import Block, blocks


@pytest.mark.parametrize("block", [*blocks("python"), *blocks("py")], ids=lambda block: block.name)
def test_a_code_block_holds(block: Block, tmp_path: Path) -> None:
    compile("\n" * block.line + block.code, block.file, "exec", dont_inherit=True)
    if block.language == "python":
        program = tmp_path / "program.py"
        program.write_text(block.code, encoding="utf-8")

        done = subprocess.run(
            [sys.executable, "-W", "error", program.name],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
        )

        assert done.returncode == 0, f"{block.name}\n{done.stdout}{done.stderr}"

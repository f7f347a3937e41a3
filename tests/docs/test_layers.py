"""The layer contracts bite: an import planted against each of them is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copytree(
        ROOT / "src/windlass",
        tmp_path / "src/windlass",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return tmp_path


def module(folder: Path, name: str) -> Path:
    """The file of a module in the copy; made there, empty, if the package has no such module."""
    path = folder / "src" / Path(*name.split("."))
    if path.is_dir():
        return path / "__init__.py"
    path = path.with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    for parent in path.relative_to(folder / "src").parents[:-1]:
        (folder / "src" / parent / "__init__.py").touch()
    path.touch()
    return path


def test_the_package_keeps_its_layers(copy: Path) -> None:
    checked = lint(copy)

    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("windlass.job", "windlass.store", "Five layers"),
        ("windlass.store", "windlass.tasks", "Five layers"),
        ("windlass.client", "windlass.app", "Five layers"),
        ("windlass.app", "windlass.server", "Five layers"),
        ("windlass.worker.fetch", "windlass.stores.memory", "The runtime knows no store"),
        ("windlass.stores.memory", "windlass.client", "The stores know no runtime"),
        ("windlass.stores.memory", "windlass.stores.sqlite", "Stores do not know each other"),
        ("windlass.worker.fetch", "windlass.worker.complete", "Fetch, execute and complete"),
        ("windlass.server", "windlass.worker", "The server imports neither"),
        ("windlass.server", "windlass.stores.memory", "The server imports neither"),
        ("windlass.lifecycle", "asyncio", "Rules do no input"),
        ("windlass.retry", "random", "Rules do no input"),
    ],
)
def test_a_planted_import_is_found(copy: Path, importer: str, imported: str, contract: str) -> None:
    if imported.startswith("windlass."):
        module(copy, imported)
    with module(copy, importer).open("a", encoding="utf-8") as source:
        source.write(f"\nimport {imported}\n")

    checked = lint(copy)

    broken = [line for line in checked.stdout.splitlines() if line.endswith(" BROKEN")]
    assert any(line.startswith(contract) for line in broken), checked.stdout + checked.stderr


def test_a_module_without_a_layer_is_found(copy: Path) -> None:
    module(copy, "windlass.stranger")

    checked = lint(copy)

    assert checked.returncode != 0
    assert "stranger" in checked.stdout

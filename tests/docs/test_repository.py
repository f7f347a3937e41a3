"""What the repository says about itself is so.

Links lead to files, make targets exist, pins carry hashes and name no host.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, pages

_LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:|#)([^)#\s]+)")
_TARGET = re.compile(r"\bmake ([a-z0-9]+)\b")


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    links = _LINK.findall(page.read_text(encoding="utf-8"))

    broken = [link for link in links if not (page.parent / link).exists()]

    assert broken == []


@pytest.mark.parametrize("name", ["run", "dev"])
def test_pins_carry_hashes_and_name_no_host(name: str) -> None:
    lock = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")

    pins = lock.replace(" \\\n", " ").splitlines()

    assert "://" not in lock
    assert "--index-url" not in lock
    assert [pin for pin in pins if not re.search(r"==\S+ .*--hash=sha256:", pin)] == []


def test_both_locks_agree_on_what_they_share() -> None:
    pinned: dict[str, dict[str, str]] = {}
    for name in ("run", "dev"):
        lock = (ROOT / "requirements" / f"{name}.lock").read_text(encoding="utf-8")
        pinned[name] = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE))

    shared = pinned["run"].keys() & pinned["dev"].keys()

    assert shared
    assert {n: pinned["run"][n] for n in shared} == {n: pinned["dev"][n] for n in shared}


def test_everything_that_the_package_needs_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (ROOT / "requirements" / "run.lock").read_text(encoding="utf-8")
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra

    names = {re.split(r"[\[><=!;\s]", line)[0] for line in wanted} - {project["name"]}
    missing = {name for name in names if not re.search(rf"^{name}==", lock, re.MULTILINE)}

    assert missing == set()


def test_bare_make_prints_every_target_with_a_word_about_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)

    printed = subprocess.run(
        ["make", "-C", str(ROOT), "--no-print-directory"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert re.findall(r"^  make (\S+) +\S", printed, re.MULTILINE) == phony.split()


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    code = re.findall(r"`[^`\n]+`|^    .*$", page.read_text(encoding="utf-8"), re.MULTILINE)

    named = {target for span in code for target in _TARGET.findall(span)}

    assert named <= set(re.findall(r"^([a-z0-9]+):", makefile, re.MULTILINE))

"""Counts: short for every run, full under `make torture`, whose numbers become a report."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.docs.blocks import ROOT
from tests.reliability.reports import Reports


@pytest.fixture(scope="session")
def torture() -> bool:
    """Whether the full counts run."""
    return os.environ.get("WINDLASS_TORTURE") == "1"


@pytest.fixture(scope="session")
def reports(torture: bool, request: pytest.FixtureRequest) -> Iterator[Reports]:
    """Where tests put what they counted."""
    reports = Reports()
    yield reports
    # A part of the tests writes no report: it would replace the whole one.
    whole = "tests/reliability" in request.config.args and not request.config.option.keyword
    if torture and whole:
        reports.write(ROOT / "docs" / "reports" / "torture.md", "make torture")

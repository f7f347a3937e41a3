"""Counts: short for every run, full under `make torture`."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def torture() -> bool:
    """Whether the full counts run."""
    return os.environ.get("WINDLASS_TORTURE") == "1"

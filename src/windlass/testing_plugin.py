"""The pytest plugin: fixtures for :mod:`windlass.testing`, there wherever Windlass is installed.

``windlass_app`` names the app under test; override it in ``conftest.py``, or set ``app`` in
``windlass.toml``. ``windlass_clock`` puts that app's jobs in memory for the length of a test and is
their clock.

>>> async def test_a_reminder_follows_after_two_hours(windlass_app, windlass_clock):
...     await remind.options(delay="2h").enqueue("ann")
...     windlass_clock.advance("2h")
...     assert [job.status for job in await drain(windlass_app)] == ["completed"]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

# Loaded by every pytest run beside Windlass, so everything else is imported when it is used.
if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.testing import ManualClock

__all__ = ["windlass_app", "windlass_clock"]


@pytest.fixture(scope="session")
def windlass_app() -> Windlass[Any]:
    """The app under test: by default the one that the settings name (``WINDLASS_APP``)."""
    from windlass.config import Settings, load_app

    target = Settings.load().app
    if target is None:
        pytest.fail(
            "Which app is tested? Override the fixture `windlass_app` in conftest.py, or set "
            "app = 'package.module:app' in windlass.toml.",
            pytrace=False,
        )
    return load_app(target)


@pytest.fixture
def windlass_clock(windlass_app: Windlass[Any]) -> Iterator[ManualClock]:
    """The app's jobs are in memory for this test, and follow this clock."""
    from windlass.testing import in_memory

    with in_memory(windlass_app) as clock:
        yield clock

"""One store of each kind for every test that asks for one, on a clock that the test moves."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stores.support import KINDS, Place
from windlass.clock import FakeClock
from windlass.store import Store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Place:
    return KINDS[request.param](tmp_path, clock)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    store = place.connect()
    await store.open()
    yield store
    await store.close()

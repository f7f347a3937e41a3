"""What every test folder shares: asynchronous tests run on asyncio, by anyio's pytest plugin, and
Hypothesis sets no deadline per example, because a busy machine is not a bug."""

import pytest
from hypothesis import settings

settings.register_profile("windlass", deadline=None, print_blob=True)
settings.load_profile("windlass")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"

"""Fixtures of every test folder: asynchronous tests run on asyncio, by anyio's pytest plugin."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"

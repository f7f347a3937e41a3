"""An app on each store, its API, and a client to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.server.support import declare
from windlass.app import Windlass
from windlass.server import ServerApp, create_app


@pytest.fixture(params=["memory", "sqlite"])
async def app(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Windlass[Any]]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}"
    app = Windlass[Any](url)
    declare(app)
    async with app:
        yield app


@pytest.fixture
def api(app: Windlass[Any]) -> ServerApp:
    return create_app(app)


@pytest.fixture
async def client(api: ServerApp) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(api)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client

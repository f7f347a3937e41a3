"""The API under a prefix of somebody else's application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.server.support import EMAIL, exchange
from windlass.app import Windlass
from windlass.server import ServerApp, create_app


@pytest.fixture
async def client(api: ServerApp) -> AsyncIterator[httpx2.AsyncClient]:
    site = Starlette(routes=[Mount("/ops/jobs-api", api)])
    transport = httpx2.ASGITransport(site)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_addresses_stay_within_the_prefix(client: httpx2.AsyncClient) -> None:
    created = await client.post("/ops/jobs-api/jobs", json=EMAIL)
    await client.post("/ops/jobs-api/jobs", json=EMAIL)
    page = await client.get("/ops/jobs-api/jobs?limit=1")
    index = await client.get("/ops/jobs-api/")

    job = await client.get(created.headers["location"])
    following = await client.get(page.headers["link"].partition(">")[0][1:])

    assert job.json()["id"] == created.json()["id"]
    assert [each["id"] for each in following.json()] == [created.json()["id"]]
    assert index.json()["links"]["jobs"] == "/ops/jobs-api/jobs"


async def test_the_document_says_where_the_api_is(client: httpx2.AsyncClient) -> None:
    document = (await client.get("/ops/jobs-api/openapi.json")).json()

    assert document["servers"] == [{"url": "/ops/jobs-api"}]
    assert "/jobs" in document["paths"]


async def test_what_is_not_there_is_a_problem_and_not_the_sites_own_page(
    client: httpx2.AsyncClient,
) -> None:
    response = await client.get("/ops/jobs-api/nothing")

    assert response.status_code == 404
    assert response.json()["code"] == "not-found"


async def test_a_server_may_strip_the_prefix_itself(api: ServerApp) -> None:
    reply = await exchange(api, "GET", "/behind/proxy/jobs", root_path="/behind/proxy")

    assert (reply.status, reply.body) == (200, b"[]")


async def test_a_hostile_prefix_cannot_break_out_of_a_header(app: Windlass[Any]) -> None:
    api = create_app(app)

    reply = await exchange(
        api,
        "POST",
        "/a\r\nb/jobs",
        root_path="/a\r\nb",
        headers={"content-type": "application/json", "transfer-encoding": "chunked"},
        pieces=[b'{"type":"broken"}'],
    )

    assert reply.status == 201
    assert reply.headers["location"].startswith("/a%0D%0Ab/jobs/")


async def test_a_guarding_application_may_let_in_whom_it_likes(app: Windlass[Any]) -> None:
    api = create_app(app, own_auth=True, allowed_hosts=["*"])

    reply = await exchange(
        api, "GET", "/jobs", headers={"host": "jobs.example.com"}, client=("203.0.113.9", 4711)
    )

    assert reply.status == 200

"""The OpenAPI document: whole, true to the tasks, and valid by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from httpx2 import AsyncClient

from tests.server.support import EMAIL
from windlass.app import Windlass
from windlass.server import OPERATIONS
from windlass.server.problems import PROBLEMS


@pytest.fixture
async def document(client: AsyncClient) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get("/openapi.json")).json()
    return found


def references(node: Any) -> set[str]:
    if isinstance(node, list):
        return {found for item in node for found in references(item)}
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own | {found for item in node.values() for found in references(item)}
    return set()


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    for reference in references(document):
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


async def test_every_operation_has_a_name_of_its_own_and_says_what_it_does() -> None:
    names = [operation.name for operation in OPERATIONS]

    assert len(set(names)) == len(names)
    assert all(operation.summary for operation in OPERATIONS)


async def test_every_problem_that_is_documented_is_in_the_catalogue_and_used() -> None:
    elsewhere = {"internal", "not-found", "method-not-allowed", "not-supported", "unauthorized"}

    named = {code for operation in OPERATIONS for code in (*operation.problems, *operation.implied)}

    assert named | elsewhere == set(PROBLEMS)


async def test_each_task_is_an_alternative_with_its_own_payload(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]

    alternatives = {each["$ref"].rpartition(".")[2] for each in schemas["Enqueue"]["oneOf"]}
    email = schemas["Enqueue.email"]["properties"]

    assert alternatives == {"email", "broken"}
    assert email["type"]["enum"] == ["email", "mail"]
    assert email["payload"]["properties"]["to"] == {"type": "string"}


async def test_a_task_that_is_declared_later_appears(
    app: Windlass[Any], client: AsyncClient
) -> None:
    @app.task
    async def late(when: datetime) -> None: ...

    document = (await client.get("/openapi.json")).json()

    assert "Enqueue.late" in document["components"]["schemas"]


async def test_an_app_without_tasks_has_a_document_too() -> None:
    from tests.server.support import exchange
    from windlass.server import create_app

    async with Windlass[Any]("memory:") as app:
        reply = await exchange(create_app(app), "GET", "/openapi.json")

    assert reply.status == 200


async def test_every_option_of_a_job_is_described(
    app: Windlass[Any], document: dict[str, Any]
) -> None:
    from windlass.options import _CHECKS

    described = document["components"]["schemas"]["Enqueue.email"]["properties"]

    assert set(described) == {"type", "payload", "id", "key", *_CHECKS}


async def test_a_job_looks_as_it_is_described(
    client: AsyncClient, document: dict[str, Any]
) -> None:
    job = (await client.post("/jobs", json=EMAIL)).json()

    assert set(job) == set(document["components"]["schemas"]["JobView"]["properties"])

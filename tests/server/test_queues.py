"""Queues and limits: looking, pausing, resuming, setting."""

from __future__ import annotations

from typing import Any

import pytest
from httpx2 import AsyncClient

from tests.server.support import EMAIL, code_of, drain, pointers
from windlass.app import Windlass


async def test_a_queue_shows_its_counts(client: AsyncClient) -> None:
    await client.post("/jobs", json=EMAIL)
    await client.post("/jobs", json=EMAIL | {"delay": 60})

    (queue,) = (await client.get("/queues")).json()

    assert queue == (await client.get("/queues/default")).json()
    assert queue["name"] == "default"
    assert queue["paused"] is False
    assert (queue["counts"]["pending"], queue["counts"]["scheduled"]) == (1, 1)
    assert queue["counts"]["completed"] == 0


async def test_jobs_of_a_paused_queue_wait_until_it_is_resumed(
    app: Windlass[Any], client: AsyncClient
) -> None:
    made = (await client.post("/jobs", json=EMAIL)).json()["id"]

    paused = await client.post("/queues/default/pause", json={"reason": "maintenance"})
    await drain(app)
    waiting = (await client.get(f"/jobs/{made}")).json()["status"]
    resumed = await client.post("/queues/default/resume")
    await drain(app)

    assert (paused.json()["paused"], paused.json()["reason"]) == (True, "maintenance")
    assert waiting == "pending"
    assert (resumed.json()["paused"], resumed.json()["reason"]) == (False, None)
    assert (await client.get(f"/jobs/{made}")).json()["status"] == "completed"


async def test_a_queue_can_be_paused_before_its_first_job(client: AsyncClient) -> None:
    response = await client.post("/queues/new/pause")

    assert response.status_code == 200
    assert (await client.get("/queues/new")).json()["paused"] is True


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("POST", "/resume")])
async def test_a_queue_that_is_not_there_is_not_found_and_a_near_name_is_told(
    client: AsyncClient, method: str, tail: str
) -> None:
    await client.post("/jobs", json=EMAIL)

    response = await client.request(method, f"/queues/defualt{tail}")

    assert (response.status_code, code_of(response)) == (404, "queue-not-found")
    assert "did you mean 'default'" in response.json()["detail"]


async def test_no_queue_can_have_a_name_that_no_job_could_use(client: AsyncClient) -> None:
    response = await client.post("/queues/no%20spaces/pause")

    assert response.status_code == 404
    assert (await client.get("/queues")).json() == []


@pytest.mark.parametrize(
    ("given", "rate"),
    [
        ("5/10s", {"count": 5, "period": 10.0, "burst": 5}),
        ({"count": 2}, {"count": 2, "period": 1.0, "burst": 2}),
        (
            {"count": 2, "period": 60, "burst": 1},
            {"count": 2, "period": 60.0, "burst": 1},
        ),
    ],
)
async def test_a_limit_is_set_whole(
    client: AsyncClient, given: object, rate: dict[str, Any]
) -> None:
    await client.put("/limits/type/email", json={"concurrency": 9})

    response = await client.put("/limits/type/email", json={"rate": given})

    assert response.status_code == 200
    assert response.json() == {
        "scope": "type", "name": "email", "concurrency": None, "rate": rate, "capacity": None,
        "operator": True,
    }  # fmt: skip
    assert response.json() in (await client.get("/limits")).json()


async def test_an_operators_limit_shows_with_its_queue(client: AsyncClient) -> None:
    await client.put("/limits/queue/mail", json={"capacity": 5, "concurrency": 2})

    queue = (await client.get("/queues/mail")).json()

    assert queue["capacity"] == 5
    assert queue["limit"]["concurrency"] == 2


@pytest.mark.parametrize(
    ("path", "body", "status", "at"),
    [
        ("queue/mail", {"concurrency": 0}, 422, ["/concurrency"]),
        ("queue/mail", {"rate": "often"}, 422, ["/rate"]),
        ("queue/mail", {"rate": {"count": 0}}, 422, ["/rate/count"]),
        ("queue/mail", {"kapacity": 3}, 422, ["/kapacity"]),
        ("type/email", {"capacity": 3}, 422, ["/capacity"]),
        ("host/mail", {}, 404, None),
        ("queue/a%20b", {}, 404, None),
    ],
)
async def test_a_limit_that_makes_no_sense_is_refused(
    client: AsyncClient, path: str, body: object, status: int, at: list[str] | None
) -> None:
    response = await client.put(f"/limits/{path}", json=body)

    assert response.status_code == status
    assert at is None or pointers(response) == at

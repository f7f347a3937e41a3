"""Enqueueing, looking at, waiting for, cancelling and retrying jobs, one at a time."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import pytest
from httpx2 import AsyncClient

from tests.server.support import EMAIL, MISSING, SECONDS, code_of, drain, pointers, until
from windlass.app import Windlass
from windlass.server import ServerApp
from windlass.worker import WorkerOptions

# ------------------------------------------------------------------ enqueueing


async def test_a_new_job_is_answered_as_pending_with_its_address(client: AsyncClient) -> None:
    response = await client.post("/jobs", json=EMAIL)

    assert response.status_code == 201
    job = response.json()
    assert job["status"] == "pending"
    assert job["payload"] == {"to": "user@example.com"}
    assert job["duplicate"] is False
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert (await client.get(response.headers["location"])).json()["id"] == job["id"]


async def test_a_new_job_is_answered_as_pending_even_while_workers_take_jobs_at_once(
    app: Windlass[Any], client: AsyncClient
) -> None:
    worker = app.worker(WorkerOptions())
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        statuses = {(await client.post("/jobs", json=EMAIL)).json()["status"] for _ in range(20)}
        worker.stop()

    assert statuses == {"pending"}


async def test_every_option_reaches_the_job(client: AsyncClient) -> None:
    options = {
        "queue": "mail",
        "priority": 7,
        "delay": "1h",
        "max_attempts": 3,
        "timeout": "5m",
        "expires": 60,
        "unique": {"key": "k", "within": "waiting"},
        "tags": ["a", "b"],
        "meta": {"trace": "1"},
        "on_lost": "fail",
    }

    job = (await client.post("/jobs", json=EMAIL | options)).json()

    assert job["status"] == "scheduled"
    assert (job["queue"], job["priority"], job["max_attempts"]) == ("mail", 7, 3)
    assert job["timeout"] == 300
    assert job["expires_at"] > job["ready_at"] > job["created_at"]
    assert job["unique_key"] == "k"
    assert (job["tags"], job["meta"], job["on_lost"]) == (["a", "b"], {"trace": "1"}, "fail")


async def test_the_payload_may_be_left_out_where_the_task_needs_none(client: AsyncClient) -> None:
    response = await client.post("/jobs", json={"type": "broken"})

    assert response.status_code == 201
    assert response.json()["payload"] == {}


async def test_an_alias_enqueues_its_task(client: AsyncClient) -> None:
    response = await client.post("/jobs", json=EMAIL | {"type": "mail"})

    assert response.json()["type"] == "email"


@pytest.mark.parametrize("way", ["header", "quoted header", "field", "id"])
async def test_the_same_request_again_answers_the_same_job(client: AsyncClient, way: str) -> None:
    key = str(uuid.uuid4())
    headers = {
        "header": {"idempotency-key": key},
        "quoted header": {"idempotency-key": f'"{key}"'},
    }
    fields = {"field": {"key": key}, "id": {"id": key}}

    first, second = [
        await client.post("/jobs", json=EMAIL | fields.get(way, {}), headers=headers.get(way))
        for _ in range(2)
    ]

    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["duplicate"] is True
    assert second.json()["id"] == first.json()["id"]
    assert second.headers["location"] == first.headers["location"]


async def test_another_body_under_the_same_key_is_a_conflict(client: AsyncClient) -> None:
    key = {"idempotency-key": "one"}
    await client.post("/jobs", json=EMAIL, headers=key)

    response = await client.post("/jobs", json=EMAIL | {"priority": 1}, headers=key)

    assert response.status_code == 409
    assert code_of(response) == "id-conflict"


async def test_two_different_keys_in_one_request_are_refused(client: AsyncClient) -> None:
    response = await client.post(
        "/jobs", json=EMAIL | {"key": "a"}, headers={"idempotency-key": "b"}
    )

    assert response.status_code == 422
    assert pointers(response) == ["/key"]


async def test_an_idempotency_key_that_is_too_long_is_refused(client: AsyncClient) -> None:
    response = await client.post("/jobs", json=EMAIL, headers={"idempotency-key": "k" * 257})

    assert response.status_code == 400
    assert code_of(response) == "bad-header"


async def test_a_held_unique_key_returns_the_holder_or_is_refused_as_asked(
    client: AsyncClient,
) -> None:
    holder = (await client.post("/jobs", json=EMAIL | {"unique": "u"})).json()

    returned = await client.post("/jobs", json=EMAIL | {"unique": "u"})
    rejected = await client.post(
        "/jobs", json=EMAIL | {"unique": {"key": "u", "on_conflict": "reject"}}
    )

    assert (returned.status_code, returned.json()["id"]) == (200, holder["id"])
    assert (rejected.status_code, code_of(rejected)) == (409, "duplicate-job")


async def test_a_full_queue_is_answered_with_when_to_try_again(
    app: Windlass[Any], client: AsyncClient
) -> None:
    await client.put("/limits/queue/small", json={"capacity": 1})
    await client.post("/jobs", json=EMAIL | {"queue": "small"})

    response = await client.post("/jobs", json=EMAIL | {"queue": "small"})

    assert response.status_code == 429
    assert code_of(response) == "queue-full"
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize(
    ("body", "code", "at"),
    [
        ({"type": "emial", "payload": {}}, "unknown-task", ["/type"]),
        ({"payload": {}}, "invalid-body", [""]),
        ({"type": 3}, "invalid-body", ["/type"]),
        ({"type": "email", "payload": {"to": 3}}, "invalid-payload", ["/payload/to"]),
        ({"type": "email", "payload": {}}, "invalid-payload", ["/payload/to"]),
        (
            {"type": "email", "payload": {"copies": "x", "cc": 1}},
            "invalid-payload",
            ["/payload/cc", "/payload/copies", "/payload/to"],
        ),
        ({"type": "email", "payload": [1]}, "invalid-payload", ["/payload"]),
        (EMAIL | {"prioritty": 1}, "invalid-body", ["/prioritty"]),
        (EMAIL | {"priority": 101}, "invalid-option", ["/priority"]),
        (EMAIL | {"tags": "a"}, "invalid-option", ["/tags"]),
        (EMAIL | {"delay": "soon"}, "invalid-option", ["/delay"]),
        (EMAIL | {"run_at": "2027-01-01T00:00:00"}, "invalid-option", ["/run_at"]),
        (EMAIL | {"queue": "no spaces"}, "invalid-option", ["/queue"]),
        (EMAIL | {"id": "not a uuid"}, "invalid-option", ["/id"]),
        ([EMAIL], "invalid-body", [""]),
    ],
)
async def test_what_is_wrong_with_a_body_is_pointed_at(
    client: AsyncClient, body: object, code: str, at: list[str]
) -> None:
    response = await client.post("/jobs", json=body)

    assert response.status_code == 422
    assert code_of(response) == code
    assert sorted(pointers(response)) == at
    assert (await client.get("/jobs")).json() == []


async def test_a_misspelt_type_or_option_is_answered_with_what_was_meant(
    client: AsyncClient,
) -> None:
    of_type = await client.post("/jobs", json={"type": "emial"})
    of_option = await client.post("/jobs", json=EMAIL | {"prioritty": 1})

    assert "did you mean 'email'" in of_type.json()["detail"]
    assert "did you mean 'priority'" in of_option.json()["detail"]


# ------------------------------------------------------------------ many at once


async def test_a_batch_is_accepted_in_order(client: AsyncClient) -> None:
    batch = [{"type": "email", "payload": {"to": str(number)}} for number in range(1000)]

    response = await client.post("/jobs/batch", json=batch)

    assert response.status_code == 201
    assert [job["payload"]["to"] for job in response.json()] == [str(n) for n in range(1000)]


async def test_a_batch_may_come_as_lines(client: AsyncClient) -> None:
    lines = b'{"type":"email","payload":{"to":"a"}}\n\n{"type":"broken"}\n'

    response = await client.post(
        "/jobs/batch", content=lines, headers={"content-type": "application/x-ndjson"}
    )

    assert response.status_code == 201
    assert [job["type"] for job in response.json()] == ["email", "broken"]


async def test_a_batch_of_duplicates_is_answered_with_200(client: AsyncClient) -> None:
    batch = [EMAIL | {"key": "a"}, EMAIL | {"key": "b"}]
    await client.post("/jobs/batch", json=batch)

    response = await client.post("/jobs/batch", json=batch)

    assert response.status_code == 200
    assert [job["duplicate"] for job in response.json()] == [True, True]


@pytest.mark.parametrize(
    ("second", "pointer"),
    [
        ({"type": "email", "payload": {"to": 1}}, "/1/payload/to"),
        ({"type": "nothing"}, "/1/type"),
        (EMAIL | {"priority": "high"}, "/1/priority"),
        ({"type": 1}, "/1/type"),
    ],
)
async def test_a_batch_with_a_fault_is_refused_whole_and_says_where(
    client: AsyncClient, second: object, pointer: str
) -> None:
    response = await client.post("/jobs/batch", json=[EMAIL, second])

    assert response.status_code == 422
    assert pointers(response) == [pointer]
    assert (await client.get("/jobs")).json() == []


async def test_a_fault_in_a_line_is_pointed_at(client: AsyncClient) -> None:
    response = await client.post(
        "/jobs/batch",
        content=b'{"type":"broken"}\n{"type":',
        headers={"content-type": "application/x-ndjson"},
    )

    assert response.status_code == 400
    assert pointers(response) == ["/1"]


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_one_to_a_thousand_jobs(client: AsyncClient, count: int) -> None:
    response = await client.post("/jobs/batch", json=[{"type": "broken"}] * count)

    assert response.status_code == 422


# ------------------------------------------------------------------ waiting


async def test_prefer_wait_answers_with_the_result(app: Windlass[Any], client: AsyncClient) -> None:
    worker = app.worker()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        response = await client.post("/jobs", json=EMAIL, headers={"prefer": "wait=10"})
        worker.stop()

    assert response.status_code == 201
    assert response.headers["preference-applied"] == "wait=10"
    assert (response.json()["status"], response.json()["result"]) == (
        "completed",
        "user@example.com",
    )


async def test_a_job_that_does_not_end_in_time_is_answered_with_202(client: AsyncClient) -> None:
    response = await client.post("/jobs", json=EMAIL, headers={"prefer": "wait=0"})

    assert response.status_code == 202
    assert response.json()["status"] == "pending"
    assert response.headers["location"] == f"/jobs/{response.json()['id']}"


async def test_a_preference_that_makes_no_sense_is_ignored(client: AsyncClient) -> None:
    response = await client.post("/jobs", json=EMAIL, headers={"prefer": "wait=soon, x"})

    assert response.status_code == 201


@pytest.mark.parametrize("way", ["parameter", "header"])
async def test_looking_may_wait_for_the_end(
    app: Windlass[Any], client: AsyncClient, way: str
) -> None:
    made = (await client.post("/jobs", json=EMAIL)).json()["id"]
    url = f"/jobs/{made}?wait=10" if way == "parameter" else f"/jobs/{made}"
    headers = {"prefer": "wait=10"} if way == "header" else {}

    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(client.get(url, headers=headers))
        group.create_task(drain(app))

    assert waiting.result().json()["status"] == "completed"


async def test_waiting_ends_when_the_server_begins_to_stop(
    api: ServerApp, client: AsyncClient
) -> None:
    made = (await client.post("/jobs", json=EMAIL)).json()["id"]

    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        waiting = group.create_task(client.get(f"/jobs/{made}?wait=60"))
        await until(lambda: api.service.waiters == 1)
        api.drain()

    assert waiting.result().status_code == 200
    assert waiting.result().json()["status"] == "pending"
    assert api.service.waiters == 0


# ------------------------------------------------------------------ looking


async def test_a_job_shows_its_run_its_failure_and_its_log(
    app: Windlass[Any], client: AsyncClient
) -> None:
    good = (await client.post("/jobs", json=EMAIL)).json()["id"]
    bad = (await client.post("/jobs", json={"type": "broken"})).json()["id"]
    await drain(app)

    shown = (await client.get(f"/jobs/{bad}")).json()
    lines = (await client.get(f"/jobs/{good}/logs")).json()

    assert shown["status"] == "failed"
    assert shown["errors"][0]["type"] == "RuntimeError"
    assert "token" not in shown
    assert [line["message"] for line in lines] == ["to 1 readers"]
    assert (await client.get(f"/jobs/{good}/logs?after={lines[0]['seq']}")).json() == []


async def test_why_is_answered_in_words(client: AsyncClient) -> None:
    await client.post("/queues/mail/pause", json={"reason": "provider is down"})
    made = (await client.post("/jobs", json=EMAIL | {"queue": "mail"})).json()["id"]

    why = (await client.get(f"/jobs/{made}/why")).json()

    assert why["status"] == "pending"
    assert "paused" in why["sentence"]


@pytest.mark.parametrize("id", [MISSING, "nonsense", "%00", "..%2f"])
@pytest.mark.parametrize("tail", ["", "/logs", "/why"])
async def test_there_is_no_such_job(client: AsyncClient, id: str, tail: str) -> None:
    response = await client.get(f"/jobs/{id}{tail}")

    assert response.status_code == 404
    assert code_of(response) in {"job-not-found", "not-found"}


# ------------------------------------------------------------------ intervening


async def test_cancelling_ends_a_waiting_job_with_the_reason_given(client: AsyncClient) -> None:
    made = (await client.post("/jobs", json=EMAIL)).json()["id"]

    first = await client.post(f"/jobs/{made}/cancel", json={"reason": "not needed"})
    again = await client.post(f"/jobs/{made}/cancel")

    assert (first.status_code, again.status_code) == (200, 200)
    assert again.json()["status"] == "cancelled"
    assert again.json()["reason"] == "not needed"


async def test_a_job_that_ended_cannot_be_cancelled(
    app: Windlass[Any], client: AsyncClient
) -> None:
    made = (await client.post("/jobs", json=EMAIL)).json()["id"]
    await drain(app)

    response = await client.post(f"/jobs/{made}/cancel")

    assert (response.status_code, code_of(response)) == (409, "wrong-status")


async def test_a_job_that_ended_can_be_run_again(app: Windlass[Any], client: AsyncClient) -> None:
    made = (await client.post("/jobs", json={"type": "broken"})).json()["id"]
    await drain(app)

    response = await client.post(f"/jobs/{made}/retry")

    assert response.status_code == 200
    assert response.json()["status"] == "pending"
    assert response.json()["generation"] == 1


async def test_a_pending_job_cannot_be_retried(client: AsyncClient) -> None:
    made = (await client.post("/jobs", json=EMAIL)).json()["id"]

    response = await client.post(f"/jobs/{made}/retry")

    assert (response.status_code, code_of(response)) == (409, "wrong-status")


async def test_a_job_whose_unique_key_was_taken_cannot_be_retried(client: AsyncClient) -> None:
    first = (await client.post("/jobs", json=EMAIL | {"unique": "u"})).json()["id"]
    await client.post(f"/jobs/{first}/cancel")
    await client.post("/jobs", json=EMAIL | {"unique": "u"})

    response = await client.post(f"/jobs/{first}/retry")

    assert response.status_code == 409
    assert code_of(response) == "duplicate-job"


@pytest.mark.parametrize("action", ["cancel", "retry"])
async def test_nothing_is_done_to_a_job_that_is_not_there(client: AsyncClient, action: str) -> None:
    response = await client.post(f"/jobs/{MISSING}/{action}")

    assert (response.status_code, code_of(response)) == (404, "job-not-found")

"""Requests that mean no good: each gets a clear refusal, quickly, and hurts nobody."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from httpx2 import AsyncClient

from tests.server.support import EMAIL, JSON, SECONDS, code_of, drain, exchange, scope_of
from windlass.app import Windlass
from windlass.errors import FieldError
from windlass.server import ServerApp, guard
from windlass.server.problems import Problem

CHUNKED = JSON | {"transfer-encoding": "chunked"}
JOB = b'{"type":"email","payload":{"to":%s}}'


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed-json"),
        (b"{", 400, "malformed-json"),
        (b"\xff\xfe{}", 400, "malformed-json"),
        (JOB % b"NaN", 400, "malformed-json"),
        (JOB % b"Infinity", 400, "malformed-json"),
        (JOB % b"'x'", 400, "malformed-json"),
        (JOB % b'"\xed\xa0\x80"', 400, "malformed-json"),
        (JOB % b'"\\ud800"', 400, "malformed-json"),
        (b"null", 422, "invalid-body"),
        (b'"text"', 422, "invalid-body"),
        (JOB % b'"\\u0000"', 422, "invalid-body"),
        (JOB % b"10000000000000000000000", 422, "invalid-body"),
        (JOB % (b"9" * 5_000), 422, "invalid-body"),
        (JOB % b'"a","to":"b"', 422, "invalid-body"),
        (b'{"type":"broken","type":"email","payload":{"to":"a"}}', 422, "invalid-body"),
        (JOB % (b"[" * 10_000 + b"]" * 10_000), 422, "invalid-body"),
        (b"[" * 100_000, 422, "invalid-body"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, 422, "invalid-body"),
        (JOB % (b'"' + b"x" * 300_000 + b'"'), 422, "invalid-payload"),
    ],
    ids=lambda value: repr(value[:40]) if isinstance(value, bytes) else None,
)
async def test_json_that_no_store_may_keep_is_refused_within_a_second(
    client: AsyncClient, body: bytes, status: int, code: str
) -> None:
    began = time.monotonic()

    response = await client.post("/jobs", content=body, headers=JSON)

    assert time.monotonic() - began < 1.0
    assert code_of(response) == code
    assert response.status_code == status
    assert (await client.get("/jobs")).json() == []


@pytest.mark.parametrize(
    "text", ["\x7f\x1b[31m", "\u2028\u202e", "<script>alert(1)</script>", "'; DROP TABLE", "😀"]
)
async def test_strange_text_goes_in_and_comes_out_as_it_was(
    app: Windlass[Any], client: AsyncClient, text: str
) -> None:
    job = (await client.post("/jobs", json={"type": "email", "payload": {"to": text}})).json()
    await drain(app)

    shown = (await client.get(f"/jobs/{job['id']}")).json()

    assert (shown["payload"]["to"], shown["result"]) == (text, text)


def test_a_problem_can_always_be_written_whatever_it_quotes() -> None:
    problem = Problem("not-found", "half a pair: \ud800", fields=(FieldError("/\udfff", "\x00"),))

    body = json.loads(problem.body("id"))

    assert body["detail"] == "half a pair: ?"
    assert body["errors"] == [{"pointer": "/?", "detail": "\x00"}]


# ------------------------------------------------------------------ sizes


async def test_an_announced_giant_is_refused_without_reading_it(api: ServerApp) -> None:
    reply = await exchange(
        api, "POST", "/jobs", headers=JSON | {"content-length": "50000000"}, pieces=[b"x"] * 50
    )

    assert (reply.status, reply.code) == (413, "body-too-large")
    assert reply.received == 0
    assert reply.headers["connection"] == "close"


async def test_a_giant_in_pieces_is_refused_as_soon_as_it_is_one(api: ServerApp) -> None:
    piece = b"x" * 100_000

    reply = await exchange(api, "POST", "/jobs", headers=CHUNKED, pieces=[piece] * 500)

    assert (reply.status, reply.code) == (413, "body-too-large")
    assert reply.received == guard.MAX_BODY // len(piece) + 1


async def test_a_body_in_pieces_is_put_together(api: ServerApp) -> None:
    whole = JOB % b'"x"'

    reply = await exchange(
        api, "POST", "/jobs", headers=CHUNKED, pieces=[whole[i : i + 5] for i in range(0, 99, 5)]
    )

    assert reply.status == 201


async def test_a_batch_may_be_larger_than_one_job(api: ServerApp) -> None:
    item = JOB % (b'"' + b"x" * 10_000 + b'"')

    reply = await exchange(
        api, "POST", "/jobs/batch", headers=CHUNKED, pieces=[b"[", (item + b",") * 199, item, b"]"]
    )

    assert reply.status == 201


async def test_a_body_that_dawdles_is_given_up(
    api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.0)

    reply = await exchange(api, "POST", "/jobs", headers=CHUNKED, pieces=[b" "] * 50)

    assert (reply.status, reply.code) == (408, "request-timeout")


async def test_headers_and_query_are_bounded(api: ServerApp) -> None:
    headers = await exchange(api, "GET", "/jobs", headers={"x-much": "y" * 20_000})
    query = await exchange(api, "GET", "/jobs?q=" + "y" * 20_000)

    assert (headers.status, headers.code) == (431, "headers-too-large")
    assert query.status == 431


async def test_a_client_that_hangs_up_in_the_middle_of_its_body_is_forgotten(
    api: ServerApp, client: AsyncClient
) -> None:
    sent: list[Any] = []
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    await api(scope_of("POST", "/jobs", CHUNKED), receive, send)

    assert sent == []
    assert (await client.get("/jobs")).json() == []


# ------------------------------------------------------------------ kinds


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "text/plain; application/json",
        "application/x-ndjson",
        "application/jsonp",
        "",
    ],
)
async def test_what_a_form_can_send_is_no_job(client: AsyncClient, kind: str) -> None:
    response = await client.post("/jobs", content=JOB % b'"x"', headers={"content-type": kind})

    assert (response.status_code, code_of(response)) == (415, "unsupported-media-type")
    assert (await client.get("/jobs")).json() == []


async def test_a_body_that_nobody_announced_is_judged_as_well(api: ServerApp) -> None:
    reply = await exchange(
        api, "POST", "/jobs", headers={"content-type": "text/plain"}, pieces=[JOB % b'"x"']
    )

    assert (reply.status, reply.code) == (415, "unsupported-media-type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_json_is_json_however_it_is_spelt(client: AsyncClient, kind: str) -> None:
    response = await client.post("/jobs", content=JOB % b'"x"', headers={"content-type": kind})

    assert response.status_code == 201


async def test_a_form_cannot_cancel_either(client: AsyncClient) -> None:
    job = (await client.post("/jobs", json=EMAIL)).json()["id"]

    response = await client.post(f"/jobs/{job}/cancel", data={"reason": "x"})

    assert response.status_code == 415
    assert (await client.get(f"/jobs/{job}")).json()["status"] == "pending"


async def test_a_huge_batch_of_faults_is_refused_quickly(client: AsyncClient) -> None:
    began = time.monotonic()

    response = await client.post("/jobs/batch", json=[{"type": "x"}] * 100_000)

    assert response.status_code == 422
    assert time.monotonic() - began < SECONDS

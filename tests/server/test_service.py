"""The operations about the service itself, and what happens when its store or its life ends."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx2
import pytest
from httpx2 import AsyncClient

from tests.server.support import EMAIL, SECONDS, code_of, declare, drain, exchange, scope_of, until
from windlass.app import Windlass
from windlass.errors import StoreFull, StoreUnavailable
from windlass.job import StoreInfo
from windlass.server import ServerApp, create_app


async def test_health_tells_what_the_store_is(app: Windlass[Any], client: AsyncClient) -> None:
    health = (await client.get("/health")).json()

    info = await app.store.info()
    assert health["status"] == "ok"
    assert (health["store"]["kind"], health["store"]["version"]) == (info.kind, info.version)
    assert health["counts"]["pending"] == 0


async def test_the_index_leads_to_what_there_is(client: AsyncClient) -> None:
    links = (await client.get("/")).json()["links"]

    for name, link in links.items():
        if name != "events":
            assert (await client.get(link)).status_code == 200, name


async def test_stats_count_by_lane(app: Windlass[Any], client: AsyncClient) -> None:
    await client.post("/jobs", json=EMAIL)
    await drain(app)

    stats = (await client.get("/stats")).json()

    assert stats["counts"]["completed"] == 1
    assert [(lane["queue"], lane["type"]) for lane in stats["lanes"]] == [("default", "email")]


async def test_tasks_show_what_their_payloads_look_like(client: AsyncClient) -> None:
    tasks = {task["type"]: task for task in (await client.get("/tasks")).json()}

    assert tasks["email"]["aliases"] == ["mail"]
    assert tasks["email"]["doc"] == "Send a message."
    assert tasks["email"]["payload_schema"]["required"] == ["to"]
    assert "ctx" not in tasks["email"]["payload_schema"]["properties"]


async def test_workers_are_listed_while_they_live(app: Windlass[Any], client: AsyncClient) -> None:
    worker = app.worker()
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        group.create_task(worker.run())
        await until(lambda: worker.ready)
        found = (await client.get("/workers")).json()
        worker.stop()

    assert found[0]["id"] == worker.id
    assert "email" in found[0]["types"]
    assert (await client.get("/workers")).json() == []


async def test_metrics_are_prometheus_text(client: AsyncClient) -> None:
    await client.post("/jobs", json=EMAIL)

    response = await client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'windlass_jobs_enqueued_total{queue="default",task="email"} 1.0' in response.text


# ------------------------------------------------------------------ probes, stopping


async def test_readiness_tells_why_not(app: Windlass[Any]) -> None:
    reasons = ["The worker has stalled."]
    api = create_app(app, readiness=lambda: reasons)

    red = await exchange(api, "GET", "/readyz")
    reasons.clear()
    green = await exchange(api, "GET", "/readyz")

    assert (red.status, red.code) == (503, "not-ready")
    assert b"The worker has stalled." in red.body
    assert green.status == 200


async def test_strangers_are_not_told_why_it_is_not_ready(app: Windlass[Any]) -> None:
    token = "correct-horse-battery-staple"
    api = create_app(app, token=token, readiness=lambda: ["/secret/path is away."])

    stranger = await exchange(api, "GET", "/readyz")
    friend = await exchange(api, "GET", "/readyz", headers={"authorization": f"Bearer {token}"})

    assert (stranger.status, friend.status) == (503, 503)
    assert b"/secret/path" not in stranger.body
    assert b"/secret/path" in friend.body


async def test_liveness_does_not_touch_the_store(
    app: Windlass[Any], api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "store", None)
    monkeypatch.setattr(app, "client", None)

    assert (await exchange(api, "GET", "/livez")).status == 200


async def test_a_store_that_does_not_answer_turns_readiness_red(
    app: Windlass[Any], api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable() -> StoreInfo:
        raise StoreUnavailable("The disk is away: mount it.")

    monkeypatch.setattr(app.store, "info", unavailable)

    ready, health = [await exchange(api, "GET", path) for path in ("/readyz", "/health")]

    assert (ready.status, ready.code) == (503, "not-ready")
    assert (health.status, health.code) == (503, "store-unavailable")
    assert health.headers["retry-after"] == "1"


async def test_a_full_disk_is_said_so(
    app: Windlass[Any], client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(jobs: object) -> Any:
        raise StoreFull("The disk is full: free some space.")

    monkeypatch.setattr(app.store, "insert", full)

    response = await client.post("/jobs", json=EMAIL)

    assert (response.status_code, code_of(response)) == (507, "store-full")


async def test_a_stopping_server_refuses_changes_and_still_answers_questions(
    api: ServerApp, client: AsyncClient
) -> None:
    api.drain()

    refused = await client.post("/jobs", json=EMAIL)
    looked = await client.get("/jobs")
    ready = await client.get("/readyz")
    live = await client.get("/livez")

    assert (refused.status_code, code_of(refused)) == (503, "stopping")
    assert int(refused.headers["retry-after"]) >= 1
    assert looked.status_code == 200
    assert (ready.status_code, live.status_code) == (503, 200)


async def test_run_alone_it_opens_the_app_at_the_start_and_closes_it_at_the_end(
    tmp_path: Path,
) -> None:
    app = Windlass[Any]("memory:")
    api = create_app(app)
    said: list[str] = []
    to_say = iter(["lifespan.startup", "lifespan.shutdown"])
    opened: list[bool] = []

    async def receive() -> dict[str, Any]:
        opened.append(app.client.prepare is None)
        return {"type": next(to_say)}

    async def send(message: Any) -> None:
        said.append(message["type"])

    await api({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert opened == [False, True]
    assert app.client.prepare is not None


async def test_an_app_that_nobody_opened_is_opened_by_the_first_request(tmp_path: Path) -> None:
    app = Windlass[Any](f"sqlite:///{tmp_path / 'jobs.db'}")
    declare(app)
    try:
        reply = await exchange(create_app(app), "GET", "/jobs")
    finally:
        await app.close()

    assert (reply.status, reply.body) == (200, b"[]")


# ------------------------------------------------------------------ methods, paths, bugs


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/jobs/batch", "OPTIONS, POST"),
        ("/limits/queue/mail", "OPTIONS, PUT"),
        ("/livez", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(
    client: AsyncClient, path: str, allow: str
) -> None:
    refused = await client.delete(path)
    options = await client.options(path)

    assert (refused.status_code, code_of(refused)) == (405, "method-not-allowed")
    assert refused.headers["allow"] == options.headers["allow"] == allow
    assert (options.status_code, options.content) == (204, b"")


async def test_head_answers_as_get_without_the_body(client: AsyncClient) -> None:
    await client.post("/jobs", json=EMAIL)

    head, get = await client.head("/jobs"), await client.get("/jobs")

    assert head.content == b""
    assert head.headers["content-length"] == str(len(get.content))


@pytest.mark.parametrize("path", ["/", "/health", "/stats", "/queues", "/openapi.json"])
async def test_parameters_that_mean_nothing_are_refused(client: AsyncClient, path: str) -> None:
    response = await client.get(f"{path}?verbose")

    assert (response.status_code, code_of(response)) == (422, "invalid-parameter")


async def test_probes_do_not_mind_parameters(client: AsyncClient) -> None:
    assert (await client.get("/livez?now")).status_code == 200


@pytest.mark.parametrize("path", ["/nothing", "/jobs/", "/jobs/a/b/c", "/docs"])
async def test_a_path_that_is_not_there_is_a_problem_too(client: AsyncClient, path: str) -> None:
    response = await client.get(path)

    assert (response.status_code, code_of(response)) == (404, "not-found")


async def test_a_bug_tells_the_client_nothing_but_the_name_of_its_log_line(
    app: Windlass[Any],
    client: AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def bug() -> Any:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(app.store, "stats", bug)

    with caplog.at_level(logging.ERROR):
        response = await client.get("/stats")

    assert (response.status_code, code_of(response)) == (500, "internal")
    assert "hunter2" not in response.text
    assert response.json()["request_id"] in caplog.text


async def test_every_answer_bears_the_headers_that_keep_browsers_careful(
    client: AsyncClient,
) -> None:
    for response in (
        await client.get("/"),
        await client.get("/nothing"),
        await client.post("/jobs", json=EMAIL),
        await client.delete("/jobs"),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["cross-origin-resource-policy"] == "same-origin"
        assert response.headers["content-security-policy"].startswith("default-src 'none'")
        assert response.headers["x-request-id"]
        assert "server" not in response.headers
        assert "access-control-allow-origin" not in response.headers


async def test_a_websocket_is_turned_away(api: ServerApp) -> None:
    said: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        said.append(message)

    scope = scope_of("GET", "/jobs", {}) | {"type": "websocket", "subprotocols": []}
    await api(scope, receive, send)

    assert [message["type"] for message in said] == ["websocket.close"]


async def test_the_transport_is_an_ordinary_asgi_application(api: ServerApp) -> None:
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(api), base_url="http://127.0.0.1:8080"
    ) as client:
        assert (await client.get("/health")).status_code == 200

"""The event stream: what it tells, how it goes on after a break, and how it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from httpx2 import AsyncClient

from tests.server.support import EMAIL, SECONDS, drain, exchange, scope_of, streaming, until
from windlass.app import Windlass
from windlass.errors import StoreUnavailable
from windlass.server import ServerApp, routes, stream
from windlass.stores.memory import MemoryStore


async def test_a_jobs_way_is_told_to_its_end(
    app: Windlass[Any], api: ServerApp, client: AsyncClient
) -> None:
    async with streaming(api) as reader:
        await reader.ready()
        job = (await client.post("/jobs", json=EMAIL)).json()
        await drain(app)

        told = list[dict[str, Any]]()
        while not told or told[-1]["status"] != "completed":
            name, data = await reader.event()
            assert name == "job"
            told.append(data)

    assert {each["id"] for each in told} == {job["id"]}
    assert "payload" not in told[-1]
    assert "result" not in told[-1]


async def test_the_stream_says_how_it_is_to_be_read(api: ServerApp) -> None:
    reply = await exchange(api, "HEAD", "/events")

    assert reply.status == 200
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
    assert api.service.feed._readers == 0


@pytest.mark.parametrize("query", ["type=broken", "queue=mail", "id={wanted}"])
async def test_a_reader_hears_only_of_what_it_asked_for(
    api: ServerApp, client: AsyncClient, query: str
) -> None:
    wanted = "01a1fa68-be9e-74b8-afaa-2baab7004c36"
    async with streaming(api, "/events?" + query.format(wanted=wanted)) as reader:
        await reader.ready()
        await client.post("/jobs", json=EMAIL)
        await client.post("/jobs", json={"type": "broken", "queue": "mail", "id": wanted})

        _, data = await reader.event()

    assert data["id"] == wanted


async def test_a_reader_that_comes_back_misses_nothing(api: ServerApp, client: AsyncClient) -> None:
    async with streaming(api) as reader:
        await reader.ready()
        await client.post("/jobs", json=EMAIL)
        await reader.event()
    missed = (await client.post("/jobs", json=EMAIL)).json()["id"]
    assert reader.last_id is not None

    async with streaming(api, headers={"last-event-id": reader.last_id}) as again:
        name, data = await again.event()

    assert (name, data["id"]) == ("job", missed)


@pytest.mark.parametrize("place", ["elsewhere-3", "nonsense", "-", "{epoch}-999999"])
async def test_a_reader_from_a_place_that_is_not_known_is_told_to_begin_anew(
    api: ServerApp, client: AsyncClient, place: str
) -> None:
    epoch = api.service.feed.place.partition("-")[0]

    async with streaming(api, headers={"last-event-id": place.format(epoch=epoch)}) as reader:
        first = await reader.event()
        job = (await client.post("/jobs", json=EMAIL)).json()
        second = await reader.event()

    assert first == ("reset", {})
    assert second[1]["id"] == job["id"]


async def post_and_see(client: AsyncClient, feed: stream.Feed) -> None:
    """Enqueue a job, and have its change in the ring: the hint of it may come after the answer."""
    before = feed.place
    await client.post("/jobs", json=EMAIL)
    while feed.place == before:
        await feed.fetch()
        await asyncio.sleep(0.001)


async def test_beyond_the_ring_a_reader_is_told_to_begin_anew(
    api: ServerApp, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "RING", 3)
    feed = api.service.feed = stream.Feed(lambda: api.service.app.store)
    async with streaming(api) as reader:
        await reader.ready()
    for _ in range(3):
        await post_and_see(client, feed)
    assert reader.last_id is not None
    async with streaming(api, headers={"last-event-id": reader.last_id}) as kept:
        assert (await kept.event())[0] == "job"

    await post_and_see(client, feed)

    async with streaming(api, headers={"last-event-id": reader.last_id}) as lost:
        assert (await lost.event())[0] == "reset"


async def test_more_changes_at_once_than_the_ring_holds_reset_every_reader(
    api: ServerApp, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "RING", 3)
    api.service.feed = stream.Feed(lambda: api.service.app.store)
    async with streaming(api) as reader:
        await reader.ready()

        await client.post("/jobs/batch", json=[EMAIL] * 4)

        assert await reader.event() == ("reset", {})


async def test_a_job_that_changes_often_is_told_of_as_it_then_is(
    api: ServerApp, client: AsyncClient
) -> None:
    async with streaming(api) as reader:
        await reader.ready()
    job = (await client.post("/jobs", json=EMAIL)).json()["id"]
    await client.post(f"/jobs/{job}/cancel")
    await client.post(f"/jobs/{job}/retry")
    last = (await client.post("/jobs", json=EMAIL)).json()["id"]
    assert reader.last_id is not None

    async with streaming(api, headers={"last-event-id": reader.last_id}) as again:
        told = [(await again.event())[1] for _ in range(2)]

    assert [(each["id"], each["status"]) for each in told] == [(job, "pending"), (last, "pending")]


async def test_silence_is_broken_by_comments(
    app: Windlass[Any], api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TURN", 0.01)
    feed = stream.Feed(lambda: app.store)
    feed.enter()
    chunks = stream.follow(feed, stream.Wanted(), None, ping=0.0)

    async with asyncio.timeout(SECONDS):
        told = [await anext(chunks) for _ in range(3)]
    await chunks.aclose()

    assert told[2] == b": ping\n\n"


async def test_the_stream_ends_when_the_server_begins_to_stop(
    api: ServerApp, client: AsyncClient
) -> None:
    async with streaming(api) as reader:
        await reader.ready()

        api.drain()

        assert await reader.block() == {}
        assert reader.ended
    refused = await exchange(api, "GET", "/events")
    assert (refused.status, refused.code) == (503, "stopping")


async def test_the_stream_ends_when_the_uvicorn_around_it_begins_to_stop(
    api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TURN", 0.01)
    exits = False
    monkeypatch.setattr(stream, "_server_exits", lambda: exits)
    async with streaming(api) as reader:
        await reader.ready()

        exits = True

        assert await reader.block() == {}


async def test_the_stream_ends_when_the_store_fails_and_the_place_stays_good(
    app: Windlass[Any], api: ServerApp, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(ids: object) -> Any:
        raise StoreUnavailable("The disk is away: mount it.")

    async with streaming(api) as reader:
        await reader.ready()
        with monkeypatch.context() as patch:
            patch.setattr(app.store, "get", unavailable)
            job = (await client.post("/jobs", json=EMAIL)).json()["id"]
            assert await reader.block() == {}
    assert reader.last_id is not None

    async with streaming(api, headers={"last-event-id": reader.last_id}) as again:
        assert (await again.event())[1]["id"] == job


async def test_when_hints_are_lost_every_reader_is_told_to_begin_anew(
    app: Windlass[Any], api: ServerApp, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TURN", 0.01)
    monkeypatch.setattr(app.store, "listen", lambda kinds, callback: lambda: None)
    now = 0.0
    api.service.feed = stream.Feed(lambda: app.store, clock=lambda: now)
    async with streaming(api) as reader:
        await reader.ready()
        now += 10.0
        await until(lambda: api.service.feed._counts is not None)
        await client.post("/jobs", json=EMAIL)

        now += 10.0

        assert await reader.event() == ("reset", {})


async def test_only_so_many_streams_may_be_open(
    api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 1)
    async with streaming(api) as reader:
        await reader.ready()

        refused = await exchange(api, "GET", "/events")

        assert (refused.status, refused.code) == (429, "too-many-streams")
    async with streaming(api) as next_one:
        assert await next_one.started() == 200


async def test_a_reader_that_takes_nothing_is_given_up(
    api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "_SEND_SECONDS", 0.01)
    said: list[str] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def send(message: Any) -> None:
        said.append(message["type"])
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async with asyncio.timeout(SECONDS):
        await api(scope_of("GET", "/events", {}), receive, send)

    assert said == ["http.response.start", "http.response.body"]
    assert api.service.feed._readers == 0


async def test_long_after_the_last_reader_left_the_feed_listens_no_more(
    app: Windlass[Any], api: ServerApp, client: AsyncClient
) -> None:
    now = 0.0
    feed = api.service.feed = stream.Feed(lambda: app.store, clock=lambda: now)
    async with streaming(api) as reader:
        await reader.ready()
    now = 1000.0

    await client.post("/jobs", json=EMAIL)
    await drain(app)

    assert feed.number_of(reader.last_id) is None


async def test_an_app_that_is_given_another_store_is_followed_there(
    app: Windlass[Any], api: ServerApp, client: AsyncClient
) -> None:
    app.use_store(MemoryStore())
    async with streaming(api) as reader:
        await reader.ready()
        job = (await client.post("/jobs", json=EMAIL)).json()["id"]

        assert (await reader.event())[1]["id"] == job

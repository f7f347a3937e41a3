"""The API behind a real server and real sockets: streams, stops, and clients that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import uvicorn

from tests.server.support import EMAIL, JSON, SECONDS, until
from windlass.server import ServerApp, guard, stream


@asynccontextmanager
async def serving(api: ServerApp) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A uvicorn as a user would run it, and its port. It is asked to stop in the end."""
    config = uvicorn.Config(api, port=0, lifespan="off", log_level="critical", access_log=False)
    server = uvicorn.Server(config)
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as group:
        group.create_task(server.serve())
        await until(lambda: server.started)
        try:
            yield server, server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True


async def test_a_stream_tells_of_jobs_and_ends_when_the_server_is_asked_to_stop(
    api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_TURN", 0.01)
    async with (
        serving(api) as (server, port),
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client,
        client.stream("GET", "/events") as response,
    ):
        lines = response.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        job = (await client.post("/jobs", json=EMAIL)).json()

        async for line in lines:
            if line.startswith("data: "):
                break
        server.should_exit = True
        rest = [line async for line in lines]

    assert json.loads(line.removeprefix("data: "))["id"] == job["id"]
    assert not any(rest)


async def test_a_reader_that_hangs_up_makes_room(api: ServerApp) -> None:
    feed = api.service.feed
    async with serving(api) as (_, port):
        async with (
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
            client.stream("GET", "/events") as response,
        ):
            assert response.status_code == 200
            assert feed._readers == 1

        await until(lambda: feed._readers == 0)


def upload(port: int, chunk: bytes, count: int) -> tuple[bytes, int]:
    """Send chunks until the server has had enough: its answer's first line, and how many it took."""
    head = "POST /jobs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    sent = 0
    # A plain socket, because asyncio's streams forget what they have read when a write fails.
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        try:
            for _ in range(count):
                connection.sendall(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                sent += 1
        except OSError:
            pass
        return connection.recv(100).partition(b"\r\n")[0], sent


async def test_fifty_megabytes_in_chunks_are_refused_and_the_server_lives(api: ServerApp) -> None:
    async with serving(api) as (_, port):
        answer, sent = await asyncio.to_thread(upload, port, b"x" * 65536, 800)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            health = await client.get("/health")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert sent < 800
    assert health.status_code == 200


async def test_a_client_that_promises_a_body_and_sends_none_is_given_up(
    api: ServerApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.05)
    async with serving(api) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n")
        writer.write(b"Content-Type: application/json\r\n\r\n{")

        answer = await reader.read()

        writer.close()
    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_client_that_stops_waiting_for_a_result_leaves_nothing_behind(
    api: ServerApp,
) -> None:
    async with serving(api) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        body = json.dumps(EMAIL).encode()
        lines = [
            "POST /jobs HTTP/1.1", "Host: localhost", "Prefer: wait=60",
            f"Content-Length: {len(body)}", f"Content-Type: {JSON['content-type']}",
        ]  # fmt: skip
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await until(lambda: api.service.waiters == 1)

        writer.close()

        await until(lambda: api.service.waiters == 0)

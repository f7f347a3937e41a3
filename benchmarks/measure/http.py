"""How many jobs ``POST /jobs`` accepts per second over 32 connections, the worker working meanwhile."""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import subprocess
import time
import urllib.request

from measure.jobs import app
from measure.lab import HERE, Lab, process

_CONNECTIONS = 32
_BODY = b'{"type":"noop","payload":{"i":1}}'


async def post(lab: Lab) -> dict[str, float]:
    """By wrk where it is installed, else by a small client of our own (which the name then tells)."""
    seconds = max(1.0, 10.0 * lab.scale)
    port = _free_port()
    with process(lab, "serve", "measure.jobs:app", "--port", str(port)):
        await asyncio.to_thread(_wait_until_ready, port)
        if shutil.which("wrk"):
            by, (accepted, took) = "wrk", await asyncio.to_thread(_wrk, port, seconds)
        else:
            by, (accepted, took) = "own client", await _own_client(port, seconds)
        await asyncio.sleep(0.5)
    async with app:
        stored = (await app.store.stats()).count()
    # A connection that is closed in mid-air may have had its job accepted unheard.
    if not accepted <= stored <= accepted + _CONNECTIONS:
        raise SystemExit(f"{accepted} jobs were answered 201 and {stored} are stored.")
    return {f"POST /jobs over 32 connections ({by}), jobs/s": accepted / took}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(port: int) -> None:
    end = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
                return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


def _wrk(port: int, seconds: float) -> tuple[int, float]:
    done = subprocess.run(
        ["wrk", "-t2", f"-c{_CONNECTIONS}", f"-d{round(seconds)}s", "-s", "measure/post.lua",
         f"http://127.0.0.1:{port}/jobs"],
        cwd=HERE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    if bad := re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout):
        raise SystemExit(f"{bad[1]} of wrk's requests were refused.")
    found = re.search(r"(\d+) requests in ([\d.]+)s", done.stdout)
    if found is None:
        raise SystemExit(f"wrk said:\n{done.stdout}")
    return int(found[1]), float(found[2])


async def _own_client(port: int, seconds: float) -> tuple[int, float]:
    began = time.perf_counter()
    end = began + seconds
    async with asyncio.TaskGroup() as group:
        connections = [group.create_task(_connection(port, end)) for _ in range(_CONNECTIONS)]
    return sum(task.result() for task in connections), time.perf_counter() - began


async def _connection(port: int, end: float) -> int:
    """One request after the other on one connection; answers that are not 201 end the measurement."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = (
        b"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (port, len(_BODY), _BODY)
    )
    accepted = 0
    while time.perf_counter() < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 201"):
            raise SystemExit(f"POST /jobs was answered {head.decode()}")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        await reader.readexactly(int(length[1]))
        accepted += 1
    writer.close()
    await writer.wait_closed()
    return accepted

"""``windlass serve`` as a user runs it: a process of its own, on a free port, on files of its own."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.docs.blocks import ROOT

WINDLASS = str(Path(sys.executable).with_name("windlass"))

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "COVERAGE_PROCESS_START")


def environment(**more: str) -> dict[str, str]:
    """A bare environment: nothing of what the developer has set reaches the service."""
    bare = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**bare, "NO_COLOR": "1", **more}


def home(folder: Path) -> dict[str, str]:
    """The settings by which the service keeps everything below *folder*."""
    return {"JOB_SERVICE_DATA": str(folder), "WINDLASS_URL": f"sqlite:///{folder}/jobs.db"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Service:
    """The example service, running. Leaving the ``with`` block kills what is left of it."""

    def __init__(self, folder: Path, *arguments: str, port: int | None = None, **env: str) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.url = f"http://localhost:{self.port}"
        self.log = folder / f"serve-{time.monotonic_ns()}.log"
        self._command = [WINDLASS, "serve", *arguments]
        self._env = environment(**home(folder), PORT=str(self.port), **env)

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole session: the service, and all processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, within: float = 35.0) -> int:
        """SIGTERM; answers the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def get(self, path: str) -> Any:
        return ask(self.url + path)[1]

    def post(self, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        return ask(self.url + path, msgspec.json.encode(body or {}), **headers)

    def enqueue(self, type: str, **payload: object) -> Any:
        status, job = self.post("/jobs", {"type": type, "payload": payload})
        assert status == 201, job
        return job

    def statuses(self) -> dict[str, str]:
        """The status of every job, by id."""
        return {job["id"]: job["status"] for job in self.get("/jobs?limit=200")}

    def wait_for(self, id: str, *statuses: str, within: float = 30.0) -> list[str]:
        """The different statuses in which the job is seen, in order, until it is in one of these."""
        seen: list[str] = []
        end = time.monotonic() + within
        while not seen or seen[-1] not in statuses:
            assert time.monotonic() < end, f"{id} was {seen} for {within} s:\n{self.said()}"
            status = self.get(f"/jobs/{id}")["status"]
            if not seen or seen[-1] != status:
                seen.append(status)
            time.sleep(0.02)
        return seen

    def wait_for_workers(self, count: int) -> list[Any]:
        """The workers, once there are so many."""
        end = time.monotonic() + 20
        while len(workers := self.get("/workers")) != count:
            assert time.monotonic() < end, f"{workers} for 20 s:\n{self.said()}"
            time.sleep(0.05)
        found: list[Any] = workers
        return found

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + 30
        while True:
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.said()}")
            assert time.monotonic() < end, f"serve was not ready in 30 s:\n{self.said()}"
            try:
                if ask(f"{self.url}/readyz")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)


def ask(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    """Status and decoded body of a GET, or of a POST of JSON."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, body, {"Content-Type": "application/json", **names})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            status, raw = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            status, raw = error.code, error.read()
    return status, msgspec.json.decode(raw) if raw[:1] in b"{[" else raw.decode()


def curl(line: str) -> tuple[int, Any]:
    """Run a line as it stands in a README: by curl where there is one, else what curl would do."""
    if shutil.which("curl"):
        done = subprocess.run(
            ["sh", "-c", f"{line.strip()} --silent --write-out '\\n%{{http_code}}'"],
            env=environment(), capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        raw, _, status = done.stdout.rpartition("\n")
        return int(status), msgspec.json.decode(raw)
    words = shlex.split(line.replace("\\\n", " "))[1:]
    url = next(word for word in words if word.startswith("http"))
    body = words[words.index("-d") + 1].encode() if "-d" in words else None
    return ask(url, body)

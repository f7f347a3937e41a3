"""serve, worker and demo as real processes: signals, exit codes, replacement of the dead."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.shell import Shell
from windlass.job import Status

SLOW = """
import asyncio, os
from windlass import Windlass

app = Windlass("sqlite:///{path}")


@app.task
async def slow(mark: str, seconds: float = 60) -> int:
    open(mark, "a").write(f"{{os.getpid()}}\\n")
    await asyncio.sleep(seconds)
    return os.getpid()
"""


class Process:
    """``windlass`` as a process of its own; its stderr can be waited for, line by line."""

    def __init__(self, *arguments: str, directory: Path) -> None:
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("WINDLASS_")
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "windlass", *arguments],
            cwd=directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._more:
                self.lines.append(line)
                self._more.notify_all()

    def until(self, pattern: str, *, seconds: float = 20) -> re.Match[str]:
        """The first match of *pattern* in what it says; fails when it does not say it in time."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, "".join(self.lines))

        with self._more:
            assert self._more.wait_for(lambda: found() is not None, seconds), "".join(self.lines)
        match = found()
        assert match is not None
        return match

    def end(self, number: int | None = None, *, seconds: float = 30) -> int:
        """Its exit code, after signal *number*."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@contextmanager
def started(directory: Path, *arguments: str) -> Iterator[Process]:
    process = Process(*arguments, directory=directory)
    try:
        yield process
    finally:
        process.close()


def fetch(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def wait_for_file(path: Path, lines: int = 1) -> list[str]:
    """The lines of a file that a job writes, once there are so many."""
    pause = threading.Event()
    for _ in range(1000):
        if path.exists() and len(found := path.read_text().splitlines()) >= lines:
            return found
        pause.wait(0.02)
    raise AssertionError(f"{path} was not written")


@pytest.fixture
def slow(shell: Shell, tmp_path: Path) -> Shell:
    """An app whose jobs take as long as they are told to."""
    (tmp_path / "shop_app.py").write_text(SLOW.format(path=shell.path))
    return shell


def test_serve_answers_works_and_ends_cleanly(shell: Shell, tmp_path: Path) -> None:
    with started(tmp_path, "serve", shell.app, "--port", "0") as serve:
        url = serve.until(r"Listening on (http://\S+)")[1]

        status, job = fetch(f"{url}/jobs", {"type": "email", "payload": {"to": "a"}})
        ended = shell("tail", "--id", job["id"], "--for", "20s", "--json")
        code = serve.end(signal.SIGTERM)

    assert status == 201
    assert ended.documents[-1]["status"] == "completed"
    assert code == 0
    assert shell.statuses() == {Status.COMPLETED: 1}


def test_serve_drains_while_a_job_runs_and_hands_it_back_after_the_grace(
    slow: Shell, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    with started(tmp_path, "serve", slow.app, "--port", "0", "--grace", "1s") as serve:
        url = serve.until(r"Listening on (http://\S+)")[1]
        fetch(f"{url}/jobs", {"type": "slow", "payload": {"mark": str(mark)}})
        wait_for_file(mark)

        serve.process.send_signal(signal.SIGTERM)
        serve.until("Stopping")
        ready = fetch(f"{url}/readyz")[0]
        refused = fetch(f"{url}/jobs", {"type": "slow", "payload": {"mark": "x"}})[0]
        looked = fetch(f"{url}/jobs")[0]
        code = serve.end()

    assert (ready, refused, looked) == (503, 503, 200)
    assert code == 0
    assert slow.statuses() == {Status.PENDING: 1}


def test_a_second_signal_hands_back_at_once_and_is_told_by_the_exit_code(
    slow: Shell, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    slow.enqueue("slow", f"mark={mark}")
    with started(tmp_path, "worker", slow.app, "--grace", "1h") as worker:
        wait_for_file(mark)

        worker.process.send_signal(signal.SIGINT)
        worker.until("Stopping")
        code = worker.end(signal.SIGINT)

    assert code == 143
    assert slow.statuses() == {Status.PENDING: 1}


def test_a_busy_port_is_told_before_anything_starts(shell: Shell, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with started(tmp_path, "serve", shell.app, "--port", port) as serve:
            code = serve.end()

    assert code == 3
    assert len(serve.lines) == 1
    assert "in use by another program" in serve.lines[0]


def test_serving_the_world_without_a_token_is_refused(shell: Shell, tmp_path: Path) -> None:
    arguments = ("serve", shell.app, "--port", "0", "--host", "0.0.0.0")
    with started(tmp_path, *arguments) as serve:
        code = serve.end()

    assert code == 3
    assert "token" in "".join(serve.lines)
    assert "Traceback" not in "".join(serve.lines)


def test_serve_without_a_worker_only_takes_jobs(shell: Shell, tmp_path: Path) -> None:
    with started(tmp_path, "serve", shell.app, "--port", "0", "--no-worker") as serve:
        url = serve.until(r"without a worker\.\nListening on (http://\S+)")[1]
        fetch(f"{url}/jobs", {"type": "email", "payload": {"to": "a"}})
        workers = fetch(f"{url}/workers")[1]
        code = serve.end(signal.SIGTERM)

    assert (code, workers) == (0, [])
    assert shell.statuses() == {Status.PENDING: 1}


def test_serve_with_workers_beside_it(shell: Shell, tmp_path: Path) -> None:
    with started(tmp_path, "serve", shell.app, "--port", "0", "--workers", "2") as serve:
        url = serve.until(r"with 2 worker processes\.\nListening on (http://\S+)")[1]
        _, job = fetch(f"{url}/jobs", {"type": "email", "payload": {"to": "a"}})
        waited = shell("tail", "--id", job["id"], "--for", "20s", "--json")
        code = serve.end(signal.SIGTERM)

    assert waited.documents[-1]["status"] == "completed"
    assert code == 0


def test_a_worker_process_that_dies_is_replaced_and_its_job_runs_again(
    slow: Shell, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    slow.enqueue("slow", f"mark={mark}", "seconds=3600")
    with started(tmp_path, "worker", slow.app, "-n", "2", "--grace", "1s") as parent:
        (first,) = wait_for_file(mark)

        os.kill(int(first), signal.SIGKILL)
        parent.until("another takes its place")
        runs = wait_for_file(mark, 2)
        code = parent.end(signal.SIGTERM)

    assert code == 0
    assert len(set(runs)) == 2
    assert slow.statuses() == {Status.PENDING: 1}


def test_worker_drains_and_ends(shell: Shell, tmp_path: Path) -> None:
    for n in range(5):
        shell.enqueue("email", f"to={n}")
    with started(tmp_path, "worker", shell.app, "--drain", "--log-format", "json") as worker:
        code = worker.end()

    assert code == 0
    assert shell.statuses() == {Status.COMPLETED: 5}
    events = [json.loads(line)["event"] for line in worker.lines if line.startswith("{")]
    assert events == ["worker.started", "worker.stopped"]


def test_status_of_a_running_worker_on_request(slow: Shell, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    job = slow.enqueue("slow", f"mark={mark}")
    with started(tmp_path, "worker", slow.app, "--grace", "0s") as worker:
        wait_for_file(mark)
        worker.process.send_signal(signal.SIGUSR2)
        worker.until(f"running, runs slow {job}")
        code = worker.end(signal.SIGTERM)

    assert code == 0


def test_a_change_starts_the_program_anew(shell: Shell, tmp_path: Path) -> None:
    with started(tmp_path, "serve", shell.app, "--port", "0", "--reload") as parent:
        parent.until("Serving email, fail")
        text = Path(shell.app).read_text()
        Path(shell.app).write_text(text.replace("async def fail(", "async def renamed("))

        parent.until(r"shop_app\.py changed: starting anew")
        parent.until("Serving email, renamed")
        code = parent.end(signal.SIGTERM)

    assert code == 0


def test_the_demo_ends_with_a_proof(shell: Shell, tmp_path: Path) -> None:
    with started(tmp_path, "demo", "--json", "--keep", "demo.db") as demo:
        code = demo.end(seconds=60)
        assert demo.process.stdout is not None
        found = json.loads(demo.process.stdout.read())

    assert code == 0, demo.lines
    assert found["exact"] is True
    assert found["lost"] == 0
    assert found["accepted"] == found["completed"] + found["failed"] + found["cancelled"]
    assert found["in_flight_at_kill"] >= 3
    assert found["taken_back"] >= 1
    kept = shell("failures", "--json", "--url", f"sqlite:///{tmp_path}/demo.db").documents
    assert sum(group["count"] for group in kept) == found["failed"]


LEAVING = """
import asyncio, threading, time
from windlass import Windlass

app = Windlass("sqlite:///{path}")


@app.task
def leave_a_thread() -> None:
    threading.Thread(target=time.sleep, args=(600,)).start()


@app.task
async def leave_a_call() -> None:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 600)
"""


@pytest.mark.parametrize("task", ["leave_a_thread", "leave_a_call"])
def test_threads_that_a_task_left_behind_do_not_keep_a_worker_from_ending(
    shell: Shell, tmp_path: Path, task: str
) -> None:
    app = tmp_path / f"{task}_app.py"
    app.write_text(LEAVING.format(path=shell.path))
    shell.enqueue(task, "--app", str(app))

    with started(tmp_path, "worker", str(app), "--drain", "--url", shell.url) as worker:
        assert worker.end() == 0

    assert json.loads(shell("jobs", "--json").out)["status"] == "completed"


def test_a_worker_whose_terminal_is_closed_ends_in_good_order(slow: Shell, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    job = slow.enqueue("slow", f"mark={mark}")
    with started(tmp_path, "worker", slow.app, "--url", slow.url, "--grace", "0s") as worker:
        wait_for_file(mark)
        assert worker.end(signal.SIGHUP) == 0

    found = json.loads(slow("show", job, "--json").out)
    assert (found["status"], found["crashes"]) == ("pending", 0)


def test_a_measurement_that_is_ended_leaves_nothing_behind(shell: Shell, tmp_path: Path) -> None:
    place = tmp_path / "disk"
    place.mkdir()
    with started(tmp_path, "bench", "--jobs", "1000000", "--directory", str(place)) as bench:
        pause = threading.Event()
        for _ in range(1000):
            if list(place.glob("*/bench.db-wal")):
                break
            pause.wait(0.02)
        code = bench.end(signal.SIGTERM)

    assert code == 143
    assert list(place.iterdir()) == []

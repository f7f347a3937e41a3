"""Nobody is answered before the disk has what he was promised: seen in the order of system calls."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import ask, free_port
from tests.reliability import journal
from tests.reliability.scene import APP, Child, Scene
from tests.reliability.trace import Verdict, can_trace, judge, strace

COUNT = 200


JOB = "01a1fa7b-7d0f-720d-b473-2d0331b31a1d"
WRITTEN = f'7 pwrite64(9</x/jobs.db-wal>, "\\0\\000{JOB}work", 4096, 4096) = 4096'
SYNCED = "7 fdatasync(9</x/jobs.db-wal>) = 0"
BEGUN = "7 fdatasync(9</x/jobs.db-wal> <unfinished ...>"
ENDED = "7 <... fdatasync resumed>) = 0"
ACCEPTED = f'8 write(5</x/ledger>, "A {JOB} 0 p-7 1.0\\n", 60) = 60'
TRIED = f'8 write(5</x/ledger>, "T {JOB} 0 p-7 1.0\\n", 60) = 60'
SENT = f'8 sendto(6<socket:[77]>, "HTTP/1.1 201 Created... {JOB}", 90, 0, NULL, 0) = 90'


@pytest.mark.parametrize(
    "lines",
    [
        [TRIED, WRITTEN, SYNCED, ACCEPTED],
        [WRITTEN, SYNCED, SENT],
        [WRITTEN, BEGUN, ENDED, SENT],
        [WRITTEN, SYNCED, WRITTEN, SENT],
    ],
    ids=["accepted", "sent", "sync in two lines", "written again later"],
)
def test_an_answer_after_the_sync_is_durable(lines: list[str]) -> None:
    assert judge(lines).too_early == []
    assert judge(lines).answered == 1


@pytest.mark.parametrize(
    "lines",
    [
        [WRITTEN, ACCEPTED],
        [SYNCED, WRITTEN, SENT],
        [WRITTEN, BEGUN, SENT, ENDED],
        [BEGUN, WRITTEN.replace("7", "8", 1), ENDED, SENT],
        [WRITTEN, SYNCED.replace("= 0", "= -1 EIO (Input/output error)"), SENT],
        [WRITTEN, SYNCED.replace("-wal", ""), SENT],
        [SENT, WRITTEN, SYNCED, SENT],
    ],
    ids=[
        "no sync", "synced before", "sync not over", "written during the sync", "sync failed",
        "another file", "answered twice",
    ],
)  # fmt: skip
def test_an_answer_too_early_is_found(lines: list[str]) -> None:
    assert judge(lines).too_early == [JOB]


@pytest.fixture
def _strace() -> None:
    if not can_trace() and not os.environ.get("CI"):
        pytest.skip("strace is not there, or not allowed: .ci/run installs it")


def _produce(folder: Path, **orders: Any) -> Verdict:
    trace = folder / "trace"
    with Scene(folder) as scene:
        producer = scene.producer(count=COUNT, under=strace(trace), **orders)
        assert producer.ended(40) == 0, producer.said()
    with trace.open(errors="replace") as lines:
        return judge(lines)


@pytest.mark.usefixtures("_strace")
def test_each_single_enqueue_is_synced_before_it_returns(tmp_path: Path) -> None:
    verdict = _produce(tmp_path)

    assert verdict.answered == COUNT
    assert verdict.syncs >= COUNT
    assert verdict.too_early == []


@pytest.mark.usefixtures("_strace")
def test_concurrent_enqueues_share_syncs_and_none_returns_before_its_own(tmp_path: Path) -> None:
    verdict = _produce(tmp_path, clients=20)

    assert verdict.answered == COUNT
    assert verdict.syncs < COUNT
    assert verdict.too_early == []


@pytest.mark.usefixtures("_strace")
def test_a_store_that_does_not_wait_for_the_disk_is_caught(tmp_path: Path) -> None:
    verdict = _produce(tmp_path, durability="normal")

    assert verdict.answered == COUNT
    assert verdict.syncs < COUNT
    assert len(verdict.too_early) > COUNT / 2


@pytest.mark.usefixtures("_strace")
def test_no_201_is_sent_before_its_job_is_on_the_disk(tmp_path: Path) -> None:
    trace, port = tmp_path / "trace", free_port()
    with Scene(tmp_path) as scene:
        server = scene.windlass("serve", APP, "--port", str(port), under=strace(trace))
        _until_ready(scene, server, port)
        with ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(lambda _: _post(port), range(COUNT)))
        # strace itself turns a deaf ear to signals.
        [traced] = journal.states(scene.store)
        os.kill(traced, signal.SIGTERM)
        assert server.ended() == 0, server.said()

    with trace.open(errors="replace") as lines:
        verdict = judge(lines)
    assert statuses == [201] * COUNT
    assert verdict.answered == COUNT
    assert verdict.too_early == []


def _until_ready(scene: Scene, server: Child, port: int) -> None:
    def ready() -> bool:
        assert server.alive, server.said()
        try:
            return ask(f"http://127.0.0.1:{port}/readyz")[0] == 200
        except OSError:
            return False

    scene.until("the server is ready", ready)


def _post(port: int) -> int:
    body = b'{"type": "work", "payload": {"seconds": 0}, "queue": "unserved"}'
    return ask(f"http://127.0.0.1:{port}/jobs", body)[0]

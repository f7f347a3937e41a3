"""A stop loses nothing, doubles nothing and makes nobody wait, whenever it comes."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from random import Random

import pytest

from tests.reliability import journal
from tests.reliability.checker import History, check, cleanly_stopped, count
from tests.reliability.ledger import Kind
from tests.reliability.reports import Reports
from tests.reliability.scene import Scene
from windlass.job import Status

IN_FLIGHT = 50
GRACE = 0.3
LEASE = 20.0
"""Long: whoever had to wait for a lease would be seen to."""


@pytest.mark.torture
@pytest.mark.timeout(400)
def test_nothing_is_lost_or_doubled_by_stops_at_random_moments(
    tmp_path: Path, torture: bool, reports: Reports
) -> None:
    stops, rng = 100 if torture else 20, Random(4)
    slowest = 0.0
    with Scene(tmp_path) as scene:
        for n in range(stops):
            scene.enqueue("work", IN_FLIGHT, seconds=rng.uniform(0.05, 1.0))
            scene.enqueue("crunch", IN_FLIGHT // 5, seconds=rng.uniform(0.05, 0.5))
            worker = scene.worker(
                f"w{n}", concurrency=IN_FLIGHT - 10, threads=10, grace=GRACE, lease=LEASE
            )
            scene.until_started(IN_FLIGHT, worker=worker.label)
            time.sleep(rng.uniform(0.0, 0.4))

            began = time.monotonic()
            exit_code = worker.stop()
            slowest = max(slowest, time.monotonic() - began)

            assert exit_code == 0, worker.said()
            assert _processing(scene) == []
        scene.worker("last", drain=True, concurrency=200, threads=50).ended(30)

        history = scene.history()
        handed_back = [change for change in history.journal if _is_hand_back(change)]
        waited = _longest_wait(history)
        reports.add(
            f"Stops: SIGTERM {stops} times, with {IN_FLIGHT} jobs in flight",
            count(history)._asdict()
            | {
                "handed back": len(handed_back),
                "slowest stop in s": round(slowest, 2),
                "longest wait of a job that was handed back in s": round(waited, 2),
            },
            violations := check(history) + cleanly_stopped(history) + journal.unsound(scene.store),
        )
        assert violations == []
        assert handed_back
        assert slowest < GRACE + 2.0
        assert waited < LEASE / 2


def _processing(scene: Scene) -> list[journal.Row]:
    return [row for row in journal.rows(scene.store).values() if row.status is Status.PROCESSING]


def _is_hand_back(change: journal.Change) -> bool:
    return change.before is Status.PROCESSING and change.after is Status.PENDING


def _longest_wait(history: History) -> float:
    """From a hand-back to the next hand-out of the same job."""
    longest, since = 0.0, dict[str, float]()
    for change in history.journal:
        if _is_hand_back(change):
            since[change.job] = change.at
        elif change.after is Status.PROCESSING and change.job in since:
            longest = max(longest, change.at - since.pop(change.job))
    return longest


@pytest.mark.torture
@pytest.mark.timeout(200)
def test_a_stop_while_the_worker_starts_loses_nothing(tmp_path: Path, torture: bool) -> None:
    rng = Random(5)
    with Scene(tmp_path) as scene:
        scene.enqueue("work", IN_FLIGHT, seconds=0.2)
        for n in range(50 if torture else 10):
            worker = scene.worker(f"w{n}", grace=GRACE, lease=LEASE)
            time.sleep(rng.uniform(0.0, 0.4))

            # Before it has come to its handlers, a signal does what it always does.
            assert worker.stop() in (0, -signal.SIGTERM), worker.said()
            assert _processing(scene) == []
        scene.worker("last", drain=True, concurrency=50).ended()

        history = scene.history()
        assert check(history) + cleanly_stopped(history) == []


def test_a_second_signal_hands_everything_back_at_once(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        jobs = scene.enqueue("work", IN_FLIGHT, seconds=30.0)
        worker = scene.worker(concurrency=IN_FLIGHT, grace=60.0, lease=4.0)
        scene.until_started(IN_FLIGHT)
        worker.process.terminate()
        worker.asked_to_stop()

        began = time.monotonic()
        exit_code = worker.stop()

        assert exit_code == 0, worker.said()
        assert time.monotonic() - began < 2.0
        rows = journal.rows(scene.store)
        assert {rows[job].status for job in jobs} == {Status.PENDING}
        assert {rows[job].crashes + rows[job].failures for job in jobs} == {0}


def test_a_third_signal_ends_the_process_and_others_take_over(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        [job] = scene.enqueue("crunch", seconds=2.5)
        worker = scene.worker(threads=1, grace=60.0)
        scene.until_started(1)
        worker.process.terminate()
        worker.asked_to_stop()
        # A thread cannot be ended: the second signal waits for it a little, the third does not.
        worker.process.terminate()
        time.sleep(0.5)

        began = time.monotonic()
        exit_code = worker.stop()
        took = time.monotonic() - began
        scene.ledger.note(Kind.KILLED, worker=worker.label)
        scene.worker("healthy", threads=1)
        scene.until_final([job])

        assert exit_code == 128 + signal.SIGTERM
        assert took < 0.5
        assert check(scene.history()) == []

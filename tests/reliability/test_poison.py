"""Jobs that kill their process end, and harm nobody else: hundreds of good jobs among them complete,
and work goes on at full speed while the bad ones are in quarantine."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tests.reliability import journal
from tests.reliability.checker import History, check, count, poison_contained
from tests.reliability.ledger import Kind
from tests.reliability.reports import Reports
from tests.reliability.scene import APP, Scene
from windlass.job import JobOptions, Status

GOOD = 500
WAYS = ("segfault", "exit", "killed")
SETTLED = 1.0
"""Seconds until the processes that died last are replaced."""
PROMPT = 1.0
"""Seconds from an enqueue to the end of the job, for 95 of 100, while others are in quarantine."""


def test_poison_is_contained(tmp_path: Path, reports: Reports) -> None:
    with Scene(tmp_path) as scene:
        bad = set[str]()
        for way in WAYS:
            scene.enqueue("work", GOOD // len(WAYS), seconds=0.03)
            bad.update(scene.enqueue("poison", how=way))
        scene.enqueue("crunch", GOOD % len(WAYS), seconds=0.03)
        fleet = scene.windlass("worker", APP, "-n", "2", "--concurrency", "16", "--threads", "4")
        trickle = scene.producer(count=10**9, clients=2, pause=0.05)

        _until(scene, bad, lambda row: row.crashes >= 2)
        isolated_at = time.monotonic()
        _until(scene, bad, lambda row: row.status is Status.FAILED)
        ended_at = time.monotonic()
        trickle.kill()
        scene.until_final(within=10)
        exit_code = fleet.stop()

        history = scene.history()
        waits = sorted(_waits(history, isolated_at + SETTLED, ended_at))
        most_waited = waits[int(len(waits) * 0.95)]
        reports.add(
            f"Poison: {len(bad)} jobs that kill their process among {len(history.rows) - len(bad)} others",
            count(history)._asdict()
            | {
                "most starts of a good job": max(
                    row.fence for row in history.rows.values() if row.id not in bad
                ),
                "seconds in quarantine": round(ended_at - isolated_at, 1),
                "good jobs meanwhile": len(waits),
                "95 of 100 of them done within s": round(most_waited, 3),
            },
            violations := check(history)
            + poison_contained(history, bad)
            + journal.unsound(scene.store),
        )
        assert violations == []
        assert {history.rows[job].fence for job in bad} == {2 + 3}
        assert len(waits) > 20
        assert most_waited < PROMPT
        assert exit_code == 0, fleet.said()


def _until(scene: Scene, jobs: set[str], true: Callable[[journal.Row], bool]) -> None:
    def all_are() -> bool:
        rows = journal.rows(scene.store)
        return all(true(rows[job]) for job in jobs)

    scene.until("the bad jobs are as they should be", all_are, within=45)


def _waits(history: History, since: float, until: float) -> list[float]:
    """How long each job that was accepted in this time waited for its end."""
    accepted = {fact.job: fact.at for fact in history.of(Kind.ACCEPTED)}
    return [
        fact.at - accepted[fact.job]
        for fact in history.of(Kind.FINISHED)
        if since < accepted.get(fact.job, 0.0) < until
    ]


def test_a_task_that_runs_out_of_memory_fails_and_its_worker_lives(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        [hog] = scene.enqueue("hog", options=JobOptions(max_attempts=1))
        scene.enqueue("work", 50, seconds=0.02)
        worker = scene.worker(memory=256 * 2**20)

        scene.until_final()

        rows = scene.history().rows
        assert rows[hog].status is Status.FAILED
        assert (rows[hog].crashes, rows[hog].failures) == (0, 1)
        assert all(row.status is Status.COMPLETED for row in rows.values() if row.id != hog)
        assert worker.stop() == 0, worker.said()

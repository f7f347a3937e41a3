"""What a supervisor is for: a death that it sees costs a moment and not a lease, and its own death
leaves nobody behind."""

from __future__ import annotations

from pathlib import Path

from tests.reliability import journal
from tests.reliability.checker import check, cleanly_stopped
from tests.reliability.ledger import Kind
from tests.reliability.scene import APP, Scene
from windlass.job import Status

RECOVERY = 2.0
"""Seconds from the death of a supervised worker to the next start of its jobs."""


def test_the_jobs_of_a_supervised_worker_run_again_within_two_seconds(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.enqueue("work", 8, seconds=0.5)
        fleet = scene.windlass("worker", APP, "-n", "2", "--concurrency", "8")
        scene.until_started(1)
        victim = scene.facts(Kind.STARTED)[0].worker

        scene.kill(victim)
        scene.until_final()

        assert fleet.stop() == 0, fleet.said()
        history = scene.history()
        [killed] = history.of(Kind.KILLED)
        again = [fact for fact in history.of(Kind.STARTED) if fact.fence == 2]
        assert again
        assert max(fact.at for fact in again) - killed.at < RECOVERY
        assert check(history) == []


def test_the_children_of_a_killed_supervisor_hand_back_and_end(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        jobs = scene.enqueue("work", 8, seconds=30.0)
        fleet = scene.windlass("worker", APP, "-n", "2", "--concurrency", "8")
        scene.until_started(len(jobs))

        fleet.kill()
        scene.until("its children leave", lambda: not journal.states(scene.store), within=3.0)

        assert {row.status for row in journal.rows(scene.store).values()} == {Status.PENDING}
        assert cleanly_stopped(scene.history()) == []

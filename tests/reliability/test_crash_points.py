"""SIGKILL at each place where it could hurt most: nothing is lost, nothing ends twice, and a healthy
worker takes over by itself within a lease and a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from tests.reliability import journal
from tests.reliability.checker import History, check
from tests.reliability.ledger import Kind
from tests.reliability.scene import Child, Scene
from windlass.crashpoints import CrashPoint
from windlass.job import JobOptions

JOBS = 12
RECOVERY = 10.0
"""Seconds for a lease (1 s), a delay of up to 2 s, and the start of processes on a busy machine."""


class Report(NamedTuple):
    """What a crash came to."""

    history: History
    unsound: list[str]
    recovered_in: float


def _claiming(scene: Scene, point: CrashPoint) -> Child:
    scene.enqueue("work", JOBS, seconds=0.05)
    return scene.worker("victim", crash_at=point)


def _some_way_in(scene: Scene, point: CrashPoint) -> Child:
    scene.enqueue("work", JOBS, seconds=0.05)
    return scene.worker("victim", crash_at=f"{point}:3", concurrency=4)


def _inserting(scene: Scene, point: CrashPoint) -> Child:
    return scene.producer("victim", crash_at=f"{point}:5", count=JOBS)


def _beating(scene: Scene, point: CrashPoint) -> Child:
    scene.enqueue("work", JOBS, seconds=1.5)
    return scene.worker("victim", crash_at=f"{point}:2")


def _promoting(scene: Scene, point: CrashPoint) -> Child:
    soon = JobOptions(delay=timedelta(seconds=0.5))
    scene.enqueue("work", JOBS, options=soon, seconds=0.05)
    return scene.worker("victim", crash_at=point)


def _reclaiming(scene: Scene, point: CrashPoint) -> Child:
    scene.enqueue("work", JOBS, seconds=0.05)
    scene.worker("first", crash_at="after-claim").died()
    return scene.worker("victim", crash_at=point)


def _stopping(scene: Scene, point: CrashPoint) -> Child:
    scene.enqueue("work", JOBS, seconds=0.8)
    victim = scene.worker("victim", crash_at=point, grace=0.3, concurrency=JOBS)
    scene.until_started(JOBS)
    victim.process.terminate()
    return victim


SCENES: dict[CrashPoint, Callable[[Scene, CrashPoint], Child]] = {
    "after-insert-commit": _inserting,
    "after-claim": _claiming,
    "before-run": _some_way_in,
    "after-run": _some_way_in,
    "after-ack-commit": _some_way_in,
    "mid-reclaim": _reclaiming,
    "mid-flush": _stopping,
    "mid-heartbeat": _beating,
    "mid-promote": _promoting,
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[CrashPoint, Future[Report]]:
    """All crashes, some at a time: they mostly wait for leases to run out."""
    folder = tmp_path_factory.mktemp("crash-points")
    with ThreadPoolExecutor(3) as pool:
        return {point: pool.submit(_crash, folder / point, point) for point in SCENES}


def _crash(folder: Path, point: CrashPoint) -> Report:
    with Scene(folder) as scene:
        SCENES[point](scene, point).died()
        scene.canary(scene.worker("healthy", queues=["default", "canary"]), queue="canary")
        took = scene.until_final()
        return Report(scene.history(), journal.unsound(scene.store), took)


def test_every_crash_point_is_put_to_the_test() -> None:
    assert {*SCENES, "mid-migration"} == set(get_args(CrashPoint))


@pytest.mark.parametrize("point", SCENES)
def test_nothing_is_lost_or_doubled_by_a_kill(
    point: CrashPoint, reports: dict[CrashPoint, Future[Report]]
) -> None:
    report = reports[point].result()

    assert check(report.history) == []
    assert report.unsound == []
    assert report.recovered_in < RECOVERY
    assert any(report.history.of(Kind.FINISHED))


def test_a_migration_that_was_killed_is_made_anew(tmp_path: Path) -> None:
    with Scene(tmp_path, prepared=False) as scene:
        scene.worker("victim", crash_at="mid-migration").died()

        jobs = scene.enqueue("work", JOBS, seconds=0.0)
        healthy = scene.worker("healthy")
        scene.until_final(jobs)

        assert healthy.stop() == 0
        assert journal.unsound(scene.store) == []

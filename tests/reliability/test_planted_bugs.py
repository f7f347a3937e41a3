"""A harness that cannot see a bug is no evidence: each bug planted here must be caught, every time.

Each is planted in real processes and played in a scene that exercises it (``directed.py``), beside the
same scene without it. ``synchronous=NORMAL`` is planted in ``test_durability.py``; bugs within one
operation of a store are planted in ``tests/stores/test_planted_bugs.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, get_args

import pytest

from tests.reliability import directed
from tests.reliability.checker import History, check, i15_fence_exercised, poison_contained
from tests.reliability.plants import Plant

Scenario = Callable[[Path, str], History]


class Bug(NamedTuple):
    """A planted bug, the scene that exercises it, and how the sentence that tells of it begins."""

    plant: Plant
    scene: Scenario
    caught: str


BUGS = (
    Bug("no check on an Ack", directed.zombie, "I3"),
    Bug("no check on an Ack", directed.zombie_after_the_end, "I3"),
    Bug("an Ack checks the status only", directed.zombie, "I5"),
    Bug("answered before the commit", directed.hasty_answer, "I1"),
    Bug("dead at first sight", directed.clock_step, "I8"),
    Bug("charged wherever it crashed", directed.innocent_bystander, "innocent"),
)
SCENES: tuple[Scenario, ...] = tuple(dict.fromkeys(bug.scene for bug in BUGS))

Played = dict[tuple[Scenario, str], Future[History]]


def _name(scene: Scenario) -> str:
    return getattr(scene, "__name__", "scene")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Every scene with and without its bugs, some at a time: they mostly wait for leases."""
    folder = tmp_path_factory.mktemp("planted")
    plays: list[tuple[Scenario, str]] = [
        *((scene, "") for scene in SCENES),
        *((bug.scene, bug.plant) for bug in BUGS),
    ]
    with ThreadPoolExecutor(3) as pool:
        return {
            (scene, plant): pool.submit(scene, folder / f"{_name(scene)}-{len(plant)}", plant)
            for scene, plant in plays
        }


def _violations(history: History) -> list[str]:
    return check(history) + poison_contained(history, (), extra=3)


def test_every_bug_is_planted_somewhere() -> None:
    assert {bug.plant for bug in BUGS} == set(get_args(Plant))


@pytest.mark.parametrize("scene", SCENES, ids=_name)
def test_a_scene_without_a_bug_breaks_no_promise(scene: Scenario, played: Played) -> None:
    assert _violations(played[scene, ""].result()) == []


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: f"{bug.plant} ({_name(bug.scene)})")
def test_each_planted_bug_is_caught(bug: Bug, played: Played) -> None:
    found = _violations(played[bug.scene, bug.plant].result())

    assert any(sentence.startswith(bug.caught) for sentence in found), found


@pytest.mark.parametrize("scene", [directed.zombie, directed.zombie_after_the_end], ids=_name)
def test_a_late_outcome_is_refused(scene: Scenario, played: Played) -> None:
    assert i15_fence_exercised(played[scene, ""].result()) == []

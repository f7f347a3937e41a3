"""Does to workers what the world does: kills them and freezes them, at moments that a seed decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

from tests.reliability.scene import Child, Scene

__all__ = ["Nemesis"]

LEASE = 1.0
"""Seconds. A freeze lasts nearly twice as long, so that the frozen worker is declared dead."""
FREEZE = 1.8 * LEASE
PAUSE = (0.15, 0.5)
"""Seconds between two blows, at least and at most."""


class Nemesis:
    """Keeps *count* workers running on a scene, and strikes one of them now and then."""

    def __init__(self, scene: Scene, count: int, rng: Random, **orders: Any) -> None:
        self._scene = scene
        self._rng = rng
        self._orders = orders
        self._started = 0
        self.workers = [self._start(place) for place in range(count)]
        self._frozen: list[tuple[float, Child]] = []

    def torment(self, seconds: float, freezes: float) -> None:
        """Strike for so long; *freezes* is the share of blows that freeze and do not kill."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._rest(self._rng.uniform(*PAUSE))
            place = self._rng.randrange(len(self.workers))
            if self._rng.random() >= freezes:
                self._kill(place)
            elif not self._frozen:
                victim = self.workers[place]
                victim.freeze()
                self._frozen.append((time.monotonic() + FREEZE, victim))
        self._thaw(lambda until: True)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._thaw(lambda until: until <= now)
            time.sleep(min(0.02, end - now))

    def _thaw(self, due: Callable[[float], bool]) -> None:
        for entry in [entry for entry in self._frozen if due(entry[0])]:
            self._frozen.remove(entry)
            entry[1].thaw()

    def _kill(self, place: int) -> None:
        victim = self.workers[place]
        self._frozen = [entry for entry in self._frozen if entry[1] is not victim]
        victim.kill()
        self.workers[place] = self._start(place)

    def _start(self, place: int) -> Child:
        self._started += 1
        queues = ["default", queue_of(place)]
        return self._scene.worker(f"w{self._started}", queues=queues, lease=LEASE, **self._orders)

    def send_canaries(self) -> None:
        """Enqueue a job for each worker that no other one may run."""
        for place, worker in enumerate(self.workers):
            self._scene.canary(worker, queue_of(place))


def queue_of(place: int) -> str:
    """The queue that only the worker at this place serves."""
    return f"only-{place}"

"""Does to workers what the world does, at moments that a seed decides: kills them, freezes them, and
replaces them by newer ones."""

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
FREEZES, ROLLS = 0.25, 0.15
"""Shares of the blows that freeze a worker, and that replace it in good order; the others kill."""
DOZERS = 0.15
"""Share of workers that freeze by themselves when their first outcome is about to be stored."""
MERCY = 0.5
"""Share of frozen workers that are spared when a kill falls on them: dead ones are never late."""


class Nemesis:
    """Keeps *count* workers running on a scene, and strikes one of them now and then."""

    def __init__(self, scene: Scene, count: int, rng: Random, **orders: Any) -> None:
        self._scene = scene
        self._rng = rng
        self._orders = orders
        self._started = 0
        self._dozers: list[Child] = []
        self._frozen: list[tuple[float, Child]] = []
        self._leaving: list[Child] = []
        self.workers = [self._start(place) for place in range(count)]

    def torment(self, seconds: float) -> None:
        """Strike for so long, then let everybody go on."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._rest(self._rng.uniform(*PAUSE))
            self._strike(self._rng.randrange(len(self.workers)), self._rng.random())
        self._thaw(lambda until: True)
        while self._dozers:
            self._rest(0.1)
        self._thaw(lambda until: True)

    def _strike(self, place: int, roll: float) -> None:
        victim = self.workers[place]
        frozen = any(child is victim for _, child in self._frozen)
        dozes = any(child is victim for child in self._dozers)
        if roll < FREEZES:
            if not self._frozen and not dozes:
                victim.freeze()
                self._froze(victim)
        elif roll < FREEZES + ROLLS:
            if not frozen and not dozes:
                victim.process.terminate()
                self._leaving.append(victim)
                self.workers[place] = self._start(place)
        elif not frozen or self._rng.random() >= MERCY:
            self._kill(place)

    def release(self) -> list[int]:
        """Wait for those that were replaced; their exit codes."""
        return [worker.ended() for worker in self._leaving]

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            for dozer in [dozer for dozer in self._dozers if dozer.frozen]:
                dozer.froze()
                self._froze(dozer)
            self._thaw(lambda until: until <= now)
            time.sleep(min(0.02, end - now))

    def _froze(self, victim: Child) -> None:
        self._dozers = [dozer for dozer in self._dozers if dozer is not victim]
        self._frozen.append((time.monotonic() + FREEZE, victim))

    def _thaw(self, due: Callable[[float], bool]) -> None:
        for entry in [entry for entry in self._frozen if due(entry[0])]:
            self._frozen.remove(entry)
            entry[1].thaw()

    def _kill(self, place: int) -> None:
        victim = self.workers[place]
        self._frozen = [entry for entry in self._frozen if entry[1] is not victim]
        self._dozers = [dozer for dozer in self._dozers if dozer is not victim]
        victim.kill()
        self.workers[place] = self._start(place)

    def _start(self, place: int) -> Child:
        self._started += 1
        dozes = self._rng.random() < DOZERS
        worker = self._scene.worker(
            f"w{self._started}", queues=["default", queue_of(place)], lease=LEASE,
            freeze_at_ack=dozes, **self._orders,
        )  # fmt: skip
        if dozes:
            self._dozers.append(worker)
        return worker

    def send_canaries(self) -> None:
        """Enqueue a job for each worker that no other one may run."""
        for place, worker in enumerate(self.workers):
            self._scene.canary(worker, queue_of(place))


def queue_of(place: int) -> str:
    """The queue that only the worker at this place serves."""
    return f"only-{place}"

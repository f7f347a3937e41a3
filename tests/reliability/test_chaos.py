"""Workers on one file are killed, frozen and replaced all the time, and no promise is broken.

The seed of a run is printed; ``CHAOS_SEED`` repeats its blows (not the moments at which the operating
system lets them fall).
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random

import pytest

from tests.reliability import journal
from tests.reliability.checker import check, count, i15_fence_exercised
from tests.reliability.nemesis import Nemesis
from tests.reliability.reports import Reports
from tests.reliability.scene import Scene

WORKERS = 3
DRAINED = 25.0
"""Seconds after the last blow in which everything must have ended. Suspects may have to wait for the
lease of a quarantine that was killed, which has the default one of 12 s."""


@pytest.mark.torture
@pytest.mark.timeout(600)
def test_no_promise_is_broken_by_kills_freezes_and_replacements(
    tmp_path: Path, torture: bool, reports: Reports
) -> None:
    seed = int(os.environ.get("CHAOS_SEED") or Random().randrange(10**6))
    seconds = 240.0 if torture else 20.0
    print(f"CHAOS_SEED={seed}")
    with Scene(tmp_path) as scene:
        nemesis = Nemesis(scene, WORKERS, Random(seed), concurrency=8)
        producer = scene.producer(count=10**9, clients=8, pause=0.02, seconds=0.03)

        nemesis.torment(seconds)
        producer.kill()
        exit_codes = nemesis.release()
        nemesis.send_canaries()
        drained_in = scene.until_final(within=DRAINED)
        exit_codes += [worker.stop() for worker in nemesis.workers]

        history = scene.history()
        reports.add(
            f"Chaos on SQLite: SIGKILL, SIGSTOP and SIGTERM for {seconds:g} s, seed {seed}",
            count(history)._asdict()
            | {"replaced": len(exit_codes) - WORKERS, "drained in s": round(drained_in, 1)},
            violations := check(history) + journal.unsound(scene.store),
        )
        assert violations == []
        if torture:
            assert i15_fence_exercised(history) == []
        assert set(exit_codes) <= {0, -signal.SIGTERM}

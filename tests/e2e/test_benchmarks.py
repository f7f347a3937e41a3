"""The measuring programs measure: each runs, at a small scale, and counts its jobs exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.docs.blocks import ROOT
from tests.e2e.service import environment

PROGRAM = ROOT / "benchmarks" / "run.py"


def test_every_measurement_comes_to_a_result(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"

    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--scale", "0.001", "--runs", "1", "--no-peers",
         "--folder", str(tmp_path), "--out", str(out)],
        env=environment(), capture_output=True, text=True, timeout=55,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text(encoding="utf-8"))
    assert report["durability"] == "full"
    assert len(report["figures"]) >= 20
    assert all(len(runs) == 1 for runs in report["figures"].values())
    assert report["figures"]["drain of no-op jobs, jobs/s"] > [100]


def test_a_measurement_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--only", "drian"],
        env=environment(), capture_output=True, text=True, timeout=55,
    )  # fmt: skip

    assert done.returncode == 2
    assert "drian" in done.stderr

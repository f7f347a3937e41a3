"""What the measurements share: worker processes, figures about processes, percentiles."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
BATCH = 1000
"""Jobs per call where jobs are enqueued in bulk."""


@dataclass(frozen=True)
class Lab:
    """Where one run of one measurement takes place, and how large it is."""

    folder: Path
    scale: float
    durability: str = "full"

    def count(self, full: int) -> int:
        """*full*, made smaller for a smoke run."""
        return max(100, round(full * self.scale))

    @property
    def database(self) -> Path:
        return self.folder / "jobs.db"

    @property
    def ledger(self) -> Path:
        return Path(os.environ["BENCH_LEDGER"])


@contextmanager
def process(lab: Lab, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """``windlass …`` as users start it. Ended by SIGTERM, which must end it well."""
    windlass = str(Path(sys.executable).with_name("windlass"))
    log = lab.folder / "process.log"
    with log.open("ab") as out:
        child = subprocess.Popen(
            [windlass, *arguments], cwd=HERE, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    try:
        yield child
        child.terminate()
        if child.wait(60) != 0:
            raise SystemExit(f"{arguments} ended with {child.returncode}:\n{log.read_text()}")
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()


def worker(lab: Lab, concurrency: int = 100) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """One worker process for the measured app."""
    return process(lab, "worker", "measure.jobs:app", "--concurrency", str(concurrency))


def wait_for_size(path: Path, size: int, child: subprocess.Popen[bytes], within: float) -> None:
    end = time.monotonic() + within
    while path.stat().st_size < size:
        if child.poll() is not None:
            raise SystemExit(f"The worker ended early, with {child.returncode}.")
        if time.monotonic() > end:
            raise SystemExit(f"{path.stat().st_size} of {size} bytes after {within} s.")
        time.sleep(0.01)


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * share) - 1)]


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Resident memory now (``VmRSS``) or at its most (``VmHWM``), in megabytes (10⁶ bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"Process {pid} has no {field}.")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def calibrate() -> float:
    """Milliseconds of a fixed loop, best of three: how fast this machine is just now."""
    best = math.inf
    for _ in range(3):
        began = time.perf_counter()
        total = 0
        for i in range(300_000):
            total += i * i
        best = min(best, time.perf_counter() - began)
    return round(best * 1000, 1)

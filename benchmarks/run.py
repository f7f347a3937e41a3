"""Measure Windlass on this machine: ``make bench``, or ``python benchmarks/run.py``.

Each measurement runs several times, in a new process on a new database each time; the table shows the
median, the file in ``benchmarks/results`` every run. Every measurement also counts what was delivered,
and fails when a job is missing or was run twice. With BENCH_PEERS (see the README beside this file)
other systems are measured in the same sitting.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from measure.lab import BATCH, calibrate  # noqa: E402 - found by the line above

NAMES = ("bulk", "concurrent", "one_by_one", "drain", "waiting", "same_process",
         "across_processes", "idle", "http", "kept")  # fmt: skip


class Aim(NamedTuple):
    """What a figure shall be: at least or at most this."""

    word: str
    value: float

    def met(self, figure: float) -> bool:
        return figure >= self.value if self.word == "≥" else figure <= self.value


AIMS = {
    "bulk enqueue, jobs/s": Aim("≥", 150_000),
    "100 enqueuers, jobs/s": Aim("≥", 50_000),
    "one by one above bare, p50 µs": Aim("≤", 150),
    "drain of no-op jobs, jobs/s": Aim("≥", 40_000),
    "worker memory at its most, MB": Aim("≤", 45),
    "100 ms jobs at concurrency 100, jobs/s": Aim("≥", 970),
    "start in the same process, p50 ms": Aim("≤", 1),
    "start in the same process, p99 ms": Aim("≤", 10),
    "start across processes, p50 ms": Aim("≤", 3),
    "start across processes, p99 ms": Aim("≤", 10),
    "idle worker, % of a core": Aim("≤", 1),
    "POST /jobs over 32 connections (wrk), jobs/s": Aim("≥", 4_000),
    "POST /jobs over 32 connections (own client), jobs/s": Aim("≥", 4_000),
    "claim p99, 1,000,000 kept / 10,000 kept": Aim("≤", 1.5),
}


def main() -> None:
    given = arguments()
    report = describe(given)
    print(f"{report['machine']['cpu']}, calibration {report['calibration_ms']} ms", file=sys.stderr)

    failed = [name for name in given.only if not measure(name, given, report["figures"])]
    report["calibration_after_ms"] = calibrate()
    print(table(report["figures"]))
    if os.environ.get("BENCH_PEERS") and given.peers:
        failed += peers(given, report)

    out = given.out or HERE / "results" / f"{report['at'][:10]}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"Every run is in {out}.", file=sys.stderr)
    if failed:
        raise SystemExit(f"Without result: {', '.join(failed)}.")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement")
    parser.add_argument("--scale", type=float, default=1.0, help="0.01 for a quick look")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(NAMES),
                        help=f"of {','.join(NAMES)}")  # fmt: skip
    parser.add_argument("--durability", choices=("full", "normal"), default="full")
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop",
                        help="the event loop of the measuring program")  # fmt: skip
    parser.add_argument("--folder", type=Path, help="where the databases lie: on a real disk")
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if unknown := set(given.only) - set(NAMES):
        parser.error(f"there is no measurement {', '.join(sorted(unknown))}")
    return given


def describe(given: argparse.Namespace) -> dict[str, Any]:
    """The circumstances, without which figures mean nothing."""
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    )
    return {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "versions": {
            "windlass": version("windlass"), "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version, "uvloop": version("uvloop"),
        },
        "machine": {
            "cpu": cpu_name(), "cores": os.cpu_count(), "kernel": platform.release(),
            "load": os.getloadavg()[0],
        },
        "store": "sqlite", "durability": given.durability, "batch": BATCH, "loop": given.loop,
        "runs": given.runs, "scale": given.scale, "calibration_ms": calibrate(), "figures": {},
    }  # fmt: skip


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def measure(name: str, given: argparse.Namespace, figures: dict[str, list[float]]) -> bool:
    """Run a measurement as often as asked; whether every run came to a result."""
    # A million jobs take a minute to make: once is enough.
    for run in range(1 if name == "kept" else given.runs):
        print(f"{name} {run + 1}", file=sys.stderr, flush=True)
        found = run_once(name, given)
        if found is None:
            return False
        for key, value in found.items():
            figures.setdefault(key, []).append(round(value, 4))
    return True


def run_once(name: str, given: argparse.Namespace) -> dict[str, float] | None:
    """One run in a new process and a new folder; None when it failed, with its words on stderr."""
    with (
        tempfile.TemporaryDirectory(prefix="windlass-bench-", dir=given.folder) as folder,
        tempfile.NamedTemporaryFile(dir=ledgers(), prefix="windlass-bench-") as ledger,
    ):
        env = {name: value for name, value in os.environ.items() if not name.startswith("WINDLASS")}
        env |= {
            "WINDLASS_URL": f"sqlite:///{Path(folder).resolve()}/jobs.db",
            "WINDLASS_DURABILITY": given.durability, "WINDLASS_LOG_LEVEL": "warning",
            "BENCH_LEDGER": ledger.name, "PYTHONPATH": str(HERE),
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "measure", name, "--folder", folder,
             "--scale", str(given.scale), "--loop", given.loop],
            cwd=HERE, env=env, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
    for line in done.stdout.splitlines():
        if line.startswith("@@"):
            found: dict[str, float] = json.loads(line[2:])
            return found
    return None


def ledgers() -> str | None:
    """Memory, where there is some: the ledger shall not add to what is measured."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def table(figures: dict[str, list[float]]) -> str:
    rows = [("figure", "median", "least", "most", "aim", "")]
    for name, runs in figures.items():
        median = statistics.median(runs)
        aim = AIMS.get(name)
        rows.append((
            name, number(median), number(min(runs)), number(max(runs)),
            f"{aim.word} {number(aim.value)}" if aim else "",
            "" if aim is None else "met" if aim.met(median) else "MISSED",
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        f"{row[0]:<{widths[0]}}"
        + "".join(f"  {cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    )


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


PEERS = ("windlass-sqlite", "huey-sqlite", "dramatiq-redis", "taskiq-redis-stream", "saq-redis",
         "pgqueuer")  # fmt: skip


def peers(given: argparse.Namespace, report: dict[str, Any]) -> list[str]:
    """The same workloads for the others, by the harness in BENCH_PEERS, one after the other."""
    harness = Path(os.environ["BENCH_PEERS"]).resolve()
    with tempfile.TemporaryDirectory(prefix="windlass-peers-") as folder:
        out = Path(folder) / "results.jsonl"
        count = max(100, round(20_000 * given.scale))
        done = subprocess.run(
            [sys.executable, str(harness / "run.py"), "--out", str(out), "--n", str(count),
             "--w4n", str(max(100, round(2_000 * given.scale))),
             *(word for peer in PEERS for word in ("--peer", peer))],
            cwd=ROOT, env={**os.environ, "BENCH_EXTRA": str(HERE / "peers")},
        )  # fmt: skip
        lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
        report["peers"] = [json.loads(line) for line in lines]
    print(peer_table(report["peers"]))
    return ["peers"] if done.returncode else []


def peer_table(rows: list[dict[str, Any]]) -> str:
    columns = {
        "drain jobs/s": ("W2median", "rate"), "bulk jobs/s": ("W1b", "rate"),
        "one by one jobs/s": ("W1a", "rate"), "start p50 ms": ("W3", "p50_ms"),
        "start p99 ms": ("W3", "p99_ms"), "100 ms jobs/s": ("W4", "rate"),
        "worker MB": ("W2", "rss_mb"),
    }  # fmt: skip
    lines = [f"{'':24}" + "".join(f"{title:>20}" for title in columns)]
    for peer in dict.fromkeys(row["peer"] for row in rows):
        cells = []
        for workload, key in columns.values():
            found = [
                r[key] for r in rows if r["peer"] == peer and r["workload"] == workload and key in r
            ]
            cells.append(number(statistics.median(found)) if found else "–")
        lines.append(f"{peer:24}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""``windlass demo``: a few hundred jobs of every kind, and a worker that is killed while they run.

It ends by itself, with a table that proves the count: every accepted job has come to the end that was
meant for it, although failures were injected and a worker process died with its hands full.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from windlass.cli.exits import FAILED
from windlass.cli.output import Bar, emit, json_option, progress, say, table
from windlass.cli.session import run

if TYPE_CHECKING:
    from windlass.app import Windlass
    from windlass.calls import Call
    from windlass.job import Job, JobId
    from windlass.worker.supervisor import Supervisor

__all__ = ["demo"]

_WORKERS = 2
_MOST = 60.0
"""Seconds after which the demo gives up; it takes about ten."""
_LOOK = 0.1


class Kind(NamedTuple):
    """A group of jobs and the end that is meant for them."""

    name: str
    what: str
    end: str


KINDS = (
    Kind("greet", "async, quick", "completed"),
    Kind("steps", "tells progress", "completed"),
    Kind("add_up", "in a thread", "completed"),
    Kind("primes", "in a process", "completed"),
    Kind("later", "snoozes once", "completed"),
    Kind("flaky", "fails, then works", "completed"),
    Kind("report", "40 asked, 10 made", "completed"),
    Kind("broken", "fails on purpose", "failed"),
    Kind("endless", "cancelled running", "cancelled"),
    Kind("tomorrow", "cancelled waiting", "cancelled"),
)


class Outcome(NamedTuple):
    """What a demo came to."""

    jobs: dict[str, list[Job | None]]
    """Accepted jobs by kind, as they are at the end; None: lost."""
    duplicates: int
    in_flight: int
    """Jobs that the killed worker had in its hands."""
    seconds: float
    exact: bool


@click.command
@click.option("--keep", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Keep the store in the new file FILE, to look at afterwards.")  # fmt: skip
@json_option
def demo(keep: Path | None, as_json: bool) -> None:
    """Watch a few hundred jobs, failures and a killed worker; ends by itself.

    Exit code 0 when every job came to the end that was meant for it.

    \b
    windlass demo
    windlass demo --keep demo.db && windlass failures --url sqlite:///demo.db
    """
    if keep is not None and keep.exists():
        raise click.UsageError(f"{str(keep)!r} exists: choose a new name.")
    with _store(keep) as path:
        outcome = run(_play(f"sqlite:///{path.absolute()}"))
    if as_json:
        emit(_summary(outcome))
    else:
        _print(outcome)
        if keep is not None:
            say(f"The store is kept: windlass jobs --url sqlite:///{keep}")
    if not outcome.exact:
        raise click.exceptions.Exit(FAILED)


@contextmanager
def _store(keep: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="windlass-demo-") as place:
        yield keep if keep is not None else Path(place) / "demo.db"


async def _play(url: str) -> Outcome:
    from windlass.cli.demo_tasks import app
    from windlass.cli.session import use_url

    begun = time.monotonic()
    use_url(app, url)
    async with app:
        with progress("Jobs ended", None) as bar:
            accepted, duplicates = await _enqueue(app)
            total = sum(map(len, accepted.values()))
            bar.say(f"{total} jobs accepted, {duplicates} duplicates refused.")
            supervisor = _supervisor(app, url, bar)
            working = asyncio.create_task(supervisor.run())
            try:
                in_flight = await _watch(
                    app,
                    supervisor,
                    accepted,
                    bar,
                    lambda: time.monotonic() > begun + _MOST or working.done(),
                )
            finally:
                supervisor.stop(timedelta(seconds=5))
                await asyncio.wait([working])
        jobs = {kind: await app.control.get_many(ids) for kind, ids in accepted.items()}
    seconds = time.monotonic() - begun
    return Outcome(jobs, duplicates, in_flight, seconds, _is_exact(jobs) and in_flight > 0)


# ------------------------------------------------------------------ steps


async def _enqueue(app: Windlass[Any]) -> tuple[dict[str, list[JobId]], int]:
    """Everything at once; the ids of the accepted jobs by kind, and how many stood already."""
    accepted: dict[str, list[JobId]] = {kind.name: [] for kind in KINDS}
    duplicates = 0
    for name, calls in _calls():
        for handle in await app.enqueue_many(calls):
            if handle.duplicate:
                duplicates += 1
            else:
                accepted[name].append(handle.id)
    return accepted, duplicates


def _calls() -> Iterable[tuple[str, list[Call[Any]]]]:
    from windlass.cli import demo_tasks as tasks

    yield "endless", [tasks.endless.bind() for _ in range(4)]
    yield "steps", [tasks.steps.bind(3 + n % 5) for n in range(60)]
    yield "flaky", [tasks.flaky.bind(n % 4) for n in range(40)]
    yield "later", [tasks.later.bind() for _ in range(20)]
    yield "add_up", [tasks.add_up.bind(n) for n in range(40)]
    yield "primes", [tasks.primes.bind(20_000 + n) for n in range(6)]
    yield "broken", [tasks.broken.bind(n % 2 == 0) for n in range(24)]
    yield (
        "report",
        [
            tasks.report.options(unique=f"report-{n % 10}").bind(f"report {n % 10}")
            for n in range(40)
        ],
    )
    yield "tomorrow", [tasks.tomorrow.options(delay="1d").bind() for _ in range(16)]
    yield "greet", [tasks.greet.bind(f"guest {n}") for n in range(150)]


def _supervisor(app: Windlass[Any], url: str, bar: Bar) -> Supervisor:
    from windlass.worker.supervisor import Supervisor

    command = [
        sys.executable, "-m", "windlass", "worker", "windlass.cli.demo_tasks:app", "--url", url,
        "--workers", "1", "--concurrency", "12", "--threads", "4", "--processes", "1",
        "--grace", "2s", "--log-level", "error",
    ]  # fmt: skip
    return Supervisor(
        command,
        _WORKERS,
        app.store,
        app.events,
        grace=timedelta(seconds=2),
        on_death=lambda pid, how: bar.say(f"Process {pid} {how}; another takes its place."),
        on_refusal=lambda why: bar.say(f"The system starts no worker process: {why}."),
    )


async def _watch(
    app: Windlass[Any],
    supervisor: Supervisor,
    accepted: dict[str, list[JobId]],
    bar: Bar,
    is_hopeless: Callable[[], bool],
) -> int:
    """Show how far it is, interfere, and return when all jobs have ended; the jobs in flight at the
    kill."""
    from windlass.job import ACTIVE, FINAL

    total = sum(map(len, accepted.values()))
    cancelled, in_flight = False, 0
    while not is_hopeless():
        stats = await app.control.stats()
        ended = stats.count(*FINAL)
        bar.update(ended, _note(stats.count), total)
        if stats.count(*ACTIVE) == 0:
            break
        if not cancelled and await _all_run(app, accepted["endless"]):
            cancelled = True
            await app.control.cancel(
                accepted["endless"] + accepted["tomorrow"], reason="on purpose"
            )
            bar.say("4 running and 16 waiting jobs are cancelled.")
        if cancelled and not in_flight and ended > total // 4:
            in_flight = await _kill_one(app, supervisor, bar)
        await asyncio.sleep(_LOOK)
    return in_flight


async def _all_run(app: Windlass[Any], ids: list[JobId]) -> bool:
    jobs = await app.control.get_many(ids)
    return all(job is not None and job.status.value == "processing" for job in jobs)


async def _kill_one(app: Windlass[Any], supervisor: Supervisor, bar: Bar) -> int:
    """SIGKILL the worker that has most to do; how many jobs it had. 0: none was busy enough."""
    from windlass.job import JobFilter, Status

    busy: list[tuple[int, int]] = []
    for worker in await app.control.workers():
        if worker.pid in supervisor.pids:
            where = JobFilter(status=frozenset({Status.PROCESSING}), worker=frozenset({worker.id}))
            busy.append((len((await app.control.find(where, 100)).jobs), worker.pid))
    most, pid = max(busy, default=(0, 0))
    if most < 3:
        return 0
    os.kill(pid, signal.SIGKILL)
    bar.say(f"Worker process {pid} is killed (SIGKILL) with {most} jobs in its hands.")
    return most


def _note(count: Any) -> str:
    from windlass.job import Status

    shown = (Status.PROCESSING, Status.PENDING, Status.SCHEDULED)
    return " · ".join(f"{count(status)} {status.value}" for status in shown)


# ------------------------------------------------------------------ the proof


def _is_exact(jobs: dict[str, list[Job | None]]) -> bool:
    return all(
        job is not None and job.status.value == kind.end
        for kind in KINDS
        for job in jobs[kind.name]
    )


def _count(jobs: Iterable[Job | None], status: str) -> int:
    return sum(job is not None and job.status.value == status for job in jobs)


def _all(outcome: Outcome) -> list[Job | None]:
    return [job for jobs in outcome.jobs.values() for job in jobs]


def _summary(outcome: Outcome) -> dict[str, Any]:
    jobs = _all(outcome)
    return {
        "accepted": len(jobs),
        **{status: _count(jobs, status) for status in ("completed", "failed", "cancelled")},
        "lost": sum(job is None for job in jobs),
        "duplicates_refused": outcome.duplicates,
        "in_flight_at_kill": outcome.in_flight,
        "taken_back": sum(job is not None and job.crashes > 0 for job in jobs),
        "starts": sum(job.fence for job in jobs if job is not None),
        "seconds": round(outcome.seconds, 1),
        "exact": outcome.exact,
    }


def _print(outcome: Outcome) -> None:
    rows: list[list[object]] = []
    for kind in KINDS:
        jobs = outcome.jobs[kind.name]
        meant = _count(jobs, kind.end) == len(jobs)
        rows.append(
            [
                kind.name, kind.what, len(jobs), *_ends(jobs),
                sum(job.fence for job in jobs if job is not None), "✓" if meant else "✗",
            ]
        )  # fmt: skip
    summary = _summary(outcome)
    everything = _all(outcome)
    rows.append(["all", "", len(everything), *_ends(everything), summary["starts"], _mark(outcome)])
    table(
        ["task", "", ">jobs", ">completed", ">failed", ">cancelled", ">starts", ""],
        rows,
    )
    click.echo(
        f"{summary['accepted']} accepted = {summary['completed']} completed"
        f" + {summary['failed']} failed on purpose + {summary['cancelled']} cancelled on purpose"
        f"{'' if outcome.exact else '   DOES NOT HOLD'}"
    )
    say(
        f"{summary['taken_back']} jobs were taken back from the killed worker and run again; "
        f"{outcome.duplicates} duplicates were refused. {outcome.seconds:.1f} s."
    )


def _ends(jobs: list[Job | None]) -> list[object]:
    return [_count(jobs, status) or "·" for status in ("completed", "failed", "cancelled")]


def _mark(outcome: Outcome) -> str:
    return "✓" if outcome.exact else "✗"

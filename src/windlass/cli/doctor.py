"""``windlass doctor`` and ``version``: is everything there, and does it fit together?"""

from __future__ import annotations

import asyncio
import os
import platform
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import click

from windlass.cli.exits import FAILED
from windlass.cli.output import emit, json_option, table
from windlass.cli.session import Place, find_app, located, place_options, run

if TYPE_CHECKING:
    from windlass.app import Windlass

__all__ = ["doctor", "version"]

_LITTLE_DISK = 200 * 1024 * 1024
_SKEW = timedelta(seconds=2)
_EXTRAS = {
    "uvloop": "serves HTTP faster (windlass[fast])",
    "httptools": "serves HTTP faster (windlass[fast])",
    "watchfiles": "restarts on changes, --reload (windlass[reload])",
}


Verdict = Literal["ok", "note", "warning", "problem"]


class Finding(NamedTuple):
    """One check and what it found."""

    check: str
    verdict: Verdict
    text: str


@click.command
@place_options
@json_option
def doctor(url: str | None, app: str | None, as_json: bool) -> None:
    """Check everything that Windlass needs, and say what is wrong.

    Exit code 1 when there is a problem; warnings leave it at 0.

    \b
    windlass doctor
    windlass doctor --url sqlite:////var/lib/shop/jobs.db
    """
    findings = run(_examine(Place(url, app)))
    if as_json:
        for finding in findings:
            emit(finding._asdict())
    else:
        _print(findings)
    if any(finding.verdict == "problem" for finding in findings):
        raise click.exceptions.Exit(FAILED)


async def _examine(place: Place) -> list[Finding]:
    findings = [*_versions(), *_settings(place)]
    app = _app(place, findings)
    if app is None:
        return findings
    async with _open(app, findings) as is_open:
        if is_open:
            await _store(app, findings)
            await _round_trip(app, findings)
            await _workers(app, findings)
    return findings


def _versions() -> list[Finding]:
    found = [
        Finding("python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}"),
        Finding("windlass", "ok", metadata.version("windlass")),
    ]
    sqlite = sqlite3.sqlite_version_info
    if sqlite < (3, 35, 0):
        text = f"{sqlite3.sqlite_version} is too old: Windlass needs 3.35 or newer."
        found.append(Finding("sqlite", "problem", text))
    else:
        found.append(Finding("sqlite", "ok", sqlite3.sqlite_version))
    for name, purpose in _EXTRAS.items():
        try:
            found.append(Finding(name, "ok", metadata.version(name)))
        except metadata.PackageNotFoundError:
            found.append(Finding(name, "note", f"not installed; it {purpose}"))
    return found


def _settings(place: Place) -> list[Finding]:
    from windlass.config import Settings
    from windlass.errors import ConfigError

    try:
        settings = Settings.load(url=place.url, app=place.app)
    except ConfigError as error:
        return [Finding("settings", "problem", str(error))]
    found = [
        Finding(f"setting {name}", "ok", f"{value} ({origin})")
        for name, (value, origin) in settings.shown().items()
        if origin != "default"
    ]
    found += [Finding("settings", "warning", text) for text in settings.warnings]
    return found or [Finding("settings", "ok", "all defaults")]


def _app(place: Place, findings: list[Finding]) -> Windlass[Any] | None:
    from windlass.errors import WindlassError

    try:
        target, how = find_app(place.app)
    except WindlassError:
        findings.append(Finding("app", "note", "none named: tasks cannot be checked"))
    else:
        findings.append(Finding("app", "ok", target + how))
    try:
        app = located(place)
    except WindlassError as error:
        findings.append(Finding("app", "problem", str(error)))
        return None
    types = [task.type for task in app.registry.tasks()]
    if types:
        findings.append(Finding("tasks", "ok", ", ".join(types)))
    return app


@asynccontextmanager
async def _open(app: Windlass[Any], findings: list[Finding]) -> AsyncIterator[bool]:
    from windlass.errors import WindlassError

    try:
        await app.open()
    except WindlassError as error:
        findings.append(Finding("store", "problem", str(error)))
        yield False
        return
    try:
        yield True
    finally:
        await app.close()


async def _store(app: Windlass[Any], findings: list[Finding]) -> None:
    info = await app.store.info()
    text = f"{info.kind} {info.version}, schema {info.schema}, {info.location}"
    findings.append(Finding("store", "ok", text))
    survives: dict[str, tuple[Verdict, str]] = {
        "host": ("ok", "accepted jobs survive loss of power"),
        "process": ("note", "accepted jobs survive a killed process, not loss of power"),
        "none": ("warning", "jobs are lost when the process ends"),
    }
    findings.append(Finding("durability", *survives[info.durability]))
    findings += [Finding("store", "warning", text) for text in info.warnings]
    if info.free_bytes is not None:
        low = info.free_bytes < _LITTLE_DISK
        text = f"{info.free_bytes / 1e9:,.1f} GB free"
        findings.append(
            Finding("disk", "warning" if low else "ok", text + (": make room" if low else ""))
        )
    if info.kind == "sqlite":
        _file_system(info.location, findings)


def _file_system(location: str, findings: list[Finding]) -> None:
    from windlass.stores.sqlite.files import file_system

    path = location.removeprefix("sqlite:///")
    kind = file_system(os.path.dirname(os.path.abspath(path)))
    if kind is not None:
        findings.append(Finding("file system", "ok", f"{kind} (local)"))


async def _round_trip(app: Windlass[Any], findings: list[Finding]) -> None:
    """The store's clock against ours, and how fast it answers."""
    begun = time.perf_counter()
    stats = await app.control.stats()
    took = (time.perf_counter() - begun) * 1000
    skew = abs(stats.at - datetime.now(UTC))
    verdict: Verdict = "ok" if skew < _SKEW else "warning"
    text = f"the store's clock and this machine's differ by {skew.total_seconds():.1f} s"
    findings.append(Finding("clock", verdict, text))
    slow = took > 250
    findings.append(
        Finding("answer", "warning" if slow else "ok", f"{took:.1f} ms to count all jobs")
    )
    lag = await _loop_lag() * 1000
    if lag > 100:
        text = f"this machine is busy: a sleep of 10 ms came {lag:.0f} ms late"
        findings.append(Finding("machine", "warning", text))


async def _loop_lag() -> float:
    begun = time.perf_counter()
    await asyncio.sleep(0.01)
    return time.perf_counter() - begun - 0.01


async def _workers(app: Windlass[Any], findings: list[Finding]) -> None:
    workers = await app.control.workers()
    stats = await app.control.stats()
    if not workers:
        findings.append(
            Finding("workers", "warning", "none is running: windlass worker starts one")
        )
    for worker in workers:
        late = worker.lease_until is not None and worker.lease_until < stats.at
        state = "not heard of within its lease" if late else worker.state
        verdict: Verdict = "warning" if late or worker.state == "stalled" else "ok"
        text = f"{worker.id} on {worker.host} (process {worker.pid}): {state}"
        findings.append(Finding("workers", verdict, text))
    known = {name for worker in workers for name in worker.types}
    parked = sorted(
        {
            lane.type
            for lane in stats.lanes
            if lane.oldest_ready_at is not None and lane.type not in known
        }
    )
    if parked and workers:
        text = f"no worker knows the task types {', '.join(parked)}, whose jobs wait"
        findings.append(Finding("parked", "warning", text))


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    style = {"ok": "green", "note": "blue", "warning": "yellow", "problem": "bold red"}
    rows = [[f.check, Text(f.verdict, style=style[f.verdict]), f.text] for f in findings]
    table(["check", "", "~found"], rows)


@click.command
@json_option
def version(as_json: bool) -> None:
    """Print the versions of Windlass and what it stands on."""
    names = ("windlass", "msgspec", "click", "starlette", "uvicorn", "rich", "prometheus-client")
    found = {name: metadata.version(name) for name in names}
    found |= {"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
    for name in _EXTRAS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    if as_json:
        emit(found)
        return
    width = max(map(len, found))
    for name, number in found.items():
        click.echo(f"{name:<{width}}  {number}")

"""A place to torture: one SQLite file, one ledger, and children that can be killed and frozen."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from tests.docs.blocks import ROOT
from tests.reliability import journal
from tests.reliability.checker import History
from tests.reliability.ledger import Fact, Kind, Ledger, Reader
from tests.reliability.orders import ORDERS, Orders, label
from windlass import Windlass
from windlass.client import new_job_id
from windlass.crashpoints import VARIABLE
from windlass.job import FINAL, JobId, JobOptions, NewJob

__all__ = ["APP", "Child", "Scene"]

_SOON = 15.0
"""Seconds within which whatever is waited for must come, on a busy machine too."""


class Child:
    """A process of the program under test."""

    def __init__(
        self, scene: Scene, orders: Orders, command: list[str], env: dict[str, str]
    ) -> None:
        self.scene = scene
        self.log = scene.folder / f"{orders.name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log
            )
        self.label = label(orders.name, self.process.pid)

    def kill(self) -> None:
        """SIGKILL, noted when it is dead."""
        self.process.kill()
        self.process.wait()
        self.scene.ledger.note(Kind.KILLED, worker=self.label)

    def freeze(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)
        self.scene.ledger.note(Kind.STOPPED, worker=self.label)

    def thaw(self) -> None:
        """SIGCONT."""
        self.scene.ledger.note(Kind.THAWED, worker=self.label)
        self.process.send_signal(signal.SIGCONT)

    @property
    def frozen(self) -> bool:
        """Whether it is stopped, by whomever."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0] == "T"

    def froze(self) -> None:
        """Wait for it to freeze itself."""
        self.scene.until("it freezes", lambda: self.frozen)
        self.scene.ledger.note(Kind.STOPPED, worker=self.label)

    def died(self) -> None:
        """Wait for it to kill itself."""
        code = self.process.wait(_SOON)
        assert code == -signal.SIGKILL, f"ended with {code} and was not killed:\n{self.said()}"
        self.scene.ledger.note(Kind.KILLED, worker=self.label)

    def ended(self, within: float = _SOON) -> int:
        """Wait for its end; the exit code."""
        return self.process.wait(within)

    def stop(self, within: float = _SOON) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.ended(within)

    def asked_to_stop(self) -> None:
        """Wait until it says that it has heard of a stop."""
        pid = self.process.pid
        self.scene.until(
            "it stops", lambda: journal.states(self.scene.store).get(pid) == "stopping"
        )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """What it wrote to standard output and error."""
        return self.log.read_text(errors="replace")

    def _dispose(self) -> None:
        if self.alive:
            self.process.kill()
            self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()


APP = "tests.reliability.program:app"
"""The app of all children, for the command line."""


class Scene:
    """Leaving the ``with`` block kills whatever still runs."""

    def __init__(self, folder: Path, *, prepared: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._prepared = prepared
        self.folder = folder
        self.store = folder / "jobs.db"
        self.ledger = Ledger(folder / "ledger", "harness")
        self._reader = Reader(folder / "ledger")
        self.children: list[Child] = []
        self.canaries: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._prepared:
            asyncio.run(self._prepare())
            journal.attach(self.store)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for child in self.children:
            child._dispose()
        self.ledger.close()

    async def _prepare(self) -> None:
        async with Windlass(f"sqlite:///{self.store}"):
            pass

    # ---------------------------------------------------------------- children

    def worker(self, name: str = "w", *, crash_at: str = "", **orders: Any) -> Child:
        """Start a worker; with *crash_at* it kills itself at that crash point."""
        return self._child("worker", name, crash_at, orders)

    def producer(self, name: str = "p", *, crash_at: str = "", **orders: Any) -> Child:
        """Start a producer."""
        return self._child("produce", name, crash_at, orders)

    def windlass(self, *command: str, under: Sequence[str] = (), **orders: Any) -> Child:
        """Start a command of Windlass itself for the same app; *under*: run by this program."""
        chosen = self._orders("worker", "cli", orders)
        argv = [*under, sys.executable, "-m", "windlass", *command]
        return self._start(chosen, argv, {ORDERS: msgspec.json.encode(chosen).decode()})

    def _child(self, mode: str, name: str, crash_at: str, given: dict[str, Any]) -> Child:
        under: Sequence[str] = given.pop("under", ())
        chosen = self._orders(mode, name, given)
        text = msgspec.json.encode(chosen).decode()
        command = [*under, sys.executable, "-m", "tests.reliability.program", text]
        return self._start(chosen, command, {VARIABLE: crash_at} if crash_at else {})

    def _orders(self, mode: str, name: str, given: dict[str, Any]) -> Orders:
        ledger = str(self.folder / "ledger")
        places = {"mode": mode, "name": name, "store": str(self.store), "ledger": ledger}
        return msgspec.convert({**places, **given}, Orders)

    def _start(self, orders: Orders, command: list[str], more: dict[str, str]) -> Child:
        bare = {name: text for name, text in os.environ.items() if not name.startswith("WINDLASS")}
        child = Child(self, orders, command, {**bare, **more})
        self.children.append(child)
        return child

    def kill(self, worker: str) -> None:
        """SIGKILL to a process that another one started, by its label."""
        os.kill(int(worker.rpartition("-")[2]), signal.SIGKILL)
        self.ledger.note(Kind.KILLED, worker=worker)

    # ---------------------------------------------------------------- jobs

    def enqueue(
        self,
        type: str,
        count: int = 1,
        *,
        options: JobOptions | None = None,
        **payload: object,
    ) -> list[JobId]:
        """Have *count* jobs accepted, all at once, and note it."""
        ids = [new_job_id() for _ in range(count)]
        body = msgspec.json.encode(payload)
        for job in ids:
            self.ledger.note(Kind.TRIED, job)
        chosen = options or JobOptions()
        asyncio.run(self._insert([NewJob(job, type, body, chosen, keyed=True) for job in ids]))
        for job in ids:
            self.ledger.note(Kind.ACCEPTED, job)
        return ids

    def canary(self, worker: Child, queue: str) -> None:
        """Enqueue a job on a queue that only *worker* serves, to see that it is alive."""
        [job] = self.enqueue("work", options=JobOptions(queue=queue), seconds=0.0)
        self.canaries[job] = worker.label

    async def _insert(self, jobs: list[NewJob]) -> None:
        async with Windlass(f"sqlite:///{self.store}") as app:
            await app.client.insert(jobs)

    # ---------------------------------------------------------------- waiting and looking

    def facts(self, *kinds: Kind) -> list[Fact]:
        """What the ledger tells so far, of these kinds."""
        return [fact for fact in self._reader.facts() if fact.kind in kinds]

    def until(self, what: str, true: Callable[[], bool], within: float = _SOON) -> float:
        """Wait for it; how many seconds it took."""
        start = time.monotonic()
        while not true():
            assert time.monotonic() < start + within, f"not in {within} s: {what}\n{self._said()}"
            time.sleep(0.01)
        return time.monotonic() - start

    def until_working(self, *workers: Child) -> None:
        """Wait until these have registered."""
        pids = {worker.process.pid for worker in workers}
        self.until("workers register", lambda: pids <= journal.states(self.store).keys())

    def until_started(self, jobs: int, **by: str) -> None:
        """Wait until so many runs have started (*worker*: there)."""
        worker = by.get("worker")

        def started() -> bool:
            runs = self.facts(Kind.STARTED)
            return sum(worker in (None, fact.worker) for fact in runs) >= jobs

        self.until(f"{jobs} runs start", started)

    def until_final(self, ids: Iterable[str] | None = None, within: float = _SOON) -> float:
        """Wait until these jobs, or all, have ended; how many seconds it took."""
        chosen = None if ids is None else set(ids)

        def ended() -> bool:
            unfinished = journal.unfinished(self.store)
            return unfinished.isdisjoint(chosen) if chosen is not None else not unfinished

        return self.until("every job ends", ended, within)

    def history(self) -> History:
        """What happened so far."""
        return History(
            facts=list(self._reader.facts()),
            journal=journal.changes(self.store),
            rows=journal.rows(self.store),
            canaries=self.canaries,
        )

    def _said(self) -> str:
        said = [f"--- {child.label}\n{child.said()[-2000:]}" for child in self.children]
        waiting = [row for row in journal.rows(self.store).values() if row.status not in FINAL]
        return "\n".join([*said, "--- not ended", *map(str, waiting[:20])])

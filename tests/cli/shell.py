"""Commands as the tests call them: in this process by click's runner, on a store of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from click.testing import CliRunner

from windlass.app import Windlass
from windlass.cli import cli
from windlass.job import JobFilter, Status
from windlass.worker import WorkerOptions

__all__ = ["APP", "Answer", "Shell"]

T = TypeVar("T")

APP = '''
from windlass import Discard, Windlass

app = Windlass("sqlite:///{path}", capacity=2000)


@app.task(queue="mail")
async def email(to: str, copies: int = 1) -> str:
    """Send a mail."""
    return f"{{copies}} to {{to}}"


@app.task(max_attempts=1)
async def fail(code: int) -> None:
    raise ValueError(f"bad code {{code}}")
'''


class Answer(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        """The JSON documents on stdout."""
        return [json.loads(line) for line in self.out.splitlines()]


class Shell:
    """A directory with an app and a store, and ``windlass`` in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "shop.db"
        self.url = f"sqlite:///{self.path}"
        (directory / "shop_app.py").write_text(APP.format(path=self.path))
        self.app = str(directory / "shop_app.py")

    def __call__(self, *arguments: str, stdin: str | None = None, place: bool = True) -> Answer:
        """Run ``windlass`` with *arguments*, and with this store and app unless they name others."""
        env = {"WINDLASS_URL": self.url, "WINDLASS_APP": self.app} if place else {}
        result = CliRunner().invoke(cli, list(arguments), input=stdin, env=env)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def enqueue(self, *arguments: str) -> str:
        """Enqueue one job; its id."""
        answer = self("enqueue", *arguments)
        assert answer.code == 0, answer.err
        return answer.out.strip()

    def within(self, act: Callable[[Windlass[Any]], Awaitable[T]]) -> T:
        """Do something with the app, open."""
        from windlass.load import load_app

        async def main() -> T:
            async with load_app(self.app) as app:
                return await act(app)

        return asyncio.run(main())

    def work(self) -> None:
        """Run everything that can run now."""

        async def drain(app: Windlass[Any]) -> None:
            await app.worker(WorkerOptions(drain=True, processes=1)).run()

        self.within(drain)

    def statuses(self) -> dict[Status, int]:
        """How many jobs stand where; what stands nowhere is left out."""

        async def count(app: Windlass[Any]) -> dict[Status, int]:
            found: dict[Status, int] = {}
            for job in (await app.control.find(JobFilter(), 1000)).jobs:
                found[job.status] = found.get(job.status, 0) + 1
            return found

        return self.within(count)

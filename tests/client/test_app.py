"""The app: opening and closing its store, limits, worker, many event loops."""

import asyncio
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from windlass import ConfigError, Context, Next, RetryPolicy, Status, StoreError, Windlass
from windlass.job import Limit
from windlass.limits import Rate
from windlass.stores.memory import MemoryStore
from windlass.worker import WorkerOptions


class Watched(MemoryStore):
    """A memory store that counts how often it was opened and closed, and may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.closed = 0
        self.refusals = 0
        self.told: list[Limit] = []
        self.may_open = asyncio.Event()
        self.may_open.set()

    async def open(self) -> None:
        await self.may_open.wait()
        if self.refusals:
            self.refusals -= 1
            raise StoreError("Not now.")
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def set_limits(self, limits: Sequence[Limit]) -> None:
        self.told += limits
        await super().set_limits(limits)


class Shop:
    """An app on a watched store, with one task."""

    def __init__(self, **options: Any) -> None:
        self.app = Windlass("memory:", **options)
        self.store = Watched()
        self.app.use_store(self.store)
        self.ran: list[int] = []

        @self.app.task
        async def note(n: int) -> None:
            self.ran.append(n)

        self.note = note


async def test_making_an_app_touches_nothing_and_its_first_use_opens_it_once() -> None:
    shop = Shop()
    assert shop.store.opened == 0

    await shop.note.enqueue(1)
    await shop.note.enqueue(2)

    assert shop.store.opened == 1


@pytest.mark.parametrize("first_use", ["job", "wait", "cancel"])
async def test_asking_about_a_job_opens_it_too(first_use: str) -> None:
    shop = Shop()
    handle = shop.app.job("01890a5d-ac96-774b-bcce-b302099a8057")
    uses = {"job": handle.status, "wait": handle.result, "cancel": handle.cancel}

    with pytest.raises(Exception, match="There is no job"):
        await uses[first_use]()

    assert shop.store.opened == 1


async def test_many_who_come_at_once_open_it_once() -> None:
    shop = Shop()
    shop.store.may_open.clear()

    enqueueing = [asyncio.ensure_future(shop.note.enqueue(n)) for n in range(10)]
    await asyncio.sleep(0)
    shop.store.may_open.set()
    await asyncio.gather(*enqueueing)

    assert shop.store.opened == 1


async def test_one_who_fails_or_gives_up_to_open_it_does_not_fail_the_others() -> None:
    shop = Shop()
    shop.store.may_open.clear()
    shop.store.refusals = 1
    first, second, third = (asyncio.ensure_future(shop.note.enqueue(n)) for n in range(3))
    await asyncio.sleep(0)

    first.cancel()
    await asyncio.sleep(0)
    shop.store.may_open.set()
    ended = await asyncio.gather(first, second, third, return_exceptions=True)

    assert isinstance(ended[0], asyncio.CancelledError)
    assert sum(isinstance(each, StoreError) for each in ended) == 1
    assert shop.store.opened == 1


async def test_a_closed_app_is_opened_again_by_its_next_use() -> None:
    shop = Shop()

    async with shop.app as same:
        assert same is shop.app
        assert shop.store.opened == 1
    assert shop.store.closed == 1
    await shop.note.enqueue(1)

    assert shop.store.opened == 2


def test_one_app_serves_several_event_loops_one_after_the_other_and_at_once() -> None:
    shop = Shop()

    async def enqueue(n: int) -> str:
        handle = await asyncio.to_thread(shop.note.enqueue_sync, n)
        await shop.note.enqueue(n)
        return (await shop.app.job(handle.id).status()).id

    ids = {asyncio.run(enqueue(n)) for n in range(3)}
    shop.app.portal.close()

    assert len(ids) == 3
    assert shop.store.opened == 1


async def test_limits_are_written_when_the_app_opens_and_later_ones_at_the_next_use() -> None:
    shop = Shop()
    shop.app.queue("mail", capacity=5, concurrency=2, rate="10/s")
    await shop.note.enqueue(1)
    assert shop.store.told == [
        Limit(scope="queue", name="mail", capacity=5, concurrency=2, rate=Rate(10, 1.0, 10))
    ]

    shop.app.task(name="late", concurrency=1)(print_nothing)
    await shop.note.enqueue(2)

    assert Limit(scope="type", name="late", concurrency=1) in shop.store.told
    assert {limit.name for limit in await shop.store.limits()} == {"mail", "late"}


async def print_nothing() -> None: ...


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "no spaces"}, "A queue's name is 1 to 64 letters"),
        ({"name": "q", "capacity": 0}, "capacity of queue 'q' is a whole number from 1, not 0"),
        ({"name": "q", "concurrency": True}, "concurrency of queue 'q' is a whole number"),
        ({"name": "q", "rate": "often"}, "'often' is no rate"),
    ],
)
def test_a_queue_s_limits_out_of_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Windlass("memory:").queue(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": "postgrs://x"}, "There is no store 'postgrs'"),
        ({"url": "jobs.db"}, "There is no store 'jobs.db'"),
        ({"url": "sqlite://"}, "names no file"),
        ({"url": "memory:", "capacity": 0}, "The setting 'capacity' is a whole number from 1"),
        ({"url": "memory:", "durability": "maximal"}, "'durability' is 'full' or 'normal'"),
    ],
)
def test_an_app_that_cannot_work_is_refused_when_it_is_made(
    options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        Windlass(**options)


async def test_the_worker_hands_tasks_what_the_lifespan_yields_within_the_middleware() -> None:
    steps: list[str] = []

    @asynccontextmanager
    async def resources(app: Windlass) -> AsyncGenerator[list[str]]:
        steps.append("up")
        yield steps
        steps.append("down")

    async def around(ctx: Context[Any], call_next: Next) -> object:
        steps.append("before")
        answer = await call_next(ctx)
        steps.append("after")
        return answer

    app = Windlass("memory:", lifespan=resources, middleware=[around])

    @app.task
    async def step(ctx: Context[list[str]]) -> int:
        ctx.resources.append("run")
        return 7

    async with app:
        handle = await step.enqueue()
        await app.worker(WorkerOptions(drain=True)).run()
        assert await handle.result() == 7

    assert steps == ["up", "before", "run", "after", "down"]


def test_a_worker_program_works_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        """
from windlass import Windlass
app = Windlass("sqlite:///jobs.db")

@app.task
async def hello(name: str) -> None:
    print("hello", name, flush=True)

if __name__ == "__main__":
    hello.enqueue_sync("ann")
    app.run_worker()
"""
    )

    with subprocess.Popen(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        said = program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        _, complaints = program.communicate(timeout=30)

    assert (said, program.returncode, complaints) == ("hello ann\n", 0, "")


async def test_a_task_follows_the_policy_of_its_app() -> None:
    policy = RetryPolicy(jitter=0)
    app = Windlass("memory:", retry=policy)

    assert app.task(print_nothing).retry is policy


async def test_the_control_of_an_app_looks_into_its_store() -> None:
    shop = Shop()
    handle = await shop.note.enqueue(1)

    assert (await shop.app.control.get(handle.id)).status is Status.PENDING


async def test_what_is_set_and_not_known_is_logged_when_the_app_opens(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WINDLASS_CAPACTY", "5")

    with caplog.at_level(logging.WARNING):
        async with Windlass("memory:"):
            pass

    assert "WINDLASS_CAPACTY is not known" in caplog.text
    assert "did you mean 'WINDLASS_CAPACITY'?" in caplog.text


def test_importing_windlass_is_cheap_and_imports_nothing_heavy() -> None:
    program = """
import sys
import windlass
from windlass import Context, ConfigError, Status, Unique, Windlass
app = Windlass("memory:")
@app.task
async def note(n: int) -> None: ...
heavy = {"starlette", "uvicorn", "click", "rich", "sqlite3", "prometheus_client", "windlass.server",
         "windlass.worker", "windlass.stores.sqlite", "windlass.metrics", "windlass.testing"}
print(sorted(heavy & set(sys.modules)))
"""

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (ended.stdout.strip(), ended.stderr) == ("[]", "")


def test_every_public_name_can_be_had_and_nothing_else() -> None:
    import windlass

    for name in windlass.__all__:
        assert getattr(windlass, name) is not None
    assert set(windlass.__all__) <= set(dir(windlass))
    with pytest.raises(AttributeError, match="no attribute 'Windlas'"):
        _ = windlass.Windlas

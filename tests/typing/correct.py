"""What users write, correctly: type checkers must find nothing here."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, assert_type

from windlass import (
    Context,
    Job,
    JobHandle,
    Registry,
    RetryPolicy,
    SyncContext,
    SyncJobHandle,
    Unique,
    Windlass,
)


@dataclass
class Resources:
    greeting: str


@asynccontextmanager
async def resources(app: Windlass) -> AsyncGenerator[Resources]:
    yield Resources("hello")


app = Windlass("memory:", lifespan=resources)
plain = Windlass("memory:")
mail = Registry()


@app.task
async def add(a: int, b: int = 1) -> int:
    return a + b


@app.task(queue="mail", timeout="30s", max_attempts=8, rate="10/s", retry=RetryPolicy())
async def welcome(ctx: Context[Resources], user_id: int, *, lang: str = "en") -> str:
    await ctx.progress(0.5, "rendering")
    return f"{ctx.resources.greeting} {user_id} {lang}"


@app.task(run_in="process")
def thumbnail(path: str) -> bytes | None:
    return path.encode()


@app.task
def count(ctx: SyncContext[Resources], upto: int) -> list[int]:
    ctx.progress(1.0)
    return list(range(upto))


@mail.task(aliases=["send_mail"])
async def send(ctx: Context, to: str) -> None:
    await ctx.log(to)


@plain.task
async def without_resources(ctx: Context[Any], n: int) -> int:
    return n


async def use() -> None:
    job = await add.enqueue(1, b=2)
    assert_type(job, JobHandle[int])
    assert_type(await job.result(timeout="5s"), int)
    assert_type(await job.status(), Job)

    greeting = await welcome.options(delay="5m", unique="user:42", priority=9).enqueue(
        42, lang="fr"
    )
    assert_type(await greeting.result(), str)

    later = welcome.options(unique=Unique.while_waiting("user:42"))
    assert_type(await app.enqueue_many(later.bind(user) for user in range(3)), list[JobHandle[str]])

    assert_type(await add(1, 2), int)
    assert_type(await welcome(42), str)
    assert_type(thumbnail("x"), bytes | None)
    assert_type(count(3), list[int])
    await send.enqueue("a@example.org")
    await without_resources.enqueue(n=3)

    async with app as opened:
        assert_type(opened, Windlass[Resources])


def use_synchronously() -> None:
    job = count.enqueue_sync(3)
    assert_type(job, SyncJobHandle[list[int]])
    assert_type(job.result(timeout=5), list[int])
    assert_type(thumbnail.options(priority=1).enqueue_sync("x"), SyncJobHandle[bytes | None])

"""What a person gives by mistake is refused where it is given, in a sentence that names it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from windlass import ConfigError, Retention, RetryPolicy, Windlass
from windlass.worker import WorkerOptions

WRONG: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (WorkerOptions, {"queues": "mail"}),
    (WorkerOptions, {"queues": {"a b"}}),
    (WorkerOptions, {"grace": "30s"}),
    (WorkerOptions, {"lease": 12}),
    (WorkerOptions, {"concurrency": "5"}),
    (WorkerOptions, {"threads": True}),
    (RetryPolicy, {"initial": 2}),
    (RetryPolicy, {"cap": "1h"}),
    (RetryPolicy, {"factor": "2"}),
    (RetryPolicy, {"jitter": None}),
    (RetryPolicy, {"exceptions": {"ValueError": None}}),
    (RetryPolicy, {"exceptions": {ValueError: 5}}),
    (Retention, {"completed": "1d"}),
    (Retention, {"failed": timedelta(days=-1)}),
    (Windlass, {"retry": 5}),
    (Windlass, {"retention": "1d"}),
    (Windlass, {"lifespan": 5}),
]


@pytest.mark.parametrize(("made", "given"), WRONG)
def test_a_wrong_option_is_refused_when_it_is_given(
    made: Callable[..., Any], given: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError) as raised:
        made("memory:", **given) if made is Windlass else made(**given)

    (value,) = given.values()
    shown = value if not isinstance(value, dict | set) else next(iter(value))
    assert str(raised.value).endswith(".")
    assert getattr(shown, "__name__", repr(shown)) in str(raised.value)


async def test_only_calls_can_be_enqueued_together() -> None:
    app = Windlass("memory:")

    @app.task
    async def greet(name: str) -> str:
        return name

    async with app:
        for wrong in (5, greet, asyncio.sleep):
            with pytest.raises(ConfigError, match=r"task\.bind"):
                await app.enqueue_many([greet.bind("Ada"), wrong])  # type: ignore[list-item]
        assert not (await app.control.stats()).lanes

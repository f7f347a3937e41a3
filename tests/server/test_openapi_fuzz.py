"""Thousands of requests made from the OpenAPI document, sensible and not, by schemathesis.

No answer may be a server's error, and none may have a status, content type, header or shape that the
document does not tell of; what breaks the document's rules must be refused. The full count runs
under ``WINDLASS_TORTURE=1``.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig
from schemathesis.engine import Status, events, from_schema
from schemathesis.python.asgi import shutdown_lifespans
from schemathesis.schemas import BaseSchema

from windlass.app import Windlass
from windlass.server import create_app

TORTURE = os.environ.get("WINDLASS_TORTURE") == "1"
EXAMPLES, LEAST = (300, 5_000) if TORTURE else (5, 1_000)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


def declare(app: Windlass[Any]) -> None:
    """Tasks with payloads of many shapes."""

    @app.task
    async def email(to: str, copies: int = 1, cc: list[str] | None = None) -> str:
        return to

    @app.task(aliases=["old.report"], queue="reports")
    async def report(
        when: datetime, who: UUID, colour: Colour = Colour.RED, price: Decimal | None = None
    ) -> int:
        return 1

    @app.task
    async def anything(**values: Any) -> None: ...

    @app.task
    async def nothing() -> None: ...


def config() -> SchemathesisConfig:
    return SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "continue-on-failure": True,
            "suppress-health-check": ["all"],
            "request-timeout": 10,
            "generation": {"max-examples": EXAMPLES, "database": "none"},
            # A schema cannot say all that makes a request acceptable: which cursors exist, that a
            # duration lies in its range, that two keys agree.
            "checks": {"positive_data_acceptance": {"enabled": False}},
            # Nobody works here, so waiting for a job would wait for nothing.
            "parameters": {"query.wait": 0},
            # An event stream has no end of its own.
            "operations": [{"include-path": "/events", "request-timeout": 0.1}],
        }
    )


@pytest.mark.torture
@pytest.mark.timeout(900 if TORTURE else 120)
@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_no_request_gets_an_answer_that_is_not_documented(store: str, tmp_path: Path) -> None:
    app = Windlass[Any]("memory:" if store == "memory" else f"sqlite:///{tmp_path / 'jobs.db'}")
    declare(app)
    api = create_app(app, allowed_hosts=["testserver"])
    schema = schemathesis.openapi.from_asgi("/openapi.json", api, config=config())
    statuses, found = Counter[int](), list[str]()

    try:
        run(schema, statuses, found)
    finally:
        shutdown_lifespans()

    assert not found, f"{len(found)} findings, such as:\n" + "\n\n".join(found[:5])
    assert statuses.total() >= LEAST, statuses
    assert {200, 201, 404, 405, 409, 415, 422} <= statuses.keys()


def run(schema: BaseSchema, statuses: Counter[int], found: list[str]) -> None:
    """Let schemathesis do all its phases; count the answers, and note what its checks found."""
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            statuses.update(
                interaction.response.status_code
                for interaction in event.recorder.interactions.values()
                if interaction.response is not None
            )
            found += failures_of(event)
        elif isinstance(event, events.NonFatalError):
            found.append(f"{event.label}: {event.value!r}")
        elif isinstance(event, events.FatalError):
            raise event.exception


def failures_of(event: events.ScenarioFinished) -> list[str]:
    """What the checks said, with the request and the answer."""
    found = []
    for case, checks in event.recorder.checks.items():
        for check in checks:
            if check.status != Status.FAILURE or check.failure_info is None:
                continue
            exchanged = event.recorder.interactions[case]
            request, response = exchanged.request, exchanged.response
            answer = (response.status_code, response.content[:500]) if response else None
            found.append(
                f"{check.name}: {check.failure_info.failure.message}\n"
                f"{request.method} {request.uri} {request.body!r:.500}\n{answer}"
            )
    return found

"""Proof that the suite would notice: each bug is planted in a store, and a named test must fail.

The memory store is bent in its methods, SQLite in the text of its statements.
"""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.stores import (
    test_ack,
    test_claim,
    test_control,
    test_insert,
    test_progress_log,
    test_races,
)
from tests.stores.support import KINDS
from windlass.clock import FakeClock
from windlass.job import Claim, Status
from windlass.lifecycle import Ack
from windlass.store import AckAnswer, Store
from windlass.stores.memory import MemoryStore
from windlass.stores.memory.gates import Gates
from windlass.stores.memory.table import Row, Table
from windlass.stores.sqlite.book import Book
from windlass.stores.sqlite.sql import SQL

Patch = pytest.MonkeyPatch
Check = Callable[[Store, FakeClock], Awaitable[None]]


class Bug(NamedTuple):
    """What is broken, how in each kind of store, and the test that must see it."""

    name: str
    plant: dict[str, Callable[[Patch], None]]
    check: Check


# ---------------------------------------------------------------- in the memory store


def _ack_ignoring(*, token: bool, status: bool) -> Callable[[Patch], None]:
    def ack(self: MemoryStore, ack: Ack, now: datetime) -> AckAnswer:
        row = self._table.rows.get(ack.claim.id)
        if row is None:
            return "gone"
        if row.job.token != ack.claim.token and not token:
            return "stale"
        if row.job.status is Status.PROCESSING or status:
            self._apply(row, ack, now)
        return "applied"

    return lambda patch: patch.setattr(MemoryStore, "_ack", ack)


def _write_by_anyone(patch: Patch) -> None:
    def claimed(self: MemoryStore, claim: Claim) -> Row | None:
        row = self._table.rows.get(claim.id)
        return row if row is not None and row.job.status is Status.PROCESSING else None

    patch.setattr(MemoryStore, "_claimed", claimed)


def _retry_in_the_old_generation(patch: Patch) -> None:
    change = Table.change

    def bent(self: Table, row: Row, status: Status, **fields: Any) -> None:
        if "generation" in fields:
            fields = {"take": True, "ready_at": fields["ready_at"]}
        change(self, row, status, **fields)

    patch.setattr(Table, "change", bent)


def _start_for_free(patch: Patch) -> None:
    patch.setattr(Gates, "charge", lambda self, lane, now: None)


def _take_any_number(patch: Patch) -> None:
    patch.setattr(MemoryStore, "_check_capacity", lambda self, plan: None)


# ---------------------------------------------------------------- in SQLite


def _without(statement: str, part: str, instead: str = "") -> Callable[[Patch], None]:
    """Plant by leaving a clause out of a statement."""

    def plant(patch: Patch) -> None:
        assert part in SQL[statement]
        patch.setitem(SQL, statement, SQL[statement].replace(part, instead))

    return plant


def _room_for_all(patch: Patch) -> None:
    patch.setattr(Book, "room", lambda self, queue: 1_000_000)


# ---------------------------------------------------------------- the list

_TOKEN = " AND jobs.token = json_extract(a.value, '$[0]')"

BUGS = [
    Bug(
        "an Ack is applied by whatever token",
        {
            "memory": _ack_ignoring(token=True, status=False),
            "sqlite": _without("complete", _TOKEN),
        },
        lambda store, clock: test_races.test_a_zombie_is_rejected_and_the_new_holder_wins(
            store, clock, "completes", Status.COMPLETED
        ),
    ),
    Bug(
        "an Ack is applied in whatever status",
        {
            "memory": _ack_ignoring(token=False, status=True),
            "sqlite": _without("complete", " AND jobs.status = 2"),
        },
        test_ack.test_the_same_ack_repeated_is_applied_and_changes_nothing,
    ),
    Bug(
        "an Ack is not checked at all",
        {
            "memory": _ack_ignoring(token=True, status=True),
            "sqlite": _without("complete", " AND jobs.status = 2" + _TOKEN),
        },
        lambda store, clock: test_ack.test_another_token_is_stale_and_changes_nothing(store),
    ),
    Bug(
        "progress is noted by whoever calls",
        {"memory": _write_by_anyone, "sqlite": _without("progress", " AND token = ?2")},
        lambda store, clock: test_progress_log.test_another_token_writes_nothing(store),
    ),
    Bug(
        "a retry goes on in the old generation",
        {
            "memory": _retry_in_the_old_generation,
            "sqlite": _without("revive", "generation = generation + 1, "),
        },
        lambda store, clock: test_control.test_a_retry_opens_a_new_generation(
            store, clock, Status.FAILED
        ),
    ),
    Bug(
        "a retry leaves the former holder's token valid",
        {"memory": _retry_in_the_old_generation, "sqlite": _without("revive", "token = NULL, ")},
        lambda store, clock: (
            test_races.test_a_zombie_of_an_unreclaimed_generation_is_rejected_after_a_retry(store)
        ),
    ),
    Bug(
        "a start is not charged to its rate",
        {
            "memory": _start_for_free,
            "sqlite": lambda patch: patch.setattr(Book, "charge", lambda self, lane, now: None),
        },
        lambda store, clock: test_claim.test_no_more_start_than_the_rate_allows(
            store, clock, "queue"
        ),
    ),
    Bug(
        "a queue takes more than its capacity",
        {"memory": _take_any_number, "sqlite": _room_for_all},
        lambda store, clock: test_insert.test_a_queue_over_its_capacity_is_full(store),
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
async def test_a_planted_bug_is_caught(
    bug: Bug, kind: str, tmp_path: Path, clock: FakeClock, monkeypatch: Patch
) -> None:
    bug.plant[kind](monkeypatch)
    store = KINDS[kind](tmp_path, clock).connect()
    await store.open()

    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            await bug.check(store, clock)
    finally:
        await store.close()

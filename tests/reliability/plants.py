"""Bugs to plant in a child, by name: each breaks one promise, and a check must see it every time.

They live here only, and bend the code as it runs: the text of a statement, or one method. What is to be
bent and is not found is an error, so that a bug cannot quietly stop being planted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

from windlass import lifecycle
from windlass.job import WorkerId, WorkerInfo
from windlass.stores.sqlite import writer
from windlass.stores.sqlite.request import Request, Turn, deliver
from windlass.stores.sqlite.sql import SQL
from windlass.stores.sqlite.transaction import Handler, Transaction
from windlass.worker.maintenance import Observation

__all__ = ["Plant", "plant"]

Plant = Literal[
    "no check on an Ack",
    "an Ack checks the status only",
    "answered before the commit",
    "dead at first sight",
    "charged wherever it crashed",
]


def plant(name: str) -> None:
    """Bend this process."""
    assert name in get_args(Plant), name
    _PLANTS[name]()


def _leave_out(statement: str, part: str) -> None:
    assert part in SQL[statement], (statement, part)
    SQL[statement] = SQL[statement].replace(part, "")


def _status_only() -> None:
    _leave_out("complete", " AND jobs.token = json_extract(a.value, '$[0]')")


def _no_check() -> None:
    _status_only()
    _leave_out("complete", " AND jobs.status = 2")


def _answer_first() -> None:
    """Callers of insert hear of success while the transaction is still open."""
    by_turn = writer._by_turn

    def answer(tx: Transaction, inserts: list[Request]) -> None:
        if inserts:
            deliver(inserts)
            time.sleep(5.0)

    def hastily(requests: Iterable[Request]) -> list[tuple[Handler, list[Request]]]:
        taken = list(requests)
        inserts = [request for request in taken if request.turn is Turn.INSERT]
        return [*by_turn(taken), (answer, inserts)]

    writer._by_turn = hastily


def _dead_at_first_sight() -> None:
    def suspects(
        self: Observation, workers: Iterable[WorkerInfo], now: float
    ) -> list[tuple[WorkerId, int]]:
        return [(worker.id, worker.beat) for worker in workers]

    Observation.suspects = suspects  # type: ignore[method-assign]


def _charge_always() -> None:
    after_crash = lifecycle._after_crash

    def charging(job: Any, failure: Any, roll: float, *, charged: bool) -> lifecycle.Change:
        return after_crash(job, failure, roll, charged=True)

    lifecycle._after_crash = charging


_PLANTS: dict[str, Callable[[], None]] = {
    "no check on an Ack": _no_check,
    "an Ack checks the status only": _status_only,
    "answered before the commit": _answer_first,
    "dead at first sight": _dead_at_first_sight,
    "charged wherever it crashed": _charge_always,
}

"""What holders of claims write: Acks, progress and log lines, each only while the claim holds.

Nearly all Acks say ``completed``. Those of all callers are applied by one statement that checks each
claim; if it changed fewer rows than it was given, someone lost a claim (or repeats an Ack), and the
transaction starts over with care: rows are read, each Ack is decided on, the changes are written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from windlass.job import FINAL, Claim, Failure, LogLine, Status
from windlass.lifecycle import Ack, Change
from windlass.store import AckAnswer
from windlass.stores.sqlite.request import Request
from windlass.stores.sqlite.rows import (
    CODES,
    COMPLETED,
    PROCESSING,
    State,
    from_micros,
    head_start,
    json_text,
    micros,
    read_states,
)
from windlass.stores.sqlite.sql import SQL
from windlass.stores.sqlite.transaction import LookCloser, Transaction

__all__ = ["ack", "log", "progress"]

_KEPT_ERRORS = 20
_KEPT_LINES = 1000

_decode_errors = msgspec.json.Decoder(list[msgspec.Raw]).decode


def ack(tx: Transaction, requests: list[Request]) -> None:
    """Serve Acks; each request's argument is its sequence of them."""
    acks: list[Ack] = [each for request in requests for each in request.arguments[0]]
    if tx.careful:
        answers = _Settling(tx, acks).answers()
    else:
        if len({each.claim.id for each in acks}) < len(acks):
            raise LookCloser  # two about one job: their order counts
        quick = [each for each in acks if _is_quick(each)]
        _complete(tx, quick)
        if len(quick) == len(acks):
            answers = ["applied"] * len(acks)
        else:
            rest = [each for each in acks if not _is_quick(each)]
            others = iter(_Settling(tx, rest).answers())
            answers = ["applied" if _is_quick(each) else next(others) for each in acks]
    start = 0
    for request in requests:
        end = start + len(request.arguments[0])
        request.answer = answers[start:end]
        start = end


def _is_quick(ack: Ack) -> bool:
    then = ack.then
    return then.status is Status.COMPLETED and not (
        then.failure is not None
        or then.counted
        or then.crashed
        or then.charged
        or then.unstarted
        or then.reason is not None
        or ack.reclaimed
        or ack.if_cancel_requested is not then
    )


def _complete(tx: Transaction, acks: Sequence[Ack]) -> None:
    if not acks:
        return
    ends = {
        each.claim.id: (each.claim.token, each.then.result and each.then.result.decode())
        for each in acks
    }
    lanes = Counter(each.lane for each in acks)
    if not tx.book.ids.keys() >= lanes.keys():
        raise LookCloser
    changed = tx.db.execute(SQL["complete"], (json_text(ends), tx.now)).rowcount
    if changed < len(acks):
        raise LookCloser
    for lane, count in lanes.items():
        row = tx.book.lanes[tx.book.ids[lane]]
        tx.book.move(row, PROCESSING, COMPLETED, count)
        if tx.book.has_concurrency(row):
            tx.ready(row.queue)
    tx.changed(ends)


class _Settling:
    """Decides on Acks one after the other, then writes all changes."""

    def __init__(self, tx: Transaction, acks: Sequence[Ack]) -> None:
        self._tx = tx
        self._acks = acks
        self._states = read_states(tx.db, dict.fromkeys(each.claim.id for each in acks))
        self._changes: list[tuple[Any, ...]] = []

    def answers(self) -> list[AckAnswer]:
        answers = [self._answer(each) for each in self._acks]
        if self._changes:
            self._tx.db.execute(SQL["settle"], (json_text(self._changes),))
        return answers

    def _answer(self, ack: Ack) -> AckAnswer:
        state = self._states.get(ack.claim.id)
        if state is None:
            return "gone"
        if state.token != ack.claim.token:
            return "stale"
        if state.status == PROCESSING:
            change = ack.if_cancel_requested if state.cancel_requested else ack.then
            self._apply(state, change, ack.reclaimed)
        return "applied"

    def _apply(self, state: State, change: Change, reclaimed: bool) -> None:
        tx = self._tx
        lane = tx.book.lanes[state.lane]
        if change.unstarted:
            tx.book.refund(lane)
        if tx.book.has_concurrency(lane):
            tx.ready(lane.queue)
        key = self._key(state, change.status)
        row = _settled(state, change, tx.now, key, reclaimed=reclaimed)
        if state.unique_name is None:
            self._changes.append(row)
        else:
            # At once: whether a key is free depends on the changes before.
            tx.db.execute(SQL["settle"], (json_text([row]),))
        state.status = CODES[change.status]
        state.token = None if reclaimed else state.token
        tx.moved(state.lane, PROCESSING, state.status)
        tx.changed([state.id])

    def _key(self, state: State, status: Status) -> str | None:
        if state.unique_name is None or not state.counts_in(CODES[status]):
            return None
        if state.unique_key is not None:
            return state.unique_key
        holder = self._tx.text(SQL["holder"], state.unique_name)
        return state.unique_name if holder is None else None


def _settled(
    state: State, change: Change, now: int, key: str | None, *, reclaimed: bool
) -> tuple[Any, ...]:
    """The row as the change leaves it, in the order of the statement ``settle``."""
    ends = change.status in FINAL
    ready_at = state.ready_at
    if change.status is Status.SCHEDULED:
        ready_at = now + (micros(change.delay) or 0)
    return (
        state.seq,
        CODES[change.status],
        None if reclaimed else state.token,
        ready_at,
        ready_at - head_start(state.priority),
        state.expires_at if change.unstarted else None,
        now if ends else None,
        change.result.decode() if ends and change.result is not None else None,
        change.reason if ends else None,
        state.failures + change.counted,
        state.crashes + change.crashed,
        state.charges + change.charged,
        key,
        _with_failure(state.errors, change.failure, now),
    )


def _with_failure(errors: str | None, failure: Failure | None, now: int) -> str | None:
    if failure is None:
        return errors
    kept = _decode_errors(errors) if errors is not None else []
    kept.append(msgspec.Raw(msgspec.json.encode(replace(failure, at=from_micros(now)))))
    return json_text(kept[-_KEPT_ERRORS:])


def progress(tx: Transaction, claim: Claim, fraction: float | None, note: str | None) -> bool:
    """See :meth:`windlass.store.JobStore.progress`."""
    changed = tx.db.execute(SQL["progress"], (*claim, fraction, note)).rowcount
    if changed:
        tx.changed([claim.id])
    return changed > 0


def log(tx: Transaction, claim: Claim, lines: Sequence[LogLine]) -> bool:
    """See :meth:`windlass.store.JobStore.log`."""
    found = tx.db.execute(SQL["claimed"], claim).fetchall()
    if not found:
        return False
    [(job, last)] = found
    tx.db.executemany(
        SQL["write_log"],
        [
            (job, number, tx.now, line.attempt, line.level, line.message)
            for number, line in enumerate(
                lines[-_KEPT_LINES:], last + 1 + max(0, len(lines) - _KEPT_LINES)
            )
        ],
    )
    tx.db.execute(SQL["trim_log"], (job, last + len(lines) - _KEPT_LINES))
    tx.changed([claim.id])
    return True

"""What people and upkeep change: cancel, retry, promote, prune, pauses and limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import product
from typing import NamedTuple

import msgspec

from windlass.job import JobId, Limit, Retention
from windlass.store import Promotion
from windlass.stores.sqlite.rows import (
    CANCELLED,
    COMPLETED,
    FAILED,
    PENDING,
    PROCESSING,
    SCHEDULED,
    State,
    head_start,
    json_text,
    micros,
    read_states,
)
from windlass.stores.sqlite.sql import SQL
from windlass.stores.sqlite.transaction import Transaction

__all__ = ["cancel", "pause", "promote", "prune", "retry", "set_limits"]


class _Place(NamedTuple):
    seq: int
    lane: int
    status: int
    id: JobId


_decode_places = msgspec.json.Decoder(list[_Place]).decode


def promote(tx: Transaction, limit: int) -> Promotion:
    """See :meth:`windlass.store.JobStore.promote`."""
    expired = _places(tx, "expired", tx.now, limit)
    if expired:
        numbers = _numbers(expired)
        tx.db.execute(SQL["cancel"], (numbers, tx.now, "expired before it started"))
        _count(tx, expired, CANCELLED)
    due = _places(tx, "due", tx.now, limit)
    if due:
        tx.db.execute(SQL["promote"], (_numbers(due),))
        _count(tx, due, PENDING)
    [(expiry, next_ready, suspects)] = tx.db.execute(SQL["ahead"]).fetchall()
    return Promotion(len(due), len(expired), _next_due(tx, expiry, next_ready), bool(suspects))


def _next_due(tx: Transaction, expiry: int | None, next_ready: int | None) -> timedelta | None:
    if expiry is not None and expiry <= tx.now:
        return timedelta(0)
    return None if next_ready is None else timedelta(microseconds=max(next_ready - tx.now, 0))


def cancel(tx: Transaction, ids: Sequence[JobId], reason: str) -> str | None:
    """See :meth:`windlass.store.ControlStore.cancel`; the jobs as JSON, in any order."""
    states = read_states(tx.db, dict.fromkeys(ids)).values()
    waiting = [_place(each) for each in states if each.status in (SCHEDULED, PENDING)]
    running = [_place(each) for each in states if each.status == PROCESSING]
    if waiting:
        tx.db.execute(SQL["cancel"], (_numbers(waiting), tx.now, reason))
        _count(tx, waiting, CANCELLED)
    if running:
        tx.db.execute(SQL["request_cancel"], (_numbers(running),))
        tx.cancel(each.id for each in running)
        tx.changed(each.id for each in running)
    text: str | None = tx.text(SQL["get"], json_text(list(dict.fromkeys(ids))))
    return text


Skip = str | None


def retry(tx: Transaction, ids: Sequence[JobId]) -> tuple[list[Skip], str | None]:
    """See :meth:`windlass.store.ControlStore.retry`; for each id why it was skipped, and the jobs as
    JSON, in any order."""
    states = read_states(tx.db, dict.fromkeys(ids))
    skips = [_retry(tx, states.get(each)) for each in ids]
    return skips, tx.text(SQL["get"], json_text(list(dict.fromkeys(ids))))


def _retry(tx: Transaction, state: State | None) -> Skip:
    if state is None:
        return "not found"
    if state.status == PROCESSING:
        return "processing"
    if state.status == PENDING:
        return "pending"
    key = state.unique_name if state.counts_in(PENDING) else None
    if key is not None and tx.text(SQL["holder"], key) not in (None, state.seq):
        return "key taken"
    statement = SQL["hurry" if state.status == SCHEDULED else "revive"]
    tx.db.execute(statement, (state.seq, tx.now, tx.now - head_start(state.priority), key))
    tx.moved(state.lane, state.status, PENDING)
    tx.changed([state.id])
    state.status = PENDING
    return None


def prune(tx: Transaction, retention: Retention, limit: int) -> int:
    """See :meth:`windlass.store.ControlStore.prune`."""
    pruned = 0
    for (status, kept), keyed in product(_kept(retention), (False, True)):
        least = max(kept, retention.least, retention.keyed if keyed else timedelta(0))
        until = tx.now - (micros(least) or 0)
        places = _places(tx, "prunable", status, keyed, until, limit - pruned)
        if places:
            numbers = _numbers(places)
            tx.db.execute(SQL["delete_logs"], (numbers,))
            tx.db.execute(SQL["raise_seq"], (max(each.seq for each in places),))
            tx.db.execute(SQL["delete_jobs"], (numbers,))
            _count(tx, places, None)
            pruned += len(places)
    return pruned


def _kept(retention: Retention) -> list[tuple[int, timedelta]]:
    return [
        (COMPLETED, retention.completed),
        (CANCELLED, retention.cancelled),
        (FAILED, retention.failed),
    ]


def pause(tx: Transaction, queue: str, paused: bool, reason: str | None) -> None:
    """See :meth:`windlass.store.ControlStore.pause`."""
    tx.db.execute(SQL["pause"], (queue, paused, reason if paused else None))
    tx.book.set_paused(queue, paused)
    if not paused:
        tx.ready(queue)


def set_limits(tx: Transaction, limits: Sequence[Limit]) -> None:
    """See :meth:`windlass.store.ControlStore.set_limits`."""
    for limit in limits:
        present = tx.book.limit(limit.scope, limit.name)
        if present is not None and present.operator and not limit.operator:
            continue
        row = tx.book.set_limit(limit)
        tx.db.execute(SQL["set_limit"], msgspec.structs.astuple(row))
    for lane in tx.book.lanes.values():
        if lane.counts[PENDING]:
            tx.ready(lane.queue)


def _place(state: State) -> _Place:
    return _Place(state.seq, state.lane, state.status, state.id)


def _places(tx: Transaction, statement: str, *parameters: object) -> list[_Place]:
    return _decode_places(tx.text(SQL[statement], *parameters))


def _numbers(places: Iterable[_Place]) -> str:
    return json_text([each.seq for each in places])


def _count(tx: Transaction, places: Sequence[_Place], after: int | None) -> None:
    for (lane, before), count in Counter((each.lane, each.status) for each in places).items():
        tx.moved(lane, before, after, count)
    tx.changed(each.id for each in places)

"""Which workers live: heartbeats, deaths, departures, and the jobs that the dead leave behind."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from windlass.job import WorkerId, WorkerInfo
from windlass.store import Beat, Held
from windlass.stores.sqlite.rows import json_text, micros
from windlass.stores.sqlite.sql import SQL
from windlass.stores.sqlite.transaction import Transaction

__all__ = ["heartbeat", "leave", "reclaim"]

_KEPT_DEAD = 86_400_000_000
"""A day: long enough to show that a worker died, and no message of its travels as long."""

_decode_held = msgspec.json.Decoder(list[Held]).decode


def heartbeat(tx: Transaction, worker: WorkerInfo) -> Beat:
    """See :meth:`windlass.store.JobStore.heartbeat`."""
    known = _known(tx, worker.id)
    if (known is None and worker.beat != 0) or (known is not None and known[0]):
        return Beat(alive=False, held=[])
    lease_until = tx.now + (micros(worker.lease) or 0)
    statement = SQL["register" if known is None else "renew"]
    tx.db.execute(statement, (worker.id, worker.beat, tx.now, lease_until, json_text(worker)))
    tx.book.workers.add(worker.id)
    return Beat(alive=True, held=_decode_held(tx.text(SQL["held"], worker.id)))


def reclaim(
    tx: Transaction, suspected: Sequence[tuple[WorkerId, int]], limit: int, by: WorkerId | None
) -> str | None:
    """See :meth:`windlass.store.JobStore.reclaim`; the jobs as JSON."""
    for worker, beat in suspected:
        known = _known(tx, worker)
        if known is None or worker == by:
            continue
        dead, last_beat, lease_until = known
        if not dead and last_beat == beat and lease_until <= tx.now:
            _declare_dead(tx, worker)
    tx.db.execute(SQL["forget_dead"], (tx.now - _KEPT_DEAD,))
    text: str | None = tx.text(SQL["orphans"], limit)
    return text


def leave(tx: Transaction, worker: WorkerId, died: bool) -> bool:
    """See :meth:`windlass.store.JobStore.leave`."""
    if _known(tx, worker) is None:
        return True
    if died:
        _declare_dead(tx, worker)
        return True
    if _decode_held(tx.text(SQL["held"], worker)):
        return False
    tx.db.execute(SQL["forget_worker"], (worker,))
    tx.book.workers.discard(worker)
    return True


def _known(tx: Transaction, worker: WorkerId) -> tuple[int, int, int] | None:
    """Whether it is dead, its last beat, the end of its lease; None: there is no such worker."""
    found: tuple[int, int, int] | None
    [found] = tx.db.execute(SQL["worker"], (worker,)).fetchall() or [None]
    return found


def _declare_dead(tx: Transaction, worker: WorkerId) -> None:
    tx.db.execute(SQL["declare_dead"], (worker,))
    tx.book.workers.discard(worker)

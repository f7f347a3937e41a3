"""Handing out jobs: choose by rank from the lanes that are open, then take, then read."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec

from windlass.job import JobId, Token, WorkerId
from windlass.store import Want
from windlass.stores.sqlite.book import LaneRow
from windlass.stores.sqlite.rows import PENDING, PROCESSING, json_text
from windlass.stores.sqlite.sql import SQL
from windlass.stores.sqlite.transaction import Transaction

__all__ = ["Taken", "claim"]


class Taken(NamedTuple):
    """What a claim got: the jobs as JSON, to be decoded by the caller's thread and not under the
    lock; and for how many seconds a rate holds others back."""

    text: str | None
    opens_in: float | None


class _Id(msgspec.Struct):
    id: JobId


_decode_candidates = msgspec.json.Decoder(list[tuple[int, int]]).decode
_decode_ids = msgspec.json.Decoder(list[_Id]).decode


def claim(tx: Transaction, want: Want, limit: int, worker: WorkerId, token: Token) -> Taken:
    """See :meth:`windlass.store.JobStore.claim`."""
    if worker not in tx.book.workers:
        return Taken(None, None)
    lanes = _wanted(tx, want)
    limited = {lane.id for lane in lanes if tx.book.is_limited(lane)}
    asked = [lane.id for lane in lanes if lane.id not in limited or _is_worth_a_look(tx, lane)]
    if not asked:
        return Taken(None, None)
    # A limited lane's candidates may be passed over, so that all lanes' are needed to fill up.
    most = -1 if limited else limit
    statement = SQL["suspects" if want.suspects else "candidates"]
    found = _decode_candidates(tx.text(statement, json_text(asked), tx.now, limit, most))
    if limited:
        chosen, opens_in = _choose(tx, found, limit, limited)
    else:
        chosen, opens_in = [seq for seq, _ in found], None
        for lane, count in Counter(lane for _, lane in found).items():
            tx.moved(lane, PENDING, PROCESSING, count)
    return Taken(_take(tx, chosen, worker, token), opens_in)


def _wanted(tx: Transaction, want: Want) -> list[LaneRow]:
    """Lanes with pending jobs of the wanted kinds."""
    return [
        lane
        for lane in tx.book.lanes.values()
        if lane.counts[PENDING]
        and lane.type in want.types
        and (want.queues is None or lane.queue in want.queues)
        and not tx.book.is_paused(lane.queue)
    ]


def _is_worth_a_look(tx: Transaction, lane: LaneRow) -> bool:
    """Whether a limited lane has room, or its candidates would show that a rate holds work back."""
    return tx.book.openings(lane, tx.seconds, 1) > 0 or tx.book.opens_in(lane, tx.seconds) > 0


def _choose(
    tx: Transaction, found: list[tuple[int, int]], limit: int, limited: set[int]
) -> tuple[list[int], float | None]:
    """By rank, whatever its lane still has room for; charges the rates."""
    chosen: list[int] = []
    shut: set[int] = set()
    for seq, number in found:
        if len(chosen) == limit:
            break
        lane = tx.book.lanes[number]
        if number in limited:
            if not tx.book.openings(lane, tx.seconds, 1):
                shut.add(number)
                continue
            tx.book.charge(lane, tx.seconds)
        tx.moved(number, PENDING, PROCESSING)
        chosen.append(seq)
    waits = [tx.book.opens_in(tx.book.lanes[number], tx.seconds) for number in shut]
    return chosen, min((wait for wait in waits if wait > 0), default=None)


def _take(tx: Transaction, chosen: list[int], worker: WorkerId, token: Token) -> str | None:
    if not chosen:
        return None
    numbers = json_text(chosen)
    tx.db.execute(SQL["take"], (numbers, token, worker, tx.now))
    text: str = tx.text(SQL["taken"], numbers)
    if tx.tells_changes:
        tx.changed([each.id for each in _decode_ids(text)])
    return text

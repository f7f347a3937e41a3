"""A small model of the claim protocol, explored exhaustively.

One job, two workers, one store, messages that arrive late, in any order, or never. Worker 0 stays
healthy; worker 1 may be killed, frozen and thawed, stopped, or leave. The store's clock may step.
Every clause of the port's contract on claims, Acks, beats, reclaim and leave is a switch of
:class:`Clauses`: with all on, no reachable state breaks a promise and from each of them the job can
still end; with one off, some state does (``test_protocol.py`` names which).

The model knows nothing of the implementation. It shows that the *contract* is enough and has no
clause to spare; that the code keeps the contract is shown by the conformance suite.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

__all__ = ["Budget", "Clauses", "Exploration", "explore"]


@dataclass(frozen=True)
class Clauses:
    """The port's clauses; False leaves one out."""

    ack_checks_token: bool = True
    """An Ack applies only under the token of the present hand-out."""
    ack_checks_status: bool = True
    """An Ack applies only while the job is processing."""
    ack_recognises_repeat: bool = True
    """An Ack whose token is still on the row answers `applied`."""
    reclaim_clears_token: bool = True
    """A change made by anyone but the holder clears the token."""
    ack_after_run: bool = True
    """An Ack is sent only when the run has ended."""
    ack_reads_cancel: bool = True
    """The store picks `if_cancel_requested` by the row it has locked."""
    held_until_answer: bool = True
    """A run counts as held until its Ack is answered."""
    beat_returns_unknown: bool = True
    """A row whose token the worker does not know is handed back."""
    beat_compares_now: bool = True
    """Unknown means: neither held nor outstanding when the answer is read."""
    beat_loses_only_sent: bool = True
    """Only a run that was held when the beat was sent can be found missing."""
    claim_abandons: bool = True
    """A claim call that failed is never taken up again, however late its answer."""
    claim_refuses_dead: bool = True
    """A worker declared dead gets nothing more."""
    claim_refuses_absent: bool = True
    """A worker without a row gets nothing."""
    reclaim_two_looks: bool = True
    """Dead needs a beat unchanged on the observer's own clock, beside a lease that ran out."""
    reclaim_any_dead: bool = True
    """Jobs of every dead or absent worker are returned, whenever it was declared."""
    leave_when_clean: bool = True
    """A worker's row goes only when none of its jobs is processing."""


class Budget(NamedTuple):
    """How often each disturbance may still happen."""

    kills: int = 1
    freezes: int = 1
    drops: int = 1
    late: int = 1
    steps: int = 1
    fails: int = 0
    stops: int = 1
    cancels: int = 1
    tokens: int = 3


Status = Literal["pending", "processing", "completed", "cancelled"]
Phase = Literal["asked", "run", "done", "fail", "back", "cancel"]
ENDED = frozenset({"done", "fail", "back", "cancel"})
Process = Literal["up", "frozen", "gone"]


class Row(NamedTuple):
    """A worker's row in the store, and what an observer saw of it."""

    state: Literal["live", "dead", "absent"] = "live"
    lease_out: bool = False
    unchanged: bool = False


class Local(NamedTuple):
    """What a worker process knows: its tokens, each in a phase."""

    process: Process = "up"
    tokens: frozenset[tuple[int, Phase]] = frozenset()

    def phase(self, token: int) -> Phase | None:
        return next((phase for t, phase in self.tokens if t == token), None)

    def put(self, token: int, phase: Phase | None) -> Local:
        rest = frozenset((t, p) for t, p in self.tokens if t != token)
        return self._replace(tokens=rest if phase is None else rest | {(token, phase)})


class State(NamedTuple):
    """Everything, at one moment. The last fields are ghosts: known to the checker only."""

    status: Status = "pending"
    token: int = 0
    owner: int = -1
    cancel: bool = False
    rows: tuple[Row, Row] = (Row(), Row())
    locals: tuple[Local, Local] = (Local(), Local())
    messages: frozenset[tuple[object, ...]] = frozenset()
    budget: Budget = Budget()
    issued: int = 0
    starts: int = 0
    excuses: int = 0
    """Further starts that a failure or a stop accounts for."""
    excused: frozenset[int] = frozenset()
    """Tokens taken from a worker that had been killed, frozen or stopped: one further start each."""
    blamed: frozenset[int] = frozenset()
    """Workers that were killed, frozen or stopped: their outcomes may be refused."""
    applied: frozenset[int] = frozenset()
    """Tokens whose holder's Ack took effect."""
    asked_cancel: bool = False


Step = tuple[str, State, bool]
"""(what happened, the state after, whether it was a disturbance)."""


class Broken(Exception):
    """A promise was broken on the way to a state."""


@dataclass
class Exploration:
    """What :func:`explore` found."""

    states: int
    broken: str | None
    """The promise that was broken first, with the shortest story that leads there."""
    stuck: str | None
    """A story after which the job can never end."""

    @property
    def sound(self) -> bool:
        return self.broken is None and self.stuck is None


def explore(clauses: Clauses, budget: Budget, most: int = 2_000_000) -> Exploration:
    """Visit every reachable state, breadth first; stop at the first broken promise."""
    start = State(budget=budget)
    came: dict[State, tuple[State, str] | None] = {start: None}
    good_into: dict[State, list[State]] = {}
    queue = deque([start])
    while queue:
        state = queue.popleft()
        try:
            for what, after, disturbance in _steps(state, clauses):
                if not disturbance:
                    good_into.setdefault(after, []).append(state)
                if after not in came:
                    came[after] = (state, what)
                    queue.append(after)
        except Broken as broken:
            return Exploration(len(came), f"{broken}: {_story(came, state)}", None)
        if len(came) > most:
            raise RuntimeError(f"more than {most} states: narrow the budget")
    return Exploration(len(came), None, _find_stuck(came, good_into))


def _find_stuck(
    came: dict[State, tuple[State, str] | None], good_into: dict[State, list[State]]
) -> str | None:
    """A state from which no undisturbed path leads to a final status, if there is one."""
    can_end = {state for state in came if state.status in ("completed", "cancelled")}
    queue = deque(can_end)
    while queue:
        for before in good_into.get(queue.popleft(), ()):
            if before not in can_end:
                can_end.add(before)
                queue.append(before)
    # A run of token numbers that the bound cut off is not stuck, only unexplored.
    stuck = next((s for s in came if s not in can_end and s.issued < s.budget.tokens), None)
    return None if stuck is None else _story(came, stuck)


def _story(came: dict[State, tuple[State, str] | None], state: State) -> str:
    told: list[str] = []
    link = came[state]
    while link is not None:
        state, what = link
        told.append(what)
        link = came[state]
    return " → ".join(reversed(told))


# ------------------------------------------------------------------------------- the steps


def _steps(s: State, c: Clauses) -> Iterator[Step]:
    for w in (0, 1):
        if s.locals[w].process == "up":
            yield from _worker_steps(s, c, w)
    for message in s.messages:
        yield from _deliver(s, c, message)
        if s.budget.drops:
            yield f"lose {message}", _spend(_taken(s, message), "drops"), True
    yield from _disturbances(s, c)


def _worker_steps(s: State, c: Clauses, w: int) -> Iterator[Step]:
    local = s.locals[w]
    if not local.tokens and s.issued < s.budget.tokens:
        t = s.issued + 1
        asked = _with_local(s._replace(issued=t), w, local.put(t, "asked"))
        yield f"{w} asks {t}", _sent(asked, ("claim", w, t)), False
    for t, phase in local.tokens:
        if phase == "run":
            yield f"{w} finishes {t}", _with_local(s, w, local.put(t, "done")), False
            if s.budget.fails:
                failed = _with_local(_spend(s, "fails"), w, local.put(t, "fail"))
                yield f"{w} fails {t}", failed._replace(excuses=s.excuses + 1), True
            if w == 1 and s.budget.stops:
                # Stop: the run is interrupted and handed back.
                stopped = _spend(s, "stops")._replace(excuses=s.excuses + 1)
                if c.ack_after_run:
                    stopped = _with_local(stopped, w, local.put(t, "back"))
                else:
                    stopped = _sent(stopped, ("ack", w, t, "back"))
                yield f"{w} interrupts {t}", stopped, True
        if phase in ENDED and not _on_the_way(s, w, t):
            yield f"{w} acks {t} {phase}", _sent(s, ("ack", w, t, phase)), False
        if phase == "asked" and s.budget.late:
            kept = local.put(t, None)
            yield f"{w} gives up asking {t}", _spend(_with_local(s, w, kept), "late"), True
        if phase == "asked" and not _on_the_way(s, w, t):
            yield f"{w} finds asking {t} failed", _with_local(s, w, local.put(t, None)), False
    if not any(m[0] in ("beat", "beaten") and m[1] == w for m in s.messages):
        held = frozenset(t for t, phase in local.tokens if phase != "asked")
        yield f"{w} beats", _sent(s, ("beat", w, held)), False
    yield from _reclaim(s, c, w)


def _reclaim(s: State, c: Clauses, by: int) -> Iterator[Step]:
    other = 1 - by
    row = s.rows[other]
    dead_now = row.state == "live" and row.lease_out and (row.unchanged or not c.reclaim_two_looks)
    after = _with_row(s, other, row._replace(state="dead")) if dead_now else s
    if s.status == "processing":
        lost = after.rows[s.owner].state != "live" if c.reclaim_any_dead else dead_now
        if lost and s.rows[s.owner].state == "absent":
            raise Broken("a clean stop left a job behind that had to be reclaimed")
        if lost and s.owner != by:
            after = _sent(after, ("ack", by, s.token, "expired"))
            if s.owner in s.blamed:
                after = after._replace(excused=after.excused | {s.token})
    if after != s:
        yield f"{by} reclaims", after, False


def _deliver(s: State, c: Clauses, message: tuple[object, ...]) -> Iterator[Step]:
    kind, w = message[0], message[1]
    assert isinstance(w, int)
    rest = _taken(s, message)
    to_store = kind in ("claim", "ack", "beat")
    if not to_store and s.locals[w].process != "up":
        if s.locals[w].process == "gone":
            yield f"nobody reads {message}", rest, False
        return
    match kind:
        case "claim":
            yield f"store gets {message}", _store_claims(rest, c, w, _int(message[2])), False
        case "ack":
            after = _store_acks(rest, c, w, _int(message[2]), str(message[3]))
            yield f"store gets {message}", after, False
        case "beat":
            yield f"store gets {message}", _store_beats(rest, w, message[2]), False
        case "claimed":
            after = _worker_got(rest, c, w, _int(message[2]), bool(message[3]))
            yield f"worker gets {message}", after, False
        case "acked":
            after = _worker_acked(rest, w, _int(message[2]), str(message[3]))
            yield f"worker gets {message}", after, False
        case "beaten":
            yield f"worker gets {message}", _worker_beaten(rest, c, w, message), False


def _disturbances(s: State, c: Clauses) -> Iterator[Step]:
    w, local, row = 1, s.locals[1], s.rows[1]
    blamed = s._replace(blamed=s.blamed | {w})
    if local.process == "up":
        if s.budget.kills:
            yield "1 is killed", _spend(_with_local(blamed, w, Local("gone")), "kills"), True
        if s.budget.freezes:
            frozen = _with_local(blamed, w, local._replace(process="frozen"))
            yield "1 freezes", _spend(frozen, "freezes"), True
        if not local.tokens and s.budget.stops and row.state == "live":
            dirty = s.status == "processing" and s.owner == w
            if not dirty or not c.leave_when_clean:
                left = _with_row(_with_local(blamed, w, Local("gone")), w, Row("absent"))
                yield "1 leaves", _spend(left, "stops"), True
    if local.process == "frozen":
        yield "1 thaws", _with_local(s, w, local._replace(process="up")), False
    if local.process != "up" and row.state == "live" and not (row.lease_out and row.unchanged):
        yield "1's lease runs out", _with_row(s, w, Row("live", True, True)), False
    if s.budget.steps and not row.lease_out and row.state == "live":
        stepped = _with_row(s, w, row._replace(lease_out=True))
        yield "the store's clock steps", _spend(stepped, "steps"), True
    if s.budget.cancels and s.status in ("pending", "processing"):
        asked = _spend(s, "cancels")._replace(asked_cancel=True)
        if s.status == "pending":
            asked = asked._replace(status="cancelled", token=0)
        else:
            asked = asked._replace(cancel=True)
        yield "someone cancels", asked, True


# ------------------------------------------------------------------------------- the store


def _store_claims(s: State, c: Clauses, w: int, t: int) -> State:
    row = s.rows[w].state
    refused = (row == "dead" and c.claim_refuses_dead) or (
        row == "absent" and c.claim_refuses_absent
    )
    if s.status != "pending" or refused:
        return _sent(s, ("claimed", w, t, False))
    if s.asked_cancel:
        raise Broken("a job was handed out after its cancellation was accepted")
    taken = s._replace(status="processing", token=t, owner=w)
    return _sent(taken, ("claimed", w, t, True))


def _store_acks(s: State, c: Clauses, w: int, t: int, kind: str) -> State:
    holds = s.token == t or not c.ack_checks_token
    open_ = s.status == "processing" or not c.ack_checks_status
    by_holder = kind != "expired"
    if holds and open_:
        s = _apply(s, c, kind)
        if by_holder:
            s = s._replace(applied=s.applied | {t})
        elif c.reclaim_clears_token:
            s = s._replace(token=0)
        answer = "applied"
    elif s.token == t and c.ack_recognises_repeat:
        answer = "applied"
    else:
        answer = "stale"
    if not by_holder or s.locals[w].phase(t) is None:
        return s  # a reclaimer, or a hand-back of an unknown row, does nothing with the answer
    if answer == "applied" and t not in s.applied:
        raise Broken("an Ack that changed nothing was answered as applied")
    if answer == "stale" and t in s.applied and s.token == t:
        raise Broken("an Ack that was applied was answered as stale")
    return _sent(s, ("acked", w, t, answer))


def _apply(s: State, c: Clauses, kind: str) -> State:
    status: Status
    if kind == "done":
        status = "completed"
    elif kind == "cancel" or (s.cancel and c.ack_reads_cancel):
        status = "cancelled"
    else:
        status = "pending"
    if s.status in ("completed", "cancelled") and status != s.status:
        raise Broken("a final status was left")
    return s._replace(status=status, owner=-1, cancel=False)


def _store_beats(s: State, w: int, held: object) -> State:
    row = s.rows[w]
    if row.state != "live":
        return _sent(s, ("beaten", w, False, frozenset(), held))
    mine = s.status == "processing" and s.owner == w
    rows = frozenset({(s.token, s.cancel)}) if mine else frozenset()
    return _sent(_with_row(s, w, Row()), ("beaten", w, True, rows, held))


# ------------------------------------------------------------------------------ the worker


def _worker_got(s: State, c: Clauses, w: int, t: int, got: bool) -> State:
    local = s.locals[w]
    known = local.phase(t) == "asked"
    if not got:
        return _with_local(s, w, local.put(t, None)) if known else s
    if not known and (c.claim_abandons or local.phase(t) is not None):
        return s
    s = _with_local(s, w, local.put(t, "run"))._replace(starts=s.starts + 1)
    running = sum(phase == "run" for other in s.locals for _, phase in other.tokens)
    if running > 1 and not s.excused:
        raise Broken("two runs of one job overlapped and no fault explains it")
    # One worker of one slot is ever at fault: it had at most one job in flight.
    if s.starts > 1 + s.excuses + min(1, len(s.excused)):
        raise Broken("a job started more often than faults explain")
    return s


def _worker_acked(s: State, w: int, t: int, answer: str) -> State:
    local = s.locals[w]
    if answer == "stale" and local.phase(t) == "done" and w not in s.blamed:
        raise Broken("a healthy worker's outcome was refused")
    return _with_local(s, w, local.put(t, None))


def _worker_beaten(s: State, c: Clauses, w: int, message: tuple[object, ...]) -> State:
    _, _, alive, rows, sent = message
    assert isinstance(rows, frozenset)
    assert isinstance(sent, frozenset)
    local = s.locals[w]
    if not alive:
        # Declared dead: it ends what it holds, drops the outcomes and never comes back.
        if w not in s.blamed:
            raise Broken("a healthy worker was declared dead")
        return _with_local(s, w, Local("gone"))
    listed = {t for t, _ in rows}
    for t, cancel in rows:
        phase = local.phase(t)
        known = phase is not None if c.beat_compares_now else t in sent
        if not c.held_until_answer and phase in ENDED:
            known = False
        if not known and c.beat_returns_unknown:
            s = _sent(s, ("ack", w, t, "back"))
        if cancel and phase == "run":
            local = local.put(t, "cancel")
    for t, phase in local.tokens:
        missing = t not in listed and (t in sent or not c.beat_loses_only_sent)
        if missing and phase == "run":
            local = local.put(t, None)
    return _with_local(s, w, local)


# ------------------------------------------------------------------------------ small parts


def _on_the_way(s: State, w: int, t: int) -> bool:
    """Whether a request for token *t*, or its answer, has yet to arrive."""
    return any(m[1] == w and m[2] == t and m[0] not in ("beat", "beaten") for m in s.messages)


def _sent(s: State, message: tuple[object, ...]) -> State:
    return s._replace(messages=s.messages | {message})


def _taken(s: State, message: tuple[object, ...]) -> State:
    return s._replace(messages=s.messages - {message})


def _with_local(s: State, w: int, local: Local) -> State:
    first, second = s.locals
    return s._replace(locals=(local, second) if w == 0 else (first, local))


def _with_row(s: State, w: int, row: Row) -> State:
    first, second = s.rows
    return s._replace(rows=(row, second) if w == 0 else (first, row))


def _spend(s: State, what: str) -> State:
    return s._replace(budget=s.budget._replace(**{what: getattr(s.budget, what) - 1}))


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value


def without(clause: str, *more: str) -> Clauses:
    """All clauses but these."""
    return replace(Clauses(), **dict.fromkeys((clause, *more), False))

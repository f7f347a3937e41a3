"""Operations on queues and limits: look, pause, resume, set what all workers together may do."""

from __future__ import annotations

from typing import Literal, cast

from windlass.errors import ConfigError, FieldError
from windlass.job import Limit, QueueInfo
from windlass.limits import Rate, parse_rate
from windlass.options import check_name, did_you_mean
from windlass.server.params import read_json
from windlass.server.problems import Problem
from windlass.server.routes import Answer, Ask, Operation, Outcome
from windlass.server.shapes import LimitBody, PauseBody, RateBody
from windlass.server.views import LimitView, QueueView, encode

__all__ = ["OPERATIONS"]


async def list_queues(ask: Ask) -> Answer:
    queues = await ask.service.app.control.queues()
    return Answer(encode([QueueView.of(queue) for queue in queues]))


async def show_queue(ask: Ask) -> Answer:
    return Answer(encode(QueueView.of(await _queue(ask, _name(ask)))))


async def pause_queue(ask: Ask) -> Answer:
    name = _name(ask)
    body = read_json(PauseBody, ask.body) if ask.body else PauseBody()
    await ask.service.app.control.pause(name, reason=body.reason)
    return Answer(encode(QueueView.of(await _queue(ask, name))))


async def resume_queue(ask: Ask) -> Answer:
    name = _name(ask)
    # A queue that is not there cannot be resumed, and must not come to be by that.
    await _queue(ask, name)
    await ask.service.app.control.resume(name)
    return Answer(encode(QueueView.of(await _queue(ask, name))))


async def list_limits(ask: Ask) -> Answer:
    limits = await ask.service.app.control.limits()
    return Answer(encode([LimitView.of(limit) for limit in limits]))


async def set_limit(ask: Ask) -> Answer:
    scope = ask.path("scope")
    if scope not in ("queue", "type"):
        raise Problem("not-found", f"Limits are of a queue or a type, not of a {scope!r:.80}.")
    name = _name(ask)
    body = read_json(LimitBody, ask.body)
    if body.capacity is not None and scope != "queue":
        raise Problem(
            "invalid-body",
            "Only queues have a capacity.",
            fields=(FieldError("/capacity", "is for queues only."),),
        )
    limit = Limit(
        scope=cast("Literal['queue', 'type']", scope),
        name=name,
        concurrency=body.concurrency,
        rate=_rate(body.rate),
        capacity=body.capacity,
        operator=True,
    )
    await ask.service.app.control.set_limit(limit)
    return Answer(encode(LimitView.of(limit)))


def _rate(given: RateBody | str | None) -> Rate | None:
    try:
        if isinstance(given, str):
            return parse_rate(given)
        if given is None:
            return None
        return Rate(given.count, given.period, given.burst or given.count)
    except ConfigError as error:
        field = FieldError("/rate", str(error))
        raise Problem("invalid-body", str(error), fields=(field,)) from None


async def _queue(ask: Ask, name: str) -> QueueInfo:
    queues = await ask.service.app.control.queues()
    for queue in queues:
        if queue.name == name:
            return queue
    near = did_you_mean(name, [queue.name for queue in queues])
    raise Problem("queue-not-found", f"There is no queue {name!r:.80}{near}.")


def _name(ask: Ask) -> str:
    try:
        return check_name(ask.path("name"), "A name")
    except ConfigError as error:
        raise Problem("not-found", str(error)) from None


_QUEUE = {200: Outcome("The queue.", QueueView)}

OPERATIONS = (
    Operation(
        "GET", "/queues", list_queues, "All queues, with their counts",
        {200: Outcome("By name.", list[QueueView])},
    ),
    Operation(
        "GET", "/queues/{name}", show_queue, "A queue", _QUEUE,
        ("queue-not-found", "not-found"),
    ),
    Operation(
        "POST", "/queues/{name}/pause", pause_queue, "Stop starting jobs of a queue", _QUEUE,
        ("not-found",), body=PauseBody, body_optional=True,
    ),
    Operation(
        "POST", "/queues/{name}/resume", resume_queue, "Go on starting jobs of a queue", _QUEUE,
        ("queue-not-found", "not-found"),
    ),
    Operation(
        "GET", "/limits", list_limits, "All limits",
        {200: Outcome("Declared in code, and set by operators.", list[LimitView])},
    ),
    Operation(
        "PUT", "/limits/{scope}/{name}", set_limit, "Set the limit of a queue or a task type, whole",
        {200: Outcome("The limit.", LimitView)}, ("not-found",), body=LimitBody,
    ),
)  # fmt: skip

"""The OpenAPI 3.1 document, generated from the table of operations and the registered tasks.

Nothing is described twice: parameters and bodies come from the structs that check them, answers
from the views, problems from the catalogue, payloads from the tasks' signatures. Only the job
options are written down here, because their checks (``options.py``) say more than a schema can.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, get_args

import msgspec

import windlass
from windlass.job import Status
from windlass.server.problems import PROBLEM_TYPE, PROBLEMS, ProblemBody
from windlass.server.routes import EVENTS, JSON, NDJSON, Operation, Outcome
from windlass.server.shapes import KEY_PATTERN, NAME_PATTERN, EnqueueBody
from windlass.server.views import JobEvent

if TYPE_CHECKING:
    from windlass.tasks import Registry

__all__ = ["document"]

_REF = "#/components/schemas/{name}"
_Schema = dict[str, Any]

_DESCRIPTION = """\
Durable background jobs. Errors are problem details (RFC 9457): switch on `code`. Times are RFC 3339
in UTC, durations seconds. Every GET also answers HEAD; every path answers OPTIONS with `Allow`, and
other methods with 405. Every answer bears `X-Request-Id`."""

_NULL: _Schema = {"type": "null"}
_DURATION: _Schema = {
    "description": "Seconds, or text such as `30s`, `5m`, `1h30m`.",
    "oneOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "examples": ["30s", "5m", "1h30m"]},
    ],
}
_LINE: _Schema = {"type": "string", "minLength": 1, "maxLength": 256}


def _duration(least: float, most: float) -> _Schema:
    number = {"type": "number", "minimum": least, "maximum": most}
    return {**_DURATION, "oneOf": [number, _DURATION["oneOf"][1], _NULL]}


def _event(name: str, data: _Schema) -> _Schema:
    text = {"type": "string", "contentMediaType": JSON, "contentSchema": data}
    return {
        "type": "object",
        "properties": {"event": {"const": name}, "id": {"type": "string"}, "data": text},
        "required": ["event", "data"],
    }


_EVENT: _Schema = {
    "description": "One event of the stream.",
    "oneOf": [
        _event("job", {"$ref": _REF.format(name="JobEvent")}),
        _event("reset", {"type": "object", "maxProperties": 0}),
    ],
}

_YEAR = 365.25 * 86400

OPTIONS: Mapping[str, _Schema] = {
    "id": {
        "type": ["string", "null"],
        "format": "uuid",
        "description": "Your own id: the same request again answers the same job.",
    },
    "key": {
        **_LINE,
        "type": ["string", "null"],
        "description": "An idempotency key, as the header Idempotency-Key.",
    },
    "queue": {"type": "string", "pattern": NAME_PATTERN},
    "priority": {
        "type": "integer",
        "minimum": -100,
        "maximum": 100,
        "description": "Higher first: each step is a head start of one minute.",
    },
    "delay": _duration(0, 10 * _YEAR),
    "run_at": {
        "description": "With a time zone.",
        "anyOf": [{"type": "string", "format": "date-time"}, _NULL],
    },
    "max_attempts": {"type": "integer", "minimum": 1, "maximum": 1000},
    "timeout": _duration(0.01, 30 * 86400),
    "expires": _duration(0.01, 10 * _YEAR),
    "unique": {
        "description": "At most one job with this key among those within the statuses.",
        "oneOf": [
            _NULL,
            _LINE,
            {
                "type": "object",
                "properties": {
                    "key": _LINE,
                    "within": {
                        "oneOf": [
                            {"enum": ["waiting", "active"]},
                            {
                                "type": "array",
                                "minItems": 1,
                                "items": {"enum": [str(status) for status in Status]},
                            },
                        ]
                    },
                    "on_conflict": {"enum": ["return", "replace", "reject"]},
                },
                "required": ["key"],
                "additionalProperties": False,
            },
        ],
    },
    "tags": {
        "type": "array",
        "maxItems": 20,
        "items": {"type": "string", "minLength": 1, "maxLength": 64},
    },
    "meta": {
        "type": "object",
        "maxProperties": 20,
        "additionalProperties": {"type": "string", "maxLength": 1024},
    },
    "on_lost": {"enum": ["retry", "fail"], "description": "`fail`: at most one run."},
}


def document(
    operations: Iterable[Operation], registry: Registry, *, root: str, token: bool
) -> _Schema:
    """The document for an API that is mounted at *root*; *token*: whether one is needed."""
    operations = tuple(operations)
    schemas = _schemas(operations)
    schemas["Enqueue"] = _enqueue(registry, schemas)
    paths: dict[str, _Schema] = {}
    for operation in operations:
        shown = _operation(operation, schemas, token)
        paths.setdefault(operation.path, {})[operation.method.lower()] = shown
    components: _Schema = {"schemas": schemas}
    if token:
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Windlass",
            "version": windlass.__version__,
            "description": _DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": components,
    }


# ------------------------------------------------------------------ operations


def _operation(operation: Operation, schemas: Mapping[str, _Schema], token: bool) -> _Schema:
    shown: _Schema = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1] or "service"],
        "responses": _responses(operation, token),
    }
    parameters = [*_path_parameters(operation), *_query_parameters(operation, schemas)]
    if operation.prefer_wait:
        parameters.append(
            _header("Prefer", "`wait=10`: answer when the job has ended, or after 10 seconds.",
                    {"type": "string"})
        )  # fmt: skip
    if operation.idempotency_key:
        parameters.append(
            _header("Idempotency-Key", "Repeating a request under one key makes one job.",
                    {"type": "string", "minLength": 1, "maxLength": 256,
                     "pattern": KEY_PATTERN})
        )  # fmt: skip
    if operation.path == "/events":
        parameters.append(
            _header("Last-Event-ID", "Where to go on from; sent by EventSource.",
                    {"type": "string"})
        )  # fmt: skip
    if parameters:
        shown["parameters"] = parameters
    if operation.body is not None:
        shown["requestBody"] = _request_body(operation)
    if token:
        shown["security"] = [] if operation.public else [{"token": []}]
    return shown


def _path_parameters(operation: Operation) -> list[_Schema]:
    kinds: dict[str, _Schema] = {
        "id": {"type": "string", "format": "uuid"},
        "name": {"type": "string", "pattern": NAME_PATTERN},
        "scope": {"enum": ["queue", "type"]},
    }
    return [
        {"name": name, "in": "path", "required": True, "schema": kinds[name]}
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]


def _query_parameters(operation: Operation, schemas: Mapping[str, _Schema]) -> list[_Schema]:
    if operation.query is None:
        return []
    shape = schemas[operation.query.__name__]
    return [
        {"name": name, "in": "query", "schema": _without_null(schema)}
        for name, schema in shape["properties"].items()
    ]


def _header(name: str, description: str, schema: _Schema) -> _Schema:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def _request_body(operation: Operation) -> _Schema:
    body = operation.body
    assert body is not None
    one = {"$ref": _REF.format(name="Enqueue" if body is EnqueueBody
                               else body.__name__)}  # fmt: skip
    if not operation.ndjson:
        return {"required": not operation.body_optional, "content": {JSON: {"schema": one}}}
    many = {"type": "array", "items": one, "minItems": 1, "maxItems": 1000}
    lines = {"schema": {"type": "string", "description": "A job per line."}}
    return {"required": True, "content": {JSON: {"schema": many}, NDJSON: lines}}


def _responses(operation: Operation, token: bool) -> _Schema:
    shown: _Schema = {}
    for status, outcome in sorted(operation.outcomes.items()):
        shown[str(status)] = _outcome(outcome)
    codes = [*operation.implied, *operation.problems]
    if token and not operation.public:
        codes.append("unauthorized")
    by_status: dict[int, list[str]] = {}
    for code in codes:
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    for status, named in sorted(by_status.items()):
        titles = "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in dict.fromkeys(named))
        shown[str(status)] = {
            "description": titles,
            "content": {PROBLEM_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    return shown


def _outcome(outcome: Outcome) -> _Schema:
    schema: _Schema
    if outcome.content_type == EVENTS:
        schema = _EVENT
    elif outcome.schema is None:
        schema = {"type": "string"}
    elif outcome.schema is dict:
        schema = {"type": "object"}
    elif args := get_args(outcome.schema):
        schema = {"type": "array", "items": {"$ref": _REF.format(name=args[0].__name__)}}
    else:
        schema = {"$ref": _REF.format(name=outcome.schema.__name__)}
    shown: _Schema = {
        "description": outcome.description,
        "content": {outcome.content_type: {"schema": schema}},
    }
    if outcome.headers:
        shown["headers"] = {name: {"schema": {"type": "string"}} for name in outcome.headers}
    return shown


# ------------------------------------------------------------------ schemas


def _schemas(operations: Iterable[Operation]) -> dict[str, _Schema]:
    """Every struct that the table names, and what they refer to."""
    kinds: list[Any] = [ProblemBody]
    for operation in operations:
        # The decoder of an enqueue leaves the options to the client: see _enqueue().
        kinds += [
            kind for kind in (operation.query, operation.body) if kind not in (None, EnqueueBody)
        ]
        kinds += [outcome.schema for outcome in operation.outcomes.values() if outcome.schema]
    _, schemas = msgspec.json.schema_components(list(dict.fromkeys(kinds)), ref_template=_REF)
    schemas["Problem"] = schemas.pop("ProblemBody")
    schemas["FilterBody"]["minProperties"] = 1
    schemas["BulkBody"]["oneOf"] = [{"required": ["filter"]}, {"required": ["ids"]}]
    schemas["JobEvent"] = msgspec.json.schema_components([JobEvent], ref_template=_REF)[1][
        "JobEvent"
    ]
    return schemas


def _enqueue(registry: Registry, schemas: dict[str, _Schema]) -> _Schema:
    """The body of an enqueue: one alternative per task, with that task's payload."""
    alternatives = []
    for task in registry.tasks():
        payload = task.signature.schema(_REF)
        for name, schema in payload.pop("$defs", {}).items():
            schemas.setdefault(name, schema)
        name = "Enqueue." + re.sub(r"[^A-Za-z0-9._-]", "-", task.type)
        needs = ["type", "payload"] if payload.get("required") else ["type"]
        schemas[name] = {
            "type": "object",
            "description": task.__doc__ or "",
            "properties": {
                "type": {"enum": [task.type, *task.aliases]},
                "payload": payload,
                **OPTIONS,
            },
            "required": needs,
            "not": {"anyOf": [{"required": ["id", "key"]}, {"required": ["delay", "run_at"]}]},
            "additionalProperties": False,
        }
        alternatives.append({"$ref": _REF.format(name=name)})
    if alternatives:
        return {"oneOf": alternatives}
    return {
        "type": "object",
        "properties": {"type": {"enum": []}, "payload": {"type": "object"}, **OPTIONS},
        "required": ["type"],
        "additionalProperties": False,
    }


def _without_null(schema: _Schema) -> _Schema:
    """A parameter is given or not; there is no null in a query string."""
    options = schema.get("anyOf")
    if options is None:
        return {
            key: value for key, value in schema.items() if value is not None or key != "default"
        }
    rest = [option for option in options if option != _NULL]
    kept = {k: v for k, v in schema.items() if k not in ("anyOf", "default")}
    return kept | (rest[0] if len(rest) == 1 else {"anyOf": rest})

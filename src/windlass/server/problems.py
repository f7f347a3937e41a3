"""What the API says when it does not do what was asked: problem details (RFC 9457), always.

``PROBLEMS`` is the whole catalogue, so that a client can switch on ``code`` and the OpenAPI document
lists each. :func:`problem_of` turns Windlass's own errors into entries of it, in one place; anything
it does not know is a bug of ours and becomes ``internal``, which tells nothing about the inside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from windlass import errors
from windlass.errors import FieldError

__all__ = ["PROBLEMS", "PROBLEM_TYPE", "Problem", "ProblemBody", "ProblemKind", "problem_of"]

PROBLEM_TYPE = "application/problem+json"


class ProblemKind(NamedTuple):
    """An entry of the catalogue: the HTTP status, and a title that is the same each time."""

    status: int
    title: str


PROBLEMS: Mapping[str, ProblemKind] = {
    "malformed-json": ProblemKind(400, "The body is not JSON"),
    "bad-header": ProblemKind(400, "A header makes no sense"),
    "unauthorized": ProblemKind(401, "A valid token is needed"),
    "forbidden": ProblemKind(403, "Not allowed from there"),
    "not-found": ProblemKind(404, "No such resource"),
    "job-not-found": ProblemKind(404, "No such job"),
    "queue-not-found": ProblemKind(404, "No such queue"),
    "method-not-allowed": ProblemKind(405, "The resource has no such method"),
    "request-timeout": ProblemKind(408, "The request came too slowly"),
    "id-conflict": ProblemKind(409, "The id or key stands for another job"),
    "duplicate-job": ProblemKind(409, "The unique key is held by another job"),
    "wrong-status": ProblemKind(409, "The job's status does not allow this"),
    "job-gone": ProblemKind(410, "The job ended and was pruned"),
    "body-too-large": ProblemKind(413, "The body is too large"),
    "unsupported-media-type": ProblemKind(415, "The body is of a wrong content type"),
    "wrong-host": ProblemKind(421, "The Host header names another server"),
    "invalid-body": ProblemKind(422, "The body does not say what is needed"),
    "invalid-parameter": ProblemKind(422, "A parameter is wrong"),
    "invalid-payload": ProblemKind(422, "The payload does not fit the task"),
    "invalid-option": ProblemKind(422, "A job option is wrong"),
    "unknown-task": ProblemKind(422, "No task of this type is registered"),
    "queue-full": ProblemKind(429, "The queue is full"),
    "rate-limited": ProblemKind(429, "Too many requests"),
    "too-many-streams": ProblemKind(429, "Too many event streams are open"),
    "headers-too-large": ProblemKind(431, "The headers are too large"),
    "internal": ProblemKind(500, "An error of the server"),
    "not-supported": ProblemKind(501, "This store cannot do that"),
    "stopping": ProblemKind(503, "The server is shutting down"),
    "not-ready": ProblemKind(503, "The server is not ready"),
    "store-unavailable": ProblemKind(503, "The store does not answer"),
    "store-full": ProblemKind(507, "The store has no room left"),
}


class ProblemField(msgspec.Struct, frozen=True):
    """One thing wrong with the request: a JSON pointer into the body, and what to do about it."""

    pointer: str
    detail: str


class ProblemBody(msgspec.Struct, frozen=True, omit_defaults=True):
    """The JSON object that is sent."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ProblemField] = []


class Problem(Exception):
    """Ends the handling of a request with an entry of the catalogue.

    ``detail`` is one sentence for people; ``fields`` points at what is wrong; ``headers`` are sent
    along (names in lower case).
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        fields: tuple[FieldError, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fields = fields
        self.headers = headers or {}

    @property
    def status(self) -> int:
        return PROBLEMS[self.code].status

    def under(self, pointer: str) -> Problem:
        """The same problem with all its fields below *pointer* (one job of a batch)."""
        fields = tuple(FieldError(pointer + field.pointer, field.detail) for field in self.fields)
        return Problem(
            self.code,
            self.detail,
            fields=fields or (FieldError(pointer, self.detail),),
            headers=self.headers,
        )

    def body(self, request_id: str) -> bytes:
        kind = PROBLEMS[self.code]
        return msgspec.json.encode(
            ProblemBody(
                type=f"urn:windlass:problem:{self.code}",
                title=kind.title,
                status=kind.status,
                detail=_printable(self.detail),
                code=self.code,
                request_id=request_id,
                errors=[
                    ProblemField(_printable(field.pointer), _printable(field.detail))
                    for field in self.fields
                ],
            )
        )


def problem_of(error: Exception) -> Problem | None:
    """The problem that *error* is to a client; None when it is not one that we foresaw."""
    text = str(error)
    match error:
        case Problem():
            return error
        case errors.PayloadError():
            fields = tuple(
                FieldError(f"/payload{field.pointer}", field.detail) for field in error.errors
            )
            return Problem(
                "invalid-payload", text, fields=fields or (FieldError("/payload", text),)
            )
        case errors.UnknownTask():
            return Problem("unknown-task", text, fields=(FieldError("/type", text),))
        case errors.QueueFull():
            return Problem(
                "queue-full", text, headers=retry_after(error.retry_after.total_seconds())
            )
        case errors.DuplicateJob():
            return Problem("duplicate-job", text)
        case errors.IdConflict():
            return Problem("id-conflict", text)
        case errors.JobNotFound():
            return Problem("job-not-found", text)
        case errors.JobGone():
            return Problem("job-gone", text)
        case errors.ConfigError():
            return Problem("invalid-option", text)
        case errors.StoreFull():
            return Problem("store-full", text)
        case errors.NotSupported():
            return Problem("not-supported", text)
        case errors.Closed():
            return Problem("stopping", text, headers=retry_after(1))
        case errors.StoreError():
            return Problem("store-unavailable", text, headers=retry_after(1))
        case _:
            return None


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when to try again: whole seconds, rounded up, at least one."""
    return {"retry-after": str(max(1, math.ceil(seconds)))}


def _printable(text: str) -> str:
    """*text* as valid UTF-8 whatever a client sent: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode()

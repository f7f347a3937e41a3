"""The shapes of what clients send: query strings and JSON bodies, as structs.

A struct is both the check and the documentation: ``params.py`` reads requests by it, and
``openapi.py`` describes it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from windlass.job import Status

MAX_WAIT = 60.0
"""Seconds that a request may wait for a job to end."""

KEY_PATTERN = "^[!-~]([ -~]{0,254}[!-~])?$"
NAME_PATTERN = "^[A-Za-z0-9._:-]{1,64}$"
# Without NUL, which no store keeps: asking for it can find nothing.
_TEXT_PATTERN = "^[^\\u0000]*$"

Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(min_length=1, max_length=256, pattern=_TEXT_PATTERN)]
When = Annotated[datetime, Meta(tz=True)]
Wait = Annotated[float, Meta(ge=0, le=MAX_WAIT)]


class WaitQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``wait``: seconds to wait for the job's end."""

    wait: Wait | UnsetType = UNSET


class LogQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``after``: only lines with a higher ``seq``."""

    after: Annotated[int, Meta(ge=0, le=2**53)] = 0
    limit: Annotated[int, Meta(ge=1, le=1000)] = 1000


class FilterBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which jobs: fields are ANDed, the values of one field ORed."""

    status: list[Status] = []
    type: list[Name] = []
    queue: list[Name] = []
    tag: list[Text] = []
    worker: list[Text] = []
    created_from: When | UnsetType = UNSET
    created_to: When | UnsetType = UNSET
    q: Text | UnsetType = UNSET
    """Text that occurs in the payload's JSON."""
    unique_key: Text | UnsetType = UNSET


class JobQuery(FilterBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of a listing."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    order: Literal["newest", "oldest"] = "newest"
    cursor: Annotated[str, Meta(min_length=1, max_length=64)] | UnsetType = UNSET


class EventQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs' events."""

    id: list[Annotated[str, Meta(min_length=1, max_length=64)]] = []
    type: list[Name] = []
    queue: list[Name] = []


class FailureQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose failures."""

    type: list[Name] = []
    queue: list[Name] = []


class EnqueueBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A job to enqueue. The options are judged where all callers' options are, by ``options.py``."""

    type: str
    payload: msgspec.Raw = msgspec.Raw(b"{}")
    id: str | None = None
    key: str | None = None
    queue: Any = UNSET
    priority: Any = UNSET
    delay: Any = UNSET
    run_at: Any = UNSET
    max_attempts: Any = UNSET
    timeout: Any = UNSET
    expires: Any = UNSET
    unique: Any = UNSET
    tags: Any = UNSET
    meta: Any = UNSET
    on_lost: Any = UNSET

    def overrides(self) -> dict[str, Any]:
        """The options that were given."""
        found = {}
        for name in OPTION_NAMES:
            if (value := getattr(self, name)) is not UNSET:
                found[name] = value
        return found


OPTION_NAMES = EnqueueBody.__struct_fields__[4:]


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``reason``: kept with the job."""

    reason: Text = "cancelled on request"


class PauseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``reason``: shown to whoever wonders why nothing runs."""

    reason: Text | None = None


class BulkBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The jobs of ``filter``, or those of ``ids``."""

    filter: FilterBody | UnsetType = UNSET
    ids: Annotated[list[Annotated[str, Meta(max_length=64)]], Meta(max_length=1000)] | UnsetType = (
        UNSET
    )
    dry_run: bool = False
    """Only count."""
    limit: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    reason: Text = "cancelled on request"


class RateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``count`` starts per ``period`` seconds, at most ``burst`` (if not given: ``count``) at once."""

    count: Annotated[int, Meta(ge=1, le=1_000_000_000)]
    period: Annotated[float, Meta(ge=0.001, le=366 * 86400)] = 1.0
    burst: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None


class LimitBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A limit, whole: what is left out is not limited."""

    concurrency: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    rate: (
        RateBody
        | Annotated[str, Meta(max_length=40, description="Such as `10/s`, `100/minute`, `5/10s`.")]
        | None
    ) = None
    capacity: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None

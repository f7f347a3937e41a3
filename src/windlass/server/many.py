"""Operations on many jobs at once: list, enqueue a batch, cancel or retry in bulk."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl, urlencode

from msgspec import UNSET

from windlass.control import BulkAnswer
from windlass.errors import ConfigError, FieldError
from windlass.job import JobFilter, JobId, NewJob
from windlass.options import job_id
from windlass.server.jobs import ENQUEUE_PROBLEMS, new_job
from windlass.server.params import cursor_of, filter_of, read_cursor, read_json, read_query
from windlass.server.problems import Problem, problem_of
from windlass.server.routes import NDJSON, Answer, Ask, Operation, Outcome
from windlass.server.shapes import BulkBody, EnqueueBody, JobQuery
from windlass.server.views import JobView, encode
from windlass.store import Inserted

__all__ = ["OPERATIONS"]

MAX_BATCH = 1_000
MAX_BATCH_BODY = 16 * 1024 * 1024
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page of jobs with large payloads ends early; its cursor leads on."""


async def list_jobs(ask: Ask) -> Answer:
    query = read_query(JobQuery, ask.query)
    page = await ask.service.app.control.find(
        filter_of(query),
        query.limit,
        after=read_cursor(query.cursor, query.order),
        oldest_first=query.order == "oldest",
    )
    shown = list[bytes]()
    size, following = 0, page.next
    for job in page.jobs:
        one = encode(JobView.of(job))
        if shown and size + len(one) > MAX_PAGE_BYTES:
            following = page.jobs[len(shown) - 1].seq
            break
        shown.append(one)
        size += len(one)
    headers = {}
    if following is not None:
        headers["link"] = _next_link(ask, cursor_of(following, query.order))
    return Answer(b"[" + b",".join(shown) + b"]", headers=headers)


def _next_link(ask: Ask, cursor: str) -> str:
    pairs = [pair for pair in parse_qsl(ask.query.decode("latin-1")) if pair[0] != "cursor"]
    return f'<{ask.root}/jobs?{urlencode([*pairs, ("cursor", cursor)])}>; rel="next"'


async def create_batch(ask: Ask) -> Answer:
    bodies = _batch_bodies(ask)
    if not 1 <= len(bodies) <= MAX_BATCH:
        raise Problem(
            "invalid-body",
            f"A batch has 1 to {MAX_BATCH:,} jobs, and this one has {len(bodies):,}.",
        )
    new: list[NewJob] = []
    for index, body in enumerate(bodies):
        try:
            new.append(new_job(ask, body, None))
        except Exception as error:
            problem = problem_of(error)
            raise (error if problem is None else problem.under(f"/{index}")) from None
    inserted = await ask.service.app.client.insert(new)
    views = [JobView.of(each.job, duplicate=each.duplicate) for each in inserted]
    return Answer(encode(views), _batch_status(inserted))


def _batch_status(inserted: Sequence[Inserted]) -> int:
    return 200 if all(each.duplicate for each in inserted) else 201


def _batch_bodies(ask: Ask) -> list[EnqueueBody]:
    if not ask.headers.get("content-type", "").lower().startswith(NDJSON):
        return read_json(list[EnqueueBody], ask.body, max_bytes=MAX_BATCH_BODY)
    lines = [line for line in ask.body.split(b"\n") if line.strip()]
    bodies = []
    for index, line in enumerate(lines[: MAX_BATCH + 1]):
        try:
            bodies.append(read_json(EnqueueBody, line))
        except Problem as problem:
            raise problem.under(f"/{index}") from None
    return bodies


async def cancel_many(ask: Ask) -> Answer:
    body = read_json(BulkBody, ask.body)
    answer = await ask.service.app.control.cancel(
        _which(body), reason=body.reason, dry_run=body.dry_run, limit=body.limit
    )
    return Answer(encode(answer))


async def retry_many(ask: Ask) -> Answer:
    body = read_json(BulkBody, ask.body)
    answer = await ask.service.app.control.retry(
        _which(body), dry_run=body.dry_run, limit=body.limit
    )
    return Answer(encode(answer))


def _which(body: BulkBody) -> list[JobId] | JobFilter:
    if (body.filter is UNSET) == (body.ids is UNSET):
        raise Problem("invalid-body", "Say which jobs: either by filter or by ids.")
    if body.filter is not UNSET:
        where = filter_of(body.filter)
        if where == JobFilter():
            raise Problem(
                "invalid-body",
                "An empty filter would mean all jobs: name at least one condition, such as status.",
                fields=(FieldError("/filter", "needs at least one condition."),),
            )
        return where
    ids = []
    for index, text in enumerate(body.ids or ()):
        try:
            ids.append(job_id(text))
        except ConfigError as error:
            field = FieldError(f"/ids/{index}", str(error))
            raise Problem("invalid-body", str(error), fields=(field,)) from None
    return ids


OPERATIONS = (
    Operation(
        "GET", "/jobs", list_jobs, "List jobs, a page at a time",
        {200: Outcome("Newest first; `Link` leads to the next page.", list[JobView],
                      headers=("Link",))},
        query=JobQuery,
    ),
    Operation(
        "POST", "/jobs/batch", create_batch, "Enqueue up to 1,000 jobs, all or none",
        {
            201: Outcome("Accepted, in order.", list[JobView]),
            200: Outcome("All of them stood already.", list[JobView]),
        },
        ENQUEUE_PROBLEMS, body=EnqueueBody, ndjson=True, body_limit=MAX_BATCH_BODY,
    ),
    Operation(
        "POST", "/jobs/bulk/cancel", cancel_many, "Cancel many jobs, or count them first",
        {200: Outcome("What was done, or would be.", BulkAnswer)}, body=BulkBody,
    ),
    Operation(
        "POST", "/jobs/bulk/retry", retry_many, "Retry many jobs, or count them first",
        {200: Outcome("What was done, or would be.", BulkAnswer)}, body=BulkBody,
    ),
)  # fmt: skip

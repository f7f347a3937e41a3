"""Operations on jobs: enqueue one or many, look, wait, explain, cancel, retry, in bulk too.

Each handler parses, calls one method of ``client`` or ``control``, and serialises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlencode

from msgspec import UNSET

from windlass.control import BulkAnswer
from windlass.errors import ConfigError, FieldError, ResultTimeout
from windlass.job import FINAL, Job, JobFilter, JobId, NewJob, Status
from windlass.options import job_id, merge_options
from windlass.server.params import (
    BulkBody,
    CancelBody,
    EnqueueBody,
    EventQuery,
    JobQuery,
    LogQuery,
    NoQuery,
    WaitQuery,
    cursor_of,
    faulty_option,
    filter_of,
    preferred_wait,
    read_cursor,
    read_json,
    read_query,
)
from windlass.server.problems import Problem, problem_of
from windlass.server.routes import EVENTS, NDJSON, Answer, Ask, Operation, Outcome, Stream
from windlass.server.service import MAX_WAITERS
from windlass.server.stream import Wanted, follow
from windlass.server.views import (
    JobView,
    LogLineView,
    WhyView,
    encode,
)
from windlass.server.waits import race, until_gone
from windlass.store import Inserted

__all__ = ["OPERATIONS"]

MAX_BATCH = 1_000
MAX_BATCH_BODY = 16 * 1024 * 1024
MAX_PAGE_BYTES = 8 * 1024 * 1024
"""A page of jobs with large payloads ends early; its cursor leads on."""

_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,254}[\x21-\x7e])?")


# ------------------------------------------------------------------ enqueueing


async def create_job(ask: Ask) -> Answer:
    read_query(NoQuery, ask.query)
    body = read_json(EnqueueBody, ask.body)
    new = _new_job(ask, body, _idempotency_key(ask.headers))
    (inserted,) = await ask.service.app.client.insert((new,))
    job = inserted.job
    status = 200 if inserted.duplicate else 201
    headers = {"location": f"{ask.root}/jobs/{job.id}"}
    if (seconds := preferred_wait(ask.headers)) is not None:
        headers["preference-applied"] = f"wait={seconds:g}"
        ended = await _ended(ask, job, seconds)
        status, job = (status, ended) if ended is not None else (202, job)
    return Answer(encode(JobView.of(job, duplicate=inserted.duplicate)), status, headers=headers)


async def create_batch(ask: Ask) -> Answer:
    read_query(NoQuery, ask.query)
    bodies = _batch_bodies(ask)
    if not 1 <= len(bodies) <= MAX_BATCH:
        raise Problem(
            "invalid-body",
            f"A batch has 1 to {MAX_BATCH:,} jobs, and this one has {len(bodies):,}.",
        )
    new: list[NewJob] = []
    for index, body in enumerate(bodies):
        try:
            new.append(_new_job(ask, body, None))
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


def _new_job(ask: Ask, body: EnqueueBody, key: str | None) -> NewJob:
    """The job that *body* asks for. Raises Problem with pointers into the body."""
    client = ask.service.app.client
    if key is not None and body.key is not None and key != body.key:
        raise Problem(
            "invalid-body",
            "The header Idempotency-Key and the field key differ: send one of them.",
            fields=(FieldError("/key", "differs from the header Idempotency-Key."),),
        )
    overrides = body.overrides()
    try:
        return client.new_job(
            body.type, bytes(body.payload), overrides, id=body.id, key=key or body.key
        )
    except ConfigError as error:
        task = client.registry.get(body.type)
        assert task is not None
        defaults = task.defaults
        fields = faulty_option(overrides, lambda options: merge_options(defaults, options))
        if not fields and body.id is not None:
            fields = (FieldError("/id", str(error)),)
        raise Problem("invalid-option", str(error), fields=fields) from None


def _idempotency_key(headers: Mapping[str, str]) -> str | None:
    """The header's value, which may be quoted as a structured field is."""
    text = headers.get("idempotency-key")
    if text is None:
        return None
    key = text[1:-1] if len(text) > 2 and text[0] == text[-1] == '"' else text
    if not _KEY.fullmatch(key):
        raise Problem(
            "bad-header",
            "An Idempotency-Key is 1 to 256 printable ASCII characters, such as a UUID.",
        )
    return key


# ------------------------------------------------------------------ looking


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


async def show_job(ask: Ask) -> Answer:
    query = read_query(WaitQuery, ask.query)
    seconds = preferred_wait(ask.headers) if query.wait is UNSET else query.wait
    job = await ask.service.app.control.get(_id(ask))
    headers = {}
    if seconds is not None:
        job = await _ended(ask, job, seconds) or job
        headers["preference-applied"] = f"wait={seconds:g}"
    return Answer(encode(JobView.of(job)), headers=headers)


async def show_logs(ask: Ask) -> Answer:
    query = read_query(LogQuery, ask.query)
    job = await ask.service.app.control.get(_id(ask))
    lines = await ask.service.app.control.logs(job.id, after=query.after, limit=query.limit)
    return Answer(encode([LogLineView.of(line) for line in lines]))


async def show_why(ask: Ask) -> Answer:
    read_query(NoQuery, ask.query)
    return Answer(encode(WhyView.of(await ask.service.app.control.why(_id(ask)))))


async def follow_events(ask: Ask) -> Answer | Stream:
    query = read_query(EventQuery, ask.query)
    place = ask.headers.get("last-event-id")
    feed = ask.service.feed
    feed.enter()
    wanted = Wanted(frozenset(query.id), frozenset(query.type), frozenset(query.queue))
    return Stream(follow(feed, wanted, place), headers={"x-accel-buffering": "no"})


async def _ended(ask: Ask, job: Job, seconds: float) -> Job | None:
    """*job* once it has ended; None when it has not in time, or nobody should wait any longer."""
    service = ask.service
    if job.status in FINAL:
        return job
    if seconds <= 0 or service.waiters >= MAX_WAITERS:
        return None
    service.waiters += 1
    try:
        return await race(
            service.app.client.wait(job.id, seconds, known=True),
            until_gone(ask.receive),
            service.until_draining(),
        )
    except ResultTimeout:
        return None
    finally:
        service.waiters -= 1


def _id(ask: Ask) -> JobId:
    text = ask.path("id")
    try:
        return job_id(text)
    except ConfigError:
        raise Problem("job-not-found", f"There is no job {text!r:.80}: ids are UUIDs.") from None


# ------------------------------------------------------------------ intervening


async def cancel_job(ask: Ask) -> Answer:
    read_query(NoQuery, ask.query)
    chosen = _id(ask)
    body = read_json(CancelBody, ask.body) if ask.body else CancelBody()
    control = ask.service.app.control
    await control.cancel([chosen], reason=body.reason)
    job = await control.get(chosen)
    if job.status in FINAL and job.status is not Status.CANCELLED:
        raise Problem(
            "wrong-status", f"Job {chosen} is {job.status} already and cannot be cancelled."
        )
    return Answer(encode(JobView.of(job)))


async def retry_job(ask: Ask) -> Answer:
    read_query(NoQuery, ask.query)
    chosen = _id(ask)
    control = ask.service.app.control
    answer = await control.retry([chosen])
    job = await control.get(chosen)
    if "key taken" in answer.skipped:
        raise Problem("duplicate-job", f"Another job holds the unique key {job.unique_key!r} now.")
    if answer.skipped:
        raise Problem("wrong-status", f"Job {chosen} is {job.status}: only jobs that ended, or wait for "
                      "their time, can be retried.")  # fmt: skip
    return Answer(encode(JobView.of(job)))


async def cancel_many(ask: Ask) -> Answer:
    read_query(NoQuery, ask.query)
    body = read_json(BulkBody, ask.body)
    answer = await ask.service.app.control.cancel(
        _which(body), reason=body.reason, dry_run=body.dry_run, limit=body.limit
    )
    return Answer(encode(answer))


async def retry_many(ask: Ask) -> Answer:
    read_query(NoQuery, ask.query)
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


# ------------------------------------------------------------------ the table

_JOB = {200: Outcome("The job.", JobView)}
_STORE = ("store-unavailable",)
_ENQUEUE = (
    "malformed-json", "bad-header", "request-timeout", "id-conflict", "duplicate-job",
    "body-too-large", "unsupported-media-type", "invalid-body", "invalid-payload", "invalid-option",
    "unknown-task", "queue-full", "store-unavailable", "store-full", "invalid-parameter",
)  # fmt: skip
_BODY = (
    "malformed-json", "request-timeout", "body-too-large", "unsupported-media-type", "invalid-body",
    "invalid-parameter", "store-unavailable", "store-full",
)  # fmt: skip

OPERATIONS = (
    Operation(
        "POST", "/jobs", create_job, "Enqueue a job",
        {
            201: Outcome("Accepted, and durable.", JobView, headers=("Location",)),
            200: Outcome("It stood already (`duplicate` is true).", JobView, headers=("Location",)),
            202: Outcome("Accepted; it has not ended within `Prefer: wait`.", JobView,
                         headers=("Location",)),
        },
        (*_ENQUEUE, "job-gone"), body=EnqueueBody, prefer_wait=True, idempotency_key=True,
    ),
    Operation(
        "GET", "/jobs", list_jobs, "List jobs, a page at a time",
        {200: Outcome("Newest first; `Link` leads to the next page.", list[JobView],
                      headers=("Link",))},
        (*_STORE, "invalid-parameter"), query=JobQuery,
    ),
    Operation(
        "POST", "/jobs/batch", create_batch, "Enqueue up to 1,000 jobs, all or none",
        {
            201: Outcome("Accepted, in order.", list[JobView]),
            200: Outcome("All of them stood already.", list[JobView]),
        },
        _ENQUEUE, body=EnqueueBody, ndjson=True, body_limit=MAX_BATCH_BODY,
    ),
    Operation(
        "POST", "/jobs/bulk/cancel", cancel_many, "Cancel many jobs, or count them first",
        {200: Outcome("What was done, or would be.", BulkAnswer)}, _BODY, body=BulkBody,
    ),
    Operation(
        "POST", "/jobs/bulk/retry", retry_many, "Retry many jobs, or count them first",
        {200: Outcome("What was done, or would be.", BulkAnswer)}, _BODY, body=BulkBody,
    ),
    Operation(
        "GET", "/jobs/{id}", show_job, "A job, now or once it has ended", _JOB,
        (*_STORE, "job-not-found", "job-gone", "invalid-parameter"), query=WaitQuery,
        prefer_wait=True,
    ),
    Operation(
        "GET", "/jobs/{id}/logs", show_logs, "What a job's runs wrote",
        {200: Outcome("In order.", list[LogLineView])},
        (*_STORE, "job-not-found", "invalid-parameter"), query=LogQuery,
    ),
    Operation(
        "GET", "/jobs/{id}/why", show_why, "Why a job is not running, or how it ended",
        {200: Outcome("In words.", WhyView)}, (*_STORE, "job-not-found", "invalid-parameter"),
    ),
    Operation(
        "POST", "/jobs/{id}/cancel", cancel_job, "Cancel a job, or ask it to end if it runs", _JOB,
        (*_BODY, "job-not-found", "wrong-status"), body=CancelBody, body_optional=True,
    ),
    Operation(
        "POST", "/jobs/{id}/retry", retry_job, "Run a job again that ended; a waiting one now", _JOB,
        (*_STORE, "job-not-found", "wrong-status", "duplicate-job", "body-too-large",
         "unsupported-media-type", "invalid-parameter", "request-timeout", "store-full"),
    ),
    Operation(
        "GET", "/events", follow_events, "Follow what happens to jobs",
        {200: Outcome("Server-sent events: `job` with a JobEvent; `reset` when events were missed.",
                      None, EVENTS)},
        (*_STORE, "too-many-streams", "invalid-parameter"), query=EventQuery, long=True,
    ),
)  # fmt: skip

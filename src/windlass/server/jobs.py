"""Operations on one job: enqueue, look, wait, explain, cancel, retry, follow.

Each handler parses, calls one method of ``client`` or ``control``, and serialises. Those on many
jobs at once are in ``many.py``.
"""

from __future__ import annotations

from msgspec import UNSET

from windlass.errors import ConfigError, FieldError, ResultTimeout
from windlass.job import FINAL, Job, JobId, NewJob, Status
from windlass.options import job_id, merge_options
from windlass.server.params import (
    faulty_option,
    idempotency_key,
    preferred_wait,
    read_json,
    read_query,
)
from windlass.server.problems import Problem
from windlass.server.routes import EVENTS, Answer, Ask, Operation, Outcome, Stream
from windlass.server.service import MAX_WAITERS
from windlass.server.shapes import CancelBody, EnqueueBody, EventQuery, LogQuery, WaitQuery
from windlass.server.stream import Wanted, follow
from windlass.server.views import JobView, LogLineView, WhyView, encode
from windlass.server.waits import race, until_gone

__all__ = ["ENQUEUE_PROBLEMS", "OPERATIONS", "new_job"]

# ------------------------------------------------------------------ enqueueing


async def create_job(ask: Ask) -> Answer:
    body = read_json(EnqueueBody, ask.body)
    new = new_job(ask, body, idempotency_key(ask.headers))
    (inserted,) = await ask.service.app.client.insert((new,))
    job = inserted.job
    status = 200 if inserted.duplicate else 201
    headers = {"location": f"{ask.root}/jobs/{job.id}"}
    if (seconds := preferred_wait(ask.headers)) is not None:
        headers["preference-applied"] = f"wait={seconds:g}"
        ended = await _ended(ask, job, seconds)
        status, job = (status, ended) if ended is not None else (202, job)
    return Answer(encode(JobView.of(job, duplicate=inserted.duplicate)), status, headers=headers)


def new_job(ask: Ask, body: EnqueueBody, key: str | None) -> NewJob:
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


# ------------------------------------------------------------------ looking


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
    return Answer(encode(WhyView.of(await ask.service.app.control.why(_id(ask)))))


async def follow_events(ask: Ask) -> Answer | Stream:
    query = read_query(EventQuery, ask.query)
    place = ask.headers.get("last-event-id")
    feed = ask.service.feed
    feed.enter()
    wanted = Wanted(frozenset(query.id), frozenset(query.type), frozenset(query.queue))
    return Stream(follow(feed, wanted, place), feed.leave, headers={"x-accel-buffering": "no"})


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


# ------------------------------------------------------------------ the table

_JOB = {200: Outcome("The job.", JobView)}
ENQUEUE_PROBLEMS = (
    "bad-header", "id-conflict", "duplicate-job", "invalid-payload", "invalid-option",
    "unknown-task", "queue-full",
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
        (*ENQUEUE_PROBLEMS, "job-gone"), body=EnqueueBody, prefer_wait=True, idempotency_key=True,
    ),
    Operation(
        "GET", "/jobs/{id}", show_job, "A job, now or once it has ended", _JOB,
        ("job-not-found", "job-gone"), query=WaitQuery,
        prefer_wait=True,
    ),
    Operation(
        "GET", "/jobs/{id}/logs", show_logs, "What a job's runs wrote",
        {200: Outcome("In order.", list[LogLineView])},
        ("job-not-found",), query=LogQuery,
    ),
    Operation(
        "GET", "/jobs/{id}/why", show_why, "Why a job is not running, or how it ended",
        {200: Outcome("In words.", WhyView)}, ("job-not-found",),
    ),
    Operation(
        "POST", "/jobs/{id}/cancel", cancel_job, "Cancel a job, or ask it to end if it runs", _JOB,
        ("job-not-found", "wrong-status"), body=CancelBody, body_optional=True,
    ),
    Operation(
        "POST", "/jobs/{id}/retry", retry_job, "Run a job again that ended; a waiting one now", _JOB,
        ("job-not-found", "wrong-status", "duplicate-job"),
    ),
    Operation(
        "GET", "/events", follow_events, "Follow what happens to jobs",
        {200: Outcome("Server-sent events: `job` with a JobEvent; `reset` when events were missed.",
                      None, EVENTS)},
        ("too-many-streams",), query=EventQuery, long=True,
    ),
)  # fmt: skip

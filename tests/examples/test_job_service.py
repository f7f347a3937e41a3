"""The tasks of the example service, run by a worker, against a real mail server, a real web server
and real pictures."""

from __future__ import annotations

import asyncio
import base64
import io
import mailbox
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
import pytest
from aiosmtpd.controller import Controller
from PIL import Image

from examples.job_service.app import app
from examples.job_service.settings import Settings
from tests.e2e.service import free_port
from windlass import ConfigError, PayloadError, Windlass
from windlass.events import JobEnded
from windlass.job import Job, Status
from windlass.stores.memory import MemoryStore


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    read = Settings.read({"JOB_SERVICE_DATA": str(tmp_path), "JOB_SERVICE_PACE": "0"})
    return replace(read, fetch_private=True)


async def run(settings: Settings, type: str, payload: dict[str, Any], id: str | None = None) -> Job:
    """The job as its first run leaves it."""

    @asynccontextmanager
    async def resources(_: Windlass[Settings]) -> AsyncIterator[Settings]:
        yield settings

    app.lifespan = resources
    app.use_store(MemoryStore())
    async with app:
        job = (await app.client.submit(type, msgspec.json.encode(payload), id=id)).job
        ended = asyncio.Event()
        unsubscribe = app.events.subscribe(JobEnded, lambda _: ended.set())
        worker = app.worker()
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.run())
            async with asyncio.timeout(30):
                await ended.wait()
            worker.stop()
        unsubscribe()
        return await app.control.get(job.id)


async def refusal(type: str, payload: dict[str, Any]) -> PayloadError:
    app.use_store(MemoryStore())
    with pytest.raises(PayloadError) as refused:
        await app.client.submit(type, msgspec.json.encode(payload))
    return refused.value


def result(job: Job) -> Any:
    assert job.status is Status.COMPLETED, job.errors
    assert job.result is not None
    return msgspec.json.decode(job.result)


# ---------------------------------------------------------------- email


async def test_without_a_server_mail_is_put_into_a_maildir(settings: Settings) -> None:
    job = await run(settings, "email", {"to": "user@example.com", "subject": "Grüße", "body": "Hi"})

    (message,) = mailbox.Maildir(settings.outbox)
    assert message["To"] == "user@example.com"
    assert job.id in message["Message-ID"]
    assert result(job)["message_id"] == message["Message-ID"]


async def test_a_mail_job_that_runs_twice_leaves_one_mail(settings: Settings) -> None:
    same = "0198f3a0-0000-7000-8000-000000000001"

    await run(settings, "email", {"to": "user@example.com"}, same)
    await run(settings, "email", {"to": "user@example.com"}, same)

    assert len(mailbox.Maildir(settings.outbox)) == 1


class Inbox:
    """A mail server's handler: keeps what comes; some recipients do not exist, some are busy."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def handle_RCPT(  # noqa: N802 - the name that aiosmtpd looks for
        self, server: Any, session: Any, envelope: Any, address: str, options: Any
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such mailbox"
        if address.startswith("busy@"):
            return "451 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        self.messages.append(message_from_bytes(envelope.content))
        return "250 OK"


@pytest.fixture
def inbox() -> Iterator[tuple[Inbox, str]]:
    handler = Inbox()
    port = free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port)
    controller.start()
    yield handler, f"smtp://127.0.0.1:{port}"
    controller.stop()


async def test_with_a_server_mail_is_sent(settings: Settings, inbox: tuple[Inbox, str]) -> None:
    handler, url = inbox

    job = await run(replace(settings, smtp_url=url), "email", {"to": "user@example.com"})

    assert result(job)["server"] == "127.0.0.1"
    (message,) = handler.messages
    assert message["To"] == "user@example.com"
    assert not settings.outbox.exists()


@pytest.mark.parametrize(
    ("to", "status"),
    [("nobody@example.com", Status.FAILED), ("busy@example.com", Status.SCHEDULED)],
)
async def test_only_a_refusal_for_good_ends_a_mail_job(
    settings: Settings, inbox: tuple[Inbox, str], to: str, status: Status
) -> None:
    job = await run(replace(settings, smtp_url=inbox[1]), "email", {"to": to})

    assert job.status is status


async def test_mail_waits_for_a_server_that_is_away(settings: Settings) -> None:
    job = await run(
        replace(settings, smtp_url="smtp://127.0.0.1:9"), "email", {"to": "a@b.example"}
    )

    assert job.status is Status.SCHEDULED


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"to": "no address"}, "/to"),
        ({}, "/to"),
        ({"to": "a@b.example", "subject": "x\r\nBcc: everybody@example.com"}, "/subject"),
        ({"to": "a@b.example", "cc": "c@d.example"}, "/cc"),
    ],
)
async def test_a_wrong_mail_is_refused_when_it_is_posted(
    payload: dict[str, Any], field: str
) -> None:
    refused = await refusal("email", payload)

    assert [error.pointer for error in refused.errors] == [field]


async def test_an_address_that_only_looks_like_one_ends_failed(settings: Settings) -> None:
    job = await run(settings, "email", {"to": "a..b@example.com"})

    assert job.status is Status.FAILED
    assert "no mail address" in job.errors[-1].message


# ---------------------------------------------------------------- thumbnail


def picture(width: int = 300, height: int = 100, format: str = "JPEG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, format)
    return file.getvalue()


async def test_a_thumbnail_of_a_file_fits_and_keeps_its_proportions(settings: Settings) -> None:
    settings.pictures.mkdir()
    (settings.pictures / "wide.jpg").write_bytes(picture())

    job = await run(settings, "thumbnail", {"path": "wide.jpg", "width": 60})

    with Image.open(result(job)["file"]) as made:
        assert made.format == "PNG"
        assert made.size == (60, 20)


async def test_a_thumbnail_of_a_picture_in_the_payload(settings: Settings) -> None:
    image = base64.b64encode(picture()).decode()

    job = await run(settings, "thumbnail", {"image": image, "width": 30, "height": 30})

    assert result(job)["size"] == [30, 10]


async def test_without_a_picture_a_sample_is_drawn(settings: Settings) -> None:
    job = await run(settings, "thumbnail", {})

    assert result(job)["size"] == [128, 96]


@pytest.mark.parametrize(
    "payload",
    [{"path": "../secret.png"}, {"path": "/etc/passwd"}, {"path": "none.png"}, {"image": "YWJj"}],
)
async def test_what_is_no_picture_of_ours_fails_at_once(
    settings: Settings, payload: dict[str, Any]
) -> None:
    settings.pictures.mkdir()
    (settings.folder / "secret.png").write_bytes(picture(format="PNG"))

    job = await run(settings, "thumbnail", payload)

    assert job.status is Status.FAILED
    assert job.errors[-1].type.endswith("BadPicture")


async def test_a_picture_that_claims_a_huge_size_is_not_unpacked(settings: Settings) -> None:
    settings.pictures.mkdir()
    Image.new("1", (9000, 9000)).save(settings.pictures / "huge.png")

    job = await run(settings, "thumbnail", {"path": "huge.png"})

    assert job.status is Status.FAILED
    assert "pixels" in job.errors[-1].message


# ---------------------------------------------------------------- fetch


class Planned(NamedTuple):
    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""


class Site:
    """A web server that answers as planned, one plan per request, then 200 for ever."""

    def __init__(self) -> None:
        self.plans: deque[Planned] = deque()
        self.asked = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked += 1
                plan = site.plans.popleft() if site.plans else Planned(200, {}, b"hello")
                self.send_response(plan.status)
                for name, value in {"Content-Length": str(len(plan.body)), **plan.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(plan.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, args=(0.01,))
    thread.start()
    yield site
    site.server.shutdown()
    site.server.server_close()
    thread.join()


async def test_a_page_is_fetched_through_its_redirects(settings: Settings, site: Site) -> None:
    site.plans.append(Planned(302, {"Location": "/there"}))

    job = await run(settings, "fetch", {"url": site.url})

    answer = result(job)
    assert (answer["status"], answer["bytes"]) == (200, 5)
    assert answer["url"] == site.url + "there"


async def test_a_server_that_says_when_is_asked_again_then(settings: Settings, site: Site) -> None:
    site.plans.append(Planned(429, {"Retry-After": "120"}))

    job = await run(settings, "fetch", {"url": site.url})

    assert job.status is Status.SCHEDULED
    assert job.finished_at is None
    assert job.started_at is not None
    assert job.ready_at - job.started_at >= timedelta(seconds=120)


@pytest.mark.parametrize(
    ("plan", "status"),
    [
        (Planned(503), Status.SCHEDULED),
        (Planned(404), Status.FAILED),
        (Planned(200, {"Content-Length": "50"}, b"cut off"), Status.SCHEDULED),
        (Planned(200, {}, b"x" * 10_000_001), Status.FAILED),
        (Planned(302, {"Location": "file:///etc/passwd"}), Status.FAILED),
    ],
    ids=["503", "404", "cut off", "too long", "to a file"],
)
async def test_only_what_may_pass_is_tried_again(
    settings: Settings, site: Site, plan: Planned, status: Status
) -> None:
    site.plans.append(plan)

    job = await run(settings, "fetch", {"url": site.url})

    assert job.status is status, job.errors


async def test_addresses_inside_the_network_are_refused(settings: Settings, site: Site) -> None:
    job = await run(replace(settings, fetch_private=False), "fetch", {"url": site.url})

    assert job.status is Status.FAILED
    assert "inside this network" in job.errors[-1].message
    assert site.asked == 0


@pytest.mark.parametrize("url", ["ftp://example.com/", "file:///etc/passwd", "example.com"])
async def test_other_schemes_are_refused_when_posted(url: str) -> None:
    refused = await refusal("fetch", {"url": url})

    assert [error.pointer for error in refused.errors] == ["/url"]


# ---------------------------------------------------------------- report, flaky, slow


async def test_a_report_counts_the_words_of_a_text(settings: Settings) -> None:
    job = await run(settings, "report", {"text": "To be, or not to be"})

    answer = result(job)
    assert (answer["words"], answer["distinct"]) == (6, 4)
    assert answer["most_common"][0] == ["to", 2]


async def test_a_report_on_nonsense_is_the_same_for_the_same_seed(settings: Settings) -> None:
    first = await run(settings, "report", {"words": 30_000, "seed": 7})
    second = await run(settings, "report", {"words": 30_000, "seed": 7})

    assert result(first)["words"] == 30_000
    assert first.result == second.result


async def test_flaky_fails_and_is_retried(settings: Settings) -> None:
    job = await run(settings, "flaky", {"probability": 1})

    assert job.status is Status.SCHEDULED
    assert job.errors[-1].type.endswith("Unlucky")


async def test_flaky_falls_alike_for_the_same_job_and_attempt(settings: Settings) -> None:
    ids = [f"0198f3a0-0000-7000-8000-{n:012d}" for n in (6, 7, 8)]

    once = [(await run(settings, "flaky", {}, one)).status for one in ids]
    again = [(await run(settings, "flaky", {}, one)).status for one in ids]

    assert once == again
    assert set(once) == {Status.COMPLETED, Status.SCHEDULED}


async def test_slow_tells_how_far_it_is(settings: Settings) -> None:
    job = await run(settings, "slow", {"seconds": 0.05})

    assert job.status is Status.COMPLETED
    assert job.progress == 1.0


# ---------------------------------------------------------------- the app


def test_a_queue_has_a_hundred_places() -> None:
    assert app.settings.capacity == 100


def test_a_wrong_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="JOB_SERVICE_PACE"):
        Settings.read({"JOB_SERVICE_PACE": "slowly"})

"""``email``: a message, sent by SMTP where a server is configured, else put into a Maildir.

A job may run twice when a worker dies at the wrong moment. So the message bears an id made from the
job's, by which receivers drop the second copy, and in the Maildir the second replaces the first.
"""

from __future__ import annotations

import smtplib
import ssl
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

from msgspec import Meta

from windlass import ConfigError, NonRetryable, Registry, SyncContext

from .settings import Settings

__all__ = ["tasks"]

tasks = Registry()


MailAddress = Annotated[str, Meta(pattern=r"^[^@\s]+@[^@\s]+$", max_length=320)]
Line = Annotated[str, Meta(pattern=r"^[^\r\n]*$", max_length=500)]
"""What does not look like one is refused when the job is posted, and says so in the answer."""


class BadMessage(NonRetryable):
    """No later attempt could send this message."""


@tasks.task(timeout="2m", max_attempts=8)
def email(
    ctx: SyncContext[Settings],
    to: MailAddress,
    subject: Line = "Hello from Windlass",
    body: str = "This message was sent by a background job.",
) -> dict[str, str]:
    """Send a message to one address."""
    settings = ctx.resources
    message = _compose(ctx.job.id, settings.sender, to, subject, body)

    if settings.smtp_url is None:
        path = _put_into_outbox(settings.outbox, ctx.job.id, message)
        return {"message_id": message["Message-ID"], "file": str(path)}
    _send_by_smtp(settings.smtp_url, message)
    return {
        "message_id": message["Message-ID"],
        "server": urlsplit(settings.smtp_url).hostname or "",
    }


def _compose(job_id: str, sender: str, to: str, subject: str, body: str) -> EmailMessage:
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(addr_spec=sender)
    try:
        message["To"] = Address(addr_spec=to)
    except (HeaderParseError, ValueError, LookupError, AttributeError) as error:
        # The last two: the standard library's parser trips over some, such as "a@[".
        raise BadMessage(f"{to!r:.80} is no mail address: {error}") from error
    message["Subject"] = subject
    message["Message-ID"] = f"<{job_id}@windlass.invalid>"
    message.set_content(body)
    return message


def _put_into_outbox(outbox: Path, job_id: str, message: EmailMessage) -> Path:
    """Deliver as the Maildir rules say: written whole in ``tmp``, then renamed into ``new``."""
    for folder in ("tmp", "new", "cur"):
        (outbox / folder).mkdir(parents=True, exist_ok=True)
    draft, letter = outbox / "tmp" / job_id, outbox / "new" / job_id
    draft.write_bytes(message.as_bytes())
    return draft.replace(letter)


def _send_by_smtp(url: str, message: EmailMessage) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ConfigError("SMTP_URL looks like smtp://user:password@mail.example.com:587.")
    try:
        with _connect(parts.scheme, parts.hostname, parts.port) as server:
            if parts.username:
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(message)
    except smtplib.SMTPRecipientsRefused as error:
        # Codes from 500 on are final ("no such mailbox"); those in the 400s ask to try again.
        if all(code >= 500 for code, _ in error.recipients.values()):
            raise BadMessage(f"The mail server refuses {message['To']} for good.") from error
        raise


def _connect(scheme: str, host: str, port: int | None) -> smtplib.SMTP:
    context = ssl.create_default_context()
    if scheme == "smtps":
        return smtplib.SMTP_SSL(host, port or 465, timeout=30, context=context)
    server = smtplib.SMTP(host, port or 587, timeout=30)
    server.ehlo()
    if server.has_extn("starttls"):
        server.starttls(context=context)
    return server

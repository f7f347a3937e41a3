"""What the example service can be told by environment variables, read once at start."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from windlass.durations import parse_duration

__all__ = ["Settings"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the service keeps things, and what it may do."""

    folder: Path
    """The outbox, the pictures and their thumbnails lie here."""
    pace: timedelta
    """Every job waits this long before it does its work, so that a person can watch it."""
    smtp_url: str | None
    """``smtp://user:password@host:587``; without it, mail is written to the outbox."""
    sender: str
    """The From address of what ``email`` sends."""
    fetch_private: bool
    """Whether ``fetch`` may reach addresses inside this network."""

    @property
    def outbox(self) -> Path:
        """A Maildir: ``mutt -f data/outbox`` reads it, and so does any mail program."""
        return self.folder / "outbox"

    @property
    def pictures(self) -> Path:
        """The only folder that ``thumbnail`` reads files from."""
        return self.folder / "pictures"

    @property
    def thumbnails(self) -> Path:
        """Where ``thumbnail`` puts its work, named by job."""
        return self.folder / "thumbnails"

    @classmethod
    def read(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Raises ConfigError, naming the variable, for a value that cannot be."""
        return cls(
            folder=Path(env.get("JOB_SERVICE_DATA", "data")),
            pace=parse_duration(env.get("JOB_SERVICE_PACE", "1s"), what="JOB_SERVICE_PACE"),
            smtp_url=env.get("SMTP_URL") or None,
            sender=env.get("JOB_SERVICE_SENDER", "job-service@localhost"),
            fetch_private=env.get("JOB_SERVICE_FETCH_PRIVATE", "") in ("1", "true", "yes"),
        )

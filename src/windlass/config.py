"""Settings and where each came from; and finding the app that a command line names.

A setting is looked for in four places, the first of which wins: an argument, an environment variable
(``WINDLASS_…``, and for some a customary short name), ``windlass.toml`` or ``[tool.windlass]`` of
``pyproject.toml`` in the current directory, and the default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from windlass.durations import format_duration, parse_duration
from windlass.errors import ConfigError
from windlass.load import load_app
from windlass.options import check_name, did_you_mean
from windlass.store import DEFAULT_CAPACITY

if TYPE_CHECKING:
    from windlass.worker import WorkerOptions

__all__ = ["Settings", "load_app"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting of a process. Made by :meth:`load`; ``origins`` tells where each was set."""

    app: str | None = None
    """``package.module:app`` or ``file.py:app``, for the command line."""
    url: str = "sqlite:///jobs.db"
    durability: Literal["full", "normal"] = "full"
    capacity: int = DEFAULT_CAPACITY
    """Jobs of one queue that may wait to start."""
    queues: frozenset[str] | None = None
    """What workers take jobs from; None: every queue."""
    concurrency: int = 100
    """``async def`` tasks that a worker runs at once."""
    threads: int = 16
    """``def`` tasks that a worker runs at once in threads."""
    processes: int | None = None
    """Tasks with ``run_in="process"`` that a worker runs at once; None: one for each core."""
    workers: int = 1
    """Worker processes."""
    grace: timedelta = timedelta(seconds=30)
    """How long running jobs may go on at shutdown."""
    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = None
    """What HTTP clients must send; needed for any address but loopback."""
    allowed_hosts: tuple[str, ...] = ()
    log_level: str = "info"
    log_format: str = "auto"
    origins: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()
    """What was set and is not known, in sentences."""

    @classmethod
    def load(
        cls,
        *,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        **arguments: object,
    ) -> Settings:
        """The settings in force; *arguments* that are None count as not given.

        Raises :class:`~windlass.errors.ConfigError` naming the setting, its origin and what it may be.
        """
        environ = os.environ if environ is None else environ
        file = _read_file(directory or Path())
        values: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for field in _FIELDS:
            found = _find(field, arguments, environ, file)
            origins[field.name] = found.origin if found else "default"
            if found:
                values[field.name] = _check(field, found)
        warnings = (*_unknown_variables(environ), *_unknown_keys(file))
        return cls(**values, origins=origins, warnings=warnings)

    def worker_options(self) -> WorkerOptions:
        """The worker that these settings describe."""
        from windlass.worker import WorkerOptions

        given: dict[str, Any] = {} if self.processes is None else {"processes": self.processes}
        return WorkerOptions(
            queues=self.queues,
            concurrency=self.concurrency,
            threads=self.threads,
            grace=self.grace,
            **given,
        )

    def shown(self) -> dict[str, tuple[str, str]]:
        """Each setting as text with its origin, secrets left out: what ``windlass doctor`` prints."""
        return {
            field.name: (_show(field.name, getattr(self, field.name)), self.origins[field.name])
            for field in _FIELDS
        }

    def __repr__(self) -> str:
        parts = (f"{name}={value}" for name, (value, _) in self.shown().items())
        return f"Settings({', '.join(parts)})"


class _Field(NamedTuple):
    name: str
    read: Callable[[Any], object]
    """Makes the value of whatever an argument, a variable or TOML holds, or raises ValueError."""
    also: str | None = None
    """A customary environment variable, looked for after ``WINDLASS_…``."""

    @property
    def variable(self) -> str:
        return f"WINDLASS_{self.name.upper()}"


class _Found(NamedTuple):
    value: object
    origin: str


class _File(NamedTuple):
    name: str
    table: Mapping[str, object]


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("text")
    return value


def _whole(least: int, most: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        expected = f"a whole number from {least} to {most}"
        if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
            value = int(value.strip()[:12])
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(expected)
        return value

    return read


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError(" or ".join(repr(word) for word in words))
        return value.lower()

    return read


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("a list of texts, or texts separated by commas")
    return tuple(_text(part) for part in value)


def _queues(value: object) -> frozenset[str] | None:
    return frozenset(check_name(name, "A queue's name") for name in _texts(value)) or None


def _grace(value: Any) -> timedelta:
    span = parse_duration(value)
    if span > timedelta(days=1):
        raise ValueError("a duration of at most 1 day, like '30s'")
    return span


_FIELDS = (
    _Field("app", _text),
    _Field("url", _text),
    _Field("durability", _one_of("full", "normal")),
    _Field("capacity", _whole(1, 1_000_000_000), "JOB_QUEUE_CAPACITY"),
    _Field("queues", _queues),
    _Field("concurrency", _whole(1, 10_000), "WORKER_COUNT"),
    _Field("threads", _whole(1, 1_000), "WORKER_COUNT"),
    _Field("processes", _whole(1, 256)),
    _Field("workers", _whole(1, 256)),
    _Field("grace", _grace),
    _Field("host", _text),
    _Field("port", _whole(0, 65535), "PORT"),
    _Field("token", _text),
    _Field("allowed_hosts", _texts),
    _Field("log_level", _one_of("debug", "info", "warning", "error")),
    _Field("log_format", _one_of("auto", "console", "json", "logfmt")),
)
_NAMES = {field.name for field in _FIELDS}
_VARIABLES = {field.variable for field in _FIELDS} | {
    "WINDLASS_CRASH_AT", "WINDLASS_DEBUG", "WINDLASS_PARENT", "WINDLASS_TORTURE",
}  # fmt: skip
_COMMANDS = (
    "BENCH", "CANCEL", "DB", "DEMO", "DOCTOR", "ENQUEUE", "FAILURES", "JOBS", "QUEUES", "RETRY",
    "SERVE", "SHOW", "TAIL", "VERSION", "WHY", "WORKER", "WORKERS",
)  # fmt: skip
_TWINS = tuple(f"WINDLASS_{command}_" for command in _COMMANDS)
"""How environment variables begin that set an option of one command."""


def _find(
    field: _Field, arguments: Mapping[str, object], environ: Mapping[str, str], file: _File
) -> _Found | None:
    if (value := arguments.get(field.name)) is not None:
        return _Found(value, "argument")
    for variable in (field.variable, field.also):
        # Set but empty is how shells and compose files say "not set".
        if variable is not None and environ.get(variable):
            return _Found(environ[variable], variable)
    if field.name in file.table:
        return _Found(file.table[field.name], file.name)
    return None


def _check(field: _Field, found: _Found) -> object:
    try:
        return field.read(found.value)
    except ConfigError as error:
        expected = f"is not as it should be: {error}"
    except ValueError as error:
        shown = "" if field.name == "token" else f", not {found.value!r:.80}"
        expected = f"is {error}{shown}."
    where = "" if found.origin == "argument" else f" (from {found.origin})"
    raise ConfigError(f"The setting {field.name!r}{where} {expected}")


def _read_file(directory: Path) -> _File:
    for name in ("windlass.toml", "pyproject.toml"):
        path = directory / name
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            if name == "pyproject.toml":
                # Another program's file, of which ours may be no part.
                continue
            raise ConfigError(f"{path} cannot be read: {error}.") from None
        if name == "windlass.toml":
            return _File(name, data)
        table = data.get("tool", {}).get("windlass")
        if isinstance(table, dict):
            return _File("pyproject.toml", table)
    return _File("", {})


def _unknown_variables(environ: Mapping[str, str]) -> list[str]:
    return [
        f"The environment variable {name} is not known and does nothing"
        f"{did_you_mean(name, _VARIABLES)}."
        for name in sorted(environ)
        if name.startswith("WINDLASS_") and name not in _VARIABLES and not name.startswith(_TWINS)
    ]


def _unknown_keys(file: _File) -> list[str]:
    return [
        f"The key {name!r} in {file.name} is not known and does nothing{did_you_mean(name, _NAMES)}."
        for name in sorted(file.table)
        if name not in _NAMES
    ]


def _show(name: str, value: object) -> str:
    if name == "token" and value is not None:
        return "(set)"
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, frozenset | tuple):
        return ", ".join(sorted(value))
    return "" if value is None else str(value)

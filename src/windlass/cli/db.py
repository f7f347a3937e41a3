"""``windlass db``: the store as a thing to look after: status, check, backup, migrate, prune.

Status and check read the file without opening it as a store, so that they work on one that cannot be
opened, and change nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from windlass.cli.exits import CONFLICT, FAILED, Told
from windlass.cli.output import emit, fields, json_option, say
from windlass.cli.session import Place, located, opened, pass_place, place_options, run

__all__ = ["db"]


@click.group
@place_options
@click.pass_context
def db(ctx: click.Context, url: str | None, app: str | None) -> None:
    """Check, back up, migrate and prune the store.

    \b
    windlass db status
    windlass db backup jobs-2026-01-31.db
    windlass db prune --completed 1h
    """
    ctx.obj = Place(url, app)


@db.command
@json_option
@pass_place
def status(place: Place, as_json: bool) -> None:
    """Show what the store is: file, size, schema, counts."""
    path, url = _file(place)
    facts = _facts(path)
    if facts["schema"] == facts["schema_known"]:
        facts["jobs"] = run(_counts(place))
    if as_json:
        emit({"url": url, **facts})
        return
    fields({name.replace("_", " "): value for name, value in facts.items() if name != "jobs"})
    for name, count in facts.get("jobs", {}).items():
        click.echo(f"{count:>12,} {name}")
    if facts["schema"] < facts["schema_known"]:
        say("It is migrated when it is next opened, or now: windlass db migrate")


@db.command
@json_option
@pass_place
def check(place: Place, as_json: bool) -> None:
    """Check that the file is sound; reads all of it. Exit code 1 when it is not."""
    from windlass.stores.sqlite.upkeep import check as problems_of

    path, _ = _file(place)
    with _reader(path) as connection:
        problems = problems_of(connection)
    if as_json:
        emit({"sound": not problems, "problems": problems})
    elif problems:
        click.echo("\n".join(problems))
        say("The file is damaged: stop all workers, then restore a backup.")
    else:
        click.echo("sound")
    if problems:
        raise click.exceptions.Exit(FAILED)


@db.command
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@pass_place
def backup(place: Place, target: Path) -> None:
    """Copy the store to the new file TARGET, as it is at this moment, while everything goes on.

    TARGET appears whole or not at all. To restore, stop all workers and put it in the store's place
    (without any -wal and -shm beside it).
    """
    from windlass.stores.sqlite.upkeep import backup as copy

    path, _ = _file(place)
    if target.exists():
        raise Told(f"{str(target)!r} exists: choose a new name for the backup.", CONFLICT)
    try:
        with _reader(path) as connection:
            copy(connection, str(target))
    except OSError as error:
        raise Told(f"{str(target)!r} cannot be written: {error.strerror}.", FAILED) from None
    say(f"{path} is copied to {target} ({target.stat().st_size:,} bytes).")


@db.command
@json_option
@pass_place
def migrate(place: Place, as_json: bool) -> None:
    """Bring the file to the schema of this version. Harmless when it has it."""
    path, _ = _file(place)
    before = _facts(path)["schema"]

    async def act() -> None:
        async with opened(place):
            pass

    run(act())
    after = _facts(path)["schema"]
    if as_json:
        emit({"before": before, "after": after})
    elif before == after:
        say(f"The schema is {after} already.")
    else:
        say(f"The schema was {before} and is now {after}.")


@db.command
@click.option("--completed", metavar="SPAN", help="Keep completed jobs so long (default: 1 day).")
@click.option("--cancelled", metavar="SPAN", help="Keep cancelled jobs so long (default: 7 days).")
@click.option("--failed", metavar="SPAN", help="Keep failed jobs so long (default: 30 days).")
@click.option("--limit", type=click.IntRange(1), help="Delete at most so many.")
@json_option
@pass_place
def prune(place: Place, limit: int | None, as_json: bool, **given: str | None) -> None:
    """Delete ended jobs that were kept long enough. Workers do it too, by the app's retention.

    Jobs with an id or key of the caller's are kept for at least a day, all for at least a minute.
    """
    import msgspec

    from windlass.cli.exits import as_usage
    from windlass.durations import parse_duration
    from windlass.errors import ConfigError

    try:
        spans: dict[str, timedelta] = {
            name: parse_duration(text, what=f"--{name}") for name, text in given.items() if text
        }
    except ConfigError as error:
        raise as_usage(error) from None

    async def act() -> int:
        async with opened(place) as app:
            retention = msgspec.structs.replace(app.retention, **spans)
            return await app.control.prune(retention, limit=limit)

    deleted = run(act())
    if as_json:
        emit({"deleted": deleted})
    else:
        say(f"{deleted:,} jobs deleted.")


# ------------------------------------------------------------------ the file


def _file(place: Place) -> tuple[Path, str]:
    """The SQLite file that *place* means."""
    from windlass.errors import NotSupported, StoreUnavailable

    url = place.url or located(place).settings.url
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite":
        raise NotSupported(f"A {scheme} store has no file to look after.")
    path = Path(rest[3:])
    if not path.exists():
        raise StoreUnavailable(f"There is no store {str(path)!r}: name one with --url.")
    return path, url


@contextmanager
def _reader(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that cannot write; what SQLite says is told as an error of the store."""
    from windlass.stores.sqlite.files import connect_reader, is_new
    from windlass.stores.sqlite.trouble import as_store_error

    try:
        with closing(connect_reader(str(path.resolve()))) as connection:
            is_new(connection, str(path))
            yield connection
    except sqlite3.Error as error:
        raise as_store_error(error, str(path)) from None


def _facts(path: Path) -> dict[str, Any]:
    from windlass.stores.sqlite.files import SCHEMA

    with _reader(path) as connection:
        schema = connection.execute("PRAGMA user_version").fetchone()[0]
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        free = connection.execute("PRAGMA freelist_count").fetchone()[0]
        page = connection.execute("PRAGMA page_size").fetchone()[0]
    wal = path.with_name(path.name + "-wal")
    return {
        "file": str(path.resolve()),
        "size_bytes": pages * page,
        "reusable_bytes": free * page,
        "wal_bytes": wal.stat().st_size if wal.exists() else 0,
        "journal_mode": mode,
        "schema": schema,
        "schema_known": SCHEMA,
        "sqlite": sqlite3.sqlite_version,
    }


async def _counts(place: Place) -> dict[str, int]:
    from windlass.job import Status

    async with opened(place) as app:
        stats = await app.control.stats()
    return {status.value: stats.count(status) for status in Status}

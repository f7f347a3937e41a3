"""No statement reads more rows than it needs: a plan that becomes a scan fails here."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime

import pytest

from windlass.job import JobFilter, Status
from windlass.stores.sqlite.book import LaneRow
from windlass.stores.sqlite.find import query
from windlass.stores.sqlite.sql import SQL, migrations

PIECES = {"brief", "whole", "period", "tat", "insert", "find"}

MAY_WALK = {
    "orphans": "SCAN j USING INDEX jobs_processing",
    "ahead": "SCAN jobs USING INDEX jobs_suspect",
}
"""Walks along an index that holds only the rows in question."""

INDEX = {
    "candidates": "jobs_pending",
    "suspects": "jobs_suspect",
    "due": "jobs_scheduled",
    "expired": "jobs_expiring",
    "held": "jobs_processing",
    "orphans": "jobs_processing",
    "prunable": "jobs_final",
    "holder": "jobs_unique",
    "lanes": "jobs_oldest",
}


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as db:
        for script in migrations():
            db.executescript(script)
        yield db


def plan(db: sqlite3.Connection, statement: str) -> list[str]:
    numbered = [int(number) for number in re.findall(r"\?(\d+)", statement)]
    count = max(numbered, default=statement.count("?"))
    rows = db.execute(f"EXPLAIN QUERY PLAN {statement}", [None] * count).fetchall()
    return [row[3] for row in rows]


def scans(steps: list[str]) -> list[str]:
    return [step for step in steps if re.match(r"SCAN (jobs|j|p|logs)\b", step)]


@pytest.mark.parametrize("name", sorted(SQL.keys() - PIECES))
def test_no_statement_scans_the_jobs(db: sqlite3.Connection, name: str) -> None:
    steps = plan(db, SQL[name])

    assert scans(steps) == [walk for known, walk in MAY_WALK.items() if known == name]
    assert INDEX.get(name, "") in " ".join(steps)


@pytest.mark.parametrize("status", Status)
def test_a_rare_status_is_found_by_index(db: sqlite3.Connection, status: Status) -> None:
    lanes = [LaneRow(1, "default", "t", [10] * 6)]

    statement, _ = query(JobFilter(status=frozenset({status})), lanes, None, oldest_first=False)

    steps = plan(db, statement)
    assert any("USING INTEGER PRIMARY KEY" in step for step in steps if " j " in step)
    assert all("USING" in step for step in scans(steps))


def test_a_small_queue_is_found_by_index(db: sqlite3.Connection) -> None:
    lanes = [LaneRow(1, "default", "t", [10] * 6), LaneRow(2, "large", "t", [10**6] * 6)]

    statement, _ = query(JobFilter(queue=frozenset({"default"})), lanes, None, oldest_first=False)

    steps = plan(db, statement)
    assert any("USING INTEGER PRIMARY KEY" in step for step in steps if " j " in step)
    assert all("USING" in step for step in scans(steps))


def test_an_unknown_queue_costs_nothing(db: sqlite3.Connection) -> None:
    lanes = [LaneRow(2, "large", "t", [10**6] * 6)]

    statement, _ = query(JobFilter(queue=frozenset({"no"})), lanes, None, oldest_first=False)

    assert "WHERE 0" in statement


def test_a_page_starts_where_the_one_before_ended(db: sqlite3.Connection) -> None:
    everywhere = JobFilter(created_from=datetime(2026, 1, 1, tzinfo=UTC), text="x")

    statement, _ = query(everywhere, [], 1000, oldest_first=False)

    steps = plan(db, statement)
    assert "SEARCH j USING INTEGER PRIMARY KEY (rowid<?)" in steps
    assert not any("TEMP B-TREE" in step for step in steps)


def test_every_block_has_a_sentence_above_it() -> None:
    from importlib.resources import files

    text = files("windlass.stores.sqlite").joinpath("queries.sql").read_text()

    names = re.findall(r"^-- name: (\w+)\n-- \S.*$", text, re.MULTILINE)
    assert len(names) == text.count("-- name: ")

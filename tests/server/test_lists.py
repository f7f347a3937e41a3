"""Listings by filter and page, and actions on whole sets of jobs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import pytest
from httpx2 import AsyncClient

from tests.server.support import EMAIL, MISSING, code_of, drain, pointers
from windlass.app import Windlass
from windlass.server import many as operations


async def enqueue(client: AsyncClient, *bodies: dict[str, Any]) -> list[str]:
    """Ids of the new jobs, oldest first."""
    response = await client.post("/jobs/batch", json=[EMAIL | body for body in bodies])
    assert response.status_code == 201, response.text
    return [job["id"] for job in response.json()]


def ids(found: Sequence[dict[str, Any]]) -> list[str]:
    return [job["id"] for job in found]


async def walk(client: AsyncClient, url: str) -> list[list[str]]:
    """The ids of all pages, by following the links."""
    pages = []
    while url:
        response = await client.get(url)
        pages.append(ids(response.json()))
        link = re.fullmatch(r'<(.*)>; rel="next"', response.headers.get("link", ""))
        url = link[1] if link else ""
    return pages


# ------------------------------------------------------------------ listing


async def test_jobs_are_listed_newest_first(client: AsyncClient) -> None:
    made = await enqueue(client, {}, {}, {})

    assert ids((await client.get("/jobs")).json()) == made[::-1]
    assert ids((await client.get("/jobs?order=oldest")).json()) == made


async def test_links_lead_through_all_pages_while_jobs_come_in(client: AsyncClient) -> None:
    made = await enqueue(client, *[{}] * 7)
    first = await client.get("/jobs?limit=3&queue=default")
    await enqueue(client, {}, {})

    link = re.fullmatch(r'<(.*)>; rel="next"', first.headers["link"])
    assert link is not None
    rest = await walk(client, link[1])

    assert [ids(first.json()), *rest][:3] == [made[6:3:-1], made[3:0:-1], made[:1]]


async def test_a_cursor_of_another_order_is_refused(client: AsyncClient) -> None:
    await enqueue(client, {}, {})
    link = (await client.get("/jobs?limit=1")).headers["link"]
    cursor = re.search(r"cursor=(\w+)", link)
    assert cursor is not None

    response = await client.get(f"/jobs?order=oldest&cursor={cursor[1]}")

    assert (response.status_code, code_of(response)) == (422, "invalid-parameter")


async def test_a_page_of_large_jobs_ends_early_and_leads_on(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "MAX_PAGE_BYTES", 3_000)
    made = await enqueue(client, *[{"payload": {"to": "x" * 2_000}}] * 3)

    pages = await walk(client, "/jobs")

    assert pages == [[job] for job in made[::-1]]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("status=scheduled", {1}),
        ("status=scheduled&status=pending", {0, 1, 2, 3}),
        ("type=broken", {4}),
        ("queue=mail", {2}),
        ("tag=red", {3}),
        ("tag=red&queue=mail", set()),
        ("unique_key=only", {0}),
        (f"q={quote('needle in')}", {2}),
        ("worker=nobody", set()),
        ("created_from=2100-01-01T00:00:00Z", set()),
        ("created_to=2100-01-01T00:00:00%2B02:00", {0, 1, 2, 3, 4}),
    ],
)
async def test_a_filter_restricts_the_listing(
    app: Windlass[Any], client: AsyncClient, query: str, expected: set[int]
) -> None:
    made = await enqueue(
        client,
        {"unique": "only"},
        {"delay": "1h"},
        {"queue": "mail", "payload": {"to": "a needle in hay"}},
        {"tags": ["red", "blue"]},
        {"type": "broken", "payload": {}},
    )
    await client.post(f"/jobs/{made[4]}/cancel")

    found = ids((await client.get(f"/jobs?{query}")).json())

    assert set(found) == {made[index] for index in expected}


@pytest.mark.parametrize(
    "query",
    [
        "stauts=failed",
        "status=done",
        "limit=0",
        "limit=201",
        "limit=many",
        "limit=1&limit=2",
        "cursor=!",
        "cursor=",
        "created_from=yesterday",
        "created_from=2026-01-01T00:00:00",
        "created_from=0.5",
        "created_to=0001-01-01T00:00:00%2B23:00",
        "q=",
        "q=%00",
        "q=%ff",
        "queue=a%20b",
        "order=random",
    ],
)
async def test_a_parameter_that_makes_no_sense_is_refused(client: AsyncClient, query: str) -> None:
    response = await client.get(f"/jobs?{query}")

    assert (response.status_code, code_of(response)) == (422, "invalid-parameter")


async def test_failures_come_in_groups(app: Windlass[Any], client: AsyncClient) -> None:
    await enqueue(client, *[{"type": "broken", "payload": {}}] * 3)
    await drain(app)

    (group,) = (await client.get("/failures?type=broken")).json()

    assert (group["type"], group["error"], group["count"]) == ("broken", "RuntimeError", 3)
    assert (await client.get("/failures?queue=other")).json() == []


# ------------------------------------------------------------------ in bulk


async def test_a_dry_run_counts_and_changes_nothing(client: AsyncClient) -> None:
    await enqueue(client, {}, {}, {"queue": "mail"})

    answer = await client.post(
        "/jobs/bulk/cancel", json={"filter": {"queue": ["default"]}, "dry_run": True}
    )

    assert (answer.json()["matched"], answer.json()["changed"]) == (2, 2)
    assert answer.json()["dry_run"] is True
    assert len((await client.get("/jobs?status=pending")).json()) == 3


async def test_many_jobs_are_cancelled_by_filter(client: AsyncClient) -> None:
    made = await enqueue(client, {}, {}, {"queue": "mail"})

    answer = await client.post(
        "/jobs/bulk/cancel", json={"filter": {"queue": ["default"]}, "reason": "clean up"}
    )

    assert answer.json()["changed"] == 2
    cancelled = (await client.get("/jobs?status=cancelled")).json()
    assert set(ids(cancelled)) == set(made[:2])
    assert {job["reason"] for job in cancelled} == {"clean up"}


async def test_failed_jobs_are_retried_by_filter_up_to_a_limit(
    app: Windlass[Any], client: AsyncClient
) -> None:
    await enqueue(client, *[{"type": "broken", "payload": {}}] * 3)
    await drain(app)

    answer = await client.post(
        "/jobs/bulk/retry", json={"filter": {"type": ["broken"]}, "limit": 2}
    )

    assert answer.json()["changed"] == 2
    assert len((await client.get("/jobs?status=pending")).json()) == 2


async def test_jobs_named_by_id_are_skipped_with_the_reason(client: AsyncClient) -> None:
    (pending,) = await enqueue(client, {})

    answer = await client.post("/jobs/bulk/retry", json={"ids": [pending, MISSING]})

    assert answer.json()["changed"] == 0
    assert answer.json()["skipped"] == {"pending": 1, "not found": 1}


@pytest.mark.parametrize(
    ("body", "at"),
    [
        ({}, None),
        ({"filter": {}}, ["/filter"]),
        ({"filter": {"status": ["failed"]}, "ids": []}, None),
        ({"filter": {"stauts": ["failed"]}}, ["/filter/stauts"]),
        ({"filter": {"status": ["done"]}}, ["/filter/status/0"]),
        ({"ids": [MISSING, "x"]}, ["/ids/1"]),
        ({"filter": {"status": ["failed"]}, "limit": 0}, ["/limit"]),
    ],
)
@pytest.mark.parametrize("action", ["cancel", "retry"])
async def test_a_bulk_action_needs_to_know_exactly_which_jobs(
    client: AsyncClient, action: str, body: object, at: list[str] | None
) -> None:
    await enqueue(client, {})

    response = await client.post(f"/jobs/bulk/{action}", json=body)

    assert (response.status_code, code_of(response)) == (422, "invalid-body")
    assert at is None or pointers(response) == at
    assert len((await client.get("/jobs?status=pending")).json()) == 1

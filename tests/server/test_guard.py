"""Who may speak to the API: tokens, hosts, origins and pace, over every operation there is.

The operations come from the OpenAPI document, so that one that is added tomorrow is tried as well,
and fails here unless it is guarded.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.server.support import EMAIL, Reply, exchange
from windlass.app import Windlass
from windlass.errors import ConfigError
from windlass.limits import Rate
from windlass.server import OPERATIONS, ServerApp, create_app
from windlass.server.guard import RateLimiter, is_loopback
from windlass.server.problems import Problem

TOKEN = "correct-horse-battery-staple"
PUBLIC = {("GET", "/livez"), ("GET", "/readyz")}
OUTSIDE = ("203.0.113.9", 4711)
JSON = {"content-type": "application/json"}


def operations_of(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    ]


async def document_of(api: ServerApp, headers: dict[str, str] | None = None) -> dict[str, Any]:
    reply = await exchange(api, "GET", "/openapi.json", headers=headers)
    document: dict[str, Any] = json.loads(reply.body)
    return document


async def ask(
    api: ServerApp, method: str, path: str, headers: dict[str, str], **scope: Any
) -> Reply:
    """One request to an operation: a stream is asked for its head only, so that it ends."""
    filled = path.replace("{id}", "x").replace("{name}", "q").replace("{scope}", "queue")
    if path == "/events":
        method = "HEAD"
    return await exchange(api, method, filled, headers=headers, **scope)


# ------------------------------------------------------------------ the matrix


async def test_the_document_names_every_operation_of_the_table(api: ServerApp) -> None:
    document = await document_of(api)

    assert sorted(operations_of(document)) == sorted((op.method, op.path) for op in OPERATIONS)


async def test_every_operation_but_the_probes_needs_the_token(app: Windlass[Any]) -> None:
    api = create_app(app, token=TOKEN)
    right = {"authorization": f"Bearer {TOKEN}"}
    wrong = [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {TOKEN}x"},
        {"authorization": f"Basic {TOKEN}"},
        {"authorization": TOKEN},
        {"authorization": "Bearer "},
        {"authorization": "Bearer \xff"},
    ]

    for method, path in operations_of(await document_of(api, right)):
        for headers in wrong:
            reply = await ask(api, method, path, headers)
            if (method, path) in PUBLIC:
                assert reply.status == 200, (method, path)
            else:
                assert reply.status == 401, (method, path, headers)
                assert reply.headers["www-authenticate"].startswith("Bearer"), path
        assert (await ask(api, method, path, right)).status not in {401, 403}, (method, path)


async def test_the_document_says_which_operations_need_the_token(app: Windlass[Any]) -> None:
    document = await document_of(create_app(app, token=TOKEN), {"authorization": f"Bearer {TOKEN}"})

    free = {
        (method.upper(), path)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if operation["security"] == []
    }
    assert free == PUBLIC


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE", "POST"])
async def test_without_the_token_not_even_paths_are_told_apart(
    app: Windlass[Any], method: str
) -> None:
    api = create_app(app, token=TOKEN)

    known = await exchange(api, method, "/jobs")
    unknown = await exchange(api, method, "/nothing")

    assert known.status == unknown.status == 401


async def test_every_operation_refuses_a_host_that_is_not_ours(api: ServerApp) -> None:
    for method, path in operations_of(await document_of(api)):
        for host in ("evil.test", "localhost.evil.test", "127.0.0.1.evil.test:8080", "", "a b"):
            reply = await ask(api, method, path, {"host": host})
            assert (reply.status, path) == (421, path), (method, path, host)


async def test_every_operation_refuses_strangers_where_there_is_no_token(api: ServerApp) -> None:
    for method, path in operations_of(await document_of(api)):
        assert (await ask(api, method, path, {}, client=OUTSIDE)).status == 403, (method, path)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://localhost"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost"}, False),
        ({"sec-fetch-site": "same-origin", "origin": "http://evil.test"}, False),
        ({"origin": "http://evil.test"}, False),
        ({"origin": "http://localhost:9999"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"origin": "http://localhost", "host": "127.0.0.1"}, False),
    ],
)
async def test_another_sites_page_changes_nothing_and_opens_no_stream(
    api: ServerApp, headers: dict[str, str], allowed: bool
) -> None:
    for method, path in operations_of(await document_of(api)):
        reply = await ask(api, method, path, headers)
        expected = allowed or (method == "GET" and path != "/events")
        assert (reply.status != 403) == expected, (method, path)


async def test_a_token_does_not_excuse_another_sites_page(app: Windlass[Any]) -> None:
    api = create_app(app, token=TOKEN)

    reply = await exchange(
        api,
        "POST",
        "/jobs",
        headers=JSON | {"authorization": f"Bearer {TOKEN}", "origin": "http://evil.test"},
        pieces=[json.dumps(EMAIL).encode()],
    )

    assert reply.status == 403


# ------------------------------------------------------------------ hosts


@pytest.mark.parametrize(
    ("host", "options", "status"),
    [
        ("localhost:8080", {}, 200),
        ("LOCALHOST", {}, 200),
        ("127.0.0.1", {}, 200),
        ("[::1]:8080", {}, 200),
        ("jobs.internal", {"allowed_hosts": ["jobs.internal"]}, 200),
        ("a.example.com", {"allowed_hosts": ["*.example.com"]}, 200),
        ("example.com", {"allowed_hosts": ["*.example.com"]}, 421),
        ("evilexample.com", {"allowed_hosts": ["*.example.com"]}, 421),
        ("whatever", {"allowed_hosts": ["*"]}, 200),
        ("10.0.0.5", {"bind": "10.0.0.5", "token": TOKEN}, 200),
        ("10.0.0.6", {"bind": "10.0.0.5", "token": TOKEN}, 421),
        ("box", {"bind": "box", "token": TOKEN}, 200),
        ("box", {"bind": "0.0.0.0", "token": TOKEN}, 421),
    ],
)
async def test_only_names_of_this_server_are_answered(
    app: Windlass[Any], host: str, options: dict[str, Any], status: int
) -> None:
    api = create_app(app, **options)

    assert (await exchange(api, "GET", "/livez", headers={"host": host})).status == status


async def test_the_address_that_was_dialled_is_a_name_of_this_server(app: Windlass[Any]) -> None:
    api = create_app(app, bind="0.0.0.0", token=TOKEN)

    dialled, other = [
        await exchange(
            api, "GET", "/livez", headers={"host": host}, server=("192.0.2.7", 80), client=OUTSIDE
        )
        for host in ("192.0.2.7:80", "192.0.2.8")
    ]

    assert (dialled.status, other.status) == (200, 421)


@pytest.mark.parametrize(
    ("client", "status"),
    [
        (("127.0.0.1", 1), 200),
        (("::1", 1), 200),
        (("::ffff:127.0.0.1", 1), 200),
        (("192.168.0.2", 1), 403),
        (("::ffff:192.168.0.2", 1), 403),
        (None, 200),
    ],
)
async def test_without_a_token_only_this_machine_is_answered(
    api: ServerApp, client: tuple[str, int] | None, status: int
) -> None:
    assert (await exchange(api, "GET", "/jobs", client=client)).status == status


# ------------------------------------------------------------------ refusing to start


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("/run/windlass.sock", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.2", False),
        ("example.com", False),
        ("", False),
    ],
)
async def test_what_others_can_reach_needs_a_token(
    app: Windlass[Any], bind: str, loopback: bool
) -> None:
    assert is_loopback(bind) == loopback
    create_app(app, bind=bind, token=TOKEN)
    if loopback:
        create_app(app, bind=bind)
    else:
        with pytest.raises(ConfigError, match="needs a token"):
            create_app(app, bind=bind)


@pytest.mark.parametrize("token", ["", "short", "exactly15chars!", "ünïcödé-ünïcödé-ünïcödé"])
async def test_a_token_that_could_be_guessed_is_refused(app: Windlass[Any], token: str) -> None:
    with pytest.raises(ConfigError, match="token"):
        create_app(app, token=token)


# ------------------------------------------------------------------ pace


async def test_too_many_requests_from_one_address_are_slowed_down(app: Windlass[Any]) -> None:
    api = create_app(app, rate=Rate(count=1, period=3600.0, burst=2))
    other = ("127.0.0.2", 1)

    replies = [await exchange(api, "GET", "/livez") for _ in range(3)]
    of_other = await exchange(api, "GET", "/livez", client=other)

    assert [reply.status for reply in replies] == [200, 200, 429]
    assert replies[2].code == "rate-limited"
    assert int(replies[2].headers["retry-after"]) > 1
    assert of_other.status == 200


@pytest.mark.parametrize(("rate", "last"), [("1/hour", 429), ("off", 200), (None, 200)])
async def test_the_pace_may_be_written_as_text_or_switched_off(
    app: Windlass[Any], rate: str | None, last: int
) -> None:
    api = create_app(app, bind="0.0.0.0", token=TOKEN, rate=rate)

    replies = [await exchange(api, "GET", "/livez") for _ in range(3)]

    assert replies[-1].status == last


@pytest.mark.parametrize(("bind", "last"), [("0.0.0.0", 429), ("127.0.0.1", 200)])
async def test_there_is_a_pace_by_default_where_others_can_reach_the_service(
    app: Windlass[Any], monkeypatch: pytest.MonkeyPatch, bind: str, last: int
) -> None:
    monkeypatch.setattr("windlass.server.GENEROUS", Rate(count=1, period=3600.0, burst=1))
    api = create_app(app, bind=bind, token=TOKEN)

    replies = [await exchange(api, "GET", "/livez") for _ in range(2)]

    assert [reply.status for reply in replies] == [200, last]


def test_the_pace_recovers_with_time_and_forgets_old_addresses() -> None:
    now = 100.0
    limiter = RateLimiter(Rate(count=1, period=1.0, burst=1), lambda: now)
    limiter.check("a")
    with pytest.raises(Problem):
        limiter.check("a")

    now += 1.0
    limiter.check("a")
    for number in range(10_000):
        limiter.check(f"b{number}")

    limiter.check("a")

import uuid
from datetime import UTC, datetime, timedelta, timezone

import pytest

from windlass.errors import ConfigError
from windlass.job import ACTIVE, WAITING, JobOptions, Status, Unique
from windlass.options import job_id, key_to_id, merge_options

BASE = JobOptions(queue="mail", priority=3)


def test_no_overrides_share_the_defaults_object() -> None:
    assert merge_options(BASE, {}) is BASE


def test_each_override_takes_its_place_and_the_rest_stays() -> None:
    merged = merge_options(
        BASE,
        {
            "delay": "5m",
            "priority": -100,
            "max_attempts": 1,
            "timeout": None,
            "expires": "1d",
            "unique": "user:42",
            "tags": ["a", "b", "a"],
            "meta": {"trace": "1-2"},
            "on_lost": "fail",
        },
    )

    assert merged == JobOptions(
        queue="mail",
        priority=-100,
        delay=timedelta(minutes=5),
        max_attempts=1,
        timeout=None,
        expires=timedelta(days=1),
        unique=Unique("user:42"),
        tags=("a", "b"),
        meta={"trace": "1-2"},
        on_lost="fail",
    )


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("queue", "", "A queue's name is 1 to 64 letters"),
        ("queue", "mail room", "A queue's name is 1 to 64 letters"),
        ("queue", "x" * 65, "A queue's name is 1 to 64 letters"),
        ("queue", None, "A queue's name is 1 to 64 letters"),
        ("priority", 101, "priority is a whole number from -100 to 100, not 101"),
        ("priority", True, "priority is a whole number from -100 to 100, not True"),
        ("priority", "9", "priority is a whole number from -100 to 100, not '9'"),
        ("max_attempts", 0, "max_attempts is a whole number from 1 to 1000, not 0"),
        ("max_attempts", 1001, "max_attempts is a whole number from 1 to 1000"),
        ("timeout", 0.001, "timeout lies between 10 ms and 30 days, not 0.001"),
        ("timeout", "31d", "timeout lies between 10 ms and 30 days, not '31d'"),
        ("timeout", "soon", "timeout is a number of seconds, or text like '30s'"),
        ("delay", -1, "delay lies between 0 and 100 years, not -1"),
        ("delay", "3660d", "delay lies between 0 and 10 years"),
        ("expires", 0, "expires lies between 10 ms and 10 years"),
        ("run_at", datetime(2027, 1, 1), "run_at needs a time zone"),  # noqa: DTZ001
        ("run_at", "2027-01-01T00:00", "run_at needs a time zone"),
        ("run_at", "tomorrow", "run_at is a datetime, or its ISO 8601 text"),
        ("run_at", 1_800_000_000, "run_at is a datetime, or its ISO 8601 text"),
        (
            "run_at",
            datetime.min.replace(tzinfo=timezone(timedelta(hours=9))),
            "run_at lies between the years 1 and 9999",
        ),
        ("unique", "", "A unique key is 1 to 256 printable characters"),
        ("unique", "x" * 257, "A unique key is 1 to 256 printable characters"),
        ("unique", "a\nb", "A unique key is 1 to 256 printable characters"),
        ("unique", Unique("x", frozenset()), "within at least one status"),
        (
            "unique",
            {"key": "x", "within": "ever"},
            "unique.within is 'waiting', 'active' or a list",
        ),
        ("unique", {"key": "x", "within": ["sleeping"]}, "unique.within is 'waiting', 'active'"),
        ("unique", {"key": "x", "with": 1}, "unique has key, within and on_conflict, not 'with'"),
        ("unique", {"key": "x", "on_conflict": "ignore"}, "on_conflict is 'return', 'replace'"),
        ("tags", "a,b", "tags is a list of texts, not 'a,b'"),
        ("tags", [""], "A tag is 1 to 64 printable characters"),
        ("tags", [str(n) for n in range(21)], "A job has at most 20 tags, not 21"),
        ("meta", ["a"], "meta is an object of texts"),
        ("meta", {str(n): "" for n in range(21)}, "meta has at most 20 entries"),
        ("meta", {"k" * 65: ""}, "A key of meta is 1 to 64 printable characters"),
        ("meta", {"k": "v" * 1025}, "meta['k'] is text of at most 1024 characters"),
        ("meta", {"k": "\x00"}, "meta['k'] is text of at most 1024 characters without NUL"),
        ("meta", {"k": "\ud800"}, "meta['k'] is text of at most 1024 characters without NUL"),
        ("meta", {"k": 1}, "meta['k'] is text of at most 1024 characters"),
        ("on_lost", "ignore", "on_lost is 'retry' or 'fail', not 'ignore'"),
        ("dealy", "5m", "There is no job option 'dealy' (did you mean 'delay'?)"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_a_sentence(
    option: str, value: object, says: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        merge_options(BASE, {option: value})

    assert str(refused.value).startswith(says) or says in str(refused.value)
    assert str(refused.value).endswith(".")


def test_delay_and_run_at_exclude_each_other() -> None:
    when = datetime(2027, 1, 1, tzinfo=UTC)

    with pytest.raises(ConfigError, match="either a delay or a run_at"):
        merge_options(BASE, {"delay": 5, "run_at": when})


def test_a_run_at_replaces_the_delay_of_the_defaults_and_is_kept_in_utc() -> None:
    delayed = merge_options(BASE, {"delay": 5})

    merged = merge_options(delayed, {"run_at": "2027-01-31T09:00:00+01:00"})

    assert merged.delay is None
    assert merged.run_at == datetime(2027, 1, 31, 8, tzinfo=UTC)
    assert merged.run_at.tzinfo is UTC


def test_a_unique_key_can_be_written_as_json() -> None:
    waiting = merge_options(BASE, {"unique": {"key": "x", "within": "waiting"}})
    chosen = merge_options(
        BASE, {"unique": {"key": "x", "within": ["failed"], "on_conflict": "reject"}}
    )

    assert waiting.unique == Unique.while_waiting("x") == Unique("x", WAITING)
    assert chosen.unique == Unique("x", frozenset({Status.FAILED}), "reject")
    assert merge_options(BASE, {"unique": {"key": "x"}}).unique == Unique("x", ACTIVE)


def test_an_id_is_known_in_all_its_spellings() -> None:
    plain = "01890a5d-ac96-774b-bcce-b302099a8057"

    assert job_id(plain.upper()) == job_id(uuid.UUID(plain)) == job_id(f"{{{plain}}}") == plain


@pytest.mark.parametrize("value", ["", "order-17", 17, None])
def test_an_id_that_is_no_uuid_is_refused_with_the_way_out(value: object) -> None:
    with pytest.raises(ConfigError, match=r"A job's id is a UUID, not .* use key="):
        job_id(value)


def test_a_key_stands_for_one_id_for_ever() -> None:
    # Pinned: another answer would forget the keys of everything enqueued before an upgrade.
    assert key_to_id("order-17") == "70e1b1d7-fc58-5e29-809e-ab5ae43e83ed"
    assert key_to_id("order-18") != key_to_id("order-17")


@pytest.mark.parametrize("key", ["", "x" * 257, "a\x00b", 17])
def test_a_key_that_cannot_be_one_is_refused(key: object) -> None:
    with pytest.raises(ConfigError, match="An idempotency key is 1 to 256 printable characters"):
        key_to_id(key)

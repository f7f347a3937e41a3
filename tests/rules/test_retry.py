"""Back-off as arithmetic."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import ConfigError, Retry
from windlass.retry import NO_RETRY, RetryPolicy, parse_retry_after

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def test_the_delay_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(initial=timedelta(seconds=2), cap=timedelta(hours=1), jitter=0)

    delays = [policy.delay(n).total_seconds() for n in (1, 2, 3, 11, 12, 100_000)]

    assert delays == [2, 4, 8, 2048, 3600, 3600]


@given(
    failures=st.integers(1, 10_000),
    roll=st.floats(0, 1, exclude_max=True),
    initial=st.floats(0, 3600),
    factor=st.floats(1, 100),
    jitter=st.floats(0, 10),
)
def test_a_delay_is_never_shorter_than_planned_nor_longer_than_cap_and_jitter(
    failures: int, roll: float, initial: float, factor: float, jitter: float
) -> None:
    policy = RetryPolicy(
        initial=timedelta(seconds=initial), cap=timedelta(hours=1), factor=factor, jitter=jitter
    )

    delay = policy.delay(failures, roll)

    assert policy.delay(failures, 0.0) <= delay <= timedelta(hours=1) * (1 + jitter)
    assert policy.delay(failures, 0.0) >= policy.initial


def test_no_retry_retries_nothing() -> None:
    assert NO_RETRY.choose(ValueError()) is None


def test_no_retry_retries_no_time_out_and_no_crash_of_which_only_a_description_is_left() -> None:
    assert NO_RETRY.choose(None) is None
    assert RetryPolicy(exceptions={ValueError: None}).choose(None) is not None


def test_any_exception_may_carry_retry_after() -> None:
    class TooMany(Exception):
        retry_after = 7

    policy = RetryPolicy(jitter=1.0)

    assert policy.asked(TooMany(), roll=0.5) == timedelta(seconds=10.5)
    assert policy.asked(Retry("x", after=timedelta(minutes=1))) == timedelta(minutes=1)
    assert policy.asked(ValueError()) is None


@pytest.mark.parametrize(
    "nonsense", [-1, timedelta(seconds=-1), "soon", float("nan"), float("inf"), True, None]
)
def test_a_nonsensical_retry_after_is_ignored(nonsense: object) -> None:
    error = ValueError()
    error.retry_after = nonsense  # type: ignore[attr-defined]

    assert RetryPolicy().asked(error) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120), (" 0 ", 0), ("Fri, 20 Nov 2026 12:01:00 GMT", 60),
        ("Fri, 20 Nov 2026 11:00:00 GMT", 0), ("999999999999", 366 * 86400),
    ],
)  # fmt: skip
def test_retry_after_headers_are_seconds_or_dates(value: str, seconds: int) -> None:
    assert parse_retry_after(value, NOW) == timedelta(seconds=seconds)


@pytest.mark.parametrize("value", ["", "-1", "1.5", "tomorrow", "²"])
def test_other_retry_after_headers_are_ignored(value: str) -> None:
    assert parse_retry_after(value, NOW) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"initial": timedelta(-1)}, {"cap": timedelta(seconds=1)}, {"factor": 0.5},
        {"jitter": -0.1}, {"jitter": float("nan")}, {"cap": timedelta(days=1000)},
    ],
)  # fmt: skip
def test_an_impossible_policy_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        RetryPolicy(**fields)  # type: ignore[arg-type]

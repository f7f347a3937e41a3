"""GCRA against a brute-force count of what a rate means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.errors import ConfigError
from windlass.limits import Rate, opens_in, parse_rate, refund, room, take

rates = st.builds(
    Rate,
    count=st.integers(1, 50),
    period=st.sampled_from([0.5, 1.0, 10.0, 60.0]),
    burst=st.integers(1, 20),
)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("10/s", Rate(10, 1.0, 10)),
        ("100 per minute", Rate(100, 60.0, 100)),
        ("5/10s", Rate(5, 10.0, 5)),
        ("1/h", Rate(1, 3600.0, 1)),
        ("3/2days", Rate(3, 172800.0, 3)),
    ],
)
def test_rates_are_written_as_people_write_them(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "10", "0/s", "10/fortnight", "-1/s", "1.5/s", "1/0s"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_rate(text)


def test_an_idle_limit_allows_its_burst_and_then_one_per_interval() -> None:
    rate = Rate(10, 1.0, burst=3)

    tat = take(rate, 0.0, 1000.0, room(rate, 0.0, 1000.0))

    assert room(rate, 0.0, 1000.0) == 3
    assert room(rate, tat, 1000.0) == 0
    assert opens_in(rate, tat, 1000.0) == pytest.approx(0.1)
    assert room(rate, tat, 1000.1) == 1


@given(rate=rates, steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 20)), max_size=40))
def test_no_window_ever_sees_more_than_its_rate_and_burst(
    rate: Rate, steps: list[tuple[float, int]]
) -> None:
    tat, now, starts = 0.0, 1_000.0, []
    for gap, wanted in steps:
        now += gap
        count = min(wanted, room(rate, tat, now))
        if count:
            tat = take(rate, tat, now, count)
            starts += [now] * count

    for i, first in enumerate(starts):
        for j in range(i, len(starts)):
            window = starts[j] - first
            assert j - i + 1 <= rate.burst + window / rate.interval + 1e-3


@given(rate=rates, count=st.integers(1, 20))
def test_a_refund_makes_the_charge_undone(rate: Rate, count: int) -> None:
    now = 1_000.0
    count = min(count, rate.burst)
    before = room(rate, 0.0, now)

    tat = refund(rate, take(rate, 0.0, now, count), count)

    assert room(rate, tat, now) == before


@given(rate=rates, spent=st.integers(1, 60), gap=st.floats(0, 2))
def test_one_may_start_when_it_was_said_that_it_opens(rate: Rate, spent: int, gap: float) -> None:
    now = 1_000.0
    tat = take(rate, 0.0, now, spent)
    now += gap

    wait = opens_in(rate, tat, now)

    assert room(rate, tat, now + wait + 1e-5) >= 1
    if wait > 1e-3:
        assert room(rate, tat, now + wait - 5e-4) == 0


@pytest.mark.parametrize(
    ("rate", "now"),
    [(Rate(3, 1.0), 1_713_436_424.41124), (Rate(7, 60.0), 1_713_020_153.534648)],
)
def test_a_time_rounded_to_its_microsecond_is_not_too_early(rate: Rate, now: float) -> None:
    tat = take(rate, 0.0, now, 1)

    assert room(rate, tat, round(tat, 6)) == 1

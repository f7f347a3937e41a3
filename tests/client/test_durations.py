from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windlass.durations import Duration, format_duration, parse_duration
from windlass.errors import ConfigError


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (30, 30),
        (0.25, 0.25),
        ("90", 90),
        ("30s", 30),
        ("250ms", 0.25),
        ("5m", 300),
        ("1h30m", 5400),
        ("1d 2h", 93_600),
        ("1w", 604_800),
        ("1.5h", 5400),
        (timedelta(days=2), 172_800),
    ],
)
def test_a_duration_is_read_in_every_form_people_write(written: Duration, seconds: float) -> None:
    assert parse_duration(written) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "written",
    ["", "soon", "5m5m", "5s2h", "-5s", "5 parsecs", "1h30", True, None, float("nan"), b"5s"],
)
def test_what_is_no_duration_is_refused_with_examples(written: object) -> None:
    with pytest.raises(ConfigError, match=r"^The delay is a number of seconds.*'5m'.*not "):
        parse_duration(written, what="The delay")  # type: ignore[arg-type]


@pytest.mark.parametrize("written", [-1, float("inf"), 10**400, "999999999999w", timedelta(-1)])
def test_a_duration_out_of_range_is_refused_with_the_range(written: Duration) -> None:
    with pytest.raises(ConfigError, match="between 0 and 100 years"):
        parse_duration(written)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_formatted_duration_reads_back_as_itself(milliseconds: int) -> None:
    duration = timedelta(milliseconds=milliseconds)

    assert parse_duration(format_duration(duration)) == duration

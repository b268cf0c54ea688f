"""How an hour is cut out of time, and what its checks come to."""

from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.health import rules


@given(
    st.datetimes(
        datetime(1971, 1, 1),
        datetime(2100, 1, 1),
        timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]),
    )
)
def test_an_hour_begins_at_a_full_one_of_utc_and_holds_its_moment(moment):
    hour = rules.hour_of(moment)
    assert hour <= moment < hour + timedelta(hours=1)
    assert (hour.astimezone(UTC).minute, hour.second, hour.microsecond) == (0, 0, 0)
    assert rules.hour_of(hour) == hour


@given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
def test_a_percentile_is_the_smallest_value_that_enough_of_them_do_not_exceed(values, percent):
    found = rules.nearest_rank(values, percent)
    assert found in values
    share = Fraction(percent, 100) * len(values)
    assert sum(value <= found for value in values) >= share
    assert sum(value < found for value in values) < share


def test_the_95th_of_a_hundred_is_the_95th():
    assert rules.nearest_rank(range(1, 101), 95) == 95
    assert rules.nearest_rank([], 95) is None


@pytest.mark.parametrize(("up", "down", "share"), [(3, 1, 0.75), (5, 0, 1.0), (0, 2, 0.0), (0, 0, None)])
def test_uptime_counts_only_checks_that_could_tell(up, down, share):
    assert rules.uptime(up, down) == share


def test_a_day_with_25_local_hours_has_25_hours():
    start = datetime(2026, 10, 24, 22, tzinfo=UTC)  # midnight in Berlin on the day the clocks go back
    hours = {rules.hour_of(start + timedelta(minutes=minute)) for minute in range(25 * 60)}
    assert len(hours) == 25

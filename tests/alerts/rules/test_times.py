"""When a maintenance window is open, across daylight saving, both ways."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from apps.alerts.rules.times import Plan, Span, current, moment, spans, upcoming

BERLIN = "Europe/Berlin"
zones = st.sampled_from([BERLIN, "UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "Pacific/Apia"])
days = st.dates(date(2024, 1, 1), date(2028, 12, 31))
clock = st.times().map(lambda at: at.replace(second=0, microsecond=0))
plans = st.builds(
    Plan,
    time_zone=zones,
    first_day=days,
    start=clock,
    minutes=st.integers(1, 44640),
    weekdays=st.frozensets(st.integers(0, 6)),
    last_day=st.one_of(st.none(), days),
)
moments = st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31), timezones=st.just(UTC))


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


def sundays(start: time, minutes: int) -> Plan:
    return Plan(BERLIN, date(2026, 1, 1), start, minutes, frozenset({6}))


def test_a_start_that_the_clocks_skip_is_the_next_minute_there_is():
    plan = sundays(time(2, 15), 30)
    assert current(plan, utc(2026, 3, 29, 1, 0)) == Span(utc(2026, 3, 29, 1, 0), utc(2026, 3, 29, 1, 30))
    assert current(plan, utc(2026, 3, 29, 0, 59)) is None
    assert current(plan, utc(2026, 3, 29, 1, 30)) is None


def test_a_start_that_the_clocks_repeat_happens_once_and_lasts_as_long_as_it_says():
    plan = sundays(time(2, 15), 30)
    found = list(spans(plan, utc(2026, 10, 24), utc(2026, 10, 26)))
    assert found == [Span(utc(2026, 10, 25, 0, 15), utc(2026, 10, 25, 0, 45))]
    assert current(plan, utc(2026, 10, 25, 1, 20)) is None  # 02:20 for the second time


def test_a_window_across_the_change_is_as_long_as_always():
    plan = sundays(time(1, 30), 120)
    assert current(plan, utc(2026, 3, 29, 2, 29)) == Span(utc(2026, 3, 29, 0, 30), utc(2026, 3, 29, 2, 30))
    assert current(plan, utc(2026, 10, 25, 1, 29)) == Span(utc(2026, 10, 24, 23, 30), utc(2026, 10, 25, 1, 30))


def test_a_day_that_a_zone_left_out_is_the_beginning_of_the_next():
    assert moment(date(2011, 12, 30), time(9, 0), ZoneInfo("Pacific/Apia")) == utc(2011, 12, 30, 10, 0)


def test_once_is_once_and_the_last_day_is_the_last():
    once = Plan("UTC", date(2026, 3, 2), time(23, 0), 120)
    assert upcoming(once, utc(2026, 1, 1), 5) == [Span(utc(2026, 3, 2, 23), utc(2026, 3, 3, 1))]
    assert upcoming(once, utc(2026, 3, 3, 1), 5) == []
    weekly = Plan("UTC", date(2026, 3, 2), time(1, 0), 60, frozenset({0, 2}), date(2026, 3, 9))
    assert [span.starts_at.day for span in upcoming(weekly, utc(2026, 1, 1), 9)] == [2, 4, 9]


@given(plans, moments)
def test_the_current_occurrence_is_on_and_the_preview_agrees(plan, now):
    on = current(plan, now)
    coming = upcoming(plan, now, 3)
    if on is not None:
        assert on.starts_at <= now < on.ends_at
        assert coming[0].starts_at <= now
    assert all(span.ends_at > now for span in coming)
    assert [*coming] == sorted(coming, key=lambda span: span.starts_at)
    assert all(span.ends_at - span.starts_at == timedelta(minutes=plan.minutes) for span in coming)


@given(plans, moments, st.integers(1, 40 * 1440))
def test_what_touches_a_stretch_is_what_is_on_at_some_moment_of_it(plan, since, minutes):
    until = since + timedelta(minutes=minutes)
    found = list(spans(plan, since, until))
    assert all(span.starts_at < until and span.ends_at > since for span in found)
    assert (current(plan, since) is not None) == any(span.starts_at <= since for span in found)


@given(zones, days, clock)
def test_a_wall_clock_shows_the_start_unless_it_skips_it(name, day, at):
    where = ZoneInfo(name)
    found = moment(day, at, where).astimezone(where).replace(tzinfo=None)
    assert found >= datetime.combine(day, at)
    assert found - datetime.combine(day, at) <= timedelta(hours=1)

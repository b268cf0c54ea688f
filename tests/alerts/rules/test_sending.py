"""When messages go out."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from apps.alerts.rules import sending
from apps.alerts.rules.sending import Filter, gather_at, reminder_due, retry_at, wanted

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
moments = st.floats(0, 300).map(lambda seconds: NOW + timedelta(seconds=seconds))


@given(st.lists(moments, min_size=1), st.integers(0, 10))
def test_nothing_waits_longer_than_a_minute_and_one_alone_not_longer_than_five_seconds(waiting, told):
    due = gather_at(waiting, told)
    assert min(waiting) < due <= min(waiting) + timedelta(minutes=1)
    if len(waiting) + told < 5:
        assert due == min(waiting) + timedelta(seconds=5)


def test_a_storm_is_gathered_until_it_is_over():
    storm = [NOW + timedelta(seconds=n) for n in range(30)]
    assert gather_at(storm, 0) == NOW + timedelta(seconds=39)
    assert gather_at(storm[:1], 4) == NOW + timedelta(seconds=10)


def test_attempts_are_bounded_and_last_a_day():
    now, waits = NOW, []
    attempts = 1
    while (again := retry_at(attempts, now)) is not None:
        waits.append(again - now)
        now, attempts = again, attempts + 1
    assert attempts == sending.ATTEMPTS
    assert waits == sorted(waits)
    assert waits[0] == timedelta(seconds=10)
    assert waits[-1] == sending.LONGEST_RETRY
    assert timedelta(hours=22) < now - NOW < timedelta(hours=26)


def test_reminders():
    assert reminder_due(NOW, 60, NOW + timedelta(hours=1))
    assert not reminder_due(NOW, 60, NOW + timedelta(minutes=59))
    assert not reminder_due(NOW, 0, NOW + timedelta(days=1))


def test_what_a_route_wants():
    alert = {"kind": "endpoint_down", "severity": "warning", "environment": "staging", "service": "shop"}
    nowhere = {**alert, "environment": "", "service": ""}
    assert wanted(Filter(), **alert)
    assert wanted(Filter(environments=frozenset({"staging"}), services=frozenset({"shop"})), **alert)
    assert wanted(Filter(environments=frozenset({"production"}), services=frozenset({"blog"})), **nowhere)
    for one in (
        Filter(kinds=frozenset({"backup_failed"})),
        Filter(severity="critical"),
        Filter(environments=frozenset({"production"})),
        Filter(services=frozenset({"blog"})),
    ):
        assert not wanted(one, **alert)

from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from apps.health.rules.schedule import LATE, Due, follows, neglected, overdue, phase_of, shard_of, slots, window

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEYS = st.integers(1, 100_000).map(lambda pk: f"endpoint:{pk}")
INTERVALS = st.integers(10, 3600)
TIMES = st.datetimes(datetime(1965, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))


@given(KEYS, INTERVALS, TIMES)
def test_every_interval_holds_exactly_one_slot_and_windows_meet_without_gap(key, interval, start):
    step = timedelta(seconds=interval)
    once = slots(key, interval, start, start + step)
    assert len(once) == 1
    assert slots(key, interval, once[0], once[0] + timedelta(microseconds=1)) == once
    halves = slots(key, interval, start, start + step / 2) + slots(key, interval, start + step / 2, start + 3 * step)
    assert halves == slots(key, interval, start, start + 3 * step)
    assert {b - a for a, b in pairwise(halves)} == {step}


@given(KEYS, INTERVALS)
def test_a_phase_lies_within_the_interval(key, interval):
    assert timedelta(0) <= phase_of(key, interval) < timedelta(seconds=interval)


def test_five_thousand_targets_are_spread_over_the_minute_and_over_shards():
    seconds = Counter(int(phase_of(f"endpoint:{pk}", 60).total_seconds()) for pk in range(5000))
    assert len(seconds) == 60
    assert max(seconds.values()) < 2 * 5000 / 60
    shards = Counter(shard_of(f"endpoint:{pk}", 4) for pk in range(5000))
    assert sorted(shards) == [0, 1, 2, 3]
    assert max(shards.values()) < 1.1 * 5000 / 4


@given(TIMES)
def test_the_windows_of_two_minutes_meet(start):
    assert window(start)[1] == window(start + timedelta(minutes=1))[0]


def test_only_the_newest_missed_slot_is_made_good_and_only_soon():
    old, new = NOW - timedelta(seconds=40), NOW - timedelta(seconds=10)
    assert overdue([], NOW) == Due(None, ())
    assert overdue([new, old], NOW) == Due(new, (old,))
    assert overdue([NOW - LATE], NOW) == Due(NOW - LATE, ())
    assert overdue([old, new], NOW + LATE) == Due(None, (old, new))


def test_a_target_that_waited_too_long_is_checked_between_its_slots():
    assert neglected(None, 3600, [], NOW)
    assert neglected(NOW - timedelta(hours=2), 3600, [], NOW)
    assert not neglected(NOW - timedelta(hours=2), 3600, [NOW], NOW), "it has its turn in this slice"
    assert not neglected(NOW - timedelta(minutes=30), 3600, [], NOW)


def test_a_straggler_changes_nothing_but_a_clock_set_back_does():
    assert follows(NOW, None)
    assert follows(NOW, NOW - timedelta(seconds=1))
    assert not follows(NOW, NOW)
    assert not follows(NOW, NOW + timedelta(minutes=2))
    assert follows(NOW, NOW + timedelta(minutes=4))

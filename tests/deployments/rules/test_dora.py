"""DORA's figures."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.deployments.rules import dora
from apps.deployments.rules.dora import Outcome

NOW = datetime(2026, 3, 31, tzinfo=UTC)


def ago(hours: float) -> datetime:
    return NOW - timedelta(hours=hours)


def test_four_failed_of_twenty_three_are_seventeen_percent():
    rows = [Outcome(ago(n), failed_at=ago(n) if n in (3, 7, 8, 20) else None) for n in range(1, 24)]

    found = dora.measure(rows, days=30, now=NOW)

    assert (found.deployments, found.failed) == (23, 4)
    assert found.change_failure_rate == pytest.approx(0.174, abs=0.0005)
    assert found.per_day == pytest.approx(19 / 30)


def test_lead_time_is_the_median_from_commit_to_completed():
    rows = [Outcome(ago(1), committed_at=ago(2)), Outcome(ago(3), committed_at=ago(8)), Outcome(ago(4))]
    assert dora.measure(rows, days=30, now=NOW).lead_time_seconds == 3 * 3600


def test_an_outage_ends_with_the_next_success_and_failures_in_between_belong_to_it():
    rows = [
        Outcome(ago(10), failed_at=ago(10)),
        Outcome(ago(9), failed_at=ago(9)),
        Outcome(ago(8), failed_at=ago(8), rollback=True),
        Outcome(ago(6), rollback=True),
        Outcome(ago(5)),
        Outcome(ago(1), failed_at=ago(1)),
    ]
    found = dora.measure(rows, days=30, now=NOW)
    assert found.time_to_restore_seconds == 4 * 3600
    assert (found.deployments, found.failed) == (4, 3)


def test_a_rollback_that_fails_alone_breaks_nothing():
    rows = [Outcome(ago(3), failed_at=ago(3), rollback=True), Outcome(ago(1))]
    assert dora.measure(rows, days=30, now=NOW).time_to_restore_seconds is None


def test_without_deployments_nothing_is_claimed():
    found = dora.measure([Outcome(ago(24 * 60))], days=30, now=NOW)
    assert (found.deployments, found.change_failure_rate, found.lead_time_seconds) == (0, None, None)


@given(st.lists(st.tuples(st.integers(1, 700), st.booleans(), st.booleans()), max_size=30), st.randoms())
def test_order_does_not_matter_and_shares_stay_shares(made, chance):
    rows = [
        Outcome(ago(h), failed_at=ago(h) if bad else None, rollback=back)
        for h, bad, back in {m[0]: m for m in made}.values()
    ]
    found = dora.measure(rows, days=30, now=NOW)
    chance.shuffle(rows)
    assert dora.measure(rows, days=30, now=NOW) == found
    assert found.change_failure_rate is None or 0 <= found.change_failure_rate <= 1
    assert found.time_to_restore_seconds is None or found.time_to_restore_seconds > 0


@given(st.lists(st.tuples(st.integers(0, 24 * 7 * 14), st.booleans(), st.booleans()), max_size=40))
def test_every_deployment_of_the_last_weeks_is_in_one_week(made):
    rows = [Outcome(ago(h), failed_at=ago(h) if bad else None, rollback=back) for h, bad, back in made]

    weeks = dora.by_week(rows, weeks=13, now=NOW)

    inside = [row for row in rows if row.ended_at > NOW - 13 * dora.WEEK and not row.rollback]
    assert sum(week.deployments for week in weeks) == len(inside)
    assert sum(week.failed for week in weeks) == sum(row.failed_at is not None for row in inside)
    assert [week.since for week in weeks] == sorted(week.since for week in weeks)
    assert len(weeks) == 13

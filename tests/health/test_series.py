"""What charts are given."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.health import series
from apps.health.choices import SubjectKind
from apps.health.models import HealthHourly

NOW = datetime(2026, 3, 29, 12, 32, 10, tzinfo=UTC)
pytestmark = [pytest.mark.engine, pytest.mark.django_db]


def test_the_last_90_days_are_drawn_from_hours_and_change_no_width_with_the_clocks(django_assert_num_queries):
    row = {"kind": "database", "subject": "7", "unknown": 1, "maintenance": 2, "degraded": 0}
    for hours, healthy, mean in ((1, 10, 100.0), (2, 30, 200.0), (89 * 24, 5, None)):
        hour = (NOW - timedelta(hours=hours)).replace(minute=0, second=0)
        HealthHourly.objects.create(
            **row, hour=hour, checks=healthy + 3 + hours, healthy=healthy, down=hours, measured=healthy if mean else 0,
            response_mean_ms=mean, response_p95_ms=mean and mean * 2, response_max_ms=mean and mean * 3, cpu_mean=mean,
        )  # fmt: skip
    HealthHourly.objects.create(**{**row, "subject": "8"}, hour=hour, checks=3, healthy=0, down=0, measured=0)

    with django_assert_num_queries(1):
        found = series.last_90_days(SubjectKind.DATABASE, 7, NOW)

    assert (len(found.points), found.step) == (360, timedelta(hours=6))
    assert {point.until - point.at for point in found.points} == {timedelta(hours=6)}
    point = next(point for point in found.points if point.at.day == 29 and point.checks and point.at.month == 3)
    assert (point.at.hour, point.checks, point.healthy, point.down) == (6, 49, 40, 3)
    assert (point.unknown, point.maintenance, point.state) == (2, 4, "down")
    assert (point.response_mean_ms, point.response_p95_ms, point.response_max_ms) == (175, 400, 600)
    assert sum(point.checks for point in found.points) == 49 + 5 + 3 + 89 * 24
    assert sum(not point.checks for point in found.points) == 358

"""What charts are given."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.health import series
from apps.health.choices import SubjectKind
from apps.health.models import EndpointCheck, HealthHourly
from tests.factories import EndpointFactory, HealthCheckFactory, InstanceFactory

NOW = datetime(2026, 3, 29, 12, 32, 10, tzinfo=UTC)
pytestmark = [pytest.mark.engine, pytest.mark.django_db]


def test_the_last_day_is_drawn_from_raw_rows_with_its_gaps(django_assert_num_queries):
    instance, other = InstanceFactory(), InstanceFactory()
    slot = NOW.replace(second=0)
    for minutes, status, response, cpu in (
        (0, "degraded", 250, 80), (1, "healthy", 50, 40), (2, "healthy", 60, None),
        (3, "unknown", 10, None), (24 * 60 - 3, "unhealthy", 9000, None), (25 * 60, "healthy", 1, 1),
    ):  # fmt: skip
        HealthCheckFactory(
            instance=instance, timestamp=slot - timedelta(minutes=minutes), overall_status=status,
            response_time_ms=response, cpu_usage_percent=cpu,
        )  # fmt: skip
    HealthCheckFactory(instance=other, timestamp=slot)

    with django_assert_num_queries(1):
        found = series.last_day(SubjectKind.INSTANCE, instance.pk, NOW)

    assert (len(found.points), found.step, found.end) == (288, timedelta(minutes=5), NOW.replace(minute=35, second=0))
    assert all(one.until == other.at for one, other in zip(found.points, found.points[1:], strict=False))
    newest, before, oldest = found.points[-1], found.points[-2], found.points[0]
    assert (newest.at, newest.checks, newest.healthy, newest.degraded) == (NOW.replace(minute=30, second=0), 3, 2, 1)
    assert (newest.response_mean_ms, newest.response_max_ms) == (120, 250)
    assert (newest.cpu_mean, newest.cpu_max, newest.memory_mean) == (60, 80, None)
    assert (before.checks, before.unknown, before.state) == (1, 1, "unknown")
    assert (oldest.down, oldest.state) == (1, "down")
    gap = found.points[100]
    assert (gap.checks, gap.state, gap.response_mean_ms) == (0, "", None)
    assert found.uptime == 0.75


def test_what_is_looked_at_once_an_hour_has_a_point_an_hour():
    endpoint = EndpointFactory()
    hour = NOW.replace(minute=17, second=0)
    EndpointCheck.objects.bulk_create(
        EndpointCheck(endpoint=endpoint, at=hour - n * timedelta(hours=1), status="failed") for n in range(30)
    )

    found = series.last_day(SubjectKind.ENDPOINT, endpoint.pk, NOW, interval=timedelta(hours=1))

    assert [point.down for point in found.points] == [1] * 24
    assert found.points[0].response_mean_ms is None


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

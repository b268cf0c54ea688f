"""Workloads that are unhealthy, as alerts."""

from datetime import timedelta

import pytest

from apps.alerts.models import Alert
from apps.core import heartbeats
from apps.health import alarms
from tests.alerts.conftest import NOW
from tests.factories import HealthCheckFactory, InstanceFactory, ServiceFactory, WorkloadFactory

pytestmark = pytest.mark.django_db


def sample(instance, minute: int, status: str, **facts) -> None:
    HealthCheckFactory(instance=instance, timestamp=NOW + timedelta(minutes=minute), overall_status=status, **facts)


def test_an_alert_opens_after_three_bad_samples_worsens_and_closes(django_assert_num_queries):
    shop = ServiceFactory(slug="shop", runbook_url="https://wiki.example/shop")
    workload = WorkloadFactory(service=shop)
    first, second, third = (InstanceFactory(workload=workload) for _ in range(3))
    other = InstanceFactory()
    for row in (first, second, third, other):
        row.registered_at = NOW
        row.save()
    for minute in range(3):
        sample(first, minute, "unhealthy", reasons=[{"rule": "database_disconnected"}])
        for row in (second, third, other):
            sample(row, minute, "healthy")
        alarms.check(NOW + timedelta(minutes=minute))
    alert = Alert.objects.get()
    assert (alert.kind, alert.subject, alert.severity) == ("workload_unhealthy", "workload:shop/production", "warning")
    assert alert.title == "shop/production is unhealthy: 1 of 3 instances"
    assert alert.detail.startswith(f"{first.pk}: database disconnected.")
    assert (alert.service, alert.runbook_url) == ("shop", "https://wiki.example/shop")
    for minute in range(3, 6):
        for row, status in ((first, "unhealthy"), (second, "unhealthy"), (third, "healthy"), (other, "healthy")):
            sample(row, minute, status)
    alarms.check(NOW + timedelta(minutes=5))
    assert Alert.objects.get().severity == "critical"
    with django_assert_num_queries(5):
        alarms.check(NOW + timedelta(minutes=5, seconds=1))
    for row in (first, second, third, other):
        sample(row, 6, "healthy")
    alarms.check(NOW + timedelta(minutes=6))
    assert Alert.objects.get().closed_at is not None


def test_while_the_sampler_itself_is_silent_nobody_is_blamed():
    row = InstanceFactory()
    row.registered_at = NOW - timedelta(hours=1)
    row.save()
    heartbeats.expect(NOW - timedelta(hours=1))
    alarms.check(NOW)
    assert not Alert.objects.exists()
    for source in ("fast", "long", "sampler", "rollups"):
        heartbeats.beat(source, NOW)
    alarms.check(NOW)
    assert Alert.objects.get().detail.startswith(f"{row.pk}: no sample.")

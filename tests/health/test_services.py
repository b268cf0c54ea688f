"""Samples that applications push: judged by our rule, stored once, all or none."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apps.core.audit import Actor
from apps.core.errors import Invalid
from apps.core.models import AuditEntry
from apps.health import rules, services
from apps.health.models import HealthCheck
from apps.health.services import Pushed, PushResult
from apps.inventory.models import Instance, Workload
from tests.factories import InstanceFactory, ServiceFactory, WorkloadFactory

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ACTOR = Actor.token("collector")
pytestmark = pytest.mark.engine


@pytest.fixture
def shop(db):
    return ServiceFactory(slug="shop")


def sample(place=0, **fields):
    own = {"instance": "web-1", "environment": "production", "service": "shop", "response_time_ms": 45}
    return Pushed(**(own | {"timestamp": NOON - timedelta(seconds=place)} | fields))


def push(*samples, now=NOON):
    return services.push_samples(samples=samples, actor=ACTOR, now=now)


def test_the_first_sample_registers_its_instance_and_the_workload_it_runs_in(shop):
    assert push(sample(), sample(1), sample(instance="web-2")) == PushResult(stored=3, duplicates=0, registered=2)
    assert push(sample(2)) == PushResult(stored=1, duplicates=0, registered=0)

    workload = Workload.objects.get()
    assert (str(workload), workload.platform) == ("shop/production", "advisory")
    assert set(Instance.objects.values_list("name", "url", "active")) == {("web-1", "", True), ("web-2", "", True)}
    assert AuditEntry.objects.of("instance:web-1").get().actor == "collector"
    assert set(HealthCheck.objects.values_list("source", flat=True)) == {"pushed"}


def test_the_rule_decides_with_its_reasons_and_what_was_not_measured_is_null(shop):
    WorkloadFactory(service=shop, current_deployment_id="deploy_20260301_110000")
    slow = rules.dependency("connected", 150, slow_ms=rules.DATABASE_SLOW_MS)
    push(
        sample(0),
        sample(1, database=slow, deployment_id="deploy_20260101_000000"),
        sample(2, redis=rules.Dependency("disconnected")),
        sample(3, usage=rules.Usage(error_rate=0.06, cpu_percent=15.2, memory_mb=450)),
        sample(4, response_time_ms=200),
    )

    rows = list(HealthCheck.objects.order_by("-timestamp"))
    assert [row.overall_status for row in rows] == ["healthy", "degraded", "unhealthy", "unhealthy", "degraded"]
    assert rows[1].reasons == [{"rule": "database_slow", "status": "degraded", "value": 150, "limit": 100}]
    assert (rows[0].cpu_usage_percent, rows[0].database_status, rows[0].version) == (None, "unknown", None)
    assert (rows[3].cpu_usage_percent, rows[3].memory_usage_mb, rows[3].environment) == (15.2, 450, "production")
    assert (rows[0].deployment_id, rows[1].deployment_id) == ("deploy_20260301_110000", "deploy_20260101_000000")
    assert (rows[0].timestamp, rows[0].measured_at) == (NOON, NOON)


def test_duplicates_are_counted_and_change_nothing(shop):
    push(sample(), sample(1))
    before = list(HealthCheck.objects.order_by("pk").values())
    again = push(*(sample(place, response_time_ms=999) for place in (0, 1, 2, 2, 3)))

    assert again == PushResult(stored=2, duplicates=3, registered=0)
    assert list(HealthCheck.objects.filter(response_time_ms=45).order_by("pk").values()) == before
    assert push(sample(2), sample(3)) == PushResult(stored=0, duplicates=2, registered=0)


def test_names_that_differ_only_in_case_are_one_instance(shop):
    assert push(sample(), sample(1, instance="WEB-1"), sample(2, service="SHOP")).registered == 1


def test_an_instance_keeps_its_name_when_another_workload_has_it(shop):
    InstanceFactory(name="web-1", id="web-1")
    push(sample())

    assert HealthCheck.objects.get().instance_id == "web-1@shop/production"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"timestamp": NOON + timedelta(seconds=61)}, "[1].timestamp"),
        ({"timestamp": NOON - timedelta(hours=24, seconds=1)}, "[1].timestamp"),
        ({"service": "none"}, "[1].service"),
        ({"instance": "<b>"}, "[1].instance_id"),
    ],
)
def test_one_wrong_sample_keeps_all_out_and_is_named(shop, wrong, field):
    with pytest.raises(Invalid) as caught:
        push(sample(), sample(1, **wrong))

    assert caught.value.field == field
    assert not HealthCheck.objects.exists()
    assert not Instance.objects.exists()


def test_the_edges_of_the_last_24_hours_are_in(shop):
    assert push(sample(-60), sample(24 * 3600)).stored == 2


def test_a_push_is_bounded(shop, monkeypatch):
    monkeypatch.setattr(services, "MAX_NEW_INSTANCES", 2)
    with pytest.raises(Invalid, match="not 3"):
        push(*(sample(instance=f"web-{n}") for n in range(3)))
    monkeypatch.setattr(services, "MAX_SAMPLES", 2)
    with pytest.raises(Invalid, match="at most 2"):
        push(*map(sample, range(3)))
    assert not HealthCheck.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_the_same_push_four_times_at_once_is_stored_once():
    ServiceFactory(slug="shop")
    barrier = threading.Barrier(4)

    def one(_):
        barrier.wait()
        try:
            return push(*(sample(place, instance=f"web-{place % 5}") for place in range(200)))
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(one, range(4)))

    assert HealthCheck.objects.count() == 200
    assert Instance.objects.count() == 5
    assert sum(result.stored for result in results) == 200
    assert all(result.stored + result.duplicates == 200 for result in results)

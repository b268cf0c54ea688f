"""Sampling: what is read, judged and stored."""

import functools
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from django.db import IntegrityError, connection, transaction

from apps.health import runner
from apps.health.models import HealthCheck
from apps.health.probers.instance import Target
from apps.health.rules import Counters, Dependency, Observation
from apps.inventory.models import Instance, Service
from tests.factories import HealthCheckFactory, InstanceFactory, ServiceFactory, WorkloadFactory
from tests.http_app import Answer, http_app
from tests.servers import free_port

NOON = datetime(2026, 3, 1, 12, 0, 20, tzinfo=UTC)
READY = {"version": "1.4.0", "checks": {"database": {"status": "healthy", "latency_ms": 5}}}


def ready(body: object = READY, status: int = 200) -> Answer:
    return Answer(status, json.dumps(body).encode())


def metrics(cpu: float, ok: int, failed: int) -> Answer:
    status = "django_http_responses_total_by_status_total"
    lines = (
        f"process_cpu_seconds_total {cpu}",
        f"process_resident_memory_bytes {2**27}",
        "process_start_time_seconds 1.77e9",
        f'{status}{{status="200"}} {ok}',
        f'{status}{{status="500"}} {failed}',
        "",
    )
    return Answer(body="\n".join(lines).encode(), content_type="text/plain")


@pytest.mark.django_db
def test_every_instance_gets_one_row_with_its_slot_its_figures_and_its_reasons():
    workload = WorkloadFactory(current_deployment_id="deploy_20260301_110000")
    with http_app(ready=ready(), metrics=metrics(10, 100, 0)) as app:
        well = InstanceFactory(workload=workload, url=app.url + "/", cpu_limit_cores=2, memory_limit_mb=256)
        gone = InstanceFactory(url=f"http://127.0.0.1:{free_port()}")
        InstanceFactory(url="")  # pushes its samples itself
        InstanceFactory(active=False)
        runner.sample(NOON)

    assert HealthCheck.objects.count() == 2
    row = HealthCheck.objects.get(instance=well)
    assert row.timestamp == NOON.replace(second=0)
    assert row.id.startswith("health_20260301_120000_")
    assert len(row.id.rpartition("_")[2]) == 12
    assert (row.overall_status, row.reasons, row.version) == ("healthy", [], "1.4.0")
    assert (row.environment, row.deployment_id) == ("production", "deploy_20260301_110000")
    assert (row.memory_usage_mb, row.memory_usage_percent) == (128, 50)
    assert (row.total_requests, row.errors_total, row.cpu_seconds_total) == (100, 0, 10)
    assert (row.cpu_usage_percent, row.error_rate_5min) == (None, None), "the first sample has no rates"
    assert (row.database_status, row.redis_status, row.active_connections) == ("connected", "unknown", None)
    row = HealthCheck.objects.get(instance=gone)
    assert row.overall_status == "unhealthy"
    assert row.reasons == [
        {"rule": "no_answer", "status": "unhealthy", "value": "refused the connection", "limit": None}
    ]
    assert (row.memory_usage_mb, row.total_requests, row.version) == (None, None, None)


@pytest.mark.django_db
def test_rates_come_from_the_earlier_samples_of_the_same_instance():
    with http_app(ready=ready(), metrics=metrics(40, 190, 10)) as app:
        instance = InstanceFactory(url=app.url, cpu_limit_cores=1)
        now = datetime.now(UTC)
        for minutes, requests, errors in ((1, 150, 2), (3, 100, 0), (9, 0, 0)):
            at = now - timedelta(minutes=minutes)
            HealthCheckFactory(
                instance=instance, timestamp=at, cpu_seconds_total=10, total_requests=requests, errors_total=errors
            )
        HealthCheckFactory(timestamp=now - timedelta(minutes=1), cpu_seconds_total=0, total_requests=0, errors_total=0)
        (row,) = (row for row in runner.sample(now) if row.instance_id == instance.pk)

    assert row.cpu_usage_percent == pytest.approx(50, rel=0.05)
    assert row.error_rate_5min == pytest.approx(10 / 100)
    assert row.overall_status == "unhealthy"


@pytest.mark.django_db
def test_a_second_tick_in_the_same_minute_reads_nobody_again():
    with http_app(ready=ready()) as app:
        InstanceFactory(url=app.url)
        runner.sample(NOON)
        calls = len(app.seen)
        runner.sample(NOON + timedelta(seconds=30))

    assert len(app.seen) == calls
    assert HealthCheck.objects.count() == 1


@pytest.mark.engine
@pytest.mark.django_db(transaction=True)
def test_two_workers_on_one_minute_store_one_row_for_each_instance():
    instances = [InstanceFactory() for _ in range(5)]
    seen = Observation(NOON, 10, http_status=200)

    def store(_):
        try:
            return runner.store([runner.health_check(row, NOON.replace(second=0), seen, ()) for row in instances])
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        stored = list(pool.map(store, range(4)))

    assert HealthCheck.objects.count() == 5
    assert sum(map(len, stored)) == 5


@pytest.mark.django_db
def test_one_instance_removed_meanwhile_does_not_lose_the_samples_of_the_others():
    kept, removed = InstanceFactory(), InstanceFactory()
    seen = Observation(NOON, 10, http_status=200)
    rows = [runner.health_check(row, NOON.replace(second=0), seen, ()) for row in (removed, kept)]
    Instance.objects.filter(pk=removed.pk).delete()

    stored = runner.store(rows)

    assert connection.vendor != "sqlite" or stored
    assert HealthCheck.objects.filter(instance=kept).count() == 1


@pytest.mark.django_db
def test_sampling_a_hundred_instances_takes_few_statements(django_assert_max_num_queries, monkeypatch):
    service = ServiceFactory()
    workload = WorkloadFactory(service=service)
    for _ in range(100):
        InstanceFactory(workload=workload)

    async def observed(targets, **_):
        return [Observation(NOON, 10, http_status=200) for _ in targets]

    # What a hundred servers would answer; the statements are what is measured.
    monkeypatch.setattr(runner, "observe_all", observed)
    with django_assert_max_num_queries(6):
        assert len(runner.sample(NOON)) == 100


@pytest.mark.django_db
def test_our_own_metrics_token_is_sent_to_our_own_address_only(settings):
    settings.METRICS_TOKEN = "a-token-of-sixteen-characters"
    settings.SELF_URL = "http://127.0.0.1:8000"

    assert runner.target(InstanceFactory(url="http://127.0.0.1:8000/")).metrics_token == settings.METRICS_TOKEN
    assert runner.target(InstanceFactory(url="http://127.0.0.1:8001")).metrics_token == ""


def test_the_preset_of_the_service_decides_whether_metrics_are_read():
    workload = SimpleNamespace(
        service=SimpleNamespace(metrics_preset="none"), readiness_path="/up", metrics_path="/metrics"
    )

    target = runner.target(SimpleNamespace(pk="a", url="http://a:1", workload=workload))

    assert (target.readiness_url, target.metrics_url) == ("http://a:1/up", "")


@pytest.mark.engine
@pytest.mark.django_db
@pytest.mark.parametrize(
    "wrong",
    [
        {"overall_status": "fine"},
        {"environment": "qa"},
        {"database_status": "gone"},
        {"redis_status": ""},
        {"error_rate_5min": 1.01},
        {"error_rate_5min": -0.1},
        {"cpu_usage_percent": -1},
    ],
)
def test_the_database_refuses_a_bad_sample(wrong):
    instance = InstanceFactory()
    with pytest.raises(IntegrityError), transaction.atomic():
        HealthCheckFactory(instance=instance, **wrong)


@pytest.mark.engine
@pytest.mark.django_db
def test_nothing_measured_is_null_and_is_accepted():
    row = HealthCheckFactory(memory_usage_mb=None, cpu_usage_percent=None, error_rate_5min=None)

    row.refresh_from_db()
    assert (row.memory_usage_mb, row.cpu_usage_percent, row.error_rate_5min) == (None, None, None)


@pytest.mark.django_db
@pytest.mark.parametrize("cpu", [0.0, 2.0**50])
def test_the_largest_figures_fit_their_columns(cpu):
    top = 2.0**50
    counters = Counters(cpu, top, top, top, 0.0, None, top, 2**31 - 1)
    seen = Observation(NOON, 10_000, http_status=200, database=Dependency("slow", 10**9), counters=counters)

    (row,) = runner.store([runner.health_check(InstanceFactory(), NOON, replace(seen, version="v" * 64), ())])

    row.refresh_from_db()
    assert row.total_requests == top


@pytest.mark.django_db
def test_the_default_service_exists_from_the_start():
    assert Service.objects.filter(slug="app").exists()


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["http://169.254.169.254", "http://[::ffff:169.254.169.254]"])
def test_the_metadata_service_is_never_asked_whoever_registers_it(url):
    instance = InstanceFactory(url=url)

    [row] = runner.sample(NOON)

    assert (row.instance_id, row.overall_status) == (instance.pk, "unhealthy")
    assert "link-local or metadata address, which is never asked" in str(row.reasons)


def test_instances_whose_names_nobody_looks_up_hold_up_neither_the_others_nor_the_tick(monkeypatch, settings):
    settings.PROBE_ALLOW_LOOPBACK = True
    over, real = threading.Event(), socket.getaddrinfo

    def getaddrinfo(host, *rest, **named):
        if str(host).endswith(".example"):
            over.wait(30)
        return real("127.0.0.1", *rest, **named)

    with http_app(ready=ready()) as app:
        named = app.url.replace("127.0.0.1", "well.invalid")
        urls = [*(f"http://lost-{number}.example" for number in range(40)), named]
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(runner, "places_of", lambda _: frozenset())
        monkeypatch.setattr(runner, "observe_all", functools.partial(runner.observe_all, timeout=1.0))
        started = time.monotonic()
        seen = runner.observe([Target(url, f"{url}/ready") for url in urls])
    assert time.monotonic() - started < 15
    over.set()
    assert {one.failure for one in seen[:-1]} == {"did not answer within 1 s"}
    assert (seen[-1].failure, seen[-1].http_status) == ("", 200)

"""What is deleted, and what is not yet."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.core import heartbeats
from apps.core.audit import Actor
from apps.core.models import Heartbeat
from apps.core.services import set_stop_switch
from apps.health import retention, upkeep
from apps.health.models import EndpointCheck, HealthCheck, HealthHourly, RolledHour
from tests.factories import EndpointFactory, HealthCheckFactory, InstanceFactory

NOW = datetime(2026, 3, 10, 12, 19, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _a_run_before():
    """The first run after a gap deletes nothing; these are in the midst of a quiet day."""
    heartbeats.beat("rollups", NOW - timedelta(minutes=15))


def samples(*hours_ago: float) -> None:
    instance = InstanceFactory()
    for hours in hours_ago:
        HealthCheckFactory(instance=instance, timestamp=NOW - timedelta(hours=hours))


def ages() -> list[float]:
    """Hours since each raw sample that is left."""
    return [(NOW - at).total_seconds() / 3600 for at in HealthCheck.objects.values_list("timestamp", flat=True)]


@pytest.mark.engine
@pytest.mark.django_db
def test_raw_rows_go_by_whole_hours_once_they_are_summed_up_and_history_after_90_days():
    samples(0, 23, 24, 24.25, 24.5, 26, 300)  # 12:00 of the day before is 24.3 hours ago
    endpoint = EndpointFactory()
    EndpointCheck.objects.bulk_create(
        EndpointCheck(endpoint=endpoint, at=NOW - timedelta(hours=hours), status="healthy") for hours in (2, 40)
    )
    row = {"kind": "database", "subject": "7", "checks": 1, "healthy": 1, "measured": 0}
    for days in (89, 91, 120):
        hour = (NOW - timedelta(days=days)).replace(minute=0)
        HealthHourly.objects.create(**row, degraded=0, down=0, unknown=0, maintenance=0, hour=hour)
        RolledHour.objects.create(kind="database", hour=hour, checks=1, rolled_at=NOW)

    done = upkeep.run(NOW)

    assert sorted(ages()) == [0, 23, 24, 24.25]
    assert EndpointCheck.objects.count() == 1
    assert HealthHourly.objects.filter(kind="database").count() == 1
    assert HealthHourly.objects.filter(kind="instance").count() == 5, "what is summed up stays"
    assert RolledHour.objects.filter(hour__lt=NOW - timedelta(days=90)).count() == 0
    assert (done.deleted, done.finished) == (3 + 1 + 4, True)
    assert upkeep.run(NOW) == upkeep.Done()


@pytest.mark.django_db
def test_what_is_not_summed_up_is_not_deleted_however_old():
    samples(30, 31)

    assert retention.delete_old(NOW) == 0
    assert len(ages()) == 2


@pytest.mark.django_db
def test_the_stop_switch_stops_deletion_and_nothing_else():
    samples(30)
    set_stop_switch(on=True, reason="looking for a fault", actor=Actor.automation("test"))

    assert upkeep.run(NOW) == upkeep.Done(hours=1)
    assert len(ages()) == 1

    set_stop_switch(on=False, reason="found", actor=Actor.automation("test"))
    assert upkeep.run(NOW).deleted == 1


@pytest.mark.django_db
def test_deletion_takes_small_steps_and_goes_on_with_the_next_run(monkeypatch):
    monkeypatch.setattr(retention, "ROWS_OF_ONE_DELETION", 10)
    instance = InstanceFactory()
    start = NOW.replace(minute=0) - timedelta(hours=30)
    for minute in range(60):
        HealthCheckFactory(instance=instance, timestamp=start + timedelta(minutes=minute))
    upkeep.run(NOW, seconds=0)
    ticks = iter(range(100))

    first = upkeep.run(NOW, seconds=4, clock=lambda: float(next(ticks)))

    assert not first.finished
    assert 0 < first.deleted < 60
    assert first.deleted % 10 == 0
    second = upkeep.run(NOW)
    assert (first.deleted + second.deleted, second.finished) == (60, True)


@pytest.mark.django_db
def test_a_clock_that_is_years_ahead_for_a_moment_costs_no_history():
    samples(0.5)
    upkeep.run(NOW)
    samples(1.5)
    later = NOW + timedelta(days=1000)

    assert upkeep.run(later).deleted == 0
    assert upkeep.run(NOW + timedelta(minutes=15)).deleted == 0, "it was set back"
    assert upkeep.run(NOW + timedelta(minutes=30)) == upkeep.Done()
    assert len(ages()) == 2
    assert HealthHourly.objects.count() == 2
    assert Heartbeat.objects.get(source="rollups").at == NOW + timedelta(minutes=30)


@pytest.mark.engine
@pytest.mark.django_db
@pytest.mark.parametrize("source", upkeep.SOURCES, ids=lambda source: source.kind.value)
def test_the_oldest_rows_and_an_hours_rows_are_found_by_an_index_on_time_alone(source):
    with CaptureQueriesContext(connection) as asked:
        source.first()
        source.rows(NOW, NOW + timedelta(minutes=1)).delete()
    assert len(asked.captured_queries) == 2

    explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN FORMAT=TRADITIONAL"
    for query in asked.captured_queries:
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {query['sql']}")
            assert f"idx_{source.model._meta.db_table}_{source.at}" in str(cursor.fetchall())

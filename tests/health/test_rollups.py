"""What the checks of an hour come to, whoever sums them up, how often and when."""

from datetime import UTC, datetime, timedelta
from datetime import time as dt_time
from math import ceil
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.alerts.models import MaintenanceWindow
from apps.core.inserts import Inserter
from apps.health import retention, rollups, rules
from apps.health.models import DatabaseCheck, EndpointCheck, HealthCheck, HealthHourly, RolledHour
from apps.health.raw import SOURCES
from apps.health.rollups import roll_up
from apps.inventory.models import Instance
from tests.factories import DatabaseFactory, EndpointFactory, HealthCheckFactory, InstanceFactory

HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)
NEXT = HOUR + timedelta(hours=1, minutes=4)
INSTANCES, ENDPOINTS, DATABASES = SOURCES
FIGURES = [field.name for field in HealthHourly._meta.fields if field.name not in ("id", "kind", "subject", "hour")]


def sample(instance: Instance, at: datetime, **figures: object) -> HealthCheck:
    return HealthCheckFactory.build(
        instance=instance, environment="production", timestamp=at, id=f"health_{instance.pk}_{at:%d%H%M%S}", **figures
    )


def figures(subject: object, hour: datetime = HOUR) -> dict[str, object]:
    return HealthHourly.objects.filter(subject=str(subject), hour=hour).values(*FIGURES).get()


def by_hand(rows: list[tuple[str, float | None, float | None, float | None]]) -> dict[str, object]:
    """The figures of an hour, said a second time and as plainly as can be."""
    times = sorted(time for _, time, _, _ in rows if time is not None)
    words = [status for status, _, _, _ in rows]
    up = words.count("healthy") + words.count("degraded")
    down = words.count("unhealthy") + words.count("failed")

    def mean(values: list[float]) -> object:
        return pytest.approx(sum(values) / len(values)) if values else None

    cpu = [cpu for _, _, cpu, _ in rows if cpu is not None]
    memory = [memory for _, _, _, memory in rows if memory is not None]
    return {
        "checks": len(rows),
        "healthy": words.count("healthy"),
        "degraded": words.count("degraded"),
        "down": down,
        "unknown": words.count("unknown"),
        "maintenance": 0,
        "uptime": up / (up + down) if up + down else None,
        "measured": len(times),
        "response_mean_ms": mean(times),
        "response_p95_ms": times[ceil(0.95 * len(times)) - 1] if times else None,
        "response_max_ms": max(times, default=None),
        "cpu_mean": mean(cpu),
        "cpu_max": max(cpu, default=None),
        "memory_mean": mean(memory),
        "memory_max": max(memory, default=None),
    }


LOAD = st.none() | st.floats(0, 400, width=32).map(lambda load: round(load, 3))
SAMPLES = st.tuples(st.sampled_from(["healthy", "degraded", "unhealthy", "unknown"]), st.integers(0, 5000), LOAD, LOAD)
SOURCE = st.sampled_from(["scheduled", "pushed", "gate"])
CHECKS = st.tuples(
    st.sampled_from(["healthy", "degraded", "failed", "unknown"]),
    st.none() | st.floats(0, 5000, width=32).map(lambda time: round(time, 3)),
    st.none(),
    st.none(),
)


@pytest.mark.engine
@pytest.mark.django_db
@settings(max_examples=12)
@given(
    samples=st.lists(st.lists(st.tuples(SOURCE, SAMPLES), min_size=1, max_size=60), min_size=1, max_size=3),
    checks=st.lists(CHECKS, min_size=1, max_size=60),
)
def test_the_figures_of_an_hour_equal_those_worked_out_by_hand(samples, checks):
    with transaction.atomic():
        instances = [InstanceFactory(name=f"web-{n}") for n, _ in enumerate(samples)]
        HealthCheck.objects.bulk_create(
            sample(
                instance, HOUR + timedelta(minutes=minute), overall_status=status, response_time_ms=response,
                cpu_usage_percent=cpu, memory_usage_percent=memory, source=source,
            )
            for instance, rows in zip(instances, samples, strict=True)
            for minute, (source, (status, response, cpu, memory)) in enumerate(rows)
        )  # fmt: skip
        watched = ((EndpointFactory(), EndpointCheck, "endpoint"), (DatabaseFactory(), DatabaseCheck, "database"))
        for subject, model, name in watched:
            model.objects.bulk_create(
                model(at=HOUR + timedelta(minutes=n), status=status, response_time_ms=response, **{name: subject})
                for n, (status, response, _, _) in enumerate(checks)
            )

        for source in SOURCES:
            assert roll_up(source, NEXT) == 1

        for instance, rows in zip(instances, samples, strict=True):
            counted = [row for source, row in rows if source != "gate"]
            assert HealthHourly.objects.filter(subject=instance.pk).exists() == bool(counted)
            if counted:
                assert figures(instance.pk) == by_hand(counted)
        for kind, (subject, _, _) in zip(("endpoint", "database"), watched, strict=True):
            found = HealthHourly.objects.filter(kind=kind, subject=str(subject.pk)).values(*FIGURES).get()
            assert found == by_hand(checks)
        transaction.set_rollback(True)


@pytest.mark.django_db
def test_an_hour_is_summed_up_once_and_again_only_when_rows_came_late(django_assert_num_queries):
    instance = InstanceFactory()
    for minute in (0, 59):
        sample(instance, HOUR + timedelta(minutes=minute), response_time_ms=100).save()
    sample(instance, HOUR + timedelta(minutes=60)).save()

    assert roll_up(INSTANCES, HOUR + timedelta(minutes=61)) == 0, "its last samples may be on their way"
    assert roll_up(INSTANCES, NEXT) == 1
    with django_assert_num_queries(4):
        assert roll_up(INSTANCES, NEXT) == 0
    assert figures(instance.pk)["checks"] == 2

    sample(instance, HOUR + timedelta(minutes=30), response_time_ms=400, overall_status="degraded").save()
    assert roll_up(INSTANCES, NEXT + timedelta(hours=23, minutes=-5)) == 2, "this hour, and the one after it"
    assert figures(instance.pk)["response_mean_ms"] == 200
    assert figures(instance.pk)["degraded"] == 1
    assert HealthHourly.objects.count() == RolledHour.objects.count() == 2


@pytest.mark.django_db
def test_hours_that_were_missed_are_made_good_oldest_first_as_far_as_time_allows():
    instance = InstanceFactory()
    for hours in (0, 1, 5, 30):  # nobody was there in between
        sample(instance, HOUR + timedelta(hours=hours)).save()
    answers = iter([True, True, False])

    assert roll_up(INSTANCES, HOUR + timedelta(days=3), in_time=lambda: next(answers)) == 2
    assert [*RolledHour.objects.order_by("hour").values_list("hour", flat=True)] == [HOUR, HOUR + timedelta(hours=1)]
    assert roll_up(INSTANCES, HOUR + timedelta(days=3)) == 2
    assert RolledHour.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_a_run_that_dies_in_the_midst_of_an_hour_leaves_the_old_figures_until_the_next_one(monkeypatch):
    instance = InstanceFactory()
    sample(instance, HOUR).save()
    roll_up(INSTANCES, NEXT)
    sample(instance, HOUR + timedelta(minutes=1)).save()

    def die(inserter: object, rows: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(Inserter, "insert", die)
        with pytest.raises(SystemExit):
            roll_up(INSTANCES, NEXT)
    assert figures(instance.pk)["checks"] == 1

    assert roll_up(INSTANCES, NEXT) == 1
    assert figures(instance.pk)["checks"] == 2


@pytest.mark.django_db
def test_a_latecomer_that_saw_too_few_rows_does_not_undo_an_hour_whose_rows_are_being_deleted():
    instance = InstanceFactory()
    for minute in range(3):
        sample(instance, HOUR + timedelta(minutes=minute)).save()
    roll_up(INSTANCES, NEXT)
    HealthCheck.objects.filter(timestamp=HOUR).delete()

    rollups.roll_hour(INSTANCES, HOUR, 3, now=HOUR + timedelta(days=2))

    assert figures(instance.pk)["checks"] == 3
    assert roll_up(INSTANCES, HOUR + timedelta(days=2)) == 0


@pytest.mark.django_db
def test_a_row_that_comes_while_its_hour_is_summed_up_has_it_summed_up_again():
    instance = InstanceFactory()
    for minute in range(2):
        sample(instance, HOUR + timedelta(minutes=minute)).save()

    rollups.roll_hour(INSTANCES, HOUR, 1, now=NEXT)  # the second came after they were counted

    assert roll_up(INSTANCES, NEXT) == 1
    assert roll_up(INSTANCES, NEXT) == 0


@pytest.mark.django_db
def test_the_history_of_an_instance_that_was_removed_stays_when_its_hour_is_summed_up_again():
    gone, there = InstanceFactory(), InstanceFactory()
    sample(gone, HOUR).save()
    sample(there, HOUR).save()
    roll_up(INSTANCES, NEXT)
    name = gone.pk
    gone.delete()
    sample(there, HOUR + timedelta(minutes=1)).save()

    roll_up(INSTANCES, NEXT)  # as many rows as before, and other ones
    sample(there, HOUR + timedelta(minutes=2)).save()
    roll_up(INSTANCES, NEXT)

    assert figures(name)["checks"] == 1
    assert figures(there.pk)["checks"] == 3


@pytest.mark.django_db
@pytest.mark.parametrize("day", [datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)])
def test_a_day_has_24_hours_whatever_the_clocks_of_a_country_do(day):
    instance = InstanceFactory()
    for half in range(48):
        sample(instance, day + half * timedelta(minutes=30)).save()

    with timezone.override(ZoneInfo("Europe/Berlin")):
        assert roll_up(INSTANCES, day + timedelta(hours=24, minutes=4)) == 24

    assert {row.hour: row.checks for row in HealthHourly.objects.all()} == {
        day + timedelta(hours=hour): 2 for hour in range(24)
    }


@pytest.mark.django_db
def test_what_fails_in_a_maintenance_window_is_not_down(django_assert_max_num_queries):
    """From 13:10 to 13:40 in Berlin, which is an hour ahead: for one service, and for one database alone."""
    inside, outside = InstanceFactory(), InstanceFactory()
    known, other = DatabaseFactory(name="shop"), DatabaseFactory()
    bounds = {"first_day": HOUR.date(), "start_time": dt_time(13, 10), "minutes": 30, "time_zone": "Europe/Berlin"}
    for about in ({"service": inside.workload.service.slug}, {"subject": "database:SHOP"}, {"subject": "endpoint:1"}):
        MaintenanceWindow.objects.create(name="moving house", created_by="ana", **bounds, **about)
    MaintenanceWindow.objects.create(  # overlaps, and counts nothing twice
        name="cables", created_by="ana", service=inside.workload.service.slug, **{**bounds, "minutes": 10}
    )
    for minute in range(0, 60, 5):
        for one in (inside, outside):
            status = "unhealthy" if minute < 50 else "healthy"
            sample(one, HOUR + timedelta(minutes=minute), overall_status=status).save()
        for one in (known, other):
            DatabaseCheck.objects.create(database=one, at=HOUR + timedelta(minutes=minute), status="failed")

    roll_up(INSTANCES, NEXT)
    with django_assert_max_num_queries(25):
        roll_up(DATABASES, NEXT)

    found = {row.subject: (row.healthy, row.down, row.maintenance, row.uptime) for row in HealthHourly.objects.all()}
    assert found == {
        inside.pk: (2, 4, 6, 1 / 3),
        outside.pk: (2, 10, 0, 1 / 6),
        str(known.pk): (0, 6, 6, 0),
        str(other.pk): (0, 12, 0, 0),
    }


@pytest.mark.django_db
def test_a_large_hour_is_summed_up_in_portions_of_whole_subjects(monkeypatch):
    monkeypatch.setattr(rollups, "ROWS_AT_ONCE", 25)
    endpoints = [EndpointFactory() for _ in range(5)]
    EndpointCheck.objects.bulk_create(
        EndpointCheck(endpoint=endpoint, at=HOUR + n * timedelta(minutes=5), status="healthy", response_time_ms=n)
        for endpoint in endpoints
        for n in range(12)
    )

    roll_up(ENDPOINTS, NEXT)

    assert [figures(endpoint.pk)["response_p95_ms"] for endpoint in endpoints] == [11] * 5
    assert RolledHour.objects.get().checks == 60


@pytest.mark.django_db
def test_samples_of_a_deployments_gate_count_for_nothing_and_are_deleted_all_the_same():
    """It looks several times a minute, and just when something is being changed."""
    sampled, looked_at = InstanceFactory(), InstanceFactory()
    for minute in range(4):
        at = HOUR + timedelta(minutes=minute)
        source = "pushed" if minute else "scheduled"
        sample(sampled, at, source=source, overall_status="healthy", response_time_ms=100, cpu_usage_percent=10).save()
        for second in (10, 20):
            sample(
                sampled, at + timedelta(seconds=second), source="gate", overall_status="unhealthy",
                response_time_ms=9000, cpu_usage_percent=100, memory_usage_percent=100,
            ).save()  # fmt: skip
    for hour in (HOUR, HOUR + rules.HOUR):
        sample(looked_at, hour, source="gate", overall_status="unhealthy").save()

    assert roll_up(INSTANCES, NEXT + rules.HOUR) == 2
    assert roll_up(INSTANCES, NEXT + rules.HOUR) == 0

    found = HealthHourly.objects.get()
    assert (found.subject, found.checks, found.healthy, found.down, found.uptime) == (sampled.pk, 4, 4, 0, 1)
    assert (found.measured, found.response_max_ms, found.response_p95_ms, found.cpu_max) == (4, 100, 100, 10)
    assert (found.response_mean_ms, found.cpu_mean, found.memory_mean) == (100, 10, None)
    sample(sampled, HOUR + timedelta(seconds=30), source="gate").save()
    assert roll_up(INSTANCES, NEXT + rules.HOUR) == 1, "it came late, and its hour is not over for deletion"

    assert retention.delete_old(HOUR + timedelta(hours=27)) == 15
    assert not HealthCheck.objects.exists()


@pytest.mark.django_db
def test_a_gates_failures_in_a_maintenance_window_count_neither_as_down_nor_as_maintenance():
    instance = InstanceFactory()
    bounds = {"first_day": HOUR.date(), "start_time": dt_time(12, 0), "minutes": 30, "time_zone": "UTC"}
    MaintenanceWindow.objects.create(name="cables", created_by="ana", **bounds)
    for minute, source in ((0, "scheduled"), (1, "gate"), (40, "scheduled"), (41, "gate")):
        sample(instance, HOUR + timedelta(minutes=minute), source=source, overall_status="unhealthy").save()

    roll_up(INSTANCES, NEXT)

    assert (figures(instance.pk)["down"], figures(instance.pk)["maintenance"]) == (1, 1)


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", [{"kind": "planet"}, {"healthy": 3}, {"uptime": 1.5}, {"measured": 3}])
def test_the_database_refuses_an_hour_that_does_not_add_up(wrong):
    row = {"healthy": 2, "degraded": 0, "down": 0, "unknown": 0, "maintenance": 0, "checks": 2, "measured": 2}
    with pytest.raises(IntegrityError):
        HealthHourly.objects.create(**{"kind": "instance", "subject": "web-1", "hour": HOUR, **row, **wrong})


@given(st.lists(st.integers(0, 9), max_size=70), st.integers(1, 100))
def test_the_nearest_rank_is_the_smallest_value_that_so_many_percent_do_not_exceed(values, percent):
    found = rules.nearest_rank(values, percent)

    fitting = [value for value in values if 100 * sum(other <= value for other in values) >= percent * len(values)]
    assert found == min(fitting, default=None)


def test_what_nobody_could_tell_is_neither_up_nor_down():
    assert rules.uptime(0, 0) is None
    assert rules.uptime(3, 1) == 0.75
    assert rules.uptime(0, 2) == 0

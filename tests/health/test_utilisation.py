"""How loaded the instances of a workload were, minute by minute."""

from datetime import UTC, datetime, timedelta
from itertools import groupby

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.health import utilisation
from apps.health.models import HealthCheck, UtilisationMinute
from apps.health.raw import SOURCES
from apps.health.rollups import roll_up
from apps.inventory.models import Instance
from tests.factories import HealthCheckFactory, InstanceFactory, WorkloadFactory

MINUTE = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
LONG_AGO = MINUTE - timedelta(days=9)


def instance(workload, *, registered_at: datetime = LONG_AGO, **values: object) -> Instance:
    row = InstanceFactory(workload=workload, **values)
    Instance.objects.filter(pk=row.pk).update(registered_at=registered_at)
    return row


def sample(instance: Instance, minutes: float = 0, **figures: object) -> HealthCheck:
    """A sample so many minutes before the end of the minute's first half."""
    usage = {"cpu_usage_percent": 50, "memory_usage_percent": 40, "uptime_seconds": 5000, **figures}
    return HealthCheckFactory(instance=instance, timestamp=MINUTE - timedelta(minutes=minutes), **usage)


def row_of(workload, minute: datetime = MINUTE) -> UtilisationMinute:
    return UtilisationMinute.objects.get(workload=workload, minute=minute)


NOTHING = {"overall_status": "unhealthy", "cpu_usage_percent": None, "memory_usage_percent": None}


@pytest.mark.django_db
def test_a_row_tells_who_is_expected_who_reported_and_who_is_warming_up():
    workload = WorkloadFactory()
    for cpu in (20, 80):
        sample(instance(workload), cpu_usage_percent=cpu)
    restarted = instance(workload)  # within this minute
    for part, seconds in ((0.1, 5000), (0, 5)):
        sample(restarted, part - 0.2, uptime_seconds=seconds, cpu_usage_percent=300)
    sample(instance(workload, registered_at=MINUTE), uptime_seconds=None, cpu_usage_percent=None)
    sample(instance(workload), **NOTHING)  # does not answer, and never did within the hour
    sample(instance(workload), 40)  # silent for 40 minutes
    sample(instance(workload, active=False), 1)  # taken out of service
    sample(instance(workload), 61)  # gone long enough
    sample(instance(workload), 20, **NOTHING)  # looked at 20 minutes ago, and dead then already

    utilisation.write(MINUTE)

    row = row_of(workload)
    assert (row.expected, row.reported, row.warming, row.samples) == (6, 4, 2, 6)
    assert (row.cpu_sum, row.cpu_count, row.memory_sum, row.memory_count) == (100, 2, 80, 2)
    assert (row.warming_cpu_sum, row.warming_cpu_count) == (300, 1)
    assert (row.warming_memory_sum, row.warming_memory_count) == (80, 2)
    assert (row.expected - row.reported, row.expected - row.cpu_count - row.warming_cpu_count) == (2, 3)


LOADS = st.none() | st.integers(0, 400)
LOOKS = st.lists(st.tuples(st.integers(-61, 0), LOADS, LOADS, st.none() | st.integers(0, 400)), max_size=6)


@pytest.mark.engine
@pytest.mark.django_db
@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 1), st.booleans(), st.integers(0, 5), LOOKS), min_size=1, max_size=5))
def test_a_row_equals_one_worked_out_by_hand(fleet):
    """Each instance: its workload, whether it is active, its age in minutes, and samples at so many minutes."""
    with transaction.atomic():
        workloads = [WorkloadFactory(), WorkloadFactory()]
        wanted: dict[int, list[dict[str, object]]] = {0: [], 1: []}
        for number, active, age, looks in fleet:
            watched = instance(
                workloads[number], active=active, registered_at=MINUTE + timedelta(minutes=1 - age, seconds=1)
            )
            for place, (minute, cpu, memory, uptime) in enumerate(looks):
                sample(
                    watched, -minute - place / 10, cpu_usage_percent=cpu, memory_usage_percent=memory,
                    uptime_seconds=uptime, overall_status="unhealthy",
                )  # fmt: skip
            here = [look for place, look in enumerate(looks) if 0 <= look[0] + place / 10 < 1]
            alive = any(
                -59 <= minute + place / 10 < 1 and (cpu is not None or memory is not None)
                for place, (minute, cpu, memory, _) in enumerate(looks)
            )
            if here or (active and alive):
                cpu, memory = ([look[n] for look in here if look[n] is not None] for n in (1, 2))
                up = min((look[3] for look in here if look[3] is not None), default=None)
                wanted[number].append(
                    {
                        "cpu": sum(cpu) / len(cpu) if cpu else None,
                        "memory": sum(memory) / len(memory) if memory else None,
                        "warming": up < 180 if up is not None else age <= 3,
                        "samples": len(here),
                    }
                )

        utilisation.write(MINUTE)
        utilisation.write(MINUTE)  # once more changes nothing

        for number, workload in enumerate(workloads):
            found = UtilisationMinute.objects.filter(workload=workload, minute=MINUTE).values().first()
            assert (found is None) == (not wanted[number])
            if found is None:
                continue
            parts = {True: [], False: []}
            for warming, group in groupby(wanted[number], key=lambda one: one["warming"]):
                parts[warming] += group
            assert found["expected"] == len(wanted[number])
            assert found["reported"] == sum(
                one["cpu"] is not None or one["memory"] is not None for one in wanted[number]
            )
            assert found["warming"] == len(parts[True])
            assert found["samples"] == sum(one["samples"] for one in wanted[number])
            for warming, prefix in ((True, "warming_"), (False, "")):
                for load in ("cpu", "memory"):
                    values = [one[load] for one in parts[warming] if one[load] is not None]
                    assert found[f"{prefix}{load}_count"] == len(values)
                    assert found[f"{prefix}{load}_sum"] == pytest.approx(sum(values))
        transaction.set_rollback(True)


@pytest.mark.django_db
def test_a_minute_costs_two_statements_however_many_workloads_and_instances(django_assert_num_queries):
    for _ in range(3):
        workload = WorkloadFactory()
        for _ in range(4):
            sample(instance(workload))

    with django_assert_num_queries(2):
        utilisation.write(MINUTE)

    assert [*UtilisationMinute.objects.values_list("reported", flat=True)] == [4, 4, 4]


@pytest.mark.django_db
def test_samples_that_come_late_have_their_minute_written_again():
    workload = WorkloadFactory()
    first, second = instance(workload), instance(workload)
    now = MINUTE + timedelta(seconds=5)
    sample(first)
    assert utilisation.record(now) == 1
    assert utilisation.record(now) == 0, "what is right is left alone"
    sample(second, cpu_usage_percent=70)
    sample(second, -0.5, cpu_usage_percent=90)  # two in one minute count once
    sample(first, 3)

    assert utilisation.record(now + timedelta(minutes=1)) == 2

    row = row_of(workload)
    assert (row.expected, row.cpu_sum, row.cpu_count, row.samples) == (2, 130, 2, 3)
    assert row_of(workload, MINUTE - timedelta(minutes=3)).cpu_sum == 50


@pytest.mark.django_db
def test_samples_that_come_hours_late_are_noticed_when_their_hour_is_summed_up_again():
    workload = WorkloadFactory()
    watched = instance(workload)
    sample(watched)
    now = MINUTE + timedelta(hours=1)
    roll_up(SOURCES[0], now)
    assert row_of(workload).samples == 1, "nobody had written it: the sampler was away"
    sample(watched, 7)

    roll_up(SOURCES[0], now)

    assert row_of(workload, MINUTE - timedelta(minutes=7)).reported == 1
    assert UtilisationMinute.objects.count() == 2, "no row where nobody looked"


@pytest.mark.django_db
@pytest.mark.parametrize("wrong", [{"reported": 4}, {"warming": 4}, {"warming_cpu_count": 2}, {"cpu_sum": -1.0}])
def test_the_database_refuses_a_minute_whose_counts_do_not_fit(wrong):
    counts = dict.fromkeys(utilisation.COLUMNS[1:], 0) | {"expected": 3, "reported": 3, "cpu_count": 2}
    with pytest.raises(IntegrityError):
        UtilisationMinute.objects.create(workload=WorkloadFactory(), minute=MINUTE, **(counts | wrong))

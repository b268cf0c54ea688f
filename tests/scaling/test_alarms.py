"""Alerts about scaling: open while the newest change failed or the platform is silent, closed when all is well."""

from datetime import timedelta

import pytest
import time_machine

from apps.alerts.models import Alert
from apps.scaling import alarms, tasks
from apps.scaling.models import ScalingDecision, ScalingEvent
from tests.factories import ServiceFactory, WorkloadFactory
from tests.scaling.conftest import BOUNDARY, NOW, Twin, minutes, policy_for, workload_of

pytestmark = pytest.mark.django_db
WINDOW = timedelta(minutes=5)


def tick(number: int) -> None:
    """What beat and a worker do at the end of a window."""
    with time_machine.travel(NOW + number * WINDOW, tick=False):
        tasks.tick()
        for event in ScalingEvent.objects.unsettled():
            tasks.act(event.pk)


def alerts() -> list[str]:
    return list(Alert.objects.open().filter(kind="scaling_failed").values_list("title", flat=True))


def test_a_change_that_failed_is_told_once_and_over_when_one_succeeds(policy, twin: Twin):
    workload = workload_of(policy)
    minutes(workload, 95)
    twin.follows = False
    tick(0)
    assert alerts() == ["shop/production was not scaled to 3 instances"]
    (alert,) = Alert.objects.all()
    assert alert.subject == "workload:shop/production"
    assert "accepted 3 and runs 2" in alert.detail
    assert "CPU 95 % for 10 minutes" in alert.detail

    for number in (1, 2):
        minutes(workload, 95, until=BOUNDARY + number * WINDOW, length=5)
        twin.follows = number == 2
        tick(number)
        assert len(alerts()) == (number == 1)
    assert Alert.objects.count() == 1  # the second failure is the same trouble
    assert ScalingEvent.objects.filter(success=True).count() == 1


def test_a_silent_platform_is_told_until_it_answers(policy, twin: Twin):
    workload = workload_of(policy)
    twin.down = True
    minutes(workload, 50)
    tick(0)
    assert alerts() == ["The platform of shop/production does not say how many instances run"]
    assert "does not answer" in Alert.objects.get().detail
    twin.down = False
    minutes(workload, 50, until=BOUNDARY + WINDOW, length=5)
    tick(1)
    assert alerts() == []


def test_of_a_workload_that_nothing_scales_nobody_is_told(db):
    policy_for(WorkloadFactory(service=ServiceFactory(slug="mail")))
    tick(0)
    assert ScalingDecision.objects.get().rule == "platform"  # no sample has come yet
    assert alerts() == []


def test_the_number_of_queries_does_not_grow(policy, twin: Twin, django_assert_max_num_queries):
    for number in range(12):
        row = policy_for(WorkloadFactory(service=ServiceFactory(), platform="docker"))
        ScalingEvent.objects.create(
            id=f"scale_{number}", service=row.service, workload=workload_of(row), environment=row.environment,
            timestamp=NOW, action="scale_up", instances_before=2, instances_after=3, trigger_reason="CPU 91 %",
            triggered_by="autoscaler", success=False, settled_at=NOW, error_message="refused",
        )  # fmt: skip
    alarms.check(NOW)
    assert len(alerts()) == 12
    with django_assert_max_num_queries(6):
        alarms.check(NOW)
    alarms.check(NOW + timedelta(days=2))  # nothing was wanted since: it says nothing of the present
    assert alerts() == []

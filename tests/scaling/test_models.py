"""What the database itself refuses, whoever writes it."""

import pytest
from django.db import DatabaseError, transaction

from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy
from tests.scaling.conftest import NOW, workload_of

pytestmark = [pytest.mark.django_db, pytest.mark.engine]


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale_up_threshold": 0.4, "scale_down_threshold": 0.8},
        {"scale_up_threshold": 1.1},
        {"scale_down_threshold": 0.0},
        {"scale_down_threshold": -0.1},
        {"min_instances": 4, "max_instances": 3},
        {"min_instances": 0},
        {"evaluation_period_seconds": 0},
        {"datapoints_to_trigger": 0},
        {"target_cpu_percent": 0.0},
        {"target_memory_percent": 101.0},
        {"metrics": "disk"},
        {"environment": "development"},
    ],
)
def test_the_database_refuses_a_policy_that_cannot_be(policy, wrong):
    with pytest.raises(DatabaseError), transaction.atomic():
        ScalingPolicy.objects.filter(pk=policy.pk).update(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "hold", "instances_after": 3},
        {"action": "scale_up", "instances_after": 2},
        {"action": "scale_down", "instances_after": 3},
        {"action": "explode", "instances_after": 3},
    ],
)
def test_the_database_refuses_a_decision_whose_count_belies_its_action(policy, wrong):
    given = {"policy": policy, "boundary": NOW, "evaluated_at": NOW, "rule": "within", "reason": "x"}
    with pytest.raises(DatabaseError), transaction.atomic():
        ScalingDecision.objects.create(**given, instances_before=2, **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"success": True},
        {"settled_at": NOW},
        {"trigger_reason": ""},
        {"action": "hold"},
        {"triggered_by": "nobody"},
        {"id": "scale_2"},
    ],
)
def test_the_database_refuses_an_event_that_cannot_be_and_a_second_unsettled_one(policy, wrong):
    given = {
        "service": policy.service, "workload": workload_of(policy), "environment": "production", "timestamp": NOW,
        "action": "scale_up", "instances_before": 2, "instances_after": 3, "trigger_reason": "x",
        "triggered_by": "autoscaler",
    }  # fmt: skip
    if "id" in wrong:
        ScalingEvent.objects.create(id="scale_1", **given)
    with pytest.raises(DatabaseError), transaction.atomic():
        ScalingEvent.objects.create(**{"id": "scale_1", **given, **wrong})

"""What Prometheus is told of scaling: true after a clean-up, and cheap."""

import threading
from datetime import timedelta
from itertools import count

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.scaling import metrics, runner
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy, ScalingTotal
from tests.scaling.conftest import NOW, workload_of

pytestmark = pytest.mark.django_db
NUMBERS = count()


def told() -> dict[tuple[str, ...], float]:
    """Every figure of the shop by its name and further labels."""
    return {
        (sample.name.removeprefix("pulsewatch_scaling_"), *list(sample.labels.values())[2:]): sample.value
        for family in metrics.read()
        for sample in family.samples
        if sample.labels["service"] == "shop"
    }


def decided(policy: ScalingPolicy, days: float, action: str = "hold", **others: object) -> None:
    given = {"rule": "within", "reason": "held", "instances_before": 2, "instances_after": 2 + (action == "scale_up")}
    at = NOW.replace(second=0) - timedelta(days=days)
    ScalingDecision.objects.create(policy=policy, boundary=at, evaluated_at=at, action=action, **given | others)


def changed(policy: ScalingPolicy, days: float, **others: object) -> None:
    at = NOW - timedelta(days=days)
    given = {"action": "scale_up", "success": True, "settled_at": at, "instances_before": 2, "instances_after": 3}
    ScalingEvent.objects.create(
        id=f"scale_{next(NUMBERS)}", service=policy.service, workload=workload_of(policy),
        environment=policy.environment, timestamp=at, trigger_reason="CPU 91 %", triggered_by="autoscaler",
        **given | others,
    )  # fmt: skip


def test_counts_bounds_and_targets_are_told_and_no_total_falls_when_history_is_forgotten(policy):
    decided(policy, 8)
    decided(policy, 8.1, "scale_up")
    decided(policy, 0.2)
    decided(policy, 0.1, rule="platform", instances_before=0, instances_after=0)
    changed(policy, 91)
    changed(policy, 92, success=False, error_message="refused")
    changed(policy, 1, action="manual_scale")
    changed(policy, 0, success=None, settled_at=None)

    before = told()
    assert before == {
        ("instances",): 2, ("min_instances",): 1, ("max_instances",): 6, ("enabled",): 1,
        ("target_average_utilization", "cpu"): 70, ("target_average_utilization", "memory"): 75,
        ("decisions_total", "hold"): 3, ("decisions_total", "scale_up"): 1,
        ("events_total", "scale_up", "success"): 1, ("events_total", "scale_up", "failed"): 1,
        ("events_total", "manual_scale", "success"): 1,
    }  # fmt: skip
    for _ in range(2):
        runner.forget(NOW)
        assert told() == before
    assert (ScalingDecision.objects.count(), ScalingEvent.objects.count(), ScalingTotal.objects.count()) == (2, 2, 4)
    changed(policy, 0.05)
    assert told()[("instances",)] == 3  # confirmed since the newest evaluation


def test_rows_are_counted_from_an_index_alone(policy):
    decided(policy, 1)
    changed(policy, 1)
    with CaptureQueriesContext(connection) as asked:
        list(metrics.read())
    assert len(asked) == 5
    counts = [query["sql"] for query in asked if "COUNT(" in query["sql"]]
    assert len(counts) == 2
    with connection.cursor() as cursor:
        for query in counts:
            cursor.execute(f"EXPLAIN {query}")
            assert all("Using index" in (row[-1] or "") for row in cursor.fetchall())


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_two_that_forget_at_once_count_each_row_once(policy):
    for number in range(40):
        decided(policy, 8 + number / 100)
    together, failed = threading.Barrier(3), []

    def forget() -> None:
        together.wait()
        try:
            runner.forget(NOW)
        except Exception as error:
            failed.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=forget) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failed
    assert ScalingTotal.objects.get().count == 40
    assert not ScalingDecision.objects.exists()

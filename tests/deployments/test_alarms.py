"""How the newest deployment of a workload ended, as alerts; and windows in which nothing is deployed."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from apps.alerts import arrangements
from apps.alerts.models import Alert, MaintenanceWindow
from apps.core.errors import Conflict
from apps.deployments import alarms, records, services, tasks
from apps.deployments.choices import DeploymentStatus
from apps.deployments.models import Gate
from tests.deployments.conftest import CI, started
from tests.factories import DeploymentFactory, WorkloadFactory

pytestmark = pytest.mark.django_db


def test_a_failure_opens_and_the_next_success_closes(workload):
    row = started(workload)
    services.fail(deployment=row, actor=CI, error_message="image not found")
    tasks.settle_alarms(str(workload.pk))
    alert = Alert.objects.get()
    assert (alert.kind, alert.subject) == ("deployment_failed", f"workload:{workload}")
    assert alert.title == f"Deployment of v1.0.0 to {workload} failed"
    assert alert.detail.startswith("image not found")
    other = WorkloadFactory()
    tasks.settle_alarms(str(other.pk))
    assert alert.is_open
    again = started(workload, version="v1.0.1")
    alarms.check(timezone.now())
    assert Alert.objects.open().exists()  # while it is under way nothing is known
    records.end(again, status=DeploymentStatus.COMPLETED, now=timezone.now(), text="well")
    alarms.check(timezone.now())
    assert not Alert.objects.open().exists()


def test_the_end_of_a_deployment_wakes_who_settles_its_alerts(workload, monkeypatch):
    woken = []
    monkeypatch.setattr(records, "wake", lambda task, key: woken.append((task, key)))
    services.fail(deployment=started(workload), actor=CI)
    assert woken == [("deployments.alarms", str(workload.pk))]


def test_a_gate_that_cannot_tell_and_the_number_of_queries(django_assert_num_queries):
    for _ in range(5):
        row = DeploymentFactory(workload=WorkloadFactory(), health_check_passed=False)
        Gate.objects.create(
            deployment=row, started_at=row.started_at, samples=3, window_seconds=60, next_look_at=row.started_at,
            verdict="inconclusive", decided_at=row.completed_at, reasons=["No instance sent a sample."],
        )  # fmt: skip
    alarms.check(timezone.now())
    assert Alert.objects.filter(kind="deployment_inconclusive", severity="warning").count() == 5
    assert Alert.objects.first().detail.startswith("No instance sent a sample. Look at")
    with django_assert_num_queries(2 + 2):
        alarms.check(timezone.now())


def frozen(**facts) -> MaintenanceWindow:
    start = timezone.now() - timedelta(minutes=10)
    return arrangements.save_window(
        window=MaintenanceWindow(
            **{"name": "Audit", "first_day": start.date(), "start_time": start.time(), "minutes": 60}
            | {"freeze_deployments": True, **facts}
        ),
        actor=CI,
    )


def test_a_window_freezes_deployments_and_an_override_lets_one_through(workload):
    window = frozen(environment="production", service=workload.service.slug)
    queued = started(workload, status="queued")  # it may wait
    with pytest.raises(Conflict, match=r"frozen until .* by the maintenance window “Audit” of ci") as refused:
        services.begin(deployment=queued, actor=CI)
    assert refused.value.facts["frozen_by"] == "Audit"
    left = datetime.fromisoformat(refused.value.facts["frozen_until"]) - timezone.now()
    assert timedelta(minutes=48) < left <= timedelta(minutes=50)
    services.cancel(deployment=queued, actor=CI)
    with pytest.raises(Conflict, match="give override_reason"):
        started(workload, version="v1.0.1")
    through = started(workload, version="v1.0.1", override_reason="security fix")
    assert through.override_reason == "security fix"
    assert started(WorkloadFactory(environment="staging", base_url="http://127.0.0.1:9")).is_open
    arrangements.cancel_window(window=window, actor=CI)
    services.fail(deployment=through, actor=CI)
    assert started(workload, version="v1.0.2").is_open


def test_a_window_that_only_silences_freezes_nothing(workload):
    frozen(freeze_deployments=False)
    assert started(workload).is_open

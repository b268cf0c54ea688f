"""The gate: what CI has brought out is looked at, and the evidence decides."""

from datetime import datetime, timedelta

import pytest
from django.utils import timezone

from apps.core.models import StopSwitch
from apps.deployments import runner, services
from apps.deployments.models import Deployment, DeploymentStep, FailedVersion, Gate
from apps.health.models import HealthCheck
from apps.inventory import services as inventory
from apps.inventory.models import Instance, Workload
from apps.inventory.platforms.transport import LIMITS
from tests.deployments.conftest import CI, started
from tests.http_app import Answer
from tests.inventory.platforms.cluster import NAME, NAMESPACE, Cluster
from tests.inventory.platforms.plays import served
from tests.inventory.platforms.stands import SECRET
from tests.receiver import Reply, Trouble

pytestmark = pytest.mark.django_db
BROKEN = Answer(500, b'{"version": "1.0.0"}')


def looked(row: Deployment, times: int, *, since: datetime | None = None) -> Gate:
    """So many looks, ten seconds apart, as the clock would bring them."""
    gate = Gate.objects.get(pk=row.pk)
    for _ in range(times):
        gate = runner.look(row.pk, now=gate.next_look_at) or Gate.objects.get(pk=row.pk)
        if gate.verdict:
            break
    return gate


def brought_out(workload: Workload, version: str) -> Deployment:
    row = services.finish(deployment=started(workload, version), actor=CI)
    assert looked(row, 3).verdict == "passed"
    row.refresh_from_db()
    return row


def test_a_deployment_whose_instances_are_healthy_passes_on_real_samples(watched):
    row = services.finish(deployment=started(watched, "v1.0.0"), actor=CI)
    assert row.status == "in_progress"

    gate = looked(row, 5)

    row.refresh_from_db()
    assert (gate.verdict, row.status, row.health_check_passed) == ("passed", "completed", True)
    assert gate.looks == 2
    assert gate.evidence["instances"][0]["healthy_in_a_row"] == 2
    watched.refresh_from_db()
    assert (watched.current_deployment_id, watched.change_lock) == (row.pk, None)
    items = dict(row.checklist_items.values_list("key", "state"))
    assert (items["health_passing"], items["services_accessible"]) == ("passed", "passed")
    assert set(HealthCheck.objects.values_list("source", flat=True)) == {"gate"}


def test_a_bad_one_fails_and_the_last_good_version_is_called_back(watched, app, platform):
    good = brought_out(watched, "v1.0.0")
    app.answers["/ready"] = BROKEN
    bad = services.finish(deployment=started(watched, "v1.1.0"), actor=CI)

    gate = looked(bad, 10)

    bad.refresh_from_db()
    assert (gate.verdict, bad.status) == ("failed", "failed")
    assert "web-1 was unhealthy 4 times in a row" in gate.reasons[0]
    rollback = Deployment.objects.get(kind="rollback")
    assert (rollback.status, rollback.undoes, rollback.returns_to, rollback.version) == ("queued", bad, good, "v1.0.0")
    # The lock went from one to the other: nobody could come in between.
    watched.refresh_from_db()
    assert watched.change_lock == rollback.pk

    runner.roll_back(rollback.pk, now=timezone.now())

    assert len(platform.requests) == 1
    assert b'"v1.0.0"' in platform.requests[0].body
    bad.refresh_from_db()
    rollback.refresh_from_db()
    assert (rollback.status, bad.status, bad.rolled_back_by) == ("rolled_back", "failed", rollback)
    assert rollback.rollback_reason.startswith("The gate failed: ")
    watched.refresh_from_db()
    assert (watched.change_lock, watched.current_deployment_id) == (None, rollback.pk)
    assert {row.version for row in FailedVersion.objects.all()} == {"v1.1.0", "1.1.0"}
    # The message comes twice: nothing is called again.
    assert runner.roll_back(rollback.pk, now=timezone.now()) is None
    assert len(platform.requests) == 1


@pytest.mark.parametrize(
    ("plan", "said", "times"),
    [(Reply(500), "500", LIMITS.attempts), (Reply(404), "404", 1), (Trouble.RESET, "", LIMITS.attempts)],
    ids=["500", "404", "reset"],
)
def test_a_platform_that_refuses_fails_the_rollback_and_frees_the_lock(watched, app, platform, plan, said, times):
    brought_out(watched, "v1.0.0")
    app.answers["/ready"] = BROKEN
    bad = services.finish(deployment=started(watched, "v1.1.0"), actor=CI)
    looked(bad, 10)
    platform.plan[:] = [plan]

    row = runner.roll_back(Deployment.objects.get(kind="rollback").pk, now=timezone.now())

    assert row.status == "failed"
    assert said in row.error_message
    assert len(platform.requests) == times
    bad.refresh_from_db()
    watched.refresh_from_db()
    assert (bad.rolled_back_by, watched.change_lock) == (None, None)


def test_a_failed_gate_brings_the_last_good_image_back_on_kubernetes(watched, app):
    cluster = Cluster()
    cluster.starts_over()
    with served(cluster) as url:
        watched.platform = "kubernetes"
        where = {"namespace": NAMESPACE, "name": NAME, "server": url, "container": "web"}
        watched.platform_settings = {**where, "image": "registry.example.com/shop:{version}"}
        inventory.save(watched, actor=CI, platform_secret=SECRET)
        brought_out(watched, "v1.0.0")
        app.answers["/ready"] = BROKEN
        looked(services.finish(deployment=started(watched, "v1.1.0"), actor=CI), 10)

        runner.roll_back(Deployment.objects.get(kind="rollback").pk, now=timezone.now())

    assert cluster.containers[0]["image"] == "registry.example.com/shop:v1.0.0"
    assert DeploymentStep.objects.filter(text__startswith="Deployment shop/web was set to image").exists()


def test_the_stop_switch_keeps_automation_from_rolling_back(watched, app):
    brought_out(watched, "v1.0.0")
    StopSwitch.objects.create(pk=1, on=True, reason="x", changed_at=timezone.now(), changed_by="ana")
    app.answers["/ready"] = BROKEN
    bad = services.finish(deployment=started(watched, "v1.1.0"), actor=CI)

    looked(bad, 10)

    bad.refresh_from_db()
    assert bad.status == "failed"
    assert not Deployment.objects.filter(kind="rollback").exists()
    assert bad.steps.filter(text__startswith="Not rolled back: the stop switch is on").exists()
    watched.refresh_from_db()
    assert watched.change_lock is None


def test_without_samples_the_gate_is_inconclusive_and_nothing_is_rolled_back(workload):
    Workload.objects.filter(pk=workload.pk).update(auto_rollback=True, base_url="")
    workload.refresh_from_db()
    Instance.objects.create(pk="silent", name="silent", workload=workload, url="")
    row = services.finish(deployment=started(workload), actor=CI)

    gate = looked(row, 10)

    row.refresh_from_db()
    assert (gate.verdict, row.status, row.health_check_passed) == ("inconclusive", "completed", False)
    assert gate.reasons[0] == "silent gave no sample."
    assert not Deployment.objects.filter(kind="rollback").exists()


def test_the_metadata_service_is_not_asked_as_a_base_url_either(workload):
    workload.base_url = "http://169.254.169.254"
    workload.save()
    row = services.finish(deployment=started(workload), actor=CI)

    looked(row, 1)

    item = row.checklist_items.get(key="services_accessible")
    assert item.state == "failed"
    assert "never asked" in item.detail


def test_a_worker_that_dies_in_a_look_costs_one_look(watched, monkeypatch):
    row = services.finish(deployment=started(watched), actor=CI)
    gate = Gate.objects.get(pk=row.pk)

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(runner, "_sample", die)
        with pytest.raises(SystemExit):
            runner.look(row.pk, now=gate.next_look_at)

    assert runner.tick(timezone.now() + timedelta(seconds=30)) == 1
    assert looked(row, 4).verdict == "passed"


def test_of_two_workers_one_looks(watched):
    row = services.finish(deployment=started(watched), actor=CI)
    at = Gate.objects.get(pk=row.pk).next_look_at

    assert runner.look(row.pk, now=at) is not None
    assert runner.look(row.pk, now=at) is None
    assert Gate.objects.get(pk=row.pk).looks == 1


def test_ci_reports_a_failure_while_the_gate_runs(watched):
    row = services.finish(deployment=started(watched), actor=CI)

    services.fail(deployment=row, actor=CI, error_message="smoke test")

    row.refresh_from_db()
    assert (row.status, row.error_message, row.gate.verdict) == ("failed", "smoke test", "failed")
    assert runner.look(row.pk, now=timezone.now() + timedelta(minutes=1)) is None


def test_every_step_is_told_in_a_sentence(watched):
    row = brought_out(watched, "v1.0.0")

    told = list(DeploymentStep.objects.filter(deployment=row).values_list("kind", "text"))
    assert [kind for kind, _ in told] == ["created", "gate_started", "gate_decided", "ended"]
    assert told[0][1] == "v1.0.0 started by ana."
    assert told[2][1].startswith("Gate passed: ")

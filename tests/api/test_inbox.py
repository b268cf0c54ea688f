"""What becomes of deliveries: found their workload, applied once, in any order, and not lost when a process dies."""

import itertools
from datetime import UTC, datetime, timedelta, timezone

import pytest
from django.db import IntegrityError, transaction

from apps.api import inbox, reports
from apps.api.models import WebhookDelivery
from apps.core import ids
from apps.core.audit import Actor
from apps.deployments import runner as deployments
from apps.deployments import services
from apps.deployments.figures import measured
from apps.deployments.models import Deployment
from apps.inventory.models import Workload
from tests.deployments.sources.payloads import DEPLOYMENT, RUN_ENDED, SHA, STATUS, ZEABUR, changed
from tests.factories import ServiceFactory, WorkloadFactory

NOW = datetime(2026, 10, 20, 14, 34, tzinfo=UTC)

pytestmark = pytest.mark.django_db

numbers = itertools.count()


@pytest.fixture
def shop():
    service = ServiceFactory(slug="shop", repository_url="git@github.com:acme/shop.git")
    return WorkloadFactory(service=service, environment="production")


def receive(payload, *, event="deployment_status", source="github", delivery="", now=NOW) -> WebhookDelivery:
    row, _ = inbox.receive(
        source=source, delivery_id=delivery or f"d-{next(numbers)}", event=event, payload=payload, now=now
    )
    return row


def status(state: str, **changes):
    return changed(STATUS, deployment_status__state=state, **changes)


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["deployment", "in_progress", "success"])), ids=lambda order: "-".join(order)
)
def test_reports_in_any_order_end_in_the_same_record(shop, order):
    for name in order:
        if name == "deployment":
            receive(DEPLOYMENT, event="deployment")
        else:
            receive(status(name))

    row = Deployment.objects.get()
    assert (row.status, row.external_id, row.observed) == ("completed", "github.com/deployments/1500001", True)


def test_a_clock_of_long_ago_hides_no_deployment(shop):
    receive(status("success", deployment_status__created_at="1970-01-01T00:00:00Z"))

    row = Deployment.objects.get()
    assert row.claimed_at.year == 1970
    assert row.pk > ids.timestamped("deploy", datetime.now(UTC) - timedelta(days=31))
    deployments.tick(datetime.now(UTC))
    assert not Deployment.objects.get().archived


def test_one_that_waits_for_a_persons_approval_is_not_failed_meanwhile(shop):
    begun = datetime.now(UTC)
    receive(status("waiting"))
    deployments.tick(begun + timedelta(days=29))
    assert Deployment.objects.get().status == "queued"

    receive(status("in_progress"))
    deployments.tick(begun + timedelta(minutes=30))
    assert Deployment.objects.get().status == "in_progress"
    deployments.tick(begun + timedelta(minutes=90))
    assert Deployment.objects.get().status == "failed"


def test_a_clock_that_runs_wild_changes_no_order(shop):
    receive(status("success", deployment_status__created_at="1999-01-01T00:00:00Z"))
    receive(status("in_progress", deployment_status__created_at="2999-01-01T00:00:00Z"))

    row = Deployment.objects.get()
    assert row.status == "completed"
    assert row.created_at != row.claimed_at


def test_an_unmapped_repository_is_ignored_and_named():
    row = receive(STATUS)

    assert row.outcome == "ignored"
    assert row.detail == (
        "No service here has the repository github.com/acme/shop: enter it as the repository of its service."
    )


def test_once_it_is_mapped_the_same_delivery_is_applied(shop):
    shop.service.repository_url = ""
    shop.service.save()
    assert receive(STATUS, delivery="d").outcome == "ignored"
    shop.service.repository_url = "https://github.com/acme/shop"
    shop.service.save()

    assert receive(STATUS, delivery="d").outcome == "applied"
    assert WebhookDelivery.objects.count() == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"deployment_status__environment": "pr-12"}, "The environment 'pr-12' is none of ours"),
        ({"deployment_status__environment": "staging"}, "There is no workload shop/staging"),
        ({"repository": None}, "No service here has the repository"),
    ],
)
def test_what_has_no_workload_is_ignored_for_a_reason(shop, changes, why):
    row = receive(status("success", **changes))

    assert row.outcome == "ignored"
    assert row.detail.startswith(why)
    assert not Deployment.objects.exists()


def test_environments_are_mapped_by_the_settings(shop, settings):
    settings.WEBHOOK_ENVIRONMENTS = {"live eu": "production"}

    receive(status("success", deployment_status__environment="Live EU"))

    assert Deployment.objects.get().environment == "production"


def test_of_two_services_in_one_repository_the_payload_names_one(shop):
    api = WorkloadFactory(
        service=ServiceFactory(slug="shop-api", repository_url="https://github.com/acme/shop/tree/main/api"),
        environment="production",
    )
    row = receive(status("success"))
    assert row.outcome == "ignored"
    assert "Several services have this repository (shop, shop-api)" in row.detail

    receive(status("success", deployment__payload={"service": "shop-api"}))

    assert Deployment.objects.get().workload == api


def test_zeabur_is_mapped_by_the_ids_of_its_platform():
    Workload.objects.filter(pk=WorkloadFactory(environment="production").pk).update(
        platform="zeabur",
        platform_settings={"service_id": ZEABUR["serviceID"].upper(), "environment_id": ZEABUR["environmentID"]},
    )

    assert receive(ZEABUR, source="zeabur", event="deployment").outcome == "applied"
    assert Deployment.objects.get().status == "completed"


def started(workload: Workload, **facts: object) -> Deployment:
    """A deployment that run 11900000321 has reported through the API."""
    return services.start_deployment(
        service=workload.service.slug, environment=workload.environment, version="v1.4.3", commit_sha=SHA,
        triggered_by="ana", actor=Actor.automation("ci"),
        commit_message="Show prices", github_run_id="11900000321", override_reason="a test", **facts,
    )  # fmt: skip


def ended(conclusion: str) -> WebhookDelivery:
    now = datetime.now(UTC).isoformat()
    run = changed(RUN_ENDED, workflow_run__conclusion=conclusion, workflow_run__updated_at=now)
    return receive(run, event="workflow_run")


@pytest.mark.parametrize("conclusion", ["failure", "cancelled", "timed_out"])
def test_a_ci_job_that_died_leaves_no_deployment_open(shop, conclusion):
    row = started(shop)

    delivery = ended(conclusion)

    row.refresh_from_db()
    assert (delivery.outcome, delivery.deployment_id, row.status) == ("applied", row.pk, "failed")
    assert row.error_message.startswith("GitHub's run 11900000321 of Deploy has ended:")
    assert started(shop).status == "in_progress"  # the change lock is free


def test_one_that_github_told_of_before_ci_did_is_counted_once(shop):
    """A job with `environment:` makes GitHub tell of its deployment before the first step has run."""
    receive(DEPLOYMENT, event="deployment")
    told = receive(status("in_progress")).deployment_id
    row = started(shop)

    delivery = receive(status("success"))

    assert delivery.deployment_id == row.pk
    row.refresh_from_db()
    shop.refresh_from_db()
    assert (row.status, row.external_id) == ("in_progress", "github.com/deployments/1500001")
    assert shop.current_deployment_id is None  # that is for the gate to say
    other = Deployment.objects.get(pk=told)
    assert (other.status, other.external_id) == ("cancelled", None)
    assert row.pk in other.conflict


def test_a_run_that_died_leaves_none_of_its_deployments_open(shop):
    rows = [started(shop), started(WorkloadFactory(service=shop.service, environment="staging"), status="queued")]

    delivery = ended("cancelled")

    assert [Deployment.objects.get(pk=row.pk).status for row in rows] == ["failed", "cancelled"]
    assert delivery.outcome == "applied"
    assert "2 deployments" in delivery.detail


def test_a_ci_job_that_forgot_to_finish_lets_the_gate_begin(shop):
    row = started(shop)

    assert ended("success").outcome == "applied"

    row.refresh_from_db()
    assert row.status == "in_progress"
    assert row.gate.verdict is None
    again = ended("failure")
    assert (again.outcome, again.detail) == (
        "ignored",
        f"The gate of {row.pk} decides, whatever else the run has done.",
    )


def test_what_never_began_is_cancelled_with_its_run(shop):
    row = started(shop, status="queued")

    ended("failure")

    row.refresh_from_db()
    assert row.status == "cancelled"


@pytest.mark.parametrize("facts", [{"github_run_attempt": 2}, {}], ids=["told", "by its time"])
def test_the_late_end_of_the_first_attempt_leaves_the_second_alone(shop, facts):
    row = started(shop, **facts)
    first = changed(RUN_ENDED, workflow_run__run_attempt=1, workflow_run__updated_at="2026-10-20T14:33:10Z")

    assert receive(first, event="workflow_run").outcome == "ignored"

    row.refresh_from_db()
    assert row.status == "in_progress"
    now = datetime.now(UTC).isoformat()
    receive(changed(first, workflow_run__run_attempt=2, workflow_run__updated_at=now), event="workflow_run")
    row.refresh_from_db()
    assert row.status == "failed"


@pytest.mark.parametrize("told_by", ["the run's end", "the deployment's own payload"])
def test_a_team_with_webhooks_alone_has_a_lead_time(shop, told_by):
    ended_at = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=10)
    made = (ended_at - timedelta(minutes=50)).astimezone(timezone(timedelta(hours=2))).isoformat()
    success = status("success", deployment_status__created_at=ended_at.isoformat())
    if told_by == "the run's end":
        receive(success)
        run = changed(RUN_ENDED, workflow_run__head_commit={"id": SHA, "timestamp": made})
        assert receive(run, event="workflow_run").outcome == "applied"
        assert receive(run, event="workflow_run").outcome == "ignored"  # it is no news
    else:
        receive(changed(success, deployment__payload={"committed_at": made}))

    row = Deployment.objects.get()
    assert row.committed_at == ended_at - timedelta(minutes=50)
    [(_, figures)] = measured([shop], days=30, now=datetime.now(UTC))
    assert 50 * 60 <= figures.lead_time_seconds <= 60 * 60


def test_runs_that_started_nothing_here_are_ignored(shop):
    WorkloadFactory(service=ServiceFactory(), environment="production")
    assert ended("failure").detail == "No open deployment was started by run 11900000321."

    row = started(shop)
    shop.service.repository_url = "https://github.com/acme/other"
    shop.service.save()
    assert ended("failure").outcome == "ignored"  # another repository's run, though its number is the same
    row.refresh_from_db()
    assert row.status == "in_progress"


def test_a_process_that_dies_after_storing_loses_nothing(shop, monkeypatch):
    def dies(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(reports, "act", dies)
        with pytest.raises(KeyboardInterrupt):
            receive(STATUS)
    row = WebhookDelivery.objects.get()
    assert (row.outcome, Deployment.objects.count()) == ("pending", 0)

    assert inbox.wake_waiting(NOW + timedelta(seconds=10)) == 0  # its request may still be at it
    assert inbox.wake_waiting(NOW + timedelta(minutes=1)) == 1
    applied = inbox.apply(row.pk)
    assert applied is not None
    assert applied.outcome == "applied"
    assert inbox.apply(row.pk) is None
    assert Deployment.objects.count() == 1


def test_a_delivery_nobody_can_apply_is_given_up_in_the_end(shop, monkeypatch):
    def fails(*_args, **_kwargs):
        raise RuntimeError

    with monkeypatch.context() as failing:
        failing.setattr(reports, "act", fails)
        with pytest.raises(RuntimeError):
            receive(STATUS, delivery="d")
        row = WebhookDelivery.objects.get()
        for _ in range(inbox.ATTEMPTS - 1):
            with pytest.raises(RuntimeError):
                inbox.apply(row.pk)

    row = inbox.apply(row.pk)
    assert row.outcome == "failed"
    assert "could not be applied in 5 attempts" in row.detail
    assert receive(STATUS, delivery="d").outcome == "applied"


def test_old_deliveries_are_forgotten_and_pending_ones_kept(shop):
    for days, outcome in ((31, "applied"), (31, "pending"), (29, "ignored")):
        WebhookDelivery.objects.create(
            source="github",
            delivery_id=f"{outcome}-{days}",
            event="deployment",
            received_at=NOW - timedelta(days=days),
            outcome=outcome,
        )

    assert inbox.clean_up(NOW) == 1
    assert set(WebhookDelivery.objects.values_list("outcome", flat=True)) == {"pending", "ignored"}


@pytest.mark.engine
@pytest.mark.parametrize("wrong", [{"source": "gitlab"}, {"outcome": "lost"}, {"delivery_id": ""}, {"event": None}])
def test_the_database_refuses_bad_rows(wrong):
    good = {"source": "github", "delivery_id": "d", "event": "ping", "received_at": NOW, "outcome": "ignored"}
    WebhookDelivery.objects.create(**{**good, "delivery_id": "other"})
    with pytest.raises(IntegrityError), transaction.atomic():
        WebhookDelivery.objects.create(**{**good, **wrong})
    with pytest.raises(IntegrityError), transaction.atomic():
        WebhookDelivery.objects.create(**{**good, "delivery_id": "other"})

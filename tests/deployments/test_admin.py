"""Deployments in the console: told in plain words, moved and ticked by those who may, always under a name."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.utils import quote
from django.urls import reverse

from apps.console import roles
from apps.core import ids
from apps.core.admin import InfinitePaginator
from apps.core.audit import Actor
from apps.core.models import AuditEntry
from apps.deployments import preparation, runner, services
from apps.deployments.admin import DeploymentAdmin
from apps.deployments.models import ChecklistItem, Deployment, DeploymentStep, EnvironmentVariableRule, Gate
from apps.deployments.rules import variables
from tests.api.test_builds import EVIL
from tests.deployments.conftest import CI, started
from tests.factories import (
    BuildFactory,
    DeploymentFactory,
    HealthCheckFactory,
    InstanceFactory,
    ServiceFactory,
    UserFactory,
    WorkloadFactory,
)

pytestmark = pytest.mark.django_db

LIST = "admin:deployments_deployment_changelist"
VERBS = ("roll_back", "cancel", "fail", "finish")


@pytest.fixture(autouse=True)
def groups(db) -> None:
    roles.ensure_groups()


@pytest.fixture
def operator(client):
    client.force_login(UserFactory(group="operator", username="otto"))
    return client


def page(name: str, row: Deployment) -> str:
    return reverse(f"admin:deployments_deployment_{name}", args=[quote(row.pk)])


def text_of(client, url: str, **query: str) -> str:
    return client.get(url, query).content.decode()


def tick(client, row: Deployment, key: str = "network_policies", **words: str) -> str:
    """What the person is told after ticking."""
    reply = client.post(page("tick", row), {"key": key, "done": "yes", **words}, follow=True)
    return reply.content.decode()


def test_a_list_ends_with_a_sentence_before_its_pages_become_slow(operator, monkeypatch):
    monkeypatch.setattr(InfinitePaginator, "num_pages", 2)
    monkeypatch.setattr(DeploymentAdmin, "list_per_page", 1)
    workload = WorkloadFactory()
    for _ in range(3):
        DeploymentFactory(workload=workload, started_at=datetime.now(UTC))
    ending = "This list ends here, though there is more: filter or search"

    first, last = (text_of(operator, reverse(LIST), age="all", p=number) for number in ("1", "2"))

    assert (ending in first, "p=2" in first) == (False, True)
    assert (ending in last, "p=1" in last, "p=3" in last) == (True, True, False)
    assert operator.get(reverse(LIST), {"age": "all", "p": "3"}).status_code == 302


def test_the_list_and_a_page_tell_what_happened_and_escape_what_others_wrote(operator, workload):
    EnvironmentVariableRule.objects.create(service=workload.service, key="SITE_URL", required=True)
    row = started(
        workload,
        commit_message=EVIL,
        triggered_by=EVIL[:60],
        override_reason=EVIL,
        migration_version=EVIL[:60],
        github_run_id=EVIL[:60],
        build=BuildFactory(service=workload.service, build_status="success"),
        environment_variables=[variables.Report("OTHER", "a-value-that-nobody-may-see")],
    )
    preparation.tick(deployment=row, key="logs_clean", done=True, actor=Actor.automation(EVIL[:60]), note=EVIL)
    Deployment.objects.filter(pk=row.pk).update(conflict=EVIL[:300], error_message=EVIL, deployment_platform=EVIL[:50])
    DeploymentStep.objects.create(deployment=row, kind="platform", text=EVIL, by=EVIL[:60], at=row.started_at)

    shown, told = text_of(operator, reverse(LIST)), text_of(operator, page("change", row))

    assert "In Progress" in shown
    assert f"\n        {row.pk}\n" in told  # where one is: an id is copied as it stands
    for words in ("v1.0.0 started by", "Health checks configured", "required, but not reported", "OTHER", "blocking"):
        assert words in told
    assert "<script>alert" not in shown + told
    assert "a-value-that-nobody-may-see" not in shown + told


def test_neither_list_nor_page_needs_more_queries_for_more_rows(operator, django_assert_max_num_queries):
    now = datetime.now(UTC)
    for number in range(12):
        pk = ids.timestamped("deploy", now - timedelta(hours=number))
        row = DeploymentFactory(id=pk, workload=WorkloadFactory())
        Gate.objects.create(deployment=row, started_at=now, samples=3, window_seconds=60, next_look_at=now)
    operator.get(reverse(LIST))
    with django_assert_max_num_queries(10) as captured:
        assert operator.get(reverse(LIST)).content.count(b"service-") >= 12
    assert not [query for query in captured.captured_queries if "COUNT(" in query["sql"].upper()]

    row = DeploymentFactory()
    for number in range(20):
        DeploymentStep.objects.create(deployment=row, kind="reported", text=f"{number}", by="x", at=row.started_at)
    with django_assert_max_num_queries(14):
        assert operator.get(page("change", row)).status_code == 200


def test_the_list_filters_and_hides_what_is_archived_unless_asked(operator):
    long_ago = datetime.now(UTC) - timedelta(days=120)
    pk = f"{ids.timestamped('deploy', long_ago)}_abcd"
    now = {"id": ids.timestamped("deploy", datetime.now(UTC))}
    DeploymentFactory(version="v0.0.1", id=pk, started_at=long_ago, archived=True)
    DeploymentFactory(version="v7.7.7", status="failed", workload=WorkloadFactory(), **now)

    usual = text_of(operator, reverse(LIST))
    assert "v7.7.7" in usual
    assert "v0.0.1" not in usual
    assert "v0.0.1" in text_of(operator, reverse(LIST), age="archived")
    assert "v0.0.1" in text_of(operator, reverse(LIST), age="all")
    assert "v7.7.7" not in text_of(operator, reverse(LIST), status__exact="completed")
    assert "v7.7.7" in text_of(operator, reverse(LIST), environment__exact="production")
    assert "Nothing was deployed" not in usual
    Deployment.objects.filter(version="v7.7.7").delete()
    assert "Nothing was deployed in the last 90 days" in text_of(operator, reverse(LIST))


def test_a_rollback_asks_why_and_names_what_it_returns_to(operator):
    good, bad = DeploymentFactory(version="v1.0.0"), DeploymentFactory(version="v1.1.0")

    asked = text_of(operator, page("roll_back", bad))
    assert f"{good.pk} (v1.0.0)" in asked
    assert "bring v1.0.0 back yourself" in asked  # its platform is advisory
    assert operator.post(page("roll_back", bad), {"reason": ""}).status_code == 200
    assert not Deployment.objects.filter(kind="rollback").exists()
    operator.post(page("roll_back", bad), {"reason": "too slow"})

    row = Deployment.objects.get(kind="rollback")
    assert (row.version, row.undoes, row.rollback_reason) == ("v1.0.0", bad, "too slow")
    assert AuditEntry.objects.filter(action="deployment.rollback").exists()
    assert "has been brought out since; roll that one back" in text_of(operator, page("roll_back", good))


def test_a_page_offers_the_rollback_only_when_there_is_one_and_both_ends_name_each_other(operator):
    first = DeploymentFactory(version="v1.0.0")
    assert "There is no earlier good version" in text_of(operator, page("change", first))
    bad = DeploymentFactory(version="v1.1.0", workload=first.workload)
    assert page("roll_back", bad) in text_of(operator, page("change", bad))
    told = text_of(operator, page("change", first))
    assert page("roll_back", first) not in told
    assert "It cannot be rolled back now" in told

    undoing = services.rollback(deployment=bad, reason="too slow", actor=CI)

    assert page("change", undoing) in text_of(operator, page("change", bad))
    told = text_of(operator, page("change", undoing))
    assert page("change", bad) in told
    assert page("change", first) in told
    assert "Waits for a worker" in told
    assert "is being changed by" in text_of(operator, page("change", bad))

    Deployment.objects.filter(pk=bad.pk).update(rolled_back_by=undoing)
    assert "Brought out, and undone since: too slow" in text_of(operator, page("change", bad))
    Deployment.objects.filter(pk=undoing.pk).update(
        status="failed", completed_at=undoing.started_at, error_message="HTTP 500"
    )
    assert "The former version may not run." in text_of(operator, page("change", undoing))


@pytest.mark.parametrize(("group", "may"), [("viewer", False), ("operator", True), ("admin", True), (None, False)])
def test_only_operators_and_administrators_tick_and_move(client, workload, group, may):
    user = UserFactory(group=group) if group else UserFactory()
    client.force_login(user)
    row = started(workload)

    for name in VERBS:
        assert (client.get(page(name, row)).status_code == 200) == may
    reply = client.post(page("tick", row), {"key": "network_policies", "done": "yes"})

    assert reply.status_code == (302 if may else 403)
    assert ChecklistItem.objects.filter(key="network_policies", by=user.username).exists() == may
    assert AuditEntry.objects.filter(action="deployment.tick", actor=user.username).exists() == may
    if group:
        assert ("Take back" in text_of(client, page("change", row))) == may


def test_a_person_ticks_with_a_note_and_takes_it_back(operator, workload):
    row = started(workload)
    assert operator.get(page("tick", row)).status_code == 403  # a link alone ticks nothing

    assert "Network policies defined: ticked." in tick(operator, row, note="as in March \x00")
    told = text_of(operator, page("change", row))
    assert "as in March" in told
    assert "otto, 20" in told
    assert "Network policies defined: open again." in tick(operator, row, done="no")

    item = row.checklist_items.get(key="network_policies")
    assert (item.state, item.by) == ("open", "otto")
    audited = AuditEntry.objects.filter(action="deployment.tick").order_by("pk").values_list("reason", "after__done")
    assert list(audited) == [("as in March", True), ("", False)]


def test_what_no_person_settles_is_not_ticked(operator, workload):
    row = started(workload)

    for key in ("health_passing", "no-such-item", ""):
        assert "Only manual items are ticked by hand." in tick(operator, row, key=key)
    assert not ChecklistItem.objects.filter(by="otto").exists()


def test_ticking_is_refused_kindly_when_it_is_too_late(operator, workload):
    row = started(workload)
    services.fail(deployment=row, actor=CI, error_message="the disk is full")
    assert "Not ticked: this deployment has ended as failed" in tick(operator, row, key="logs_clean")

    done = DeploymentFactory()
    assert "Not ticked: this is looked at before a deployment" in tick(operator, done)
    assert "Logs show no errors: ticked." in tick(operator, done, key="logs_clean")
    told = text_of(operator, page("change", done))
    assert "Nothing can be ticked here any more: this is looked at before" in told

    Deployment.objects.filter(pk=done.pk).update(archived=True)
    assert "Not ticked: this deployment is archived." in tick(operator, done, key="logs_clean")
    assert not ChecklistItem.objects.filter(key="network_policies").exists()


def test_somebody_ends_what_ci_left_open(operator, workload):
    waiting = started(workload, "v1.0.0", status="queued")
    assert "Only a deployment that is in progress" in text_of(operator, page("fail", waiting))
    operator.post(page("cancel", waiting), {"reason": "not tonight"})
    dead = started(workload, "v1.1.0")
    assert "Only a deployment that waits" in text_of(operator, page("cancel", dead))
    operator.post(page("fail", dead), {"reason": "CI died"})
    out = started(workload, "v1.2.0")
    operator.post(page("finish", out))

    ended = dict(Deployment.objects.values_list("version", "status"))
    assert ended == {"v1.0.0": "cancelled", "v1.1.0": "failed", "v1.2.0": "in_progress"}
    assert Gate.objects.filter(pk=out.pk).exists()
    assert "The gate starts once" in text_of(operator, page("finish", out))
    assert "CI died" in text_of(operator, page("change", dead))
    audited = set(AuditEntry.objects.filter(actor="otto").values_list("action", flat=True))
    assert audited == {"deployment.cancel", "deployment.fail", "deployment.finish"}


def test_a_gate_that_compared_shows_what_with_units_and_limits(operator):
    place = WorkloadFactory(gate_samples=2, gate_window_seconds=60)
    instance = InstanceFactory(workload=place, name="web-1", url="")
    now = datetime.now(UTC)
    facts = {"instance": instance, "version": "1.0.0"}
    HealthCheckFactory(timestamp=now - timedelta(minutes=5), response_time_ms=40, error_rate_5min=0.0, **facts)
    row = services.finish(deployment=started(place), actor=CI)
    for second in range(2):
        gate = Gate.objects.get(pk=row.pk)
        moment = gate.next_look_at + timedelta(milliseconds=second)
        HealthCheckFactory(timestamp=moment, response_time_ms=60, error_rate_5min=0.05, **facts)
        runner.look(row.pk, now=moment)

    told = text_of(operator, page("change", row))

    for words in ("2 of 2", "40 ms", "60 ms", "+20 ms", "100 ms", "0.00 %", "5.00 %", "+5.00 points", "2.00 %"):
        assert words in told, words
    assert "It looks at the instances that say they run this version." in told
    assert "gate is looking" in told
    assert 'data-live="gate"' in text_of(operator, page("live", row))
    runner.tick(now)
    Gate.objects.filter(pk=row.pk).update(next_look_at=now - timedelta(minutes=5))
    assert "Is one running? celery -A pulsewatch worker -Q fast" in text_of(operator, page("live", row))


@pytest.mark.parametrize(
    ("instances", "next_step"),
    [(0, "Register the workload&#x27;s instances under Instances"), (1, "web-1 gave no sample: is it up")],
)
def test_an_inconclusive_gate_says_what_to_do_next(operator, instances, next_step):
    place = WorkloadFactory(gate_window_seconds=20, base_url="")
    for number in range(instances):
        InstanceFactory(workload=place, name=f"web-{number + 1}", url="")
    row = services.finish(deployment=started(place, override_reason="it pushes"), actor=CI)
    for _ in range(4):
        runner.look(row.pk, now=Gate.objects.get(pk=row.pk).next_look_at)

    told = text_of(operator, page("change", row))

    assert "nobody knows whether it is healthy" in told
    assert next_step in told
    assert "inconclusive" in text_of(operator, reverse(LIST)).lower()


def test_a_viewer_sees_and_does_not_roll_back(client):
    client.force_login(UserFactory(group="viewer"))
    DeploymentFactory()
    row = DeploymentFactory()

    told = text_of(client, page("change", row))

    assert page("roll_back", row) not in told
    assert "<form" not in told[told.index('id="checklist"') :].split("</section>")[0]
    assert client.get(page("roll_back", row)).status_code == 403


def test_a_rule_for_a_variable_is_checked_and_audited(operator):
    add = reverse("admin:deployments_environmentvariablerule_add")
    form = {"service": ServiceFactory().pk, "key": "API_KEY", "required": "on", "pattern": "(a+)+", "min_length": 8}

    assert "repeat no group without end that itself repeats" in operator.post(add, form).content.decode()
    assert not EnvironmentVariableRule.objects.exists()
    assert operator.post(add, {**form, "pattern": "[a-z]+"}).status_code == 302
    assert AuditEntry.objects.filter(action="variable_rule.create").get().after["pattern"] == "[a-z]+"

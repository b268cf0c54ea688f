"""The console's pages: who sees what, and what it costs."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import IntegrityError, connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from apps.console.roles import ensure_groups
from apps.core import heartbeats, ids
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.models import AuditEntry, StopSwitch
from apps.core.services import set_stop_switch
from apps.deployments.models import Deployment
from apps.deployments.services import start_deployment
from apps.health.models import HealthCheck
from apps.inventory import services
from apps.inventory.models import Instance, Service, Workload
from tests.factories import (
    DeploymentFactory,
    HealthCheckFactory,
    InstanceFactory,
    ServiceFactory,
    UserFactory,
    WorkloadFactory,
)
from tests.scaling.conftest import policy_for

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
LISTS = [
    "admin:index",
    "admin:health_healthcheck_changelist",
    "admin:inventory_service_changelist",
    "admin:inventory_workload_changelist",
    "admin:inventory_instance_changelist",
    "admin:inventory_endpoint_changelist",
    "admin:console_note_changelist",
    "admin:deployments_deployment_changelist",
    "admin:deployments_deployment_dora",
    "admin:builds_build_changelist",
    "admin:builds_diagnostic_changelist",
    "admin:core_stopswitch_changelist",
    "admin:core_auditentry_changelist",
]


def deploy(workload: Workload, **facts: object) -> Deployment:
    """A deployment of a minute ago, which is what the workload runs unless it failed."""
    began = datetime.now(UTC) - timedelta(minutes=1)
    pk = f"{ids.timestamped('deploy', began)}_{ids.suffix(4)}"
    row = DeploymentFactory(**{"workload": workload, "id": pk, "started_at": began, **facts})
    if row.status == "completed":
        Workload.objects.filter(pk=workload.pk).update(current_deployment_id=row.pk)
    return row


@pytest.fixture
def sign_in(client):
    ensure_groups()

    def as_member(group: str):
        client.force_login(UserFactory(username=group, group=group), backend=BACKEND)
        return client

    return as_member


@pytest.mark.parametrize("page", LISTS)
def test_a_stranger_is_sent_to_the_sign_in_page(client, page):
    reply = client.get(reverse(page))

    assert reply.status_code == 302
    assert reply.url.startswith(reverse("admin:login"))


@pytest.mark.parametrize("page", LISTS)
@pytest.mark.parametrize("group", ["viewer", "operator", "admin"])
def test_every_group_may_look_at_every_page(sign_in, group, page):
    HealthCheckFactory()

    assert sign_in(group).get(reverse(page)).status_code == 200


@pytest.mark.parametrize(("group", "may"), [("viewer", False), ("operator", True), ("admin", True)])
def test_only_operators_and_administrators_change_the_inventory(sign_in, group, may):
    reply = sign_in(group).post(
        reverse("admin:inventory_service_add"), {"slug": "shop", "name": "Shop", "metrics_preset": "django"}
    )

    assert reply.status_code == (302 if may else 403)
    assert Service.objects.filter(slug="shop").exists() == may
    assert AuditEntry.objects.filter(subject="service:shop", actor=group).exists() == may


@pytest.mark.parametrize(("group", "may"), [("viewer", False), ("operator", True), ("admin", True)])
def test_only_operators_and_administrators_turn_the_stop_switch(sign_in, group, may):
    reply = sign_in(group).post(reverse("admin:core_stopswitch_changelist"), {"on": "yes", "reason": "runaway"})

    assert reply.status_code == (302 if may else 403)
    assert StopSwitch.objects.filter(on=True).exists() == may


def test_turning_the_stop_switch_without_a_reason_says_so_and_changes_nothing(sign_in):
    reply = sign_in("operator").post(reverse("admin:core_stopswitch_changelist"), {"on": "yes", "reason": " "})

    assert "Say why" in reply.content.decode()
    assert not StopSwitch.objects.exists()


@pytest.mark.parametrize("data", [{}, {"on": ""}, {"on": "maybe"}])
def test_a_stop_switch_form_that_does_not_say_which_way_changes_nothing(sign_in, data):
    set_stop_switch(on=True, reason="runaway", actor=Actor.automation("test"))

    reply = sign_in("operator").post(reverse("admin:core_stopswitch_changelist"), {**data, "reason": "done"})

    assert "Say on=yes or on=no" in reply.content.decode()
    assert StopSwitch.objects.get().on


@pytest.mark.parametrize("text", ["x", "'", '"', "%", "\\", "a b", "é\U0001f600", "\x00", "1 OR 1=1", "9" * 5000])
def test_every_list_can_be_searched_for_anything(client, text):
    client.force_login(UserFactory(is_superuser=True), backend=BACKEND)
    HealthCheckFactory()
    searched = [model for model, page in admin.site._registry.items() if page.search_fields]
    assert {HealthCheck, Service, AuditEntry, Group} <= set(searched)
    for model in searched:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")

        assert client.get(url, {"q": text}).status_code == 200, url


def test_a_sample_is_found_by_its_instance(sign_in):
    HealthCheckFactory(instance=InstanceFactory(name="web-a"))
    HealthCheckFactory(instance=InstanceFactory(name="web-b"))

    text = sign_in("viewer").get(reverse("admin:health_healthcheck_changelist"), {"q": "web-a"}).content.decode()

    assert ">web-a<" in text
    assert ">web-b<" not in text


@pytest.mark.engine
@pytest.mark.django_db(transaction=True)
def test_of_people_who_add_the_same_service_at_once_one_wins_and_the_others_are_told(monkeypatch):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite's writers wait for each other before they validate, so there is no race")
    ensure_groups()
    UserFactory(username="ana", group="operator")
    # Held until all of them have been told by validation that the name is free.
    together = threading.Barrier(4, timeout=30)
    real = services.save
    monkeypatch.setattr(services, "save", lambda row, **words: (together.wait(), real(row, **words))[1])
    # Its own second look would find the row of the winner; one that lost in between is what is proved here.
    monkeypatch.setattr(Service, "full_clean", lambda row, *_, **__: None)

    def add(_: int) -> tuple[int, str]:
        try:
            browser = Client()
            browser.force_login(User.objects.get(username="ana"), backend=BACKEND)
            reply = browser.post(
                reverse("admin:inventory_service_add"), {"slug": "race", "name": "Race", "metrics_preset": "django"}
            )
            return reply.status_code, reply.content.decode()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(add, range(4)))

    assert sorted(status for status, _ in replies) == [200, 200, 200, 302]
    assert all('value="race"' in text for status, text in replies if status == 200)
    assert Service.objects.filter(slug="race").count() == 1
    assert AuditEntry.objects.filter(subject="service:race").count() == 1


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (Invalid("The slug is taken.", field="slug"), "The slug is taken."),
        (Invalid("It is wrong.", field="unknown"), "It is wrong."),
        (Conflict("A deployment runs."), "A deployment runs."),
        (IntegrityError(1062, "Duplicate entry 'secret'"), "Somebody else changed the same things"),
    ],
)
def test_what_goes_wrong_while_saving_is_told_in_the_form_and_leaves_nothing(sign_in, monkeypatch, fault, told):
    real = services.save

    def save(row, **words):
        real(row, **words)
        raise fault

    monkeypatch.setattr(services, "save", save)
    reply = sign_in("operator").post(
        reverse("admin:inventory_service_add"), {"slug": "shop", "name": "Shop", "metrics_preset": "django"}
    )

    text = reply.content.decode()
    assert reply.status_code == 200
    assert told in text
    assert 'value="shop"' in text
    assert "Duplicate entry" not in text
    assert not Service.objects.filter(slug="shop").exists()
    assert not AuditEntry.objects.filter(subject="service:shop").exists()


@pytest.mark.parametrize("page", [*LISTS, "admin:auth_user_changelist", "admin:auth_group_changelist"])
def test_no_page_shows_an_address(client, page):
    user = UserFactory(is_superuser=True, email="ana@example.org")
    client.force_login(user, backend=BACKEND)

    text = client.get(reverse(page)).content.decode()

    assert "example.org" not in text
    assert user.username in text


@pytest.mark.parametrize("page", LISTS)
def test_the_stop_switch_shows_on_every_page_while_it_is_on(sign_in, page):
    client = sign_in("viewer")
    banner = 'data-banner="stop-switch"'
    assert banner not in client.get(reverse(page)).content.decode()

    set_stop_switch(on=True, reason="<b>runaway</b>", actor=Actor.automation("test"))

    text = client.get(reverse(page)).content.decode()
    assert banner in text
    assert "&lt;b&gt;runaway" in text
    assert "<b>runaway" not in text


@pytest.mark.parametrize("page", LISTS)
def test_every_page_says_which_part_of_pulsewatch_is_silent_and_since_when(sign_in, page):
    client = sign_in("viewer")
    heartbeats.expect(datetime.now(UTC))
    assert 'data-banner="stale"' not in client.get(reverse(page)).content.decode()

    heartbeats.beat("long", datetime(2026, 3, 1, 12, 34, 50, tzinfo=UTC))

    text = client.get(reverse(page)).content.decode()
    assert text.count('data-banner="stale"') == 1
    assert "queue “long” does nothing" in text
    assert "Last sign of life: 2026-03-01 12:34 UTC" in text


@pytest.mark.parametrize("action", ["change", "delete"])
@pytest.mark.parametrize("model", ["health_healthcheck", "core_auditentry"])
def test_history_cannot_be_changed_even_by_a_superuser(client, action, model):
    client.force_login(UserFactory(is_superuser=True), backend=BACKEND)
    HealthCheckFactory()
    set_stop_switch(on=True, reason="x", actor=Actor.automation("test"))
    pk = HealthCheck.objects.get().pk if "health" in model else AuditEntry.objects.get().pk

    assert client.post(reverse(f"admin:{model}_{action}", args=[pk]), {"post": "yes"}).status_code == 403
    assert client.get(reverse(f"admin:{model}_add")).status_code == 403


def test_an_instance_keeps_its_name_and_workload(sign_in):
    instance = InstanceFactory()

    sign_in("operator").post(
        reverse("admin:inventory_instance_change", args=[instance.pk]),
        {"name": "other", "url": "http://10.0.0.1:8000", "active": "on"},
    )

    changed = Instance.objects.get(pk=instance.pk)
    assert (changed.name, changed.url) == (instance.name, "http://10.0.0.1:8000")


@pytest.mark.parametrize("page", LISTS)
def test_pages_take_as_many_queries_for_thirty_rows_as_for_one(sign_in, page, django_assert_max_num_queries):
    client = sign_in("admin")
    client.get(reverse(page))
    for _ in range(30):
        instance = InstanceFactory(workload=WorkloadFactory(service=ServiceFactory()))
        HealthCheckFactory(instance=instance)
        deploy(instance.workload)
        policy_for(instance.workload)
    for n in range(30):
        set_stop_switch(on=bool(n % 2), reason="x", actor=Actor.automation("test"))

    with django_assert_max_num_queries(29 if page == "admin:index" else 13):
        assert client.get(reverse(page)).status_code == 200


def test_the_sample_list_never_counts_its_table(sign_in, django_assert_num_queries):
    client = sign_in("viewer")
    HealthCheckFactory()
    with django_assert_num_queries(7) as captured:
        client.get(reverse("admin:health_healthcheck_changelist"))

    assert not [query for query in captured.captured_queries if "COUNT(" in query["sql"].upper()]


def test_the_overview_shows_the_worst_first_and_why(sign_in):
    workload = WorkloadFactory()
    HealthCheckFactory(instance=InstanceFactory(workload=workload, name="well"))
    HealthCheckFactory(
        instance=InstanceFactory(workload=workload, name="ill"),
        overall_status="unhealthy",
        reasons=[{"rule": "error_rate", "status": "unhealthy", "value": 0.25, "limit": 0.05}],
    )
    InstanceFactory(workload=workload, name="silent")

    text = sign_in("viewer").get(reverse("admin:index")).content.decode()

    assert text.index(">ill<") < text.index("silent") < text.index(">well<")
    assert "error rate: 0.25 (limit 0.05)" in text
    assert "no sample yet" in text


def test_the_overview_says_what_each_workload_runs_and_what_is_under_way(sign_in):
    well, ill, busy = (WorkloadFactory(service=ServiceFactory(slug=slug)) for slug in ("well", "ill", "busy"))
    deploy(well, version="v1.0.1", triggered_by="<b>ana</b>")
    deploy(ill, version="v2.0.1")
    bad = deploy(ill, version="v2.0.2", status="failed", id="deploy_99990101_000000")
    running = start_deployment(
        service="busy", environment=busy.environment, version="v3.0.1", commit_sha="abcdef0", triggered_by="mario",
        actor=Actor.automation("ci"), override_reason="no instance yet",
    )  # fmt: skip
    WorkloadFactory(service=ServiceFactory(slug="never"))

    text = sign_in("viewer").get(reverse("admin:index")).content.decode()

    rows = text[text.index("data-rollouts") :].split("<tr")[2:5]
    assert ["ill" in rows[0], "busy" in rows[1], "well" in rows[2]] == [True] * 3
    assert "the last one failed" in rows[0]
    assert reverse("admin:deployments_deployment_change", args=[quote(bad.pk)]) in rows[0]
    assert "mario holds the lock" in rows[1]
    assert reverse("admin:deployments_deployment_change", args=[quote(running.pk)]) in rows[1]
    assert "never brought out" in rows[1]
    assert "v1.0.1" in rows[2]
    assert "<b>ana" not in text


def test_the_figures_of_delivery_are_shown_with_what_they_are_made_of(sign_in):
    client, page = sign_in("viewer"), reverse("admin:deployments_deployment_dora")
    assert "Nothing was deployed yet" in client.get(page).content.decode()
    workload = WorkloadFactory(service=ServiceFactory(slug="store"))
    now = datetime.now(UTC)
    for n in range(23):
        began = now - timedelta(days=1, hours=n)
        DeploymentFactory(
            workload=workload, started_at=began, committed_at=began - timedelta(hours=2),
            status="failed" if n in (3, 7, 8, 20) else "completed",
        )  # fmt: skip
    DeploymentFactory(workload=WorkloadFactory(service=ServiceFactory(slug="old")), started_at=now - timedelta(days=99))

    text = client.get(page).content.decode()

    for words in ("17.4 %", "4 of 23", "4.4 a week", "19 in 30 days", "2 h 1 min", "23 deployments, 4 failed"):
        assert words in text, words
    assert "No deployment has ended in the last 90 days." in text
    assert "#/Deployments/dora_figures" in text
    with CaptureQueriesContext(connection) as asked:
        client.get(page)
    assert not [one for one in asked if "completed_at" in one["sql"]], "measured again within a minute"
    assert client.get("/api/v1/openapi.json").json()["paths"]["/api/v1/dora"]["get"]["operationId"] == "dora_figures"


def test_an_instance_that_fell_silent_is_not_shown_as_healthy(sign_in):
    workload = WorkloadFactory()
    HealthCheckFactory(instance=InstanceFactory(workload=workload, name="well"))
    HealthCheckFactory(
        instance=InstanceFactory(workload=workload, name="silent"), timestamp=datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    )

    text = sign_in("viewer").get(reverse("admin:index")).content.decode()

    assert "1 Healthy" in text
    assert "1 Unknown" in text
    assert "no sample since 2026-03-01 12:00 UTC" in text


def test_an_empty_console_says_what_to_do(sign_in):
    assert "Nothing is watched yet" in sign_in("viewer").get(reverse("admin:index")).content.decode()


def test_a_user_without_a_group_is_told_whom_to_ask(client):
    client.force_login(UserFactory(), backend=BACKEND)

    assert "Ask an administrator" in client.get(reverse("admin:index")).content.decode()


def test_preparing_twice_leaves_three_groups_with_their_permissions():
    Group.objects.create(name="auditors")
    for _ in range(2):
        call_command("prepare", verbosity=0)

    assert set(Group.objects.values_list("name", flat=True)) == {"viewer", "operator", "admin", "auditors"}
    viewer = set(Group.objects.get(name="viewer").permissions.values_list("codename", flat=True))
    assert "view_healthcheck" in viewer
    assert all(name.startswith("view_") for name in viewer)


def test_a_page_forbids_scripts_from_elsewhere_and_frames(sign_in):
    policy = sign_in("viewer").get(reverse("admin:index"))["Content-Security-Policy"]

    assert "script-src 'self' 'unsafe-eval';" in policy
    assert "frame-ancestors 'none'" in policy


def test_five_wrong_passwords_lock_the_pair_out(client):
    UserFactory(username="ana")
    for _ in range(5):
        reply = client.post(reverse("admin:login"), {"username": "ana", "password": "wrong"})

    assert reply.status_code == 429

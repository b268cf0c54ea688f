"""The console's pages: who sees what, and what it costs."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.urls import reverse

from apps.console.roles import ensure_groups
from apps.core.audit import Actor
from apps.core.models import AuditEntry, StopSwitch
from apps.core.services import set_stop_switch
from apps.health.models import HealthCheck
from apps.inventory.models import Instance, Service
from tests.factories import HealthCheckFactory, InstanceFactory, ServiceFactory, UserFactory, WorkloadFactory

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
LISTS = [
    "admin:index",
    "admin:health_healthcheck_changelist",
    "admin:inventory_service_changelist",
    "admin:inventory_workload_changelist",
    "admin:inventory_instance_changelist",
    "admin:core_stopswitch_changelist",
    "admin:core_auditentry_changelist",
]


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


def test_old_data_is_announced_on_every_page(sign_in):
    client = sign_in("viewer")
    sample = HealthCheckFactory(timestamp=datetime.now(UTC) - timedelta(minutes=12))
    assert 'data-banner="stale"' in client.get(reverse("admin:index")).content.decode()

    HealthCheck.objects.filter(pk=sample.pk).update(timestamp=datetime.now(UTC))
    assert 'data-banner="stale"' not in client.get(reverse("admin:index")).content.decode()


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
    for n in range(30):
        set_stop_switch(on=bool(n % 2), reason="x", actor=Actor.automation("test"))

    with django_assert_max_num_queries(9):
        assert client.get(reverse(page)).status_code == 200


def test_the_sample_list_never_counts_its_table(sign_in, django_assert_num_queries):
    client = sign_in("viewer")
    HealthCheckFactory()
    with django_assert_num_queries(6) as captured:
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

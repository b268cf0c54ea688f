"""Alerts, routes and windows in the console."""

from datetime import timedelta

import pytest
from django.contrib.admin.utils import quote
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from apps.alerts import channels, runner
from apps.alerts.models import Alert, Delivery, MaintenanceWindow, Notice, Route
from apps.alerts.services import settle
from apps.console import roles
from apps.core import stored_metrics, vault
from apps.core.models import AuditEntry
from tests.alerts.conftest import down
from tests.factories import UserFactory
from tests.receiver import Trouble

pytestmark = pytest.mark.django_db
EVIL = "<script>alert(1)</script>'; DROP TABLE alerts;--"
KIND = "endpoint_down"


@pytest.fixture(autouse=True)
def groups(db) -> None:
    roles.ensure_groups()


@pytest.fixture
def operator(client):
    client.force_login(UserFactory(group="operator", username="ana"))
    return client


@pytest.fixture
def viewer(client):
    client.force_login(UserFactory(group="viewer"))
    return client


def page(name: str, row=None) -> str:
    return reverse(f"admin:alerts_{name}", args=[] if row is None else [quote(row.pk)])


def opened(**changes) -> Alert:
    settle(KIND, [down(**changes)], now=timezone.now() - timedelta(minutes=3))
    return Alert.objects.get()


def test_the_worst_open_alert_is_on_top_of_the_list_and_of_the_overview(operator, make_route):
    make_route()
    settle(KIND, [down(1, title=EVIL), down(2, severity="critical")], now=timezone.now() - timedelta(minutes=3))
    settle("drill_failed", [down(3, title="An old drill failed")], now=timezone.now() - timedelta(days=2))
    settle("drill_failed", [], now=timezone.now())
    for address in (page("alert_changelist"), reverse("admin:index")):
        shown = operator.get(address).content.decode()
        assert shown.index("shop.example/2 is down") < shown.index("DROP TABLE")
        assert "<script>alert" not in shown
        assert "An old drill failed" not in shown
    history = operator.get(page("alert_changelist") + "?state=closed").content.decode()
    assert "An old drill failed" in history
    assert "shop.example/2" not in history


def test_no_list_of_unknown_length_says_how_long_it_is(operator):
    for name in ("alert_changelist", "delivery_changelist"):
        assert "9999999999" not in operator.get(page(name)).content.decode()


def test_neither_list_nor_overview_needs_more_queries_for_more_rows(operator, make_route):
    make_route()
    counts = []
    for number in (3, 30):
        settle(KIND, [down(n) for n in range(number)], now=timezone.now())
        for address in (page("alert_changelist"), reverse("admin:index")):
            operator.get(address)
            with CaptureQueriesContext(connection) as captured:
                operator.get(address)
            counts.append(len(captured))
    assert counts[:2] == counts[2:]
    assert max(counts) < 30


def test_an_operator_acknowledges_with_a_note(operator):
    alert = opened(title=EVIL, runbook_url="https://wiki.example/shop", path="/admin/")
    asked = operator.get(page("alert_acknowledge", alert)).content.decode()
    assert "You look after it" in asked
    assert not Alert.objects.get().acknowledged_at
    operator.post(page("alert_acknowledge", alert), {"note": "restarting <b>it</b>"})
    alert.refresh_from_db()
    assert (alert.acknowledged_by, alert.acknowledged_note) == ("ana", "restarting <b>it</b>")
    assert AuditEntry.objects.get(action="alert.acknowledge").actor == "ana"
    shown = operator.get(page("alert_change", alert)).content.decode()
    assert "ana looks after it" in shown
    assert "https://wiki.example/shop" in shown
    assert "<b>it</b>" not in shown
    assert "<script>alert" not in shown
    again = operator.post(page("alert_acknowledge", alert), {"note": ""}).content.decode()
    assert "ana has acknowledged it already" in again


def test_a_viewer_looks_and_changes_nothing(viewer, make_route):
    alert, route = opened(), make_route()
    assert viewer.get(page("alert_change", alert)).status_code == 200
    assert viewer.get(page("route_change", route)).status_code == 200
    for address in (
        page("alert_acknowledge", alert),
        page("route_add"),
        page("route_test", route),
        page("maintenancewindow_add"),
    ):
        assert viewer.get(address).status_code == 403
        assert viewer.post(address).status_code == 403


def form(**changes) -> dict:
    return {
        "name": "ops",
        "enabled": "on",
        "minimum_severity": "info",
        "reminder_minutes": "60",
        "services": "",
    } | changes


def test_the_address_of_a_route_is_written_and_never_read(operator, hook):
    address = f"json://127.0.0.1:{hook.port}/t0psecret"
    for wrong, words in (
        ("", "A route needs an Apprise address"),
        ("nosuch://t0psecret", "knows no such kind of address"),
        ("json://t0psecret\n" * 200, "at most 2000 characters"),
    ):
        answer = operator.post(page("route_add"), form(url=wrong)).content.decode()
        assert words in answer
        assert "t0psecret" not in answer
        assert not Route.objects.exists()
    operator.post(
        page("route_add"), form(url=address, environments=["production"], services="shop, blog", kinds=[KIND])
    )
    route = Route.objects.get()
    assert (route.channel, route.environments, route.kinds) == ("JSON", ["production"], [KIND])
    assert route.services == ["shop", "blog"]
    assert vault.unseal(route.url_sealed, purpose=runner.url_purpose(route)) == address
    operator.post(page("route_change", route), form(url="", name="night"))
    route.refresh_from_db()
    assert (route.name, route.environments) == ("night", [])
    assert vault.unseal(route.url_sealed, purpose=runner.url_purpose(route)) == address
    shown = operator.get(page("route_change", route)).content.decode()
    assert "t0psecret" not in shown
    assert "t0psecret" not in str(list(AuditEntry.objects.values()))
    assert set(AuditEntry.objects.values_list("action", flat=True)) >= {"alert_route.create", "alert_route.address_set"}


@pytest.mark.django_db(transaction=True)
def test_an_address_is_checked_before_the_transaction_that_saves_it(operator, hook, monkeypatch):
    check, within = channels.check, []

    def checking(url):
        within.append(connection.in_atomic_block)
        return check(url)

    monkeypatch.setattr(channels, "check", checking)
    operator.post(page("route_add"), form(url=f" json://127.0.0.1:{hook.port}/t0psecret "))
    route = Route.objects.get()
    operator.post(page("route_change", route), form(url="slack://t0psecret"))
    assert within == [False, False]
    refused = operator.post(page("route_change", route), form(url="slack://t0psecret", name="night")).content.decode()
    assert "needs more than it says" in refused
    route.refresh_from_db()
    assert (route.name, route.channel) == ("ops", "JSON")
    operator.post(page("route_change", route), form(name="night"))
    assert len(within) == 3, "an empty address stays as it is"


def test_who_may_not_change_routes_has_no_address_checked(viewer, make_route, monkeypatch):
    monkeypatch.setattr(channels, "check", lambda _: pytest.fail("it was checked"))
    assert viewer.post(page("route_add"), form(url="json://127.0.0.1/x")).status_code == 403
    assert viewer.post(page("route_change", make_route()), form(url="json://127.0.0.1/x")).status_code == 403


def test_a_test_message_and_a_broken_route_are_shown(operator, make_route, hook):
    route = make_route("ops")
    assert "Send a test message to ops" in operator.get(page("route_test", route)).content.decode()
    operator.post(page("route_test", route))
    delivery = Delivery.objects.get()
    hook.starts_over(Trouble.RESET)
    runner.deliver(route.pk)
    for address in (page("alert_changelist"), reverse("admin:index")):
        assert "Messages do not reach" in operator.get(address).content.decode()
    shown = operator.get(page("delivery_change", delivery)).content.decode()
    assert "tried 1" in shown
    assert "broken" in operator.get(page("route_changelist")).content.decode()
    assert AuditEntry.objects.filter(action="alert_route.test").exists()
    Route.objects.all().delete()
    assert "there is no route" in operator.get(page("alert_changelist")).content.decode()


def test_a_route_that_is_switched_off_forgets_what_waited(operator, make_route):
    route = make_route()
    opened()
    runner.gather(timezone.now())
    settle(KIND, [down(), down(18)], now=timezone.now())
    operator.post(page("route_change", route), {key: value for key, value in form().items() if key != "enabled"})
    assert Delivery.objects.get().status == "failed"
    assert not Notice.objects.waiting().exists()


def test_an_administrator_removes_a_route_and_that_is_audited(client, make_route):
    client.force_login(UserFactory(group="admin"))
    route = make_route()
    client.post(reverse("admin:alerts_route_delete", args=[route.pk]), {"post": "yes"})
    assert not Route.objects.exists()
    assert AuditEntry.objects.get(action="alert_route.delete").subject == "alert_route:ops"


def window_form(**changes) -> dict:
    return {
        "name": "Patch day", "recurrence": "weekly", "first_day": "2026-01-01", "start_time": "02:15",
        "time_zone": "Europe/Berlin", "minutes": "60", "weekdays": ["6"], "environment": "production",
    } | changes  # fmt: skip


def test_a_window_is_checked_previewed_and_cancelled(operator):
    for changes, words in (
        ({"time_zone": "Europe/Berlino"}, "There is no such time zone"),
        ({"weekdays": []}, "Choose at least one day"),
        ({"recurrence": "once"}, "over already"),
        ({"last_day": "2025-01-01"}, "comes before the first"),
        ({"first_day": "9999-12-31"}, "more than ten years ahead"),
        ({"subject": "endpoint:17", "freeze_deployments": "on"}, "freezes no deployments"),
        ({"subject": "the shop"}, "Enter a subject such as"),
        ({"minutes": "0"}, "greater than or equal to 1"),
    ):
        assert words in operator.post(page("maintenancewindow_add"), window_form(**changes)).content.decode()
    assert not MaintenanceWindow.objects.exists()
    operator.post(page("maintenancewindow_add"), window_form())
    row = MaintenanceWindow.objects.get()
    assert (row.weekdays, row.created_by) == ([6], "ana")
    shown = operator.get(page("maintenancewindow_change", row)).content.decode()
    assert "02:15 to Sun 03:15 CE" in shown
    assert "UTC" in shown
    operator.post(page("maintenancewindow_cancel", row))
    row.refresh_from_db()
    assert row.cancelled_by == "ana"
    assert "has cancelled it already" in operator.get(page("maintenancewindow_cancel", row)).content.decode()
    assert operator.post(page("maintenancewindow_change", row), window_form()).status_code == 403
    actions = set(AuditEntry.objects.values_list("action", flat=True))
    assert {"maintenance_window.create", "maintenance_window.cancel"} <= actions


def test_prometheus_is_told(make_route):
    make_route()
    opened(severity="critical")
    runner.gather(timezone.now())
    Delivery.objects.update(status="failed")
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in stored_metrics._readers["alerts"]()
        for sample in family.samples
    }
    assert found["pulsewatch_alerts_open", "critical", KIND] == 1
    assert found["pulsewatch_alerts_open", "drill_failed", "warning"] == 0
    assert found["pulsewatch_alert_deliveries_failed", "ops"] == 1
    assert found["pulsewatch_alert_route_up", "ops"] == 1
    assert found["pulsewatch_alert_oldest_unsent_seconds",] == 0

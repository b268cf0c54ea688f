"""Alerts, routes and maintenance windows through the API."""

from datetime import timedelta

import pytest
from django.utils import timezone

from apps.alerts import runner
from apps.alerts.models import Alert, MaintenanceWindow, Route
from apps.core import vault
from apps.core.models import AuditEntry
from tests.factories import AlertFactory

pytestmark = pytest.mark.django_db
URL = "json://127.0.0.1/t0psecret"


def test_alerts_are_filtered_told_and_acknowledged_once(api):
    alert = AlertFactory(title="<b>down</b>", service="shop", severity="critical")
    AlertFactory(opened_at=alert.opened_at, closed_at=alert.opened_at)
    shown = api.get("/alerts?state=open&severity=critical&service=shop").json()["items"]
    assert [row["id"] for row in shown] == [alert.pk]
    assert api.get(f"/alerts?subject={alert.subject.upper()}").json()["items"] == shown
    assert len(api.get("/alerts").json()["items"]) == 2

    told = api.post(f"/alerts/{alert.pk}/acknowledge", {"note": "on it"}).json()
    assert (told["acknowledged_by"], told["events"][-1]["text"]) == ("test-1", "on it")
    again = api.post(f"/alerts/{alert.pk}/acknowledge", {})
    assert again.status_code == 409
    assert again.json()["detail"].startswith("test-1 has acknowledged it already")
    closed = Alert.objects.exclude(closed_at=None).get()
    assert "there is nothing to acknowledge" in api.post(f"/alerts/{closed.pk}/acknowledge", {}).json()["detail"]
    assert api.get("/alerts/nosuch").status_code == 404


def test_reading_takes_its_scope_and_writing_another(holder):
    alert, reader = AlertFactory(), holder("alerts:read")
    assert reader.get("/alerts").status_code == 200
    for path in (f"/alerts/{alert.pk}/acknowledge", "/alert-routes", "/maintenance-windows"):
        assert reader.post(path, {}).json()["scope"] == "alerts:write"
    assert holder("health:write").get("/alerts").status_code == 403


def test_the_address_of_a_route_comes_in_and_never_goes_out(api):
    made = api.post("/alert-routes", {"name": "ops", "url": URL, "environments": ["production"]})
    assert made.status_code == 201
    assert made.json()["channel"] == "JSON"
    path = f"/alert-routes/{made.json()['id']}"
    changed = api.send("PATCH", path, {"minimum_severity": "critical", "environments": []})
    assert changed.json()["minimum_severity"] == "critical"
    route = Route.objects.get()
    assert vault.unseal(route.url_sealed, purpose=runner.url_purpose(route)) == URL
    for body, field in (
        ({"url": "t0psecret://x"}, "url"),
        ({"url": "json://t0psecret\n" * 200}, "url"),
        ({"name": None}, "name"),
        ({"kinds": ["fire"]}, "kinds[0]"),
    ):
        refused = api.send("PATCH", path, body)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["field"] == field
        assert "t0psecret" not in refused.content.decode()
    assert api.post("/alert-routes", {"name": "ops", "url": URL}).status_code == 422
    told = made.content + changed.content + api.get("/alert-routes").content + api.get(path).content
    assert b"t0psecret" not in told
    assert "t0psecret" not in str(list(AuditEntry.objects.values()))


def test_a_window_says_when_it_is_open_next_and_what_is_wrong_with_it(api):
    body = {"name": "Patches", "first_day": "2026-01-01", "start_time": "02:15", "recurrence": "weekly"}
    made = api.post("/maintenance-windows", body | {"weekdays": ["sunday"], "time_zone": "Europe/Berlin"}).json()
    assert made["weekdays"] == ["sunday"]
    assert [len(made["next"]), made["start_time"]] == [5, "02:15"]
    for wrong, field in (
        ({}, "weekdays"),
        ({"weekdays": ["sunday", "sunday"]}, "weekdays"),
        ({"weekdays": ["sunday"], "time_zone": "Mars"}, "time_zone"),
        ({"start_time": "25:00"}, "start_time"),
        ({"first_day": "2026-02-30"}, "first_day"),
        ({"weekdays": ["sunday"], "last_day": "2025-01-01"}, "last_day"),
        ({"recurrence": "once"}, "first_day"),
        ({"weekdays": ["sunday"], "subject": "the shop"}, "subject"),
        ({"weekdays": ["sunday"], "subject": "endpoint:17\n"}, "subject"),
        ({"weekdays": ["sunday"], "service": "shop\n"}, "service"),
    ):
        refused = api.post("/maintenance-windows", body | wrong)
        assert refused.json()["errors"][0]["field"] == field, refused.json()
    path = f"/maintenance-windows/{made['id']}"
    assert api.send("DELETE", path).json()["cancelled_by"] == "test-1"
    assert api.send("DELETE", path).status_code == 409
    assert api.send("PATCH", path, {"minutes": 5}).status_code == 409
    assert MaintenanceWindow.objects.get().minutes == 60


def test_null_empties_what_a_window_is_for(api):
    day = (timezone.now() + timedelta(days=1)).date().isoformat()
    bounds = {"environment": "production", "service": "shop", "subject": "endpoint:17", "last_day": "2099-01-01"}
    body = {"name": "Patches", "first_day": day, "start_time": "02:15", "recurrence": "weekly", "weekdays": ["sunday"]}
    made = api.post("/maintenance-windows", body | bounds).json()
    path = f"/maintenance-windows/{made['id']}"

    for name, empty in (("environment", ""), ("service", ""), ("subject", ""), ("last_day", None)):
        assert made[name] != empty
        changed = api.send("PATCH", path, {name: None})
        assert (changed.status_code, changed.json().get(name)) == (200, empty), changed.content
    assert api.send("PATCH", path, {"minutes": None}).status_code == 422
    assert api.post("/maintenance-windows", body | dict.fromkeys(bounds)).status_code == 201

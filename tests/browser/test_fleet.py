"""Endpoints, databases and the overview in the browser: one is added, and what changed before it broke is seen."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import picture, shell, sign_in
from tests.serving import Served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def broken(console: Served, variables: dict[str, str]) -> None:
    """A shop whose cart broke some minutes after a deployment."""
    shell({**variables, "BASE_URL": console.base}, HISTORY)


HISTORY = """
import os
from datetime import timedelta
from django.utils import timezone
from apps.alerts.models import Alert, MaintenanceWindow
from apps.console.services import add_note
from apps.core import ids
from apps.core.audit import Actor
from apps.health.models import *
from apps.inventory.models import Endpoint
from tests.factories import *
now = timezone.now().replace(microsecond=0)
ana = Actor.automation("ana")
bazaar = ServiceFactory(slug="bazaar", name="Bazaar")
place = WorkloadFactory(service=bazaar, environment="production", base_url=os.environ["BASE_URL"])
cart = EndpointFactory(workload=place, endpoint_path="/cart", name="Cart")
WHY = "answered 503, not 200"
facts = dict(environment="production", http_method="GET", expected_status="200")
EndpointState.objects.create(endpoint=cart, endpoint_path="/cart", status="failed", since=now - timedelta(minutes=40),
    last_checked=now, response_time=31, actual_status=503, error_message=WHY, consecutive_failures=40,
    tls_expires_at=now + timedelta(days=12), **facts)
Endpoint.objects.filter(pk=cart.pk).update(created_at=now - timedelta(days=60))
checks = []
for minute in range(1, 1300):
    if 700 < minute < 760:
        continue
    bad = minute < 40
    slow = 300 < minute < 330
    checks.append(EndpointCheck(endpoint=cart, at=now - timedelta(minutes=minute),
        status="failed" if bad else "degraded" if slow else "healthy", http_status=503 if bad else 200,
        response_time_ms=31 if bad else 1400 if slow else 120 + minute % 37, error=WHY if bad else ""))
EndpointCheck.objects.bulk_create(checks)
full = now.replace(minute=0, second=0)
rows = []
for hour in range(1, 24 * 60):
    bad = 12 if hour in (200, 201, 700) else 0
    rows.append(HealthHourly(
        kind="endpoint", subject=str(cart.pk), hour=full - timedelta(hours=hour), checks=60, healthy=60 - bad,
        degraded=0, down=bad, unknown=0, maintenance=0, uptime=1 - bad / 60, measured=60, response_mean_ms=120,
        response_p95_ms=150 + hour % 90, response_max_ms=900))
HealthHourly.objects.bulk_create(rows)
for hour in range(1, 24):
    for kind in ("endpoint", "instance", "database"):
        RolledHour.objects.create(kind=kind, hour=full - timedelta(hours=hour), checks=60, rolled_at=now)
for number in range(3):
    row = EndpointFactory(workload=place, endpoint_path=f"/fine/{number}")
    EndpointState.objects.create(
        endpoint=row, endpoint_path=row.endpoint_path, status="healthy", since=now - timedelta(hours=3),
        last_checked=now, response_time=84, actual_status=200, **facts)
began = now - timedelta(minutes=44)
DeploymentFactory(pk=ids.timestamped("deploy", began), workload=place, version="v2.4.0", started_at=began)
add_note(text="DNS changed", environment="production", actor=ana, at=now - timedelta(hours=6))
here = dict(service="bazaar", environment="production")
Alert.objects.create(pk="alert_cart", kind="endpoint_down", subject=f"endpoint:{cart.pk}", severity="critical",
    title="Cart is down", opened_at=now - timedelta(minutes=38), **here)
Alert.objects.create(pk="alert_slow", kind="workload_unhealthy", subject="workload:bazaar/production",
    severity="warning", title="bazaar is slow", opened_at=now - timedelta(minutes=330),
    closed_at=now - timedelta(minutes=295), **here)
window = now - timedelta(hours=13)
MaintenanceWindow.objects.create(name="patching", first_day=window.date(), start_time=window.time(), minutes=90)
base = BackupPlanFactory(database__name="bazaar", database__service=bazaar).database
DatabaseState.objects.create(database=base, environment="production", connection_name="bazaar", status="healthy",
    since=now - timedelta(days=2), connection_status="connected", query_test_status="success", average_query_time=1.4,
    connect_ms=3.1, query_ms=1.2, connection_pool_size=41, connections_max=151, last_tested=now)
good = dict(status="healthy", connection_status="connected", query_status="success", connect_ms=3, query_ms=1)
for m in range(1, 600):
    DatabaseCheck.objects.create(database=base, at=now - timedelta(minutes=m), response_time_ms=4 + m % 5, **good)
BackupJobFactory(database=base, started_at=now - timedelta(hours=9))
BackupJobFactory(database=base, status="failed", started_at=now - timedelta(hours=8), error_message="no room")
"""


@pytest.mark.usefixtures("broken")
def test_an_endpoint_is_added_after_its_fault_was_explained_and_its_page_shows_the_chart(
    page: Page, console: Served
) -> None:
    sign_in(page, console)
    page.get_by_role("link", name="Endpoints", exact=True).first.click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("Cart (GET /cart)")  # the worst is first
    picture(page, "endpoints")
    page.get_by_role("link", name="Import").click()
    wrong = {"name": "targets.csv", "mimeType": "text/csv", "buffer": b"environment,path\nmoon,/a\nproduction,b\n"}
    page.locator("input[type=file]").set_input_files(wrong)
    page.get_by_role("button", name="Import").click()
    expect(page.get_by_text("row 2, environment: Enter one of development, staging, production.")).to_be_visible()
    picture(page, "endpoint-import")
    page.goto(f"{console.base}/admin/inventory/endpoint/add/")
    page.locator("select[name=workload]").select_option(label="bazaar/production", force=True)
    page.get_by_label("Path").fill("/healthz")
    page.get_by_label("Expected status").fill("299-200")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("The range 299-200 is upside down: write 200-299.")).to_be_visible()
    picture(page, "endpoint-wrong", whole=True)

    page.get_by_label("Expected status").fill("200-299")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Nobody has looked at it yet")).to_be_visible()
    page.get_by_role("button", name="Check now").click()
    expect(page.get_by_text("Checked now, and not stored: healthy, HTTP 200")).to_be_visible()
    picture(page, "endpoint-new")

    page.get_by_role("link", name="Endpoints", exact=True).first.click()
    page.get_by_role("link", name="Cart (GET /cart)").click()
    expect(page.get_by_text("answered 503, not 200").first).to_be_visible()
    expect(page.locator(".timechart .curve")).to_have_count(2)
    expect(page.locator(".timechart-marks a[title*='v2.4.0']")).to_have_count(2)
    picture(page, "endpoint", whole=True)


@pytest.mark.usefixtures("broken")
def test_the_overview_shows_what_changed_before_it_broke(page: Page, console: Served) -> None:
    sign_in(page, console)
    expect(page.locator("#content, main").first).to_contain_text("Cart is down")
    axis = page.locator("[data-timeline]").first
    expect(axis.locator(".timechart-marks [title*='DNS changed (ana)']")).to_have_count(1)
    picture(page, "overview-timeline")
    mark = axis.locator(".timechart-marks [title*='bazaar v2.4.0: deployment completed']")
    page.goto(f"{console.base}{mark.get_attribute('href')}")  # not clicked: a neighbour's mark may lie upon it
    expect(page.get_by_text("v2.4.0").first).to_be_visible()

    page.goto(f"{console.base}/admin/inventory/database/")
    page.get_by_role("link", name="bazaar").click()
    expect(page.get_by_text("41 of 151 (27%)")).to_be_visible()
    picture(page, "database", whole=True)


@pytest.mark.usefixtures("broken")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_charts_fit_a_narrow_screen_in_both_themes(chromium: Browser, console: Served, theme) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=theme)
    page = context.new_page()
    sign_in(page, console)
    picture(page, f"overview-timeline-phone-{theme}", whole=True)
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.goto(f"{console.base}/admin/inventory/endpoint/?status=failed")
    page.get_by_role("link", name="Cart (GET /cart)").click()
    expect(page.locator(".timechart .curve")).to_have_count(2)
    picture(page, f"endpoint-phone-{theme}", whole=True)
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()

    assert max(wide, wider) <= 0

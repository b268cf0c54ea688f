"""Alerts in the browser: a route is made and tried, an alert is told, acknowledged and read again on a phone."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import picture, shell, sign_in
from tests.receiver import Receiver, receiver
from tests.serving import Served

pytestmark = pytest.mark.browser

PAGES = ("alert", "delivery", "route", "maintenancewindow")
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"  # pixels


@pytest.fixture(scope="module")
def hook() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


HISTORY = """
from datetime import time, timedelta
from django.utils import timezone
from apps.alerts.models import AlertEvent, Delivery, MaintenanceWindow, Notice
from tests.factories import *
now = timezone.now().replace(microsecond=0)
here = dict(environment="production", service="pharmacy")
till = AlertFactory(title="Till is down", severity="critical", subject="endpoint:990017",
    opened_at=now - timedelta(minutes=41), detail="answered 503, not 200: 40 failures in a row",
    path="/admin/inventory/endpoint/", **here)
AlertFactory(title="The certificate of shelf.example ends in 5 days", kind="certificate_expires",
    subject="endpoint:990018", opened_at=now - timedelta(days=2),
    acknowledged_at=now - timedelta(hours=3), acknowledged_by="vera", **here)
AlertFactory(title="pharmacy/production is unhealthy", kind="workload_unhealthy",
    subject="workload:pharmacy/production", opened_at=now - timedelta(hours=9), closed_at=now - timedelta(hours=8),
    flaps=3, **here)
mail = RouteFactory(name="night shift by mail", channel="Email", last_error="The server refused the sign-in (535).",
    failing_since=now - timedelta(hours=2), minimum_severity="critical", environments=["production"])
event = AlertEvent.objects.create(alert=till, at=till.opened_at, kind="opened", severity="critical",
    text="answered 503, not 200", by="Pulsewatch")
failed = Delivery.objects.create(pk=ids.timestamped("delivery", now) + "_a", route=mail, occasion="trouble",
    severity="critical", title="Critical: Till is down", body="Till is down since 14:02 UTC: answered 503, not 200.",
    alerts=1, status="failed", attempts=9, next_attempt_at=now, error="The server refused the sign-in (535).",
    created_at=now - timedelta(minutes=40))
Notice.objects.create(event=event, route=mail, at=event.at, delivery=failed)
MaintenanceWindow.objects.create(name="Sunday patching", first_day=now.date(), start_time=time(3), minutes=90,
    recurrence="weekly", weekdays=[6], time_zone="Europe/Berlin", freeze_deployments=True)
"""

DELIVER = """
from django.utils import timezone
from apps.alerts import runner
from apps.alerts.models import Route
runner.gather(timezone.now())
runner.deliver(Route.objects.get(name="on call").pk)
"""


@pytest.fixture(scope="module")
def alarmed(console: Served, variables: dict[str, str]) -> None:
    shell(variables, HISTORY)


@pytest.mark.usefixtures("alarmed")
def test_a_route_is_made_and_tried_and_an_alert_is_acknowledged(
    page: Page, console: Served, variables: dict[str, str], hook: Receiver
) -> None:
    sign_in(page, console)
    page.get_by_role("link", name="Routes").first.click()
    picture(page, "routes")
    page.goto(f"{console.base}/admin/alerts/route/add/")
    page.get_by_label("Name").fill("on call")
    page.get_by_label("Apprise address").fill("slak://nowhere")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("Apprise knows no such kind of address")).to_be_visible()
    picture(page, "route-wrong", whole=True)
    page.get_by_label("Apprise address").fill(f"json://127.0.0.1:{hook.port}/hook")
    page.get_by_role("button", name="Save", exact=True).click()
    page.locator("#result_list").get_by_role("link", name="on call").click()
    page.get_by_role("link", name="Send a test message").first.click()
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_text("The message is on its way")).to_be_visible()
    shell(variables, DELIVER)
    page.reload()
    picture(page, "route-tried", whole=True)
    assert b"on call" in hook.requests[-1].body

    page.goto(f"{console.base}/admin/alerts/alert/")
    expect(page.locator("#result_list")).to_contain_text("Till is down")
    picture(page, "alerts")
    page.locator("#result_list").get_by_role("link", name="Till is down").click()
    picture(page, "alert", whole=True)
    page.get_by_role("link", name="Acknowledge").click()
    page.get_by_label("Note").fill("I look at it")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("Acknowledged.")).to_be_visible()
    expect(page.get_by_text("I look at it").first).to_be_visible()


@pytest.mark.usefixtures("alarmed")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_each_page_of_alerts_fits_a_phone(chromium: Browser, console: Served, theme) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme=theme)
    page = context.new_page()
    sign_in(page, console)
    wide = {}
    for name in PAGES:
        page.goto(f"{console.base}/admin/alerts/{name}/")
        picture(page, f"{name}s-phone-{theme}")
        wide[name] = page.evaluate(TOO_WIDE)
        page.locator("#result_list tbody a").first.click()
        picture(page, f"{name}-phone-{theme}", whole=True)
        wide[f"one {name}"] = page.evaluate(TOO_WIDE)
    context.close()

    assert not {name: pixels for name, pixels in wide.items() if pixels > 0}

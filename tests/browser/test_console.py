"""The console in Debian's Chromium, on a real server with a real sample."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import picture, sign_in
from tests.serving import Served

pytestmark = pytest.mark.browser


def test_signing_in_leads_to_the_newest_sample(page: Page, console: Served) -> None:
    sign_in(page, console)
    picture(page, "overview")

    row = page.get_by_role("row").filter(has_text="pulsewatch-web-1")
    expect(row).to_contain_text(re.compile("Healthy|Degraded"))  # a busy machine answers slowly
    expect(row).to_contain_text("MiB")
    expect(row).to_contain_text("ms")
    expect(page.get_by_role("row").filter(has_text="app-production-1")).to_contain_text("refused the connection")

    row.get_by_role("link").click()
    expect(page.get_by_text("Dependencies")).to_be_visible()
    expect(page.get_by_text(re.compile("^(Connected|Slow)$")).first).to_be_visible()  # slow on a busy machine
    picture(page, "sample")


def test_the_list_of_samples_is_read_only_and_filtered_by_status(page: Page, console: Served) -> None:
    sign_in(page, console)
    page.get_by_role("link", name=re.compile("Health$")).click()
    expect(page.get_by_text("pulsewatch-web-1").first).to_be_visible()
    expect(page.get_by_role("link", name="Add")).to_have_count(0)
    picture(page, "samples")

    page.goto(f"{console.base}/admin/health/healthcheck/?overall_status__exact=unhealthy")
    expect(page.get_by_text("app-staging-1").first).to_be_visible()
    expect(page.get_by_text("pulsewatch-web-1")).to_have_count(0)


def test_the_stop_switch_is_turned_with_a_reason_and_shown_on_every_page(page: Page, console: Served) -> None:
    sign_in(page, console)
    page.get_by_role("link", name="Stop switch").click()
    page.get_by_label("Reason").fill("moving the database")
    picture(page, "stop-switch")
    page.get_by_role("button", name="Stop all automation").click()

    expect(page.get_by_role("alert").filter(has_text="moving the database")).to_be_visible()
    page.get_by_role("link", name="Audit trail").click()
    expect(page.get_by_role("alert").filter(has_text="moving the database")).to_be_visible()
    expect(page.get_by_text("stop_switch.on")).to_be_visible()
    picture(page, "audit-trail")

    page.get_by_role("link", name="Stop switch").first.click()
    page.get_by_label("Reason").fill("done")
    page.get_by_role("button", name="Let automation run again").click()
    expect(page.get_by_text("Automation is running.")).to_be_visible()


def test_an_instance_is_added_and_a_wrong_url_is_explained(page: Page, console: Served) -> None:
    sign_in(page, console)
    page.goto(f"{console.base}/admin/inventory/instance/add/")
    page.get_by_label("Name").fill("app-canary-1")
    page.locator("select[name=workload]").select_option(label="app/production", force=True)
    page.get_by_label("URL").fill("ftp://10.0.0.1")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("starts with http:// or https://")).to_be_visible()
    picture(page, "wrong-url")

    page.get_by_label("URL").fill("http://10.0.0.1:8000")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()
    picture(page, "instances")


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_both_themes_show_the_overview(chromium: Browser, console: Served, theme) -> None:
    context = chromium.new_context(viewport={"width": 1440, "height": 900}, color_scheme=theme)
    page = context.new_page()
    sign_in(page, console)

    background = page.evaluate("getComputedStyle(document.querySelector('#main')).backgroundColor")
    picture(page, f"overview-{theme}")
    context.close()
    assert (background == "rgb(255, 255, 255)") == (theme == "light")


def test_a_narrow_screen_needs_no_sideways_scrolling_of_the_page(chromium: Browser, console: Served) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844})
    page = context.new_page()
    sign_in(page, console)
    picture(page, "overview-phone")
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()

    assert wider <= 0

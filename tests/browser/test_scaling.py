"""Scaling in the browser: why it held, other settings tried on the recorded past, a pause with its end."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import picture, shell, sign_in
from tests.serving import Served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def scaled(console: Served, variables: dict[str, str]) -> None:
    """A shop whose load rose and fell over two days, and what its policy made of the last hours."""
    shell(variables, HISTORY)


HISTORY = """
from datetime import UTC, datetime, timedelta
from math import pi, sin
from apps.health.models import UtilisationMinute
from apps.scaling.models import ScalingDecision, ScalingEvent
from tests.factories import ServiceFactory, WorkloadFactory
from tests.scaling.conftest import policy_for
bakery = WorkloadFactory(service=ServiceFactory(slug="bakery", name="Bakery"), environment="production",
                         platform="gunicorn", platform_settings={"pid_file": "/run/bakery.pid"})
policy = policy_for(bakery, min_instances=2, max_instances=6)
now = datetime.now(UTC).replace(second=0, microsecond=0)
rows = []
for back in range(1, 2881):
    at = now - timedelta(minutes=back)
    load = 190 + 130 * sin(back / 1440 * 2 * pi) + 14 * sin(back / 7)
    ran = 3 if load < 260 else 4
    seen = ran - 1 if 700 < back < 760 else ran
    sums = {"cpu_sum": load / ran * seen, "cpu_count": seen, "memory_sum": 52.0 * seen, "memory_count": seen}
    if 300 < back < 330:
        continue
    rows.append(UtilisationMinute(
        workload=bakery, minute=at, expected=ran, reported=seen, units=ran, warming=0, warming_cpu_sum=0,
        warming_cpu_count=0, warming_memory_sum=0, warming_memory_count=0, samples=seen, **sums))
UtilisationMinute.objects.bulk_create(rows)
boundary = now - timedelta(minutes=now.minute % 5)
why = "held: 3 of 4 instances reported; 1 missing counts as 100 % on the way down → CPU 71 %, not below 40 %"
window = {"start": boundary.isoformat(), "reported": 3, "expected": 4,
          "cpu": {"measured": 61.2, "up": 45.9, "down": 70.9}, "memory": {"measured": 52.0, "up": 39.0, "down": 64.0}}
for number in range(20):
    up = number == 4
    ScalingDecision.objects.create(
        policy=policy, boundary=boundary - timedelta(minutes=5 * number), evaluated_at=now,
        action="scale_up" if up else "hold", rule="above_threshold" if up else "within",
        reason="CPU 91 % for 10 minutes (threshold 80 %)" if up else why,
        instances_before=3 if number >= 4 else 4, instances_after=4 if number <= 4 else 3, figures=[window, window])
for number, (action, before, after, success, trigger) in enumerate((
    ("scale_up", 3, 4, True, "autoscaler"), ("scale_down", 4, 3, True, "autoscaler"),
    ("manual_scale", 3, 4, True, "manual"), ("scale_up", 3, 4, False, "autoscaler"),
    ("scale_down", 5, 3, True, "other"))):
    at = boundary - timedelta(minutes=20 + 190 * number)
    ScalingEvent.objects.create(
        id=f"scale_{at:%Y%m%d_%H%M%S}", service=bakery.service, workload=bakery, environment="production",
        timestamp=at, action=action, instances_before=before, instances_after=after, success=success,
        trigger_reason="CPU 91 % for 10 minutes (threshold 80 %)", cpu_percent_avg=91.2, memory_percent_avg=52.0,
        triggered_by=trigger, triggered_by_user="ana" if trigger == "manual" else None, settled_at=at,
        error_message=None if success else "The platform accepted 4 and runs 3 after 20 s.")
"""


@pytest.mark.usefixtures("scaled")
def test_a_threshold_is_changed_tried_and_the_policy_paused(page: Page, console: Served) -> None:
    sign_in(page, console)
    picture(page, "scaling-overview", whole=True)
    page.goto(f"{console.base}/admin/scaling/scalingpolicy/")
    picture(page, "scaling-policies")
    page.get_by_role("link", name="bakery/production").click()
    expect(page.get_by_text("1 missing counts as 100 % on the way down").first).to_be_visible()
    expect(page.get_by_text("up above 80 %")).to_be_visible()
    picture(page, "scaling-policy", whole=True)

    page.get_by_role("link", name="Try other settings").click()
    picture(page, "scaling-backtest-before")
    page.get_by_label("Scale-up threshold").fill("0.7")
    page.get_by_label("Days").fill("1")
    page.get_by_role("button", name="Run").click()
    figures = page.locator("[data-figures]")
    expect(figures).to_contain_text("Scale-up threshold: 0.8 → 0.7")
    expect(figures).to_contain_text("The total load is taken as recorded")
    expect(page.locator("[data-difference]")).to_contain_text("(threshold 70 %)")
    expect(page.locator("[data-actions]")).to_contain_text("→")
    picture(page, "scaling-backtest", whole=True)

    page.get_by_role("link", name="Take these settings over").click()
    expect(page.get_by_label("Scale-up threshold")).to_have_value("0.7")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("between the thresholds: above 40 %, below 70 %").first).to_be_visible()
    picture(page, "scaling-settings", whole=True)
    page.get_by_label("Target CPU (%)").fill("60")
    page.get_by_label("Target memory (%)").fill("60")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("above 70 % in 2 windows")).to_be_visible()

    page.get_by_role("link", name="Pause").click()
    page.get_by_label("Reason").fill("load test <b>until noon</b>")
    picture(page, "scaling-pause")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused by ana for another").first).to_be_visible()
    expect(page.get_by_role("link", name="Resume")).to_be_visible()
    picture(page, "scaling-paused")
    page.get_by_role("link", name="Scale by hand").click()
    expect(page.get_by_text("Bounds of the policy")).to_be_visible()
    picture(page, "scaling-by-hand")


@pytest.mark.usefixtures("scaled")
def test_the_pages_fit_a_phone_in_the_dark(chromium: Browser, console: Served) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    sign_in(page, console, user="vera")
    policy = "scaling/scalingpolicy/policy_bakery_production"
    tried = (
        "days=1&scale_up_threshold=0.6&scale_down_threshold=0.4&min_instances=2&max_instances=6&metrics=cpu_memory&"
        "scale_up_cooldown_seconds=300&scale_down_cooldown_seconds=600&evaluation_period_seconds=300&"
        "datapoints_to_trigger=2"
    )
    for name, where, words in (
        ("policy", f"{policy}/change/", "The last 24 hours"),
        ("backtest", f"{policy}/backtest/?{tried}", "First difference"),
        ("decisions", "scaling/scalingdecision/", "held: 3 of 4"),
        ("changes", "scaling/scalingevent/", "by somebody else"),
        ("overview", "", "Bounds"),
    ):
        page.goto(f"{console.base}/admin/{where}")
        if name != "changes":
            expect(page.get_by_text(words).first).to_be_visible()
        picture(page, f"scaling-{name}-phone-dark", whole=True)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    page.goto(f"{console.base}/admin/scaling/scalingdecision/")
    page.get_by_role("link", name="UTC").first.click()
    expect(page.get_by_text("What it looked at")).to_be_visible()
    picture(page, "scaling-decision-phone-dark", whole=True)
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    context.close()

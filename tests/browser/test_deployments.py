"""Deployments in the browser: ticked until they complete, rolled back with a reason, counted; the API's own page."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import picture, shell, sign_in
from tests.serving import Served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def deployed(console: Served, variables: dict[str, str]) -> None:
    """Two versions of a shop, the gate of the second one inconclusive; a third one whose gate looks, elsewhere."""
    shell(variables, HISTORY)


HISTORY = """
from datetime import UTC, datetime, timedelta
from apps.core.audit import Actor
from apps.deployments import runner, services
from apps.deployments.models import Gate
from tests.factories import DeploymentFactory, InstanceFactory, ServiceFactory, WorkloadFactory
ci = Actor.automation("ci")
store = ServiceFactory(slug="store", name="Store")
place = WorkloadFactory(service=store, environment="production", gate_window_seconds=20)
InstanceFactory(workload=place, name="store-1", url="")
DeploymentFactory(workload=place, version="v2.3.0", id=f"deploy_{datetime.now(UTC) - timedelta(hours=2):%Y%m%d_%H%M%S}")
row = services.start_deployment(
    service="store", environment="production", version="v2.4.0", commit_sha="a1b2c3d4e5f6", triggered_by="ana",
    actor=ci, commit_message="Show the cart's total <b>at once</b>", reported={"migrations_run": "passed"},
    override_reason="the instance pushes its samples")
services.finish(deployment=row, actor=ci)
for _ in range(4):
    runner.look(row.pk, now=Gate.objects.get(pk=row.pk).next_look_at)
cafe = WorkloadFactory(service=ServiceFactory(slug="cafe"), environment="production", gate_window_seconds=900)
InstanceFactory(workload=cafe, name="cafe-1", id="cafe-1", url="")
DeploymentFactory(workload=cafe, version="v0.9.0", id=f"deploy_{datetime.now(UTC) - timedelta(hours=1):%Y%m%d_%H%M%S}")
open_one = services.start_deployment(
    service="cafe", environment="production", version="v1.0.0", commit_sha="c0ffee00", triggered_by="mario", actor=ci)
services.finish(deployment=open_one, actor=ci)
"""

LOOKS = """
from datetime import timedelta
from apps.deployments import runner
from apps.deployments.models import Gate
from tests.factories import HealthCheckFactory
for number in range(3):
    gate = Gate.objects.get(deployment__version="v1.0.0", deployment__workload__service__slug="cafe")
    moment = gate.next_look_at
    HealthCheckFactory(instance_id="cafe-1", environment="production", timestamp=moment, version="1.0.0")
    runner.look(gate.pk, now=moment)
"""


@pytest.mark.usefixtures("deployed")
def test_from_an_unproven_deployment_to_a_rollback(page: Page, console: Served) -> None:
    sign_in(page, console)
    page.goto(f"{console.base}/admin/deployments/deployment/")
    row = page.get_by_role("row").filter(has_text="v2.4.0").filter(has_text="Inconclusive")
    expect(row).to_have_count(1)
    picture(page, "deployments")

    row.get_by_role("link").first.click()
    expect(page.get_by_text("store-1 gave no sample.").first).to_be_visible()
    expect(page.get_by_text("What to do now")).to_be_visible()
    picture(page, "deployment", whole=True)
    page.get_by_role("link", name="Roll back").click()
    expect(page.get_by_text("(v2.3.0)")).to_be_visible()
    page.get_by_label("Reason").fill("the cart is empty")
    picture(page, "roll back")
    page.get_by_role("button", name="Roll back").click()

    expect(page.get_by_text("Rollback to v2.3.0 queued: the cart is empty").first).to_be_visible()


@pytest.mark.usefixtures("deployed")
def test_an_item_is_ticked_while_the_gate_looks_and_the_page_shows_the_verdict_by_itself(
    page: Page, console: Served, variables: dict[str, str]
) -> None:
    sign_in(page, console)
    page.goto(f"{console.base}/admin/deployments/deployment/?q=v1.0.0")
    page.get_by_role("row").filter(has_text="cafe/production").get_by_role("link").first.click()
    expect(page.get_by_text("The gate looks at the instances")).to_be_visible()

    item = page.locator("[data-item=network_policies]")
    item.get_by_label("Note on: Network policies defined").fill("as in <March>")
    item.get_by_role("button", name="Tick").click()
    expect(page.get_by_text("Network policies defined: ticked.")).to_be_visible()
    expect(item).to_contain_text("as in <March>")
    expect(item).to_contain_text("ana, 20")
    picture(page, "deployment-gate", whole=True)

    shell(variables, LOOKS)
    expect(page.get_by_text("Brought out and healthy: 3 healthy samples in a row")).to_be_visible()
    page.get_by_text("Before the deployment").click()
    expect(item.get_by_role("button")).to_have_count(0)
    expect(page.get_by_text("Nothing can be ticked here any more")).to_be_visible()
    picture(page, "deployment-passed", whole=True)


@pytest.mark.usefixtures("deployed")
def test_figures_and_overview_fit_a_phone_in_the_dark(chromium: Browser, console: Served) -> None:
    context = chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = context.new_page()
    sign_in(page, console, user="vera")
    for where, words in (("deployments/deployment/dora", "Change failure rate"), ("", "Under way")):
        page.goto(f"{console.base}/admin/{where}")
        expect(page.get_by_text(words).first).to_be_visible()
        picture(page, f"{where.rpartition('/')[2] or 'overview'}-phone-dark", whole=True)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    context.close()


def test_the_page_of_the_api_is_drawn_from_here_alone(page: Page, console: Served) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{console.base}/api/v1/docs#/Deployments/dora_figures")

    expect(page.get_by_text("/api/v1/dora", exact=True)).to_be_visible()
    expect(page.get_by_text("not incidents: 4 of 23 are 17.4 %").first).to_be_visible()
    picture(page, "api")
    assert all(url.startswith((console.base, "data:")) for url in asked)

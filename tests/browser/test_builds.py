"""Builds and diagnostics in the browser: the trend, the worst first, and one deferred by hand."""

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import picture, shell, sign_in
from tests.serving import Served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def built(console: Served, variables: dict[str, str]) -> None:
    """Thirty builds of a shop; the last one failed, with diagnostics of tsc and ruff."""
    shell(variables, HISTORY)


HISTORY = """
import json
from datetime import UTC, datetime, timedelta
from apps.builds import services
from apps.core.audit import Actor
from tests.factories import BuildFactory, ServiceFactory
ci, now = Actor.automation("ci"), datetime.now(UTC)
shop = ServiceFactory(slug="shop", name="Shop")
for age in range(30, 0, -1):
    status = "failed" if age in (9, 17) else "success"
    BuildFactory(service=shop, created_at=now - timedelta(hours=age), build_status=status, commit_sha="0123abc",
        build_time=70 + 13 * (age % 5) - age, bundle_size=1_900_000 - 12_000 * age, node_version="20.11.1")
build = services.start_build(service=shop, environment="production", actor=ci, branch="main", commit_sha="fedcba98765",
    node_version="20.11.1", typescript_version="5.6.3", build_command="npm run build", run_url="https://ci.example.com")
wrong = "error TS2322: Type 'string' is not assignable to type"
tsc = "".join(f"src/pages/cart.ts({n},5): {wrong} 'Line{n}'.\\n" for n in range(1, 8))
tsc += "src/a.ts(3,9): error TS7006: Parameter '<b>x</b>' is any.\\n  As <script>alert(1)</script> shows.\\n"
place = {"artifactLocation": {"uri": "api/views.py"}, "region": {"startLine": 7, "startColumn": 1}}
results = [{"ruleId": "F401", "level": level, "message": {"text": f"`os` imported but unused ({level})"},
    "locations": [{"physicalLocation": place}]} for level in ("warning", "note")]
sarif = json.dumps({"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "ruff"}}, "results": results}]})
for report_format, text in (("tsc", tsc), ("sarif", sarif)):
    services.report_diagnostics(
        build=build, actor=ci, report_format=report_format, content=text.encode(), complete=True)
services.change_build(build=build, actor=ci, status="failed", build_time=93.5, error_log="npm: exit status 2")
"""


@pytest.mark.usefixtures("built")
def test_from_a_failed_build_to_a_deferred_diagnostic(page: Page, console: Served) -> None:
    sign_in(page, console)
    page.goto(f"{console.base}/admin/builds/build/")
    expect(page.get_by_text("28 of 31 succeeded").or_(page.get_by_text("27 of 30 succeeded"))).to_be_visible()
    picture(page, "builds")

    page.goto(f"{console.base}/admin/builds/build/?q=fedcba")
    page.locator("#result_list tbody a").first.click()
    expect(page.get_by_text("npm: exit status 2")).to_be_visible()
    picture(page, "build", whole=True)

    page.locator("a[href='/admin/builds/diagnostic/']").first.click()
    expect(page.get_by_text("8 Critical")).to_be_visible()
    expect(page.locator("#result_list tbody tr").first).to_contain_text("Critical")
    expect(page.locator("#result_list tbody tr").last).to_contain_text("Low")
    picture(page, "diagnostics")

    page.get_by_role("link", name="src/a.ts:3:9").click()
    expect(page.get_by_text("As <script>alert(1)</script> shows.")).to_be_visible()
    picture(page, "diagnostic", whole=True)
    page.get_by_role("link", name="Defer").click()
    page.get_by_label("Notes").fill("waits for the next release of the library")
    picture(page, "diagnostic-defer")
    page.get_by_role("button", name="Defer").click()
    expect(page.get_by_text("1 diagnostic deferred.")).to_be_visible()
    expect(page.get_by_text("7 Critical")).to_be_visible()


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize("where", ["build", "diagnostic"])
def test_the_lists_in_the_dark_and_on_a_phone(chromium: Browser, console: Served, where: str) -> None:
    for name, width, scheme in (("dark", 1440, "dark"), ("phone", 390, "light")):
        context = chromium.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
        page = context.new_page()
        sign_in(page, console, user="vera")
        page.goto(f"{console.base}/admin/builds/{where}/")
        expect(page.locator("#result_list")).to_be_visible()
        picture(page, f"{where}s-{name}")
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        context.close()

        assert wider <= 0

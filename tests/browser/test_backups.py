"""From an empty console to a proven backup, and back over a database, as a person does it in the browser."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.steps import picture, shell, sign_in
from tests.fleet import connect
from tests.servers import MariaDB
from tests.serving import Served

pytestmark = pytest.mark.browser

SLOW = 60_000  # ms that a dump, a check or a drill may take on a busy machine


@pytest.fixture(scope="module")
def shop(database: MariaDB) -> str:
    """The URL of a schema with customers, and orders enough for a dump that a person can watch."""
    connection = connect(database)
    try:
        cursor = connection.cursor()
        cursor.execute("CREATE DATABASE shop")
        cursor.execute("CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(50)) ENGINE=InnoDB")
        cursor.execute("CREATE TABLE shop.orders (id INT PRIMARY KEY, `order` VARCHAR(2000)) ENGINE=InnoDB")
        cursor.executemany("INSERT INTO shop.customers VALUES (%s, %s)", [(n, f"customer {n}") for n in range(50)])
        cursor.executemany("INSERT INTO shop.orders VALUES (%s, %s)", [(n, "é" * 1000) for n in range(3000)])
        connection.commit()
    finally:
        connection.close()
    return database.url.rpartition("/")[0] + "/shop"


@pytest.fixture(scope="module")
def proven(console: Served, variables: dict[str, str]) -> None:
    """Databases in each state, with the history that makes it."""
    shell(variables, HISTORY)


HISTORY = """
from datetime import UTC, datetime, timedelta
from tests.factories import BackupJobFactory, BackupPlanFactory, DatabaseFactory, RestoreFactory
now = datetime.now(UTC)
crm = BackupPlanFactory(database__name="crm", database__database_name="crm_production").database
for day in range(30):
    facts = {"database": crm, "database_name": "crm_production", "started_at": now - timedelta(days=day, hours=3)}
    sizes = {"backup_bytes": 1_250_113_482, "compressed_bytes": 380_220_118, "compression_ratio": 0.304}
    backup = BackupJobFactory(**facts, **sizes)
drill = RestoreFactory(backup=backup)
held = BackupJobFactory(
    database=crm, started_at=now - timedelta(hours=2), restore_tested=True, is_monthly_archive=True, legal_hold=True,
    notes=["Table prices has the FLOAT column price: a dump rounds it, so a restore may differ in the last digits."],
    tables={f"table_{n}": f"{n:064x}" for n in range(40)}, engine="MariaDB 10.11.19",
)
RestoreFactory(backup=held, kind="restore", schema="crm_copy", equal=None)
RestoreFactory(
    backup=held, status="failed", equal=False, first_difference="order_items", tables={"order_items": "0" * 64},
    error_message="order_items differs from the backup.", started_at=now - timedelta(minutes=1),
)
billing = BackupPlanFactory(database__name="billing", cron="0 * * * *", time_zone="Europe/Berlin").database
BackupJobFactory(database=billing, started_at=now - timedelta(days=2))
BackupJobFactory(
    database=billing, status="failed", integrity_check_passed=None, object_path="", backup_bytes=None,
    compressed_bytes=None, compression_ratio=None, tables={}, triggered_by="manual", requested_by="ana",
    error_message="The dump holds 3 routines, the catalogue 4: a privilege is missing, or the schema was changed "
    "during the dump. Run: python manage.py database check, then back up again.",
)
DatabaseFactory(name="intranet", environment="staging", engine="sqlite", host="", port=None,
    database_name="/srv/intranet/var/lib/application/database/production.sqlite3")
"""


def go(page: Page, entry: str) -> None:
    """Through the sidebar."""
    page.locator("#nav-sidebar").get_by_role("link", name=re.compile(f"{entry}$")).click()


def test_a_database_is_added_backed_up_drilled_and_restored_over(
    page: Page, console: Served, worker: None, shop: str, database: MariaDB
) -> None:
    sign_in(page, console)
    go(page, "Databases")
    picture(page, "databases-before")
    page.locator('a[href$="/inventory/database/add/"]').first.click()
    page.get_by_label("Name").fill("shop")
    page.locator("[name=url]").fill(shop.replace("pulsewatch:", "pulsewatch:open-sesame-", 1))
    page.get_by_label("Limit (MB/s)").fill("2")
    page.get_by_role("button", name="Check and add").click()
    expect(page.locator(".errors").filter(has=page.locator("[name=url]"))).to_contain_text("password")
    expect(page.locator("[name=url]")).to_have_value("")
    assert "sesame" not in page.content()
    picture(page, "database-wrong-url", whole=True)

    page.locator("[name=url]").fill(shop)
    page.get_by_role("button", name="Check and add").click()
    expect(page.get_by_text("shop is registered")).to_be_visible()
    expect(page.get_by_text("never backed up")).to_be_visible()
    picture(page, "database-new", whole=True)

    page.get_by_role("link", name="Back up now").click()
    picture(page, "confirm-backup")
    page.get_by_role("button", name="Back up now").click()
    expect(page.get_by_text(re.compile("Dumping|Reading it back"))).to_be_visible(timeout=SLOW)
    picture(page, "backup-running")
    expect(page.get_by_text("verified", exact=True)).to_be_visible(timeout=SLOW)
    picture(page, "backup-verified", whole=True)
    backup = page.url

    page.get_by_role("link", name="Drill", exact=True).click()
    picture(page, "confirm-drill")
    page.get_by_role("button", name="Start the drill").click()
    expect(page.get_by_text("Restored: digests equal, 2 tables")).to_be_visible(timeout=SLOW)
    page.get_by_text("2 tables and their digests").click()
    expect(page.get_by_role("cell", name="equal")).to_have_count(2)
    picture(page, "drill-equal", whole=True)

    connection = connect(database, schema="shop")
    cursor = connection.cursor()
    cursor.execute("DELETE FROM customers")
    connection.commit()
    page.goto(backup)
    page.get_by_role("link", name="Restore over a database").click()
    page.get_by_label("Type shop to confirm").fill("Shop")
    page.get_by_role("button", name="Overwrite shop").click()
    expect(page.get_by_text("Nothing was overwritten: this is not the name")).to_be_visible()
    picture(page, "confirm-overwrite", whole=True)
    page.get_by_label("Type shop to confirm").fill("shop")
    page.get_by_role("button", name="Overwrite shop").click()
    expect(page.get_by_text(re.compile(r"Restored into mysql://.*/shop in"))).to_be_visible(timeout=SLOW)
    picture(page, "restored", whole=True)
    cursor.execute("SELECT COUNT(*) FROM customers")
    assert cursor.fetchone() == (50,)
    connection.close()

    go(page, "Overview")
    expect(page.get_by_role("row").filter(has_text="shop")).to_contain_text("proven")
    picture(page, "overview-backups")


def test_a_viewer_sees_the_state_and_no_button(page: Page, console: Served, proven: None) -> None:
    sign_in(page, console, "vera")
    go(page, "Databases")
    expect(page.get_by_role("link", name="Add database")).to_have_count(0)
    page.get_by_role("link", name="crm").click()
    expect(page.get_by_text("Recent backups")).to_be_visible()
    expect(page.locator("[data-actions] a")).to_have_text(["Plan"])
    page.get_by_role("link", name=re.compile("^backup_")).first.click()
    expect(page.get_by_text("How it went")).to_be_visible()
    expect(page.locator("[data-actions]")).to_have_count(0)
    assert page.request.get(page.url.replace("/change/", "/drill/")).status == 403


PAGES = ("inventory/database", "backups/backupjob", "backups/restore", "backups/backupplan")


@pytest.mark.parametrize(("theme", "width"), [("dark", 1440), ("light", 390)])
def test_the_lists_fit_light_dark_and_a_phone(
    chromium: Browser, console: Served, proven: None, theme: str, width: int
) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
    page = context.new_page()
    sign_in(page, console, "vera")
    wider = {}
    for name in PAGES:
        page.goto(f"{console.base}/admin/{name}/")
        picture(page, f"{name.partition('/')[2]}s-{theme}-{width}", whole=True)
        wider[name] = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        page.locator("#result_list tbody a").first.click()
        page.wait_for_url("**/change/**")
        picture(page, f"{name.partition('/')[2]}-{theme}-{width}", whole=True)
        wider[page.url] = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    page.goto(console.base)
    picture(page, f"overview-{theme}-{width}", whole=True)
    context.close()

    assert not [name for name, pixels in wider.items() if pixels > 0]

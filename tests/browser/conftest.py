"""A running console and a browser, shared by all browser tests of a process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from apps.core.keys import new_keyset
from tests.browser.steps import PASSWORD
from tests.servers import MariaDB, Redis, chromium_path
from tests.serving import Served, served


@pytest.fixture(scope="session")
def database() -> Iterator[MariaDB]:
    with MariaDB(migrated=True) as server:
        yield server


@pytest.fixture(scope="session")
def variables(database: MariaDB, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the console's processes have in common."""
    with Redis() as broker:
        yield {
            "DATABASE_URL": database.url,
            "REDIS_URL": broker.url,
            "BACKUP_KEYSET": new_keyset(),
            "BACKUP_STORAGE": str(tmp_path_factory.mktemp("stored") / "backups"),
        }


@pytest.fixture(scope="session")
def console(variables: dict[str, str]) -> Iterator[Served]:
    """Web server with users `ana` (superuser) and `vera` (viewer), three applications, a sample of each instance."""
    with served(**variables) as web:
        for command in (["prepare"], ["shell", "-c", SETUP]):
            manage(web, variables, *command)
        yield web


@pytest.fixture(scope="module", autouse=True)
def sampled(console: Served, variables: dict[str, str]) -> None:
    """A sample of each instance that is of the present: the console says so when the newest one is old."""
    manage(console, variables, "shell", "-c", "from apps.health.tasks import sample; sample()")


def manage(web: Served, variables: dict[str, str], *command: str) -> None:
    """Run manage.py on the console's data."""
    own = {**os.environ, **variables, "SELF_URL": web.base, "INSTANCE_ID": "pulsewatch-web-1"}
    own["PEOPLES_PASSWORD"] = PASSWORD
    subprocess.run([sys.executable, "manage.py", *command], check=True, env=own, stdout=subprocess.DEVNULL)


SETUP = """
import os
from django.contrib.auth.models import Group, User
from apps.core.audit import Actor
from apps.inventory import services
from apps.inventory.models import Instance, Service, Workload
ana = User.objects.create_superuser("ana", password=os.environ["PEOPLES_PASSWORD"])
vera = User.objects.create_user("vera", password=os.environ["PEOPLES_PASSWORD"], is_staff=True)
vera.groups.add(Group.objects.get(name="viewer"))
actor = Actor.person(ana)
app = Service.objects.get(slug="app")
for environment, count in (("production", 2), ("staging", 1)):
    workload = services.save(Workload(service=app, environment=environment), actor=actor)
    for number in range(count):
        url = f"http://127.0.0.1:{9 + number}"
        services.save(Instance(name=f"app-{environment}-{number + 1}", workload=workload, url=url), actor=actor)
"""


@pytest.fixture(scope="session")
def worker(console: Served, variables: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A worker of queue `long`, as it runs beside the console."""
    folder = tmp_path_factory.mktemp("worker")
    own = {**os.environ, **variables, "VAR_DIR": str(folder)}
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "pulsewatch", "worker", "-Q", "long", "-c", "1"]
    with Path(folder, "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env=own, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    # Not for the session: while it runs, Playwright keeps an event loop running in this thread, and others need theirs.
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium_path()), args=flags)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser, console: Served) -> Iterator[Page]:
    """A fresh page; a script error or a refused script fails the test."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(15_000)
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
    yield page
    context.close()
    assert not faults

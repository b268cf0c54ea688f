"""Deployments in the browser: the list, what the gate saw, and a rollback that somebody explains."""

import os
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.browser.steps import picture, sign_in
from tests.serving import Served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def deployed(console: Served, variables: dict[str, str]) -> None:
    """Two versions of a shop; the gate of the second one was inconclusive."""
    command = [sys.executable, "manage.py", "shell", "-v", "0", "-c", HISTORY]
    subprocess.run(command, check=True, env={**os.environ, **variables})


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
DeploymentFactory(workload=place, version="v2.3.0")
row = services.start_deployment(
    workload=place, version="v2.4.0", commit_sha="a1b2c3d4e5f6", triggered_by="ana", actor=ci,
    commit_message="Show the cart's total <b>at once</b>", reported={"migrations_run": "passed"},
    override_reason="the instance pushes its samples")
services.finish(deployment=row, actor=ci)
for _ in range(4):
    runner.look(row.pk, now=Gate.objects.get(pk=row.pk).next_look_at)
"""


@pytest.mark.usefixtures("deployed")
def test_from_an_unproven_deployment_to_a_rollback(page: Page, console: Served) -> None:
    sign_in(page, console)
    page.goto(f"{console.base}/admin/deployments/deployment/")
    row = page.get_by_role("row").filter(has_text="v2.4.0")
    expect(row).to_contain_text("health not proven")
    picture(page, "deployments")

    row.get_by_role("link").first.click()
    expect(page.get_by_text("store-1 gave no sample.").first).to_be_visible()
    picture(page, "deployment")
    page.get_by_role("link", name="Roll back").click()
    expect(page.get_by_text("(v2.3.0)")).to_be_visible()
    page.get_by_label("Reason").fill("the cart is empty")
    picture(page, "roll back")
    page.get_by_role("button", name="Roll back").click()

    expect(page.get_by_text("Rollback to v2.3.0 queued: the cart is empty").first).to_be_visible()

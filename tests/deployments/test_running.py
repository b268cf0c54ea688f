"""The item of the checklist that the platform answers: all instances run."""

import json

import pytest

from apps.deployments import preparation, services
from apps.deployments.models import Deployment
from apps.inventory import services as inventory
from tests.deployments.conftest import CI, started
from tests.deployments.test_gate import looked
from tests.receiver import Reply

pytestmark = pytest.mark.django_db


@pytest.fixture
def scaled(watched, platform):
    """Its platform, a webhook, says how many instances run."""
    watched.platform_settings |= {"scale_url": f"{platform.url}/scale"}
    return inventory.save(watched, actor=CI)


def says(ready: int) -> Reply:
    return Reply(body=json.dumps({"instances": 3, "ready": ready}).encode())


def running(row: Deployment) -> tuple[str, str]:
    item = row.checklist_items.get(key="pods_running")
    return item.state, item.detail


def test_the_gate_waits_until_as_many_run_as_are_wanted(scaled, platform):
    row = services.finish(deployment=started(scaled), actor=CI)
    platform.starts_over(says(2))

    gate = looked(row, 3)

    assert gate.verdict is None
    assert running(row) == ("failed", "2 of 3 are ready")
    assert any("2 of 3 are ready" in reason for reason in gate.reasons)
    platform.starts_over(says(3))
    assert looked(row, 1).verdict == "passed"
    assert running(row) == ("passed", "3 of 3 are ready")
    assert {(request.method, request.path) for request in platform.requests} == {("GET", "/scale")}


def test_a_platform_that_does_not_say_leaves_the_item_open_and_the_gate_alone(scaled, platform):
    row = services.finish(deployment=started(scaled), actor=CI)
    platform.starts_over(Reply(status=400))

    assert looked(row, 5).verdict == "passed"

    state, detail = running(row)
    assert (state, detail.startswith("Platform webhook did not say:")) == ("open", True)


def test_what_ci_has_reported_is_replaced_by_a_failure_only(scaled, platform):
    row = started(scaled)
    preparation.report_items(deployment=row, reported={"pods_running": "passed"}, actor=CI)
    services.finish(deployment=row, actor=CI)
    platform.starts_over(Reply(status=400))

    looked(row, 1)
    assert running(row) == ("passed", "reported")
    platform.starts_over(says(1))
    looked(row, 1)
    assert running(row) == ("failed", "1 of 3 are ready")

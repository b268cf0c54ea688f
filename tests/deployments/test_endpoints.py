"""The items of the checklist that endpoints answer: the API responds, the front end loads."""

from datetime import timedelta

import pytest
from django.test import override_settings

from apps.deployments import preparation, services
from apps.deployments.models import Deployment
from apps.health.models import EndpointState
from tests.deployments.conftest import CI, started
from tests.deployments.test_gate import looked
from tests.factories import EndpointFactory
from tests.http_app import Answer

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("reachable")]


@pytest.fixture
def reachable():
    with override_settings(PROBE_ALLOW_LOOPBACK=True):
        yield


def items(row: Deployment) -> dict[str, tuple[str, str]]:
    found = row.checklist_items.filter(key__in=("api_responding", "front_end_loading"))
    return {item.key: (item.state, item.detail) for item in found}


def test_endpoints_that_answer_after_the_rollout_settle_their_items(watched, app):
    app.answers |= {"/api": Answer(200), "/": Answer(200)}
    EndpointFactory(workload=watched, endpoint_path="/api")
    EndpointFactory(workload=watched, endpoint_path="/", front_end=True)
    EndpointFactory(workload=watched, endpoint_path="/off", enabled=False)
    row = services.finish(deployment=started(watched), actor=CI)

    assert looked(row, 5).verdict == "passed"

    answered = "1 answered as expected since it was brought out"
    assert items(row) == {"api_responding": ("passed", answered), "front_end_loading": ("passed", answered)}
    assert "/off" not in [path for _, path, _ in app.seen]


def test_an_endpoint_that_fails_keeps_the_gate_from_passing_and_fails_it_at_the_end(watched, app):
    app.answers["/api"] = Answer(500)
    EndpointFactory(workload=watched, endpoint_path="/api", name="Orders")
    row = services.finish(deployment=started(watched), actor=CI)

    gate = looked(row, 12)

    assert gate.verdict == "failed"
    assert any("Orders answered 500 instead of 200" in reason for reason in gate.reasons)
    assert items(row) == {"api_responding": ("failed", "Orders answered 500 instead of 200")}


def test_a_front_end_that_fails_is_told_and_does_not_block(watched, app):
    app.answers["/"] = Answer(404)
    EndpointFactory(workload=watched, endpoint_path="/", front_end=True)
    row = services.finish(deployment=started(watched), actor=CI)

    assert looked(row, 5).verdict == "passed"
    assert items(row)["front_end_loading"][0] == "failed"


def test_what_the_prober_has_asked_since_is_not_asked_again(watched, app):
    endpoint = EndpointFactory(workload=watched, endpoint_path="/api")
    row = services.finish(deployment=started(watched), actor=CI)
    EndpointState.objects.create(
        endpoint=endpoint,
        environment="production",
        endpoint_path="/api",
        http_method="GET",
        expected_status="200",
        status="healthy",
        last_checked=row.gate.started_at + timedelta(seconds=1),
    )

    assert looked(row, 5).verdict == "passed"
    assert "/api" not in [path for _, path, _ in app.seen]
    assert items(row)["api_responding"][0] == "passed"


def test_what_ci_reported_stays_until_an_endpoint_contradicts_it(watched, app):
    app.answers["/api"] = Answer(200)
    EndpointFactory(workload=watched, endpoint_path="/api")
    row = started(watched)
    preparation.report_items(deployment=row, reported={"api_responding": "failed"}, actor=CI)
    services.finish(deployment=row, actor=CI)
    looked(row, 1)
    assert items(row)["api_responding"][0] == "failed"

    preparation.report_items(deployment=row, reported={"api_responding": "passed"}, actor=CI)
    app.answers["/api"] = Answer(503)
    looked(row, 1)
    assert items(row)["api_responding"][0] == "failed"


def test_without_endpoints_the_items_are_ci_s_and_people_s_to_say(watched):
    row = services.finish(deployment=started(watched), actor=CI)

    assert looked(row, 5).verdict == "passed"
    assert items(row) == {}

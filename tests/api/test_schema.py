"""The schema tells the truth: no input makes a 500, every answer is as promised, every operation is seen to work."""

from datetime import UTC, datetime, timedelta

import pytest
import schemathesis
from django.core.signals import request_finished, request_started
from django.db import close_old_connections
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from apps.alerts.models import MaintenanceWindow
from apps.alerts.services import Firing, settle
from apps.core import vault
from apps.health.models import DatabaseCheck, EndpointCheck
from apps.inventory.models import Workload
from apps.scaling.models import ScalingDecision
from pulsewatch.wsgi import application
from tests.factories import (
    AlertFactory,
    BackupJobFactory,
    BuildFactory,
    DatabaseFactory,
    DeploymentFactory,
    DiagnosticFactory,
    EndpointFactory,
    InstanceFactory,
    RestoreFactory,
    RouteFactory,
    ServiceFactory,
    WorkloadFactory,
)
from tests.scaling.conftest import minutes

schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", application)
# What is too long by its field may be too long for a body as well, and is refused for that first.
refusing = schema.config.checks.negative_data_rejection
refusing.expected_statuses = [*refusing.expected_statuses, "413"]
TRUTH = [status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = 20  # for each operation


@pytest.fixture(autouse=True)
def one_connection():
    """The application must not close the connection that holds the transaction of this test."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def known(db):
    """Rows that a path may name; one in two generated identifiers is replaced by one of them."""
    return {
        "instance_id": InstanceFactory().pk,
        "backup_id": BackupJobFactory().pk,
        "build_id": BuildFactory().pk,
        "diagnostic_id": DiagnosticFactory().pk,
        "deployment_id": DeploymentFactory().pk,
        "key": "network_policies",
        "endpoint_id": EndpointFactory().pk,
        "name": DatabaseFactory().name,
        "alert_id": AlertFactory().pk,
        "route_id": RouteFactory().pk,
        "window_id": MaintenanceWindow.objects.create(name="x", first_day="2026-01-01", start_time="02:00").pk,
        "policy_id": "policy_production",
        "service": "app",
        "environment": "production",
    }


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_input_makes_a_fault_of_ours_and_every_answer_is_as_promised(case, api, known):
    checks = [not_a_server_error, *TRUTH, ignored_auth, unsupported_method, negative_data_rejection]
    replaced = [name for name, value in case.path_parameters.items() if len(str(value)) % 2]
    for name in replaced:
        case.path_parameters[name] = known[name]
    if replaced:
        checks.remove(negative_data_rejection)  # it may be the path that was wrong

    case.call_and_validate(
        headers={"Authorization": f"Bearer {api.token}"},
        checks=checks,
    )


def test_every_operation_is_seen_to_succeed(api):
    seen = set()

    def does(method, path, body=None, *, given=None, kind="application/json", plain=False, **query):
        """The answer of an operation that succeeds and is as the schema promises."""
        operation = schema["/api/v1" + path][method]
        case = operation.Case(
            path_parameters=given or {},
            query=query,
            headers={"Authorization": f"Bearer {api.token}"},
            **({} if body is None else {"body": body, "media_type": kind}),
        )
        reply = case.call()
        case.validate_response(reply, checks=TRUTH)
        assert 200 <= reply.status_code < 300, reply.text
        seen.add(operation.label)
        return reply.content if plain else reply.json()

    now = datetime.now(UTC).isoformat()
    sample = {"instance_id": "web-1", "environment": "production", "timestamp": now, "response_time_ms": 45}
    assert does("POST", "/health-checks", sample) == {"stored": 1, "duplicates": 0, "registered": 1}
    assert does("POST", "/health-checks", [sample]) == {"stored": 0, "duplicates": 1, "registered": 0}
    assert does("GET", "/health-checks", instance_id="web-1", status="healthy", since=now)["items"]
    assert [row["slug"] for row in does("GET", "/services")["items"]] == ["app"]
    assert does("GET", "/workloads", service="app", environment="production")["items"]

    instance = does("POST", "/instances", {"name": "web-2", "environment": "production"})
    assert len(does("GET", "/instances", active="true")["items"]) == 2
    assert does("DELETE", "/instances/{instance_id}", given={"instance_id": instance["id"]})["active"] is False

    endpoint = does("POST", "/endpoints", {"environment": "production", "path": "/api"})
    one, path = {"endpoint_id": endpoint["id"]}, "/endpoints/{endpoint_id}"
    EndpointCheck.objects.create(endpoint_id=endpoint["id"], at=now, status="failed", error="refused the connection")
    assert does("PATCH", path, {"slow_ms": 300}, given=one)["slow_ms"] == 300
    assert does("GET", path, given=one)["has_headers"] is False
    assert does("GET", "/endpoints", status="unknown", front_end="false")["items"][0]["id"] == endpoint["id"]
    assert does("GET", f"{path}/checks", given=one, since=now)["items"][0]["status"] == "failed"
    assert does("GET", f"{path}/hours", given=one)["items"] == []
    Workload.objects.update(base_url="http://127.0.0.1:9")
    assert does("POST", f"{path}/check", given=one)["status"] == "failed"
    text = does("GET", "/endpoints/export", plain=True, format="csv")
    assert does("POST", "/endpoints/import", text, kind="text/csv", dry_run="true")["unchanged"] == 1
    assert does("DELETE", path, given=one)["id"] == endpoint["id"]

    cache = {"name": "cache", "environment": "production", "url": "redis://:hunter2hunter2@cache.internal/0"}
    assert "hunter2" not in str(does("POST", "/databases", cache))
    url = vault.seal("sqlite:////nowhere/shop.db", purpose="database:shop:url")
    database = DatabaseFactory(name="shop", url_sealed=url)
    assert does("POST", "/databases/{name}/check", given={"name": "shop"})["connection_status"] == "error"
    one = {"name": database.name}
    DatabaseCheck.objects.create(database=database, at=now, status="healthy", connection_status="connected")
    assert does("PATCH", "/databases/{name}", {"interval_seconds": 30}, given=one)["interval_seconds"] == 30
    assert does("GET", "/databases/{name}", given=one)["state"] is None
    assert does("GET", "/databases", engine="mysql", watch="true")["items"][0]["name"] == database.name
    assert does("GET", "/databases/{name}/checks", given=one, status="healthy")["items"]
    assert does("GET", "/databases/{name}/hours", given=one, until=now)["items"] == []

    settle("drill_failed", [Firing("database:shop", "Drill failed", "Look at it.", "warning")], now=datetime.now(UTC))
    alert = does("GET", "/alerts", state="open", kind="drill_failed")["items"][0]
    one = {"alert_id": alert["id"]}
    assert does("POST", "/alerts/{alert_id}/acknowledge", {"note": "on it"}, given=one)["acknowledged_note"] == "on it"
    assert [row["kind"] for row in does("GET", "/alerts/{alert_id}", given=one)["events"]] == ["opened", "acknowledged"]
    route = does("POST", "/alert-routes", {"name": "ops", "url": "json://127.0.0.1/secret", "kinds": ["drill_failed"]})
    one, path = {"route_id": route["id"]}, "/alert-routes/{route_id}"
    assert does("PATCH", path, {"enabled": False}, given=one)["enabled"] is False
    assert does("GET", "/alert-routes")["items"] == [does("GET", path, given=one)]
    assert does("DELETE", path, given=one)["name"] == "ops"
    window = does(
        "POST",
        "/maintenance-windows",
        {"name": "Patches", "recurrence": "weekly", "weekdays": ["sunday"], "first_day": "2026-01-01",
         "start_time": "02:15", "time_zone": "Europe/Berlin"},
    )  # fmt: skip
    one, path = {"window_id": window["id"]}, "/maintenance-windows/{window_id}"
    assert len(window["next"]) == 5
    assert does("PATCH", path, {"minutes": 90}, given=one)["minutes"] == 90
    assert does("GET", "/maintenance-windows", cancelled="false")["items"] == [does("GET", path, given=one)]
    assert does("DELETE", path, given=one)["next"] == []

    backup = does("POST", "/backups", {"database": database.name, "triggered_by": "pre_deployment"})
    assert does("GET", "/backups/{backup_id}", given={"backup_id": backup["id"]})["status"] == "queued"
    assert does("GET", "/backups", database=database.name, status="queued")["items"] == [backup]
    RestoreFactory()
    assert does("GET", "/restores", limit=1)["items"]

    build = does("POST", "/builds", {"environment": "production", "branch": "main"})
    one = {"build_id": build["id"]}
    report = b"src/a.ts(1,2): error TS2304: Cannot find name 'x'.\n"
    told = does(
        "POST", "/builds/{build_id}/diagnostics", report, given=one, kind="text/plain", tool="tsc", complete="true"
    )
    assert [(row["tool"], row["added"], row["complete"]) for row in told["reports"]] == [("tsc", 1, True)]
    assert does("PATCH", "/builds/{build_id}", {"status": "failed"}, given=one)["status"] == "failed"
    assert does("GET", "/builds/{build_id}", given=one)["completed_at"]
    assert does("GET", "/builds", branch="main", status="failed")["items"][0]["id"] == build["id"]
    (found,) = does("GET", "/diagnostics", build_id=build["id"], severity="critical")["items"]
    one = {"diagnostic_id": found["id"]}
    moved = does("PATCH", "/diagnostics/{diagnostic_id}", {"status": "in_progress"}, given=one)
    assert does("GET", "/diagnostics/{diagnostic_id}", given=one) == moved

    begun = does(
        "POST",
        "/deployments",
        {"environment": "production", "version": "v1.2.3", "commit_sha": "a1b2c3d4", "committed_at": now},
    )
    one = {"deployment_id": begun["id"]}
    path = "/deployments/{deployment_id}"
    does("POST", f"{path}/checklist", {"reported": {"migrations_run": "passed"}}, given=one)
    ticked = one | {"key": "network_policies"}
    does("POST", f"{path}/checklist/{{key}}/tick", {"done": True, "person": "Ana"}, given=ticked)
    does("POST", f"{path}/checklist/override", {"items": ["pods_running"], "reason": "one host"}, given=one)
    judged = {"environment_variables": [{"key": "MODE", "value": "live"}]}
    assert does("POST", f"{path}/environment-variables", judged, given=one)["environment_variables"]
    assert does("PATCH", path, {"status": "success"}, given=one)["status"] == "in_progress"
    assert does("GET", path, given=one)["gate"]["verdict"] is None
    assert does("GET", "/deployments", service="app", environment="production", since=now)["items"]
    for version in ("v2.0.0", "v2.0.1"):
        row = DeploymentFactory(version=version)
    assert does("POST", f"{path}/rollback", {"reason": "slow"}, given={"deployment_id": row.pk})["version"] == "v2.0.0"
    assert does("GET", "/dora", days=90)["items"]

    _scaling(does)

    assert {result.ok().label for result in schema.get_all_operations()} == seen


def _scaling(does):
    """Every operation of scaling."""
    workload = WorkloadFactory(service=ServiceFactory(slug="shop"), environment="staging", platform="gunicorn")
    policy = does("POST", "/scaling-policies", {"service": "shop", "environment": "staging", "max_instances": 4})
    one, path = {"policy_id": policy["id"]}, "/scaling-policies/{policy_id}"
    assert does("PATCH", path, {"scale_up_threshold": 0.85}, given=one)["scale_up_threshold"] == 0.85
    until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert does("POST", f"{path}/pause", {"until": until, "reason": "load test"}, given=one)["paused_until"]
    assert does("POST", f"{path}/resume", given=one)["paused_until"] is None
    assert does("GET", path, given=one)["max_instances"] == 4
    assert does("GET", "/scaling-policies", service="shop", enabled="true")["items"][0]["id"] == policy["id"]

    end = datetime.now(UTC).replace(second=0, microsecond=0)
    minutes(workload, 95, until=end, length=60)
    tried = does("POST", f"{path}/backtest", {"settings": {"scale_up_threshold": 0.99}, "days": 1}, given=one)
    assert tried["present"]["actions"][0].keys() == {"at", "action", "from", "to", "reason"}
    assert tried["first_difference"]["present"]["to"] == 3

    ScalingDecision.objects.create(
        policy_id=policy["id"], boundary=end, evaluated_at=end, action="hold", rule="within", reason="held: CPU 50 %",
        instances_before=2, instances_after=2, figures=[{"reported": 2, "cpu": {"up": 50.0}}],
    )  # fmt: skip
    assert does("GET", "/scaling-decisions", policy_id=policy["id"], action="hold")["items"][0]["service"] == "shop"
    event = does(
        "POST",
        "/workloads/{service}/{environment}/scale",
        {"instances": 3, "reason": "sale"},
        given={"service": "shop", "environment": "staging"},
    )
    assert does("GET", "/scaling-events", service="shop", environment="staging")["items"] == [event]

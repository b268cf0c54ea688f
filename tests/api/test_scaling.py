"""Scaling through the API: right status, the field named, nothing stored of what is refused."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.core.models import AuditEntry
from apps.scaling.models import ScalingEvent, ScalingPolicy
from tests.api.test_builds import problem_of
from tests.api.test_lists import walk
from tests.factories import ServiceFactory, WorkloadFactory
from tests.scaling.conftest import minutes, policy_for

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
POLICY = "/scaling-policies/policy_production"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"scale_up_threshold": 0.3}, "scale_down_threshold"),
        ({"scale_up_threshold": 1.7}, "scale_up_threshold"),
        ({"scale_down_threshold": 0}, "scale_down_threshold"),
        ({"max_instances": 1}, "max_instances"),
        ({"min_instances": 0}, "min_instances"),
        ({"evaluation_period_seconds": 90}, "evaluation_period_seconds"),
        ({"evaluation_period_seconds": 0}, "evaluation_period_seconds"),
        ({"datapoints_to_trigger": 0}, "datapoints_to_trigger"),
        ({"target_cpu_percent": 85}, "target_cpu_percent"),
        ({"metrics": "disk"}, "metrics"),
        ({"max_instances": None}, "max_instances"),
        ({"max_instances": "3"}, "max_instances"),
        ({"colour": "red"}, "colour"),
        ({"paused_until": None}, "paused_until"),
    ],
)
def test_what_cannot_be_is_named_and_changes_nothing(api, wrong, field):
    before = api.get(POLICY).json()

    for method, path, body in (
        ("PATCH", POLICY, wrong),
        ("POST", f"{POLICY}/backtest", {"settings": wrong}),
        ("POST", "/scaling-policies", {"service": ServiceFactory().slug, "environment": "staging", **wrong}),
    ):
        if method == "POST" and path.endswith("policies") and wrong == {"max_instances": 1}:
            continue  # one of one is a policy
        if path.endswith("backtest") and field.startswith("target"):
            continue  # no decision uses them
        named = problem_of(api.send(method, path, body), 422)["errors"][0]["field"]
        assert named.removeprefix("settings.") == field

    assert api.get(POLICY).json() == before
    assert ScalingPolicy.objects.count() == 2


def test_two_clients_change_different_settings_of_one_policy(api):
    api.send("PATCH", POLICY, {"max_instances": 12})
    changed = api.send("PATCH", POLICY, {"enabled": False}).json()

    assert (changed["max_instances"], changed["enabled"]) == (12, False)
    entry = AuditEntry.objects.filter(action="scaling_policy.update").latest("pk")
    assert (entry.before, entry.after, entry.subject) == (
        {"enabled": True}, {"enabled": False}, "scaling_policy:app/production",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"service": "app", "environment": "development"}, "environment"),
        ({"service": "none", "environment": "staging"}, "service"),
        ({"environment": "qa"}, "environment"),
    ],
)
def test_a_policy_is_for_a_service_in_production_or_staging(api, body, field):
    assert problem_of(api.post("/scaling-policies", body), 422)["errors"][0]["field"] == field


def test_a_second_policy_of_a_workload_is_refused(api):
    assert (
        "already has a scaling policy"
        in problem_of(api.post("/scaling-policies", {"environment": "production"}), 422)["detail"]
    )


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"until": (NOW - timedelta(hours=1)).isoformat(), "reason": "x"}, "until"),
        ({"until": (NOW + timedelta(days=31)).isoformat(), "reason": "x"}, "until"),
        ({"until": (NOW + timedelta(hours=1)).isoformat(), "reason": "  "}, "reason"),
        ({"until": "tomorrow", "reason": "x"}, "until"),
        ({"reason": "x"}, "until"),
    ],
)
def test_a_pause_has_an_end_and_a_reason(api, body, field):
    assert problem_of(api.post(f"{POLICY}/pause", body), 422)["errors"][0]["field"] == field
    assert api.get(POLICY).json()["paused_until"] is None


def test_a_backtest_takes_the_right_to_read_alone_and_needs_recorded_minutes(holder):
    reader = holder("scaling:read")

    problem_of(reader.post(f"{POLICY}/backtest", {"days": 91}), 422)
    assert "There is no workload app/production yet" in problem_of(reader.post(f"{POLICY}/backtest", {}), 409)["detail"]
    workload = WorkloadFactory(service=ServiceFactory(slug="shop"), environment="production")
    minutes(workload, 50, until=NOW, length=30)
    found = reader.post(f"/scaling-policies/{policy_for(workload).pk}/backtest", {"days": 1}).json()
    assert (found["first_difference"], found["actions"]) == (None, [])
    assert "total load" in found["load_model"]


def test_a_workload_is_scaled_within_its_bounds_and_one_change_at_a_time(api):
    workload = WorkloadFactory(service=ServiceFactory(slug="shop"), environment="staging", platform="gunicorn")
    policy_for(workload, max_instances=4)
    path = "/workloads/shop/staging/scale"

    assert problem_of(api.post(path, {"instances": 5, "reason": "sale"}), 422)["errors"][0]["field"] == "instances"
    assert problem_of(api.post(path, {"instances": 3, "reason": " "}), 422)["errors"][0]["field"] == "reason"
    problem_of(api.post("/workloads/shop/production/scale", {"instances": 3, "reason": "sale"}), 404)
    begun = api.post(path, {"instances": 3, "reason": "sale"})
    assert (begun.status_code, begun.json()["success"], begun.json()["triggered_by_user"]) == (202, None, "test-1")
    assert problem_of(api.post(path, {"instances": 2, "reason": "sale"}), 409)["held_by"] == begun.json()["id"]
    advisory = WorkloadFactory(service=ServiceFactory(slug="mail"), environment="staging")
    assert advisory.platform == "advisory"
    told = problem_of(api.post("/workloads/mail/staging/scale", {"instances": 2, "reason": "sale"}), 409)["detail"]
    assert "Change the count yourself" in told
    assert ScalingEvent.objects.count() == 1


def test_events_are_paged_and_filtered(api):
    places = [
        WorkloadFactory(service=service, environment=environment)
        for service in (ServiceFactory(slug="shop"), ServiceFactory(slug="mail"))
        for environment in ("production", "staging")
    ]
    ScalingEvent.objects.bulk_create(
        ScalingEvent(
            id=f"scale_{number:03}", service=places[number % 4].service, workload=places[number % 4],
            environment=places[number % 4].environment, timestamp=NOW - timedelta(minutes=number // 2),
            action="scale_up" if number % 3 else "manual_scale", instances_before=1, instances_after=2,
            trigger_reason="CPU 91 %", triggered_by="autoscaler" if number % 3 else "manual",
            success=None if number < 4 else number % 5 != 0, settled_at=None if number < 4 else NOW,
        )
        for number in range(40)
    )  # fmt: skip

    def found(query: str) -> list[int]:
        return [int(row["id"][-3:]) for row in walk(api, f"/scaling-events?limit=3{query}")]

    def expected(fits) -> list[int]:
        return [number for pair in range(20) for number in (2 * pair + 1, 2 * pair) if fits(number)]

    assert found("") == expected(lambda _: True)
    assert found("&service=shop") == expected(lambda number: number % 4 < 2)
    assert found("&service=shop&environment=staging&success=false") == expected(
        lambda number: number % 4 == 1 and number % 5 == 0
    )
    assert found("&action=manual_scale&environment=production") == expected(
        lambda number: number % 3 == 0 and number % 2 == 0
    )
    since, until = ((NOW - timedelta(minutes=back)).isoformat().replace("+", "%2B") for back in (9, 4))
    assert found(f"&since={since}&until={until}") == expected(lambda number: 4 < number // 2 <= 9)
    assert found("&service=none") == []

"""Deployments through the API: right status, the field named, nothing stored of what is refused."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from apps.deployments import runner
from apps.deployments.figures import measured
from apps.deployments.models import Deployment, EnvironmentVariableRule, Gate
from apps.deployments.rules import checklist, transitions
from apps.inventory import services as inventory
from apps.inventory.models import Workload
from tests.api.test_builds import EVIL, problem_of
from tests.deployments.conftest import CI, COMMIT, app, platform  # noqa: F401  (fixtures)
from tests.factories import BuildFactory, DeploymentFactory, InstanceFactory, ServiceFactory, WorkloadFactory
from tests.http_app import Answer

BODY = {"service": "shop", "environment": "production", "version": "v1.0.0", "commit_sha": COMMIT}


@pytest.fixture
def shop(db) -> Workload:
    return WorkloadFactory(service=ServiceFactory(slug="shop"), environment="production", base_url="http://127.0.0.1:9")


def test_a_deployment_is_started_and_a_second_one_told_who_holds_the_lock(api, shop):
    begun = api.post("/deployments", BODY)

    assert (begun.status_code, begun.json()["status"]) == (201, "in_progress")
    problem = problem_of(api.post("/deployments", {**BODY, "version": "v1.0.1"}), 409)
    assert problem["held_by"] == begun.json()["id"]
    assert Deployment.objects.count() == 1


def test_the_whole_way_from_ci_to_a_rollback_by_webhook(api, shop, app, platform, settings):  # noqa: F811
    Workload.objects.filter(pk=shop.pk).update(base_url=app.url, gate_samples=2, gate_window_seconds=60)
    shop.refresh_from_db()
    shop.platform, shop.platform_settings, shop.auto_rollback = "webhook", {"url": f"{platform.url}/deploy"}, True
    inventory.save(shop, actor=CI, platform_secret="a-long-secret-of-the-webhook")
    InstanceFactory(workload=shop, name="web-1", url=app.url)

    good = _brought_out(api, "v1.0.0")
    assert (good["status"], good["gate"]["verdict"], good["health_check_passed"]) == ("completed", "passed", True)
    again = api.send("PATCH", f"/deployments/{good['id']}", {"status": "completed"})
    assert (again.status_code, again.json()["status"]) == (200, "completed")  # nothing has begun
    assert good["gate"]["evidence"]["instances"][0]["instance"] == "web-1"

    app.answers["/ready"] = Answer(500)
    bad = _brought_out(api, "v1.1.0")
    assert (bad["status"], bad["gate"]["verdict"]) == ("failed", "failed")
    rollback = api.get("/deployments?kind=rollback").json()["items"][0]
    runner.roll_back(rollback["id"], now=datetime.now(UTC))
    done = api.get(f"/deployments/{rollback['id']}").json()
    assert (done["status"], done["version"], done["undoes_id"]) == ("rolled_back", "v1.0.0", bad["id"])
    assert len(platform.requests) == 1
    assert api.get(f"/deployments/{bad['id']}").json()["rolled_back_by_id"] == rollback["id"]
    # The gate's looks were some seconds ahead of the clock.
    ((_, figures),) = measured([shop], days=30, now=datetime.now(UTC) + timedelta(minutes=5))
    assert (figures.deployments, figures.failed, figures.change_failure_rate) == (2, 1, 0.5)


def _brought_out(api, version: str) -> dict:
    begun = api.post("/deployments", {**BODY, "version": version}).json()
    answer = api.send("PATCH", f"/deployments/{begun['id']}", {"status": "completed"})
    assert (answer.status_code, answer.json()["status"]) == (202, "in_progress")
    for _ in range(10):
        gate = Gate.objects.get(pk=begun["id"])
        runner.look(begun["id"], now=gate.next_look_at)
        if Gate.objects.get(pk=begun["id"]).verdict:
            break
    return api.get(f"/deployments/{begun['id']}").json()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"status": "done"}, "status"),
        ({"version": "latest"}, "version"),
        ({"commit_sha": "xyz1234"}, "commit_sha"),
        ({"commit_sha": "abc12"}, "commit_sha"),
        ({"environment": "qa"}, "environment"),
        ({"service": "none"}, "service"),
        ({"build_id": "build_none"}, "build_id"),
        ({"committed_at": (datetime.now(UTC) + timedelta(days=2)).isoformat()}, "committed_at"),
        ({"checklist": {"health_passing": "passed"}}, "checklist"),
        ({"environment_variables": [{"key": "A-B"}]}, "key"),
        ({"triggered_by": " "}, "triggered_by"),
        *(({name: EVIL}, name) for name in ("service", "version", "commit_sha", "status", "deployment_url")),
    ],
)
def test_wrong_input_is_422_names_the_field_and_stores_nothing(api, shop, wrong, field):
    problem = problem_of(api.post("/deployments", BODY | wrong), 422)

    assert problem["errors"][0]["field"].split(".")[-1] == field
    assert not Deployment.objects.exists()


def test_text_is_stored_as_it_is_and_comes_back_as_json(api, shop):
    answer = api.post("/deployments", {**BODY, "commit_message": EVIL, "triggered_by": EVIL[:100]})
    assert answer.json()["commit_message"] == EVIL
    assert answer["Content-Type"].startswith("application/json")


def test_no_text_field_takes_markup_for_more_than_text(api, shop):
    begun = api.post(
        "/deployments",
        {
            **BODY, "commit_message": EVIL, "triggered_by": EVIL, "deployment_platform": EVIL[:50],
            "migration_version": EVIL, "github_run_id": EVIL[:64], "override_reason": EVIL, "status": "queued",
        },
    )  # fmt: skip
    path = f"/deployments/{begun.json()['id']}"
    answers = [
        (201, begun),
        (422, api.post(f"{path}/checklist", {"reported": {EVIL: "passed"}})),
        (422, api.post(f"{path}/checklist", {"reported": {"migrations_run": EVIL}})),
        (422, api.post(f"{path}/checklist/{quote(EVIL.replace('/', ''))}/tick", {"done": True, "person": "Ann"})),
        (200, api.post(f"{path}/checklist/logs_clean/tick", {"done": True, "person": EVIL, "note": EVIL})),
        (422, api.post(f"{path}/checklist/override", {"items": [EVIL], "reason": EVIL})),
        (200, api.post(f"{path}/checklist/override", {"items": ["migrations_run"], "reason": EVIL})),
        (422, api.post(f"{path}/environment-variables", {"environment_variables": [{"key": EVIL}]})),
        (200, api.post(f"{path}/environment-variables", {"environment_variables": [{"key": "A", "value": EVIL}]})),
        (422, api.send("PATCH", path, {"status": EVIL[:16]})),
        (200, api.send("PATCH", path, {"status": "in_progress", "override_reason": EVIL})),
        (200, api.send("PATCH", path, {"status": "failed", "error_message": EVIL, "migration_version": EVIL})),
        (409, api.post(f"{path}/rollback", {"reason": EVIL})),
        (404, api.get(f"/deployments/{quote(EVIL.replace('/', ''))}")),
        (422, api.post("/deployments", {**BODY, EVIL: EVIL})),
        (200, api.get(path)),
    ]

    for number, (status, answer) in enumerate(answers):
        assert answer.status_code == status, (number, answer.content)
        assert b"<" not in answer.content
    assert answers[-1][1].json()["error_message"] == EVIL


def test_an_illegal_move_is_409_with_the_legal_ones(api, shop):
    begun = api.post("/deployments", {**BODY, "status": "queued"}).json()
    assert problem_of(api.send("PATCH", f"/deployments/{begun['id']}", {"status": "success"}), 409)["legal"] == [
        *("in_progress", "cancelled"),
    ]
    assert problem_of(api.send("PATCH", "/deployments/deploy_none", {"status": "failed"}), 404)


def test_a_build_that_failed_is_not_deployed(api, shop):
    build = BuildFactory(service=shop.service, build_status="failed")
    assert (
        "only a successful build" in problem_of(api.post("/deployments", {**BODY, "build_id": build.pk}), 409)["detail"]
    )


def test_a_build_of_another_service_is_named_as_the_request_names_it(api, shop):
    build = BuildFactory(build_status="success")
    problem = problem_of(api.post("/deployments", {**BODY, "build_id": build.pk}), 422)
    assert problem["errors"][0]["field"] == "build_id"


def test_a_deployment_shows_all_items_the_open_ones_too(api, shop):
    begun = api.post("/deployments", {**BODY, "checklist": {"migrations_run": "passed"}}).json()

    shown = {item["key"]: item for item in api.get(f"/deployments/{begun['id']}").json()["checklist"]}

    assert list(shown) == list(checklist.ITEMS)
    assert (shown["migrations_run"]["state"], shown["migrations_run"]["by"]) == ("passed", "test-1")
    assert (shown["pods_running"]["state"], shown["pods_running"]["blocking"], shown["pods_running"]["at"]) == (
        *("open", True),
        None,
    )
    assert not shown["database_safe"]["blocking"]
    Workload.objects.filter(pk=shop.pk).update(require_backup=True)
    shown = api.get(f"/deployments/{begun['id']}").json()["checklist"]
    assert [item["blocking"] for item in shown if item["key"] == "database_safe"] == [True]


def test_who_has_ticked_an_item_has_a_name(api, shop):
    begun = api.post("/deployments", BODY).json()
    path = f"/deployments/{begun['id']}/checklist/network_policies/tick"
    assert problem_of(api.post(path, {"done": True, "person": " \u200b "}), 422)["errors"][0]["field"] == "person"
    ticked = api.post(path, {"done": True, "person": " Ann ", "note": ""}).json()
    assert [item["detail"] for item in ticked["checklist"] if item["key"] == "network_policies"] == ["Ann"]


def test_a_sensitive_value_is_refused_and_not_repeated(api, shop):
    EnvironmentVariableRule.objects.create(service=shop.service, key="API_KEY", sensitive=True)
    sent = {**BODY, "environment_variables": [{"key": "API_KEY", "value": "open-sesame"}]}

    answer = api.post("/deployments", sent)

    assert "is sensitive" in problem_of(answer, 422)["detail"]
    assert b"sesame" not in answer.content


def test_scopes_are_kept_apart(holder, shop):
    reader = holder("deployments:read")
    problem_of(reader.post("/deployments", BODY), 403)
    assert reader.get("/deployments").status_code == 200
    problem_of(holder("builds:write").get("/deployments"), 403)


def test_lists_are_filtered_and_read_few_rows(api, django_assert_max_num_queries):
    rows = [DeploymentFactory() for _ in range(3)]
    with django_assert_max_num_queries(8):
        found = api.get("/deployments?service=app&environment=staging&status=completed&limit=2").json()
    assert [row["id"] for row in found["items"]] == sorted((row.pk for row in rows), reverse=True)[:2]
    assert found["next"]
    # Other systems' words for the same.
    for word, status in transitions.ALIASES.items():
        assert len(api.get(f"/deployments?status={word}").json()["items"]) == (3 if status == "completed" else 0)

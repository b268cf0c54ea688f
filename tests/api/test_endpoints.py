"""Endpoints and databases through the API: what is refused and how, what is told of each, files out and in."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.core.models import AuditEntry
from apps.health.models import EndpointCheck, EndpointState, HealthHourly
from apps.inventory.models import Endpoint, Workload
from apps.inventory.runner import headers_of
from tests.api.test_builds import problem_of
from tests.factories import DatabaseFactory, EndpointFactory, ServiceFactory, WorkloadFactory

SECRET = "Bearer hunter2-hunter2"


def errors_of(reply) -> dict[str, str]:
    return {error["field"]: error["message"] for error in problem_of(reply, 422)["errors"]}


def test_an_endpoint_is_added_with_a_header_that_nobody_is_told(api):
    body = {
        "environment": "staging",
        "path": "/api",
        "headers": {"Authorization": SECRET},
        "expected_status": "200-299",
    }

    reply = api.post("/endpoints", body)

    row = Endpoint.objects.get()
    assert reply.status_code == 201
    assert reply.json()["name"] == "GET /api"
    assert (reply.json()["url"], reply.json()["state"], reply.json()["has_headers"]) == ("", None, True)
    assert headers_of(row) == {"Authorization": SECRET}
    assert row.workload == Workload.objects.get(environment="staging")
    for told in (
        reply.content,
        api.get(f"/endpoints/{row.pk}").content,
        api.get("/endpoints/export?format=yaml").content,
    ):
        assert b"hunter2" not in told
    assert api.send("PATCH", f"/endpoints/{row.pk}", {"headers": {}}).json()["has_headers"] is False
    assert "hunter2" not in str(list(AuditEntry.objects.values()))


@pytest.mark.parametrize(
    ("field", "given", "words"),
    [
        ("path", {"path": "api"}, "starts with one /"),
        ("path", {"path": "/%zz"}, "Two hexadecimal digits"),
        ("expected_status", {"expected_status": "299-200"}, "write 200-299"),
        ("expected_status", {"expected_status": "ok"}, "from 100 to 599"),
        ("body_json", {"body_json": "$..a"}, "cannot be read from character"),
        ("interval_seconds", {"interval_seconds": 5}, "greater than or equal to 10"),
        ("headers", {"headers": {"Host": "evil.example"}}, "set by the connection itself"),
        ("name", {"name": None}, "Leave it out"),
        ("method", {"method": "FETCH"}, "Input should be"),
        ("service", {"service": "nobody"}, "add it in the console first"),
        ("colour", {"colour": "red"}, "unknown here"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(api, field, given, words):
    told = errors_of(api.post("/endpoints", {"environment": "production", "path": "/api", **given}))

    assert words in told[field]
    assert not Endpoint.objects.exists()


def test_what_two_settings_forbid_together_is_said(api):
    body = {"environment": "production", "path": "/api", "timeout_seconds": 30, "interval_seconds": 20}

    assert "must not be longer than the interval" in problem_of(api.post("/endpoints", body), 422)["detail"]


def test_a_list_is_filtered_by_state_and_place_and_paged(api):
    shop = WorkloadFactory(service=ServiceFactory(slug="shop"), base_url="https://shop.example")
    rows = [EndpointFactory(workload=shop) for _ in range(3)]
    new = EndpointFactory(enabled=False)
    for row, status in zip(rows, ("failed", "unknown", "healthy"), strict=True):
        EndpointState.objects.create(
            endpoint=row,
            environment="production",
            endpoint_path=row.endpoint_path,
            http_method="GET",
            expected_status="200",
            status=status,
            response_time=12.5,
            error_message="refused the connection" if status == "failed" else "",
        )

    def found(query: str) -> list[int]:
        return [row["id"] for row in api.get(f"/endpoints{query}").json()["items"]]

    assert found("?status=failed") == [rows[0].pk]
    assert found("?status=unknown") == [rows[1].pk, new.pk]
    assert found("?service=shop&environment=production&enabled=true") == [row.pk for row in rows]
    first = api.get("/endpoints?limit=2").json()
    assert found(f"?limit=2&cursor={first['next']}") == [rows[2].pk, new.pk]
    state = first["items"][0]["state"]
    assert (state["status"], state["response_ms"], state["error"]) == ("failed", 12.5, "refused the connection")


def test_the_history_of_an_endpoint_is_bounded_and_its_own(api):
    row, other = EndpointFactory(), EndpointFactory()
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    for minute in range(5):
        for each in (row, other):
            EndpointCheck.objects.create(endpoint=each, at=noon + timedelta(minutes=minute), status="healthy")
    for each in (row, other):
        HealthHourly.objects.create(
            kind="endpoint", subject=str(each.pk), hour=noon, checks=5, healthy=5, degraded=0, down=0, unknown=0,
            maintenance=0, measured=0, uptime=1,
        )  # fmt: skip

    path = f"/endpoints/{row.pk}"
    found = api.get(f"{path}/checks?since=2026-03-01T12:01:00Z&until=2026-03-01T12:04:00Z&limit=2").json()
    assert [check["at"] for check in found["items"]] == ["2026-03-01T12:03:00Z", "2026-03-01T12:02:00Z"]
    rest = api.get(f"{path}/checks?since=2026-03-01T12:01:00Z&limit=2&cursor={found['next']}").json()
    assert [check["at"] for check in rest["items"]] == ["2026-03-01T12:01:00Z"]
    assert [hour["checks"] for hour in api.get(f"{path}/hours").json()["items"]] == [5]
    assert api.get(f"{path}/hours?until=2026-03-01T12:00:00Z").json()["items"] == []
    problem_of(api.get("/endpoints/999999/checks"), 404)
    assert "cursor" in errors_of(api.get(f"{path}/hours?cursor={found['next']}"))


def test_a_file_comes_out_and_goes_in_and_a_wrong_one_is_explained_row_by_row(api):
    EndpointFactory(workload=WorkloadFactory(service=ServiceFactory(slug="shop")), endpoint_path="/a")
    reply = api.get("/endpoints/export")
    assert (reply.status_code, reply["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert b"shop,production,GET,/a,GET /a,200" in reply.content

    told = api.send("POST", "/endpoints/import", reply.content, Content_Type="text/csv").json()
    assert (told["created"], told["changed"], told["unchanged"]) == (0, 0, 1)
    told = api.send(
        "POST", "/endpoints/import?dry_run=true", b"- {environment: staging, path: /b}", Content_Type="application/yaml"
    ).json()
    assert (told["created"], told["workloads"], told["dry_run"]) == (1, ["app/staging"], True)
    assert Endpoint.objects.count() == 1

    wrong = b"environment,path\nmoon,/a\nproduction,b\n"
    told = errors_of(api.send("POST", "/endpoints/import", wrong, Content_Type="text/csv"))
    assert list(told) == ["[2].environment", "[3].path"]
    told = errors_of(api.send("POST", "/endpoints/import", b"- [1]", Content_Type="application/yaml"))
    assert list(told) == ["[1]"]
    problem_of(api.send("POST", "/endpoints/import", b"{}", Content_Type="application/json"), 415)


def test_the_same_import_sent_again_with_its_key_is_answered_again_and_not_done_again(api):
    ServiceFactory(slug="shop")
    body, key = b"service,environment,path\nshop,production,/a\n", {"Idempotency_Key": "one"}

    first = api.send("POST", "/endpoints/import", body, Content_Type="text/csv", **key)
    again = api.send("POST", "/endpoints/import", body, Content_Type="text/csv", **key)

    assert first.json() == again.json()
    assert again["Idempotent-Replay"] == "true"


def test_the_watch_over_a_database_is_changed_and_its_address_is_not(api):
    DatabaseFactory(name="shop")

    told = api.send("PATCH", "/databases/shop", {"watch": False, "interval_seconds": 30}).json()

    assert (told["watch"], told["interval_seconds"], told["host"]) == (False, 30, "db.internal")
    assert "url" not in told
    assert errors_of(api.send("PATCH", "/databases/shop", {"url": "mysql://x"}))["url"] == "This field is unknown here."
    assert (
        "greater than or equal to 10"
        in errors_of(api.send("PATCH", "/databases/shop", {"interval_seconds": 1}))["interval_seconds"]
    )
    problem_of(api.send("PATCH", "/databases/nobody", {"watch": False}), 404)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("url", {"url": "mysql://shop@db/shop"}),
        ("url", {"url": "redis://"}),
        ("service", {"service": "nobody"}),
        ("name", {"name": "taken"}),
    ],
)
def test_a_redis_server_that_cannot_be_watched_is_refused_without_its_url(api, field, given):
    DatabaseFactory(name="taken")
    body = {"name": "cache", "environment": "production", "url": "redis://:hunter2hunter2@cache/0", **given}

    reply = api.post("/databases", body)

    assert list(errors_of(reply)) == [field]
    assert b"hunter2" not in reply.content


def test_an_endpoint_that_cannot_be_asked_now_says_why(api):
    homeless = EndpointFactory(workload=WorkloadFactory(base_url=""))

    assert "no base URL" in problem_of(api.post(f"/endpoints/{homeless.pk}/check", None), 409)["detail"]
    DatabaseFactory(name="shop")  # its URL was sealed with no key of ours
    assert "another BACKUP_KEYSET" in problem_of(api.post("/databases/shop/check", None), 422)["detail"]

"""Whatever goes wrong, a program is told in one shape, and nobody's words come back as markup."""

import json
import logging
from datetime import UTC, datetime

import pytest
from django.db import IntegrityError, OperationalError
from django.http import HttpResponse

from apps.api import refusals
from apps.api.v1 import instances
from apps.core.errors import Conflict, Corrupt, Invalid, Transient
from apps.health.middleware import ProbeMiddleware
from apps.inventory.models import Instance

BODY = {"name": "web-1", "environment": "production"}
EVIL = "<script>alert('x')</script>'; DROP TABLE api_tokens; --"


def problem_of(reply, status):
    assert (reply.status_code, reply["Content-Type"]) == (status, "application/problem+json"), reply.content
    body = reply.json()
    assert body["type"].startswith("urn:pulsewatch:problem:")
    assert body["status"] == status
    assert body["request_id"] == reply["X-Request-ID"]
    return body


@pytest.mark.parametrize("path", ["/nothing", "/", "/instances/", "/backups/a/b/c", "/%00", "/%FF", "/instances/none"])
def test_an_unknown_path_is_404(api, path):
    method = "DELETE" if path == "/instances/none" else "GET"
    problem_of(api.send(method, path), 404)


def test_another_version_of_the_api_and_its_bare_root_are_404(client, db):
    for path in ("/api/", "/api/v2/instances"):
        problem_of(client.get(path), 404)


def test_a_wrong_method_is_405_and_names_the_right_ones(api):
    reply = api.send("PUT", "/instances", BODY)

    problem_of(reply, 405)
    assert set(reply["Allow"].split(", ")) == {"GET", "POST"}


def test_a_wrong_host_is_400(api):
    problem_of(api.client.get("/api/v1/instances", headers={"Host": "evil.example.com"}), 400)


def test_a_server_whose_threads_are_all_busy_says_so_in_the_same_shape(rf):
    middleware = ProbeMiddleware(lambda request: HttpResponse())
    while middleware._places.acquire(blocking=False):
        pass
    reply = middleware(rf.get("/api/v1/instances"))

    assert (reply.status_code, reply["Content-Type"]) == (503, "application/problem+json")
    assert reply["Retry-After"] == "5"
    assert middleware(rf.get("/admin/"))["Content-Type"] == "text/plain"


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"Content_Type": "application/json; charset=latin-1"},
        {"Content_Type": ""},
        {"Content_Encoding": "gzip"},
    ],
)
def test_a_body_of_another_type_is_415(api, headers):
    problem_of(api.post("/instances", BODY, **headers), 415)
    assert not Instance.objects.exists()


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b'{"name": "a", "name": "b"}', b"[" * 5000, b'{"name": "\\u0000"}',
                                  b'{"name": "\\ud800"}', b"[NaN]"])  # fmt: skip
def test_a_body_that_is_no_clean_json_is_400(api, body):
    assert problem_of(api.post("/instances", body), 400)["detail"].endswith(".")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (None, "body"),
        ([], "body"),
        ("text", "body"),
        ({}, "name"),
        ({"name": "web-1"}, "environment"),
        (BODY | {"environment": "qa"}, "environment"),
        (BODY | {"name": "-"}, "name"),
        (BODY | {"name": 1}, "name"),
        (BODY | {"name": "web-\U0001f525"}, "name"),
        (BODY | {"colour": "red"}, "colour"),
        (BODY | {"service": "nobody"}, "service"),
        (BODY | {"url": "ftp://x"}, "url"),
        (BODY | {"cpu_limit_cores": 0}, "cpu_limit_cores"),
        (BODY | {"memory_limit_mb": 2**40}, "memory_limit_mb"),
        (BODY | {"memory_limit_mb": "45"}, "memory_limit_mb"),
        (BODY | {"memory_limit_mb": True}, "memory_limit_mb"),
    ],
)
def test_wrong_input_is_422_and_names_the_field(api, body, field):
    problem = problem_of(api.post("/instances", body), 422)

    assert problem["errors"][0]["field"] == field
    assert not Instance.objects.exists()


@pytest.mark.parametrize(
    "query",
    [
        *("colour=red", "limit=0", "limit=201", "limit=x", "limit=1&limit=2", "cursor=nonsense"),
        *("environment=qa", "environment=%00", "active=maybe", "a&" * 1001),
    ],
)
def test_a_wrong_parameter_is_422(api, query):
    problem_of(api.get(f"/instances?{query}"), 422)


@pytest.mark.parametrize("field", ["name", "service", "environment", "url", EVIL])
def test_markup_and_sql_are_refused_or_come_back_as_harmless_data(api, field):
    reply = api.post("/instances", BODY | {field: EVIL})

    problem_of(reply, 422)
    assert b"<script>" not in reply.content
    assert not Instance.objects.exists()


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (Invalid("No.", field="name"), 422, "No."),
        (Conflict("Held.", facts={"held_by": "deploy_1"}), 409, "Held."),
        (Transient("Later."), 503, "Later."),
        (IntegrityError(1062, "Duplicate entry 'secret' for key"), 409, "Somebody else wrote"),
        (IntegrityError(4025, "CONSTRAINT `x` failed for secret"), 500, "under this request id"),
        (OperationalError(1213, "Deadlock secret"), 503, "in the way"),
        (OperationalError(2002, "Can't connect to secret"), 503, "does not answer"),
        (Corrupt("secret"), 500, "under this request id"),
        (ZeroDivisionError("secret"), 500, "under this request id"),
    ],
)
def test_an_error_is_answered_as_its_place_in_the_tree_says(api, monkeypatch, error, status, detail):
    def fails(**_):
        raise error

    monkeypatch.setattr(instances.services, "register_instance", fails)
    reply = api.post("/instances", BODY)

    problem = problem_of(reply, status)
    assert detail in problem["detail"]
    assert "secret" not in reply.content.decode()
    assert ("Retry-After" in reply) == (status == 503)
    if isinstance(error, Conflict):
        assert problem["held_by"] == "deploy_1"


def test_a_fault_of_ours_is_in_the_log_with_the_request_id(api, monkeypatch, caplog):
    monkeypatch.setattr(instances.services, "register_instance", lambda **_: 1 / 0)
    with caplog.at_level(logging.ERROR):
        api.post("/instances", BODY)

    assert "ZeroDivisionError" in caplog.text


def test_a_list_wrong_in_many_places_names_the_first_twenty(api):
    problem = problem_of(api.post("/health-checks", [{}] * 100), 422)

    assert len(problem["errors"]) == refusals.MAX_ERRORS
    assert problem["errors"][0]["field"].startswith("[0].")


def test_a_long_invented_name_is_not_repeated_in_full(api):
    reply = api.post("/instances", BODY | {"x" * 10_000: 1})

    assert len(problem_of(reply, 422)["errors"][0]["field"]) == refusals.MAX_FIELD
    assert len(reply.content) < 2_000


def test_markup_in_stored_text_goes_out_as_escapes(api):
    api.post("/health-checks", _sample(version="<b>&amp;"))
    reply = api.get("/health-checks")

    assert b"<b>" not in reply.content
    assert reply.json()["items"][0]["version"] == "<b>&amp;"
    assert (reply["Content-Type"], reply["X-Content-Type-Options"]) == ("application/json; charset=utf-8", "nosniff")


def _sample(**fields):
    own = {"instance_id": "web-1", "environment": "production", "response_time_ms": 5}
    return own | {"timestamp": datetime.now(UTC).isoformat()} | fields


def test_cross_origin_pages_of_the_list_may_call_and_others_not(api, settings):
    settings.CORS_ORIGINS = ["https://pages.example.com"]
    preflight = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    ours, theirs = {"Origin": "https://pages.example.com"}, {"Origin": "https://evil.example.com"}

    asked = api.client.options("/api/v1/instances", headers=preflight | ours)
    assert (asked.status_code, asked["Access-Control-Allow-Origin"]) == (204, ours["Origin"])
    assert "Authorization" in asked["Access-Control-Allow-Headers"]
    answered = api.get("/instances", **ours)
    assert answered["Access-Control-Allow-Origin"] == ours["Origin"]
    assert "X-Request-ID" in answered["Access-Control-Expose-Headers"]
    assert api.get("/nothing", **ours)["Access-Control-Allow-Origin"] == ours["Origin"]
    assert "Access-Control-Allow-Credentials" not in answered

    for reply in (
        api.client.options("/api/v1/instances", headers=preflight | theirs),
        api.get("/instances", **theirs),
        api.client.get("/admin/login/", headers=ours),
    ):
        assert "Access-Control-Allow-Origin" not in reply
    assert "Origin" in api.get("/instances")["Vary"]


def test_the_docs_page_takes_every_file_from_here_and_no_inline_script(client, db):
    page = client.get("/api/v1/docs")

    assert page.status_code == 200
    text = page.content.decode()
    assert "http://" not in text
    assert "https://" not in text
    assert text.count("<script src=") + text.count('<script type="application/json"') == text.count("<script")
    for name in ("swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-init.js"):
        file = client.get(f"/static/ninja/{name}")
        assert file.status_code == 200
        file.close()
    assert json.loads(client.get("/api/v1/openapi.json").content)["openapi"].startswith("3.")

"""Builds and reports through the API: right status, the field named, nothing stored of what is refused."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connection

from apps.builds import intake
from apps.builds.models import Build, Diagnostic, DiagnosticReport
from tests.factories import BuildFactory, DiagnosticFactory

EVIL = "<script>alert('x')</script>'; DROP TABLE builds; --"
TSC = b"src/a.ts(1,2): error TS2304: Cannot find name 'x'.\n"
SARIF = {
    "version": "2.1.0",
    "runs": [
        {
            "tool": {"driver": {"name": "eslint"}},
            "results": [{"ruleId": "no-x", "level": "warning", "message": {"text": EVIL}}],
        }
    ],
}


def problem_of(reply, status):
    assert (reply.status_code, reply["Content-Type"]) == (status, "application/problem+json"), reply.content
    assert b"<script>" not in reply.content
    return reply.json()


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"status": "done"}, "status"),
        ({"environment": "qa"}, "environment"),
        ({"service": "none"}, "service"),
        ({"commit_sha": "xyz1234"}, "commit_sha"),
        ({"commit_sha": "abc12"}, "commit_sha"),
        ({"commit_sha": "a" * 41}, "commit_sha"),
        ({"node_version": "latest"}, "node_version"),
        ({"run_url": "javascript:alert(1)"}, "run_url"),
        ({"branch": "a..b"}, "branch"),
        ({"build_time": -1, "status": "success"}, "build_time"),
        ({"error_count": 3}, "error_count"),
        *(({name: EVIL}, name) for name in ("service", "branch", "commit_sha", "run_url", "node_version", "status")),
    ],
)
def test_a_wrong_build_is_422_and_not_stored(api, wrong, field):
    problem = problem_of(api.post("/builds", {"environment": "production"} | wrong), 422)

    assert problem["errors"][0]["field"] == field
    assert not Build.objects.exists()


def test_a_commit_is_one_in_capitals_too(api):
    build = api.post("/builds", {"environment": "production", "commit_sha": "ABCDEF1"}).json()

    assert build["commit_sha"] == "abcdef1"
    assert api.get("/builds?commit_sha=ABCDEF1").json()["items"][0]["id"] == build["id"]


def test_an_illegal_move_is_409_and_names_the_legal_ones(api):
    over = BuildFactory(build_status="success")
    assert problem_of(api.send("PATCH", f"/builds/{over.pk}", {"status": "building"}), 409)["legal"] == []
    begun = BuildFactory()
    legal = problem_of(api.send("PATCH", f"/builds/{begun.pk}", {"status": "pending"}), 409)["legal"]
    assert "success" in legal
    found = DiagnosticFactory(status="deferred")
    assert problem_of(api.send("PATCH", f"/diagnostics/{found.pk}", {"status": "deferred"}), 409)["legal"]
    begun.refresh_from_db()
    assert begun.build_status == "building"


def test_a_build_that_is_over_is_reported_at_once_and_text_stays_text(api):
    body = {"environment": "staging", "status": "failed", "build_time": 12.5, "error_count": 2}
    reply = api.post("/builds", body | {"build_command": EVIL, "error_log": f"{EVIL} password=hunter22"})

    assert reply.status_code == 201
    assert b"<script>" not in reply.content
    told = reply.json()
    assert (told["status"], told["build_time"], told["build_command"]) == ("failed", 12.5, EVIL)
    assert "hunter22" not in told["error_log"]


def test_the_same_report_again_changes_nothing(api):
    build = BuildFactory()
    path = f"/builds/{build.pk}/diagnostics?tool=sarif&complete=true"
    first, again = (api.post(path, json.dumps(SARIF).encode(), Content_Type="application/sarif+json") for _ in range(2))

    assert (first.status_code, again.json()) == (201, first.json())
    assert Diagnostic.objects.get().error_message == EVIL
    assert b"<script>" not in api.get("/diagnostics").content


@pytest.mark.parametrize(
    ("query", "body", "headers", "status"),
    [
        ("tool=eslint", TSC, {}, 422),
        ("", TSC, {}, 422),
        ("tool=tsc&root=relative", TSC, {}, 422),
        ("tool=sarif", TSC, {}, 422),
        ("tool=sarif", b"[" * 100_000, {}, 422),
        ("tool=tsc", TSC, {"Content_Type": "text/html"}, 415),
        ("tool=tsc", TSC, {"Content_Encoding": "gzip"}, 415),
        ("tool=tsc", b" " * (32 * 2**20 + 1), {}, 413),
    ],
)
def test_a_report_that_cannot_be_read_is_refused_and_not_stored(api, query, body, headers, status):
    build = BuildFactory()
    problem_of(
        api.post(f"/builds/{build.pk}/diagnostics?{query}", body, **{"Content_Type": "text/plain"} | headers), status
    )

    assert not DiagnosticReport.objects.exists()
    assert not Diagnostic.objects.exists()


def test_a_build_that_has_not_begun_takes_no_report_and_an_unknown_one_is_404(api):
    build = BuildFactory(build_status="pending", started_at=None)
    problem_of(api.post(f"/builds/{build.pk}/diagnostics?tool=tsc", TSC, Content_Type="text/plain"), 409)
    problem_of(api.post("/builds/none/diagnostics?tool=tsc", TSC, Content_Type="text/plain"), 404)


def test_a_report_may_be_sent_again_with_its_key(api):
    build = BuildFactory()
    path = f"/builds/{build.pk}/diagnostics?tool=tsc"
    first, again = (api.post(path, TSC, Content_Type="text/plain", Idempotency_Key="run-1") for _ in range(2))
    assert (first.status_code, again["Idempotent-Replay"]) == (201, "true")
    other = api.post(path, TSC + TSC, Content_Type="text/plain", Idempotency_Key="run-1")
    assert problem_of(other, 422)["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.django_db(transaction=True)
def test_a_report_with_a_key_is_read_outside_any_transaction_and_four_at_once_get_one_answer(api, monkeypatch):
    build = BuildFactory()
    path = f"/builds/{build.pk}/diagnostics?tool=tsc"
    read, within = intake.read, []

    def reading(*args, **kwargs):
        within.append(connection.in_atomic_block)
        return read(*args, **kwargs)

    monkeypatch.setattr(intake, "read", reading)
    barrier = threading.Barrier(4)

    def request(_):
        barrier.wait()
        try:
            return api.post(path, TSC, Content_Type="text/plain", Idempotency_Key="run-1")
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(request, range(4)))

    assert within
    assert not any(within)
    assert {reply.status_code for reply in replies} == {201}
    assert len({reply.content for reply in replies}) == 1
    assert DiagnosticReport.objects.count() == Diagnostic.objects.count() == 1

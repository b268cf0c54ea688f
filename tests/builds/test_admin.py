"""Builds and diagnostics in the console: who sees what, what moving them does, and what the pages cost."""

from datetime import UTC, datetime, timedelta

import pytest
from django.contrib.admin.utils import quote
from django.urls import reverse

from apps.builds.models import Diagnostic
from apps.console.roles import ensure_groups
from apps.core.models import AuditEntry
from apps.inventory.models import Service
from tests.factories import BuildFactory, DiagnosticFactory, UserFactory

pytestmark = pytest.mark.django_db

BACKEND = "django.contrib.auth.backends.ModelBackend"
BUILDS, DIAGNOSTICS = reverse("admin:builds_build_changelist"), reverse("admin:builds_diagnostic_changelist")
MOVE = reverse("admin:builds_diagnostic_move")
HOSTILE = "<script>alert('x')</script>\"; DROP TABLE build_configs; -- {{ 7|add:7 }}"


@pytest.fixture
def sign_in(client):
    ensure_groups()

    def as_member(group: str):
        client.force_login(UserFactory(username=group, group=group), backend=BACKEND)
        return client

    return as_member


def text(reply) -> str:
    assert reply.status_code == 200
    return reply.content.decode()


def test_builds_are_listed_newest_first_with_their_trend(sign_in):
    app = Service.objects.get(slug="app")
    now = datetime.now(UTC)
    for number in range(34, -1, -1):
        newest = BuildFactory(
            service=app,
            created_at=now - timedelta(minutes=number),
            build_status="failed" if number == 3 else "success",
            build_time=60.0 + number,
            bundle_size=2_000_000 - 10_000 * number,
        )
    page = text(sign_in("viewer").get(BUILDS))

    assert "29 of 30 succeeded" in page
    assert "median 75.0 s" in page
    assert "(+17.0 %)" in page
    assert page.count("<rect") == 30
    assert reverse("admin:builds_build_change", args=[quote(newest.pk)]) in page
    assert 'class="failed"' in page
    assert "Add build" not in page


def test_the_trend_follows_the_filter(sign_in):
    BuildFactory(environment="staging")
    BuildFactory(environment="production")
    client = sign_in("viewer")

    assert text(client.get(BUILDS)).count("<rect") == 2
    assert text(client.get(BUILDS, {"environment__exact": "staging"})).count("<rect") == 1
    assert "<rect" not in text(client.get(BUILDS, {"environment__exact": "development"}))


def test_active_diagnostics_come_worst_first_and_are_counted(sign_in):
    for severity, status in (("low", "identified"), ("critical", "in_progress"), ("medium", "identified")):
        DiagnosticFactory(severity=severity, status=status, error_code=severity)
    DiagnosticFactory(severity="high", status="deferred", error_code="waits")
    client = sign_in("viewer")
    page = text(client.get(DIAGNOSTICS))

    assert page.index(">critical<") < page.index(">medium<") < page.index(">low<")
    assert "waits" not in page
    for count in ("1 Critical", "0 High", "1 Medium", "1 Low"):
        assert count in page
    assert "waits" in text(client.get(DIAGNOSTICS, {"state": "deferred"}))
    assert "waits" in text(client.get(DIAGNOSTICS, {"state": "all"}))
    assert ">medium<" in text(client.get(DIAGNOSTICS, {"q": "tsc"}))
    assert ">medium<" not in text(client.get(DIAGNOSTICS, {"q": "ruff"}))


@pytest.mark.parametrize(("group", "may"), [("viewer", False), ("operator", True), ("admin", True)])
def test_only_operators_and_administrators_move_diagnostics(sign_in, group, may):
    row = DiagnosticFactory()
    client = sign_in(group)
    reply = client.post(MOVE, {"status": "deferred", "id": row.pk, "notes": "upstream"})

    assert reply.status_code == (302 if may else 403)
    row.refresh_from_db()
    assert row.status == ("deferred" if may else "identified")
    assert AuditEntry.objects.filter(subject=f"diagnostic:{row.pk}", actor=group).exists() == may
    assert ("Defer…" in text(client.get(DIAGNOSTICS, {"state": "all"}))) == may


def test_an_action_asks_first_and_then_moves_what_was_chosen(sign_in):
    first, second = DiagnosticFactory(), DiagnosticFactory(status="in_progress")
    client = sign_in("operator")
    chosen = {"action": "resolve", "_selected_action": [first.pk, second.pk]}
    page = text(client.post(DIAGNOSTICS, chosen))
    assert "Mark as resolved: 2 diagnostics" in page
    assert not AuditEntry.objects.filter(action__startswith="diagnostic").exists()

    page = text(client.post(MOVE, {"status": "resolved", "id": [first.pk, second.pk]}, follow=True))
    assert "1 diagnostic marked as resolved." in page
    assert f"{first.pk} is identified and cannot become resolved: it may become deferred or in_progress." in page
    assert Diagnostic.objects.get(pk=second.pk).status == "resolved"


def test_an_action_takes_no_more_than_a_request_can_do(sign_in, monkeypatch):
    monkeypatch.setattr("apps.builds.admin.AT_ONCE", 2)
    rows = [DiagnosticFactory() for _ in range(3)]
    client = sign_in("operator")
    for action in ("take_into_work", "defer"):
        chosen = {"action": action, "_selected_action": [row.pk for row in rows]}
        assert "at most 2 diagnostics at once" in text(client.post(DIAGNOSTICS, chosen, follow=True))
    assert not AuditEntry.objects.filter(action__startswith="diagnostic").exists()


def test_buttons_on_the_page_of_a_diagnostic_lead_to_the_question(sign_in):
    row = DiagnosticFactory(id="diagnostic_20251020_231500_k3f9k3f9k3f9")
    client = sign_in("operator")
    for key in (quote(row.pk), row.pk):
        page = text(client.get(reverse("admin:builds_diagnostic_change", args=[key])))
    for status, title in (("in_progress", "Take into work"), ("deferred", "Defer"), ("resolved", "Mark as resolved")):
        assert f"{MOVE}?status={status}&amp;id={row.pk}" in page
        assert f"{title}: 1 diagnostic<" in text(client.get(MOVE, {"status": status, "id": row.pk}))
    client.force_login(UserFactory(username="vera", group="viewer"), backend=BACKEND)
    assert "Take into work" not in text(client.get(reverse("admin:builds_diagnostic_change", args=[row.pk])))


@pytest.mark.parametrize(
    "sent", [{}, {"status": "ignored", "id": "x"}, {"status": "deferred"}, {"status": "deferred", "id": "no\x00ne"}]
)
def test_a_move_that_makes_no_sense_changes_nothing(sign_in, sent):
    DiagnosticFactory()
    for ask in (sign_in("operator").get, sign_in("admin").post):
        assert "Nothing was done" in text(ask(MOVE, sent, follow=True))
    assert Diagnostic.objects.get().status == "identified"


def test_notes_that_are_too_long_come_back_with_the_reason(sign_in):
    row = DiagnosticFactory()
    page = text(sign_in("operator").post(MOVE, {"status": "deferred", "id": row.pk, "notes": "x" * 2001}))

    assert "at most 2,000 characters" in page
    assert "x" * 2001 in page


def test_what_others_wrote_is_never_taken_for_markup(sign_in):
    build = BuildFactory(branch=HOSTILE, build_command=HOSTILE, error_log=HOSTILE, requested_by=HOSTILE)
    row = DiagnosticFactory(
        last_build=build, file_path=HOSTILE, error_code=HOSTILE, error_message=HOSTILE, resolution_notes=HOSTILE
    )
    client = sign_in("operator")
    for url in (
        BUILDS,
        DIAGNOSTICS,
        reverse("admin:builds_build_change", args=[build.pk]),
        reverse("admin:builds_diagnostic_change", args=[row.pk]),
        f"{MOVE}?status=deferred&id={row.pk}",
    ):
        page = text(client.get(url))
        assert "<script>alert" not in page
        assert "&lt;script&gt;alert" in page
        assert "14" not in page.partition("&lt;script&gt;alert")[2][:80]


def test_nobody_edits_history(sign_in):
    build, row = BuildFactory(), DiagnosticFactory()
    client = sign_in("admin")
    for name, key in (("build", build.pk), ("diagnostic", row.pk)):
        for page, arguments in (("add", []), ("change", [key]), ("delete", [key])):
            url = reverse(f"admin:builds_{name}_{page}", args=arguments)
            assert client.post(url, {"post": "yes", "status": "resolved"}).status_code == 403


@pytest.mark.parametrize("url", [BUILDS, DIAGNOSTICS])
def test_a_list_takes_as_many_queries_for_thirty_rows_as_for_one(sign_in, url, django_assert_max_num_queries):
    build = BuildFactory(build_time=3.5)
    row = DiagnosticFactory(last_build=build)
    client = sign_in("viewer")
    client.get(url)
    with django_assert_max_num_queries(12) as one:
        client.get(url)
    for _ in range(29):
        BuildFactory(service=build.service)
        DiagnosticFactory(last_build=build, source=row.source)
    with django_assert_max_num_queries(len(one)):
        client.get(url)


def test_the_page_of_a_build_shows_its_reports(sign_in):
    from apps.builds import services
    from apps.core.audit import Actor

    build = BuildFactory()
    services.report_diagnostics(
        build=build, actor=Actor.automation("ci"), report_format="tsc", content=b"sh: tsc: not found\n", complete=True
    )
    page = text(sign_in("viewer").get(reverse("admin:builds_build_change", args=[build.pk])))

    assert "It holds no diagnostic, and text that tsc does not print" in page
    assert f"{DIAGNOSTICS}?state=all&amp;last_build__id__exact={build.pk}" in page
    assert text(sign_in("operator").get(DIAGNOSTICS, {"state": "all", "last_build__id__exact": build.pk}))

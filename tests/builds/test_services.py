"""Builds as CI tells of them, and diagnostics moved by hand."""

import re

import pytest
import time_machine
from django.db import IntegrityError, transaction

from apps.builds import services
from apps.builds.choices import BuildStatus, DiagnosticStatus
from apps.builds.models import MAX_ERROR_LOG, Build, Diagnostic
from apps.builds.rules import BUILD_FLOW, DIAGNOSTIC_FLOW, may_move
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.models import AuditEntry
from apps.inventory.models import Service
from tests.factories import BuildFactory, DiagnosticFactory

pytestmark = pytest.mark.django_db

CI = Actor.automation("ci")
WHEN = "2025-10-20T14:30:52Z"


@pytest.fixture
def app():
    return Service.objects.get(slug="app")


def start(app, **told):
    return services.start_build(service=app, environment="production", actor=CI, **told)


def test_a_build_begins_lasts_and_succeeds(app):
    with time_machine.travel(WHEN, tick=False) as clock:
        build = start(app, branch="main", commit_sha="0123abc", node_version="v20.11.1", build_command="npm run build")
        assert build.pk == "build_20251020_143052"
        assert (build.build_status, build.deployable) == ("building", False)
        clock.shift(90.5)
        build = services.change_build(build=build, actor=CI, status="success", bundle_size=1_250_000)

    build.refresh_from_db()
    assert (build.build_status, build.build_time, build.bundle_size) == ("success", 90.5, 1_250_000)
    assert build.deployable
    assert list(Build.objects.deployable()) == [build]
    assert list(AuditEntry.objects.of(f"build:{build.pk}").values_list("action", flat=True)) == [
        "build.success",
        "build.start",
    ]


def test_builds_of_one_second_get_a_suffix(app):
    with time_machine.travel(WHEN, tick=False):
        ids = [start(app).pk for _ in range(3)]

    assert ids[0] == "build_20251020_143052"
    assert all(re.fullmatch(r"build_20251020_143052_[0-9a-z]{4}", key) for key in ids[1:])
    assert len(set(ids)) == 3


def test_a_build_time_that_ci_measured_is_kept(app):
    build = services.change_build(build=start(app), actor=CI, status="failed", build_time=12.25, error_log="boom")

    assert (build.build_time, build.error_log) == (12.25, "boom")


def test_a_build_that_is_over_is_reported_in_one_step(app):
    build = services.report_build(
        service=app, environment="staging", actor=CI, status="success", typescript_version="5.4.2", warning_count=3
    )

    assert (build.build_status, build.build_time, build.warning_count) == ("success", None, 3)
    assert build.completed_at >= build.created_at


@pytest.mark.parametrize("source", BuildStatus.values)
@pytest.mark.parametrize("target", BuildStatus.values)
def test_a_build_moves_only_along_the_flow(source, target):
    build = BuildFactory(build_status=source)
    if may_move(BUILD_FLOW, source, target) or source == target:
        assert services.change_build(build=build, actor=CI, status=target).build_status == target
    else:
        with pytest.raises(Conflict, match=f"is {source} and cannot become {target}: (it may become|nothing follows)"):
            services.change_build(build=build, actor=CI, status=target)
        build.refresh_from_db()
        assert build.build_status == source


def test_the_same_message_twice_changes_nothing_the_second_time(app):
    build = start(app)
    once = services.change_build(build=build, actor=CI, status="failed", error_count=2)
    entries = AuditEntry.objects.count()
    twice = services.change_build(build=build, actor=CI, status="failed", error_count=2)

    assert (twice.completed_at, twice.build_time, twice.updated_at) == (
        once.completed_at,
        once.build_time,
        Build.objects.get().updated_at,
    )
    assert AuditEntry.objects.count() == entries


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("node_version", "20"),
        ("node_version", "latest"),
        ("node_version", "20.1\u0967.0"),  # a digit, and none that anybody means
        ("typescript_version", "5.04.1"),
        ("astro_version", "1.2.3; DROP TABLE builds"),
        ("astro_version", "1.2.3\n"),
        ("commit_sha", "zzzzzzz"),
        ("commit_sha", "abc123"),
        ("branch", "a b"),
        ("branch", "../x"),
        ("run_url", "javascript:alert(1)"),
        ("build_command", "x" * 501),
        ("build_command", 5),
        ("build_time", 0),
        ("build_time", -1.5),
        ("build_time", float("nan")),
        ("build_time", float("inf")),
        ("build_time", "fast"),
        ("build_time", True),
        ("bundle_size", -1),
        ("bundle_size", 2**63),
        ("bundle_size", 1.5),
        ("error_count", -1),
        ("warning_count", 2**31),
        ("error_log", b"bytes"),
    ],
)
def test_a_wrong_field_is_named_and_nothing_is_stored(app, field, wrong):
    with pytest.raises(Invalid) as caught:
        services.report_build(service=app, environment="production", actor=CI, status="failed", **{field: wrong})

    assert caught.value.field == field
    assert str(caught.value).count("\n") == 0
    assert not Build.objects.exists()
    assert not AuditEntry.objects.exists()


@pytest.mark.parametrize(
    ("verb", "told", "field"),
    [
        (services.start_build, {"environment": "qa"}, "environment"),
        (services.start_build, {"environment": "production", "status": "success"}, "status"),
        (services.report_build, {"environment": "production", "status": "building"}, "status"),
        (services.report_build, {"environment": "", "status": "failed"}, "environment"),
    ],
)
def test_an_unknown_word_is_refused(app, verb, told, field):
    with pytest.raises(Invalid) as caught:
        verb(service=app, actor=CI, **told)

    assert caught.value.field == field


def test_an_unknown_status_is_refused_before_the_flow_is_asked(app):
    with pytest.raises(Invalid, match="pending, building, success, failed, cancelled"):
        services.change_build(build=start(app), actor=CI, status="exploded")


def test_secrets_are_cut_out_of_what_everybody_may_read(app):
    secret = "hunter2hunter2"
    build = services.report_build(
        service=app,
        environment="production",
        actor=CI,
        status="failed",
        build_command=f"API_KEY={secret} npm run build",
        error_log=f"connecting to mysql://root:{secret}@db/app\x1b[31m failed\x00",
    )

    build.refresh_from_db()
    assert secret not in f"{build.build_command} {build.error_log}"
    assert "\x00" not in build.error_log
    assert not [entry for entry in AuditEntry.objects.all() if secret in str(entry.after)]


def test_of_a_long_log_the_end_is_kept(app):
    build = services.change_build(build=start(app), actor=CI, status="failed", error_log="x" * 100_000 + "the cause")

    assert len(build.error_log) == MAX_ERROR_LOG
    assert build.error_log.endswith("the cause")


@pytest.mark.parametrize("source", DiagnosticStatus.values)
@pytest.mark.parametrize("target", DiagnosticStatus.values)
def test_a_diagnostic_moves_by_hand_only_along_the_flow(source, target):
    from django.utils import timezone

    row = DiagnosticFactory(status=source, resolved_at=timezone.now() if source == "resolved" else None)
    if may_move(DIAGNOSTIC_FLOW, source, target):
        moved = services.move_diagnostic(diagnostic=row, status=target, actor=CI, notes="because")
        assert (moved.status, moved.resolution_notes) == (target, "because")
        assert (moved.resolved_at is not None) == (target == "resolved")
        entry = AuditEntry.objects.get()
        assert (entry.action, entry.reason, entry.before) == (f"diagnostic.{target}", "because", {"status": source})
    else:
        with pytest.raises(Conflict, match=f"is {source} and cannot become {target}"):
            services.move_diagnostic(diagnostic=row, status=target, actor=CI)
        assert Diagnostic.objects.get().status == source


def test_an_unknown_status_of_a_diagnostic_is_refused():
    with pytest.raises(Invalid, match="identified, in_progress, resolved, deferred"):
        services.move_diagnostic(diagnostic=DiagnosticFactory(), status="ignored", actor=CI)


def test_a_field_that_no_build_has_is_the_callers_mistake(app):
    with pytest.raises(TypeError, match="not colour"):
        start(app, colour="red")
    with pytest.raises(TypeError, match="not branch"):
        services.change_build(build=start(app), actor=CI, branch="other")


def test_more_builds_in_a_second_than_there_are_names_is_said(app, monkeypatch):
    monkeypatch.setattr(services.ids, "suffix", lambda length: "same")
    with time_machine.travel(WHEN, tick=False):
        start(app)
        start(app)
        with pytest.raises(Conflict, match="Too many builds"):
            start(app)
    assert Build.objects.count() == 2


def test_notes_are_bounded_and_carry_no_secret():
    row = DiagnosticFactory()
    with pytest.raises(Invalid, match="2,000"):
        services.move_diagnostic(diagnostic=row, status="deferred", actor=CI, notes="x" * 2001)

    moved = services.move_diagnostic(diagnostic=row, status="deferred", actor=CI, notes="see password=hunter2hunter2")
    assert "hunter2" not in moved.resolution_notes


def test_two_people_who_move_one_diagnostic_do_not_both_win():
    row = DiagnosticFactory()
    services.move_diagnostic(diagnostic=row, status="deferred", actor=CI)

    with pytest.raises(Conflict, match="is deferred and cannot become deferred"):
        services.move_diagnostic(diagnostic=row, status="deferred", actor=CI)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("model", "wrong"),
    [
        (BuildFactory, {"environment": "qa"}),
        (BuildFactory, {"build_status": "exploded"}),
        (BuildFactory, {"build_status": "success", "completed_at": None}),
        (BuildFactory, {"build_time": 0}),
        (DiagnosticFactory, {"severity": "awful"}),
        (DiagnosticFactory, {"status": "ignored"}),
        (DiagnosticFactory, {"status": "resolved"}),
        (DiagnosticFactory, {"category": "style"}),
        (DiagnosticFactory, {"level": "fatal"}),
        (DiagnosticFactory, {"line_number": 0}),
        (DiagnosticFactory, {"column_number": 0}),
        (DiagnosticFactory, {"environment": "qa"}),
    ],
)
def test_the_database_refuses_bad_rows(model, wrong):
    with pytest.raises(IntegrityError), transaction.atomic():
        model(**wrong)

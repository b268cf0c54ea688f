"""Builds that nobody ends, and what branches said that nobody builds any more."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.builds import runner, services
from apps.builds.models import Build, Diagnostic, DiagnosticReport, DiagnosticSource
from apps.core.audit import Actor
from apps.core.models import AuditEntry, StopSwitch
from tests.factories import BuildFactory

pytestmark = pytest.mark.django_db

CI = Actor.automation("ci")


def left(status: str, hours: float, **options) -> Build:
    at = datetime.now(UTC) - timedelta(hours=hours)
    row = BuildFactory(build_status=status, created_at=at, completed_at=None, build_time=None, **options)
    Build.objects.filter(pk=row.pk).update(updated_at=at)
    return row


def test_a_build_that_runs_can_be_cancelled():
    row = services.change_build(build=left("building", 1), actor=CI, status="cancelled")

    assert (row.build_status, row.over, row.deployable) == ("cancelled", True, False)


def test_builds_nobody_ends_are_over_after_six_hours(settings):
    dead, waited, alive = left("building", 6.1), left("pending", 6.1), left("building", 5.9)
    told = left("building", 6.1)
    services.change_build(build=told, actor=CI, build_command="npm run build")  # somebody is still there

    assert runner.tick(datetime.now(UTC)) == 2

    rows = {row.pk: row for row in Build.objects.all()}
    assert [rows[row.pk].build_status for row in (dead, waited, alive, told)] == [
        "failed", "cancelled", "building", "building",
    ]  # fmt: skip
    assert "for 6 hours" in rows[dead.pk].error_log
    assert AuditEntry.objects.of(f"build:{dead.pk}").get().action == "build.failed"
    settings.BUILD_TIMEOUT_HOURS = 5
    assert runner.tick(datetime.now(UTC)) == 1


DIAGNOSTICS = b"a.ts(1,1): error TS2322: One.\nb.ts(1,1): error TS2345: Two.\nc.ts(1,1): error TS7006: Three.\n"


def reported(branch: str, days_ago: float, content: bytes, of: Build | None = None) -> Build:
    """A build of this branch, with a complete report, as if it had come then."""
    at = datetime.now(UTC) - timedelta(days=days_ago)
    row = BuildFactory(created_at=at, branch=branch, **({"service": of.service} if of else {}))
    [report] = services.report_diagnostics(build=row, actor=CI, report_format="tsc", content=content, complete=True)
    DiagnosticReport.objects.filter(pk=report.pk).update(received_at=at)
    just_now = datetime.now(UTC) - timedelta(minutes=5)
    Diagnostic.objects.filter(source=report.source, resolved_at__gt=just_now).update(resolved_at=at)
    return row


def test_what_nobody_builds_any_more_is_forgotten_and_what_is_open_elsewhere_stays(monkeypatch):
    reported("dead", 91, DIAGNOSTICS)
    first = reported("alive", 200, DIAGNOSTICS)
    reported("alive", 91, DIAGNOSTICS.splitlines(keepends=True)[0], of=first)  # resolves two
    last = reported("alive", 1, DIAGNOSTICS.splitlines(keepends=True)[0], of=first)
    monkeypatch.setattr(runner, "PORTION", 2)
    now = datetime.now(UTC)

    StopSwitch.objects.create(on=True, changed_at=now)
    assert runner.forget(now) == 0
    StopSwitch.objects.update(on=False)
    assert runner.forget(now) == 3 + 1 + 1 + 2 + 2  # the dead branch; then what was resolved, and two reports

    [source] = DiagnosticSource.objects.all()
    [kept] = Diagnostic.objects.all()
    assert (source.branch, kept.status, kept.first_build_id) == ("alive", "identified", first.pk)
    assert DiagnosticReport.objects.get().build_id == last.pk
    assert Build.objects.count() == 4
    assert runner.forget(now) == 0
    again = reported("dead", 0, DIAGNOSTICS)  # a branch may come back
    assert Diagnostic.objects.filter(first_build=again).count() == 3

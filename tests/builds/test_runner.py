"""Builds that nobody ends."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.builds import runner, services
from apps.builds.models import Build
from apps.core.audit import Actor
from apps.core.models import AuditEntry
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

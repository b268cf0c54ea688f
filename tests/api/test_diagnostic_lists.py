"""The worst diagnostics first, from an index: of many, few rows are read."""

from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from django.db import connection

from apps.builds.models import Build, Diagnostic, DiagnosticSource
from apps.core import inserts
from tests.api.conftest import rows_read
from tests.factories import BuildFactory, DiagnosticSourceFactory, ServiceFactory

pytestmark = pytest.mark.django_db(transaction=True)  # statistics are gathered of what was committed
ROWS = 4_000
SEVERITIES = ("low", "medium", "high", "critical")


@pytest.fixture
def many() -> None:
    """Of two services; most are resolved, and the worst are not the newest."""
    now = datetime.now(UTC)
    builds = [BuildFactory(service=ServiceFactory(slug=slug), environment="production") for slug in ("shop", "mail")]
    sources = [DiagnosticSourceFactory(service=build.service) for build in builds]
    inserts.insert(_row(number, builds[number % 2], sources[number % 2], now) for number in range(ROWS))
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE typescript_errors")
        cursor.fetchall()


def _row(number: int, build: Build, source: DiagnosticSource, now: datetime) -> Diagnostic:
    status = ("resolved", "resolved", "identified", "in_progress", "deferred")[number % 5]
    return Diagnostic(
        id=f"diagnostic_20260301_{number:06}", fingerprint=f"{number:032x}", source=source, service=build.service,
        environment="production", first_build=build, last_build=build, error_message="Cannot find name 'x'.",
        level="error", severity=SEVERITIES[number * 7 // 3 % 4], status=status, created_at=now,
        resolved_at=now if status == "resolved" else None,
    )  # fmt: skip


def test_the_worst_are_asked_for_and_few_rows_are_read(api, many):
    in_production = {"service": "shop", "environment": "production", "status": "in_progress"}
    for asked in ({}, {"status": "identified"}, {"severity": "critical"}, in_production):
        path = f"/diagnostics?{urlencode({**asked, 'order': 'worst', 'limit': '50'})}"
        wanted = {"service__slug" if name == "service" else name: value for name, value in asked.items()}
        expected = list(Diagnostic.objects.filter(**wanted).worst_first().values_list("pk", flat=True)[:100])
        before = rows_read()

        first = api.get(path).json()

        assert rows_read() - before < 400, asked
        second = api.get(f"{path}&{urlencode({'cursor': first['next']})}").json()
        assert [item["id"] for item in first["items"] + second["items"]] == expected
        assert {item["severity"] for item in first["items"]} == {"critical"}
    assert api.get(f"/diagnostics?{urlencode({'cursor': first['next']})}").status_code == 422  # of another order

"""Ten million checks of endpoints, all that is kept of 5,000 at 45 seconds: newest pages, charts, an hour gone."""

import os
from datetime import datetime, timedelta

from bench import retention, tables
from bench.measure import Report

ENDPOINTS = 5_000
EVERY = timedelta(seconds=45)
HOURS = 25  # what is kept at most: 24, and the one that runs
MOMENTS = timedelta(hours=1) // EVERY
HOUR = MOMENTS * ENDPOINTS  # rows: 400,000
PORTION = 40  # moments of one statement

# Every 97th endpoint is down, every seventh answer slow.
FILL = """
INSERT INTO endpoint_checks (endpoint_id, at, status, response_time_ms, http_status, error)
SELECT one.seq, moment,
    CASE WHEN one.seq MOD 97 = 0 THEN 'failed' WHEN (one.seq + MINUTE(moment)) MOD 7 = 0 THEN 'degraded'
        ELSE 'healthy' END,
    20 + CRC32(CONCAT(one.seq, moment)) MOD 4000 / 10, IF(one.seq MOD 97 = 0, 503, 200),
    IF(one.seq MOD 97 = 0, 'answered 503 instead of 200-299', '')
FROM (SELECT %s - INTERVAL {every} * seq SECOND AS moment FROM seq_{last}_to_{first}) AS moments
    JOIN seq_{lowest}_to_{highest} AS one
"""
SEALS = """
INSERT INTO health_rolled_hours (kind, hour, checks, rolled_at)
SELECT 'endpoint', %s - INTERVAL seq HOUR, {rows}, NOW() FROM seq_2_to_{hours}
"""


def run(report: Report, workload: int, end: datetime, *, rows: int) -> None:
    """Needs what `bench.rollups` needs. `end`: of the newest hour."""
    from django.contrib import admin
    from django.test import RequestFactory

    from apps.console import histories
    from apps.health import series
    from apps.health.choices import SubjectKind
    from apps.health.models import EndpointCheck
    from apps.health.raw import SOURCES
    from apps.health.rollups import roll_up
    from apps.inventory.models import Endpoint

    hours = max(retention.HOURS + 1, min(HOURS, rows // HOUR))
    report.cost(f"{hours * HOUR:,} checks of endpoints made", tables.cost(lambda: _fill(workload, end, hours)))
    tables.settle("endpoint_checks")
    row, index = tables.bytes_per_row("endpoint_checks", hours * HOUR)
    report.figure(f"a stored check, {index:.0f} of it in indexes", row + index, "bytes")

    report.note(f"load of the machine: {os.getloadavg()[0]:.1f}")
    model_admin = admin.site.get_model_admin(EndpointCheck)
    newest = model_admin.get_queryset(RequestFactory().get("/")).order_by("-at", "-id")
    taken = tables.milliseconds(lambda: list(newest[: model_admin.list_per_page]))
    report.ratio(f"milliseconds for the newest {model_admin.list_per_page} checks", taken, at_most=20)
    endpoints = iter(Endpoint.objects.filter(workload=workload).order_by("pk"))
    # Another endpoint each time: nobody's rows are in memory because they were asked for just now.
    taken = tables.milliseconds(lambda: list(histories.checks_of(next(endpoints)).order_by("-at")[:50]))
    report.ratio("milliseconds for the newest 50 of one endpoint", taken, at_most=20)
    taken = tables.milliseconds(lambda: list(histories.day_of(next(endpoints), end)))
    report.ratio(f"milliseconds for a chart of 24 hours, {24 * MOMENTS:,} checks", taken, at_most=50)
    done = tables.cost(lambda: roll_up(SOURCES[1], end + timedelta(minutes=5)))
    report.cost(f"{hours} hours counted and the newest summed up, {HOUR:,} checks", done)
    taken = tables.milliseconds(lambda: series.last_90_days(SubjectKind.ENDPOINT, next(endpoints).pk, end))
    report.ratio("milliseconds for a chart of 90 days", taken, at_most=20)

    oldest = end - timedelta(hours=hours)
    report.note("no bound in seconds here: of so many rows a bare DELETE takes longer than one, and is the limit")
    retention.compare(report, table="endpoint_checks", at="at", oldest=oldest, rows=HOUR)


def _fill(workload: int, end: datetime, hours: int) -> None:
    from django.db.models import Max, Min

    from apps.inventory.models import Endpoint

    Endpoint.objects.bulk_create(
        Endpoint(workload_id=workload, name=f"bench-{n}", endpoint_path=f"/{n}", interval_seconds=EVERY.seconds)
        for n in range(ENDPOINTS)
    )
    keys = Endpoint.objects.filter(workload=workload, name__startswith="bench-")
    lowest, highest = keys.aggregate(Min("pk"), Max("pk")).values()
    assert highest - lowest == ENDPOINTS - 1
    with tables.filling():
        for first in range(hours * MOMENTS, 0, -PORTION):
            numbers = {"first": first, "last": max(1, first - PORTION + 1), "lowest": lowest, "highest": highest}
            tables.execute(FILL.format(every=EVERY.seconds, **numbers), end)
    tables.execute(SEALS.format(rows=HOUR, hours=hours), end)

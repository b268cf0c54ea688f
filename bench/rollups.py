"""A day of samples summed up while sampling goes on; then tables of ten million: newest pages, charts, an hour gone."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from bench import endpoint_checks, overview, retention, tables
from bench.measure import Cost, Report

INSTANCES = 1_000
HOUR = 60 * INSTANCES  # rows
DAY = 24 * HOUR
ROWS = 10_000_000
HOURS_OF_HISTORY = 90 * 24
BUFFER_POOL = 1 << 30  # bytes: holds the newest day, as a server with such a table should
ALONE = 8  # seconds

# Every 97th instance is dead, every seventh answer slow.
SAMPLES = """
INSERT INTO health_checks (id, instance_id, environment, timestamp, measured_at, overall_status, reasons,
    response_time_ms, database_status, redis_status, memory_usage_mb, memory_usage_percent, cpu_usage_percent,
    uptime_seconds, version, total_requests, error_rate_5min, cpu_seconds_total, errors_total, created_at)
SELECT CONCAT('health_', DATE_FORMAT(moment, '%%Y%%m%%d_%%H%%i%%s'), '_', LPAD(HEX(number), 12, '0')),
    CONCAT('bench-', number), 'production', moment, moment,
    CASE WHEN number MOD 97 = 0 THEN 'unhealthy' WHEN (number + MINUTE(moment)) MOD 7 = 0 THEN 'degraded'
        ELSE 'healthy' END,
    '[]', 20 + CRC32(CONCAT(number, moment)) MOD 400, 'connected', 'connected', 256, number MOD 90,
    CRC32(moment) MOD 100, 86400, '1.4.0', 100000, 0, 5000, 0, moment
FROM (SELECT one.seq AS number, %s - INTERVAL minutes.seq MINUTE AS moment
    FROM seq_{first}_to_{last} AS minutes JOIN seq_1_to_{instances} AS one) AS looks
"""
MINUTES = """
INSERT INTO utilisation_minutes (workload_id, minute, expected, reported, warming, cpu_sum, cpu_count, memory_sum,
    memory_count, warming_cpu_sum, warming_cpu_count, warming_memory_sum, warming_memory_count, samples)
SELECT %s, %s - INTERVAL seq MINUTE, {instances}, {instances}, 0, 50000, {instances}, 40000, {instances}, 0, 0, 0, 0,
    {instances}
FROM seq_{first}_to_{last}
"""
SEALS = """
INSERT INTO health_rolled_hours (kind, hour, checks, rolled_at)
SELECT 'instance', %s - INTERVAL seq HOUR, {rows}, NOW() FROM seq_{first}_to_{last}
"""
HISTORY = """
INSERT INTO health_hourly (kind, subject, hour, checks, healthy, degraded, down, unknown, maintenance, uptime, measured,
    response_mean_ms, response_p95_ms, response_max_ms, cpu_mean, cpu_max, memory_mean, memory_max)
SELECT 'instance', CONCAT('bench-', one.seq), %s - INTERVAL hours.seq HOUR, 60, 50, 9, 1, 0, 0, 0.98, 60, 90, 300, 420,
    50, 99, 40, 60
FROM seq_{first}_to_{last} AS hours JOIN seq_1_to_{instances} AS one
"""


def run(report: Report, *, rows: int = ROWS) -> None:
    """Needs DATABASE_URL, a MariaDB of our own, and Django set up."""
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    tables.prepare(BUFFER_POOL)
    # The end of the newest hour that is over for certain; the sampler writes from there on.
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    hours = max(1, min(rows, DAY) // HOUR)
    older, more = end - timedelta(hours=hours), max(retention.HOURS, rows // HOUR - hours)
    started = time.perf_counter()
    workload = _register()
    with tables.filling():
        _fill(SAMPLES, 60 * more, older)
        tables.execute(SEALS.format(rows=HOUR, first=1, last=more), older)
        _fill(HISTORY, HOURS_OF_HISTORY - hours - 48, older)  # none of them old enough to be deleted
        _fill(MINUTES, 60 * hours, workload, end)
        _fill(SAMPLES, 60 * hours, end)
    tables.settle("health_checks", "health_hourly")
    report.note(f"{(more + hours) * HOUR:,} samples of instances, made in {time.perf_counter() - started:.0f} s")
    row, index = tables.bytes_per_row("health_checks", (more + hours) * HOUR)
    report.figure(f"a stored sample, {index:.0f} of it in indexes", row + index, "bytes")
    _day(report, end, hours)
    tables.settle("health_checks", "health_hourly")
    overview.run(report, workload, end)
    _large(report, end, older - timedelta(hours=more))
    for statement in ("DELETE FROM health_rolled_hours", "TRUNCATE health_checks", "TRUNCATE endpoint_checks"):
        tables.execute(statement)
    endpoint_checks.run(report, workload, end, rows=rows)


def _day(report: Report, end: datetime, hours: int) -> None:
    """Sum up hours that nobody has summed up yet, with a sampler at work beside it in a process of its own."""
    from apps.health import utilisation
    from apps.health.raw import SOURCES
    from apps.health.rollups import roll_up

    minute = end - timedelta(minutes=30)
    taken = tables.milliseconds(lambda: utilisation.write(minute))
    report.figure(f"utilisation of a minute, {INSTANCES:,} instances", taken, "ms")
    with _sampler() as alone:
        time.sleep(ALONE)
    with _sampler() as beside:
        own, started = time.process_time(), time.perf_counter()
        done = roll_up(SOURCES[0], end + timedelta(minutes=5))
        seconds, own = time.perf_counter() - started, time.process_time() - own
    assert done == hours
    report.note(f"load of the machine: {os.getloadavg()[0]:.1f}")
    report.cost(f"{hours * HOUR:,} samples summed up while sampling goes on (CPU: the worker's)", Cost(seconds, own))
    report.ratio("seconds for 1,440,000 of them", seconds * DAY / (hours * HOUR), at_most=15)
    for title, found in (("alone", alone), ("beside it", beside)):
        report.figure(f"storing 1,000 samples, {title}, p95 of {len(found)}", 1000 * _p95(found), "ms")
    report.ratio("seconds to store 1,000 samples beside it, p95", _p95(beside), at_most=1)


def _large(report: Report, end: datetime, oldest: datetime) -> None:
    """What people look at, and what has to go, in the table as it is now."""
    from django.contrib import admin
    from django.test import RequestFactory

    from apps.health import series
    from apps.health.choices import SubjectKind
    from apps.health.models import HealthCheck

    model_admin = admin.site.get_model_admin(HealthCheck)
    page = model_admin.get_queryset(RequestFactory().get("/")).order_by("-timestamp", "-id")
    size = model_admin.list_per_page
    report.ratio(f"milliseconds for the newest {size} rows", tables.milliseconds(lambda: list(page[:size])), at_most=20)
    names = (f"bench-{number}" for number in itertools.count(1))
    # Another instance each time: nobody's rows are in memory because they were asked for just now.
    taken = tables.milliseconds(lambda: list(HealthCheck.objects.of(next(names))[:size]))
    report.ratio(f"milliseconds for the newest {size} of one instance", taken, at_most=20)
    taken = tables.milliseconds(lambda: series.last_90_days(SubjectKind.INSTANCE, next(names), end))
    report.ratio("milliseconds for a chart of 90 days", taken, at_most=20)

    retention.compare(report, table="health_checks", at="timestamp", oldest=oldest, rows=HOUR, at_most=1)


def _register() -> int:
    from apps.inventory.models import DEFAULT_SERVICE, Instance, Service, Workload

    workload = Workload.objects.create(service=Service.objects.get(slug=DEFAULT_SERVICE), environment="production")
    names = [f"bench-{number}" for number in range(1, INSTANCES + 1)]
    Instance.objects.bulk_create(Instance(id=name, name=name, workload=workload) for name in names)
    return workload.pk


def _fill(statement: str, count: int, *values: object) -> None:
    """Run an INSERT for the numbers 1 to `count`, some thousands of rows at a time, the oldest first."""
    for last in range(count, 0, -60):
        first = max(1, last - 59)
        tables.execute(statement.format(first=first, last=last, instances=INSTANCES), *values)


@contextmanager
def _sampler() -> Iterator[list[float]]:
    """A process that stores 1,000 samples every half second; afterwards, the seconds each time took."""
    command = (sys.executable, "-m", "bench.sampler_process")
    taken: list[float] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield taken
        process.stdin.close()
        taken += json.loads(process.stdout.read())


def _p95(values: list[float]) -> float:
    from apps.health import rules

    found = rules.nearest_rank(values, 95)
    assert found is not None
    return found

"""A day of samples summed up while sampling goes on; then a table of ten million: its newest page, its oldest hour."""

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from bench.measure import Report

INSTANCES = 1_000
HOUR = 60 * INSTANCES  # rows
DAY = 24 * HOUR
ROWS = 10_000_000
HOURS_OF_HISTORY = 90 * 24
BUFFER_POOL = 1 << 30  # bytes: holds the newest day, as a server with such a table should
CALLS = 20  # of what takes milliseconds
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
    _execute(f"SET GLOBAL innodb_buffer_pool_size = {BUFFER_POOL}")
    # The end of the newest hour that is over for certain; the sampler writes from there on.
    end = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    hours = max(1, min(rows, DAY) // HOUR)
    older, more = end - timedelta(hours=hours), max(2, rows // HOUR - hours)
    started = time.perf_counter()
    workload = _register()
    _fill(SAMPLES, 60 * more, older)
    _execute(SEALS.format(rows=HOUR, first=1, last=more), older)
    _fill(HISTORY, HOURS_OF_HISTORY - hours - 48, older)  # none of them old enough to be deleted
    _fill(MINUTES, 60 * hours, workload, end)
    _fill(SAMPLES, 60 * hours, end)
    _settle()
    report.note(f"{(more + hours) * HOUR:,} raw rows, made in {time.perf_counter() - started:.0f} s")
    _day(report, end, hours)
    _settle()
    _large(report, end, older - timedelta(hours=more))


def _day(report: Report, end: datetime, hours: int) -> None:
    """Sum up hours that nobody has summed up yet, with a sampler at work beside it in a process of its own."""
    from apps.health import utilisation
    from apps.health.raw import SOURCES
    from apps.health.rollups import roll_up

    minute = end - timedelta(minutes=30)
    report.figure(f"utilisation of a minute, {INSTANCES:,} instances", _ms(lambda: utilisation.write(minute)), "ms")
    with _sampler() as alone:
        time.sleep(ALONE)
    with _sampler() as beside:
        started = time.perf_counter()
        done = roll_up(SOURCES[0], end + timedelta(minutes=5))
        seconds = time.perf_counter() - started
    assert done == hours
    report.figure(f"{hours * HOUR:,} raw rows summed up while sampling goes on", seconds, "s")
    report.ratio("seconds for 1,440,000 of them", seconds * DAY / (hours * HOUR), at_most=15)
    for title, found in (("alone", alone), ("beside it", beside)):
        report.figure(f"storing 1,000 samples, {title}, p95 of {len(found)}", 1000 * _p95(found), "ms")
    report.ratio("seconds to store 1,000 samples beside it, p95", _p95(beside), at_most=1)


def _large(report: Report, end: datetime, oldest: datetime) -> None:
    """What people look at, and what has to go, in the table as it is now."""
    from django.contrib import admin
    from django.test import RequestFactory

    from apps.health import retention, series
    from apps.health.choices import SubjectKind
    from apps.health.models import HealthCheck

    model_admin = admin.site.get_model_admin(HealthCheck)
    page = model_admin.get_queryset(RequestFactory().get("/")).order_by("-timestamp", "-id")
    size = model_admin.list_per_page
    report.ratio(f"milliseconds for the newest {size} rows", _ms(lambda: list(page[:size])), at_most=20)
    one = page.filter(instance="bench-500")
    report.ratio(f"milliseconds for the newest {size} of one instance", _ms(lambda: list(one[:size])), at_most=20)
    names = (f"bench-{number}" for number in itertools.count(1))
    # Another instance each time: nobody's chart is in memory.
    taken = _ms(lambda: series.last_90_days(SubjectKind.INSTANCE, next(names), end))
    report.ratio("milliseconds for a chart of 90 days", taken, at_most=20)

    started = time.perf_counter()
    # As if it were the time at which the oldest hour, and no other, has to go.
    deleted = retention.delete_old(oldest + timedelta(hours=25))
    seconds = time.perf_counter() - started
    assert deleted == HOUR, deleted
    report.ratio(f"seconds to delete the oldest hour, {deleted:,} rows", seconds, at_most=1)


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
        _execute(statement.format(first=first, last=last, instances=INSTANCES), *values)


def _settle() -> None:
    """Wait until the server has written back what it still owes the disk: it would be measured with what comes next."""
    from django.db import connection

    _execute("ANALYZE TABLE health_checks, health_hourly")
    _execute("SET GLOBAL innodb_max_dirty_pages_pct_lwm = 0.001, GLOBAL innodb_max_dirty_pages_pct = 0")
    deadline = time.monotonic() + 120
    with connection.cursor() as cursor:
        while time.monotonic() < deadline:
            cursor.execute("SHOW GLOBAL STATUS LIKE 'Innodb_buffer_pool_pages_dirty'")
            if int(cursor.fetchone()[1]) < 100:
                break
            time.sleep(0.5)
    _execute("SET GLOBAL innodb_max_dirty_pages_pct = 90, GLOBAL innodb_max_dirty_pages_pct_lwm = 0")


def _execute(statement: str, *values: object) -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement, values)


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


def _ms(work: Callable[[], object]) -> float:
    """The median of some calls, in ms."""
    taken = []
    for _ in range(CALLS):
        started = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken)


def _p95(values: list[float]) -> float:
    from apps.health import rules

    found = rules.nearest_rank(values, 95)
    assert found is not None
    return found

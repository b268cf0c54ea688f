"""Writes down, minute by minute, how loaded the instances of each workload are: what scaling decides by.

The sampler does so each minute, for the last few of them. What comes later still (a push may be 24 hours old) is
noticed when its hour is summed up: then the hour's minutes are written again. Both see it from the number of samples a
row was made from, so that nothing has to be remembered.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db.models import Sum

from apps.health import rules
from apps.health.models import HealthCheck, UtilisationMinute

MINUTE = timedelta(minutes=1)
RECENT = 5  # minutes that the sampler looks back on
SEEN_WITHIN = timedelta(hours=1)  # an instance that was not at work for so long is no longer expected
# The first sample has no rates, the second tells of start-up, the third of work.
WARM_UP = timedelta(minutes=3)

# One row for each workload. Inside: first one row for each instance that has samples in the minute, then one for each
# instance that counts. LIMIT keeps MariaDB from reading the hour of all instances where a few are asked about.
QUERY = """
SELECT workload_id, COUNT(*), SUM(reported), SUM(warming),
    SUM(CASE WHEN warming = 0 THEN cpu END), COUNT(CASE WHEN warming = 0 THEN cpu END),
    SUM(CASE WHEN warming = 0 THEN memory END), COUNT(CASE WHEN warming = 0 THEN memory END),
    SUM(CASE WHEN warming = 1 THEN cpu END), COUNT(CASE WHEN warming = 1 THEN cpu END),
    SUM(CASE WHEN warming = 1 THEN memory END), COUNT(CASE WHEN warming = 1 THEN memory END),
    SUM(samples)
FROM (
    SELECT instances.workload_id, looked.cpu, looked.memory, COALESCE(looked.samples, 0) AS samples,
        CASE WHEN looked.cpu IS NOT NULL OR looked.memory IS NOT NULL THEN 1 ELSE 0 END AS reported,
        CASE WHEN looked.uptime < %(warm_up)s OR looked.uptime IS NULL AND instances.registered_at > %(young)s
            THEN 1 ELSE 0 END AS warming
    FROM instances LEFT JOIN (
        SELECT instance_id, COUNT(*) AS samples, AVG(cpu_usage_percent) AS cpu, AVG(memory_usage_percent) AS memory,
            MIN(uptime_seconds) AS uptime
        FROM health_checks WHERE timestamp >= %(start)s AND timestamp < %(end)s GROUP BY instance_id
    ) AS looked ON looked.instance_id = instances.id
    WHERE looked.instance_id IS NOT NULL OR (instances.active AND (
        SELECT 1 FROM health_checks AS earlier
        WHERE earlier.instance_id = instances.id AND earlier.timestamp >= %(seen)s AND earlier.timestamp < %(end)s
            AND (earlier.overall_status <> 'unhealthy' OR earlier.cpu_usage_percent IS NOT NULL
                OR earlier.memory_usage_percent IS NOT NULL)
        LIMIT 1
    ) IS NOT NULL)
) AS counted
GROUP BY workload_id ORDER BY workload_id
"""
COLUMNS = (
    *("workload_id", "expected", "reported", "warming", "cpu_sum", "cpu_count", "memory_sum", "memory_count"),
    *("warming_cpu_sum", "warming_cpu_count", "warming_memory_sum", "warming_memory_count", "samples"),
)


def record(now: datetime) -> int:
    """Write the minute that runs, and those just before it that samples came late for; gives how many."""
    last = rules.EPOCH + (now - rules.EPOCH) // MINUTE * MINUTE
    return _write_where_needed(last - (RECENT - 1) * MINUTE, RECENT)


def correct(hour: datetime, samples: int) -> int:
    """Write those minutes of an hour again that samples came late for, of so many in all; gives how many."""
    if sum(_known(hour, hour + rules.HOUR).values()) == samples:
        return 0
    return _write_where_needed(hour, 60)


def write(minute: datetime) -> None:
    """Write one minute of all workloads, in the place of what was written before. Two statements."""
    rows = list(_read(minute))
    targets = {"unique_fields": ["workload", "minute"]} if _names_targets() else {}
    UtilisationMinute.objects.bulk_create(
        rows,
        batch_size=1_000,
        update_conflicts=True,
        update_fields=[name for name in COLUMNS if name != "workload_id"],
        **targets,
    )


def _write_where_needed(start: datetime, minutes: int) -> int:
    """Write the minutes that have other samples than their rows were made from."""
    known = _known(start, start + minutes * MINUTE)
    wrong = [minute for minute, count in _samples(start, minutes) if count != known.get(minute, 0)]
    for minute in wrong:
        write(minute)
    return len(wrong)


def _known(start: datetime, end: datetime) -> dict[datetime, int]:
    """How many samples the rows of each minute were made from."""
    rows = UtilisationMinute.objects.filter(minute__gte=start, minute__lt=end).order_by()
    return dict(rows.values_list("minute").annotate(Sum("samples")))


def _samples(start: datetime, minutes: int) -> Iterable[tuple[datetime, int]]:
    """How many samples each minute has; read from an index alone."""
    for number in range(minutes):
        minute = start + number * MINUTE
        yield minute, HealthCheck.objects.filter(timestamp__gte=minute, timestamp__lt=minute + MINUTE).count()


def _read(minute: datetime) -> Iterator[UtilisationMinute]:
    end = minute + MINUTE
    moments = {"start": minute, "end": end, "seen": end - SEEN_WITHIN, "young": end - WARM_UP}
    values: dict[str, Any] = {
        name: connection.ops.adapt_datetimefield_value(moment) for name, moment in moments.items()
    }
    with connection.cursor() as cursor:
        cursor.execute(QUERY, values | {"warm_up": WARM_UP.total_seconds()})
        for row in cursor.fetchall():
            # A sum of nothing is NULL in SQL, and counts come as decimals.
            yield UtilisationMinute(
                minute=minute, **{name: value or 0 for name, value in zip(COLUMNS, row, strict=True)}
            )


def _names_targets() -> bool:
    return bool(connection.features.supports_update_conflicts_with_target)

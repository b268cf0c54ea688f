"""Sums the raw checks of each hour up.

What is left to do is read from the tables, not remembered: an hour counts as done while its `RolledHour` names as many
rows as there are. So a run that died, ran twice or ran late leaves nothing wrong behind, and rows that came late have
their hour summed up again.
"""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db import models, transaction
from django.db.models import Count, Max, Q, Sum
from django.db.models.functions import Coalesce

from apps.alerts import windows
from apps.health import rules, utilisation
from apps.health.choices import SubjectKind
from apps.health.models import HealthHourly, RolledHour
from apps.health.raw import Source

SETTLING = timedelta(minutes=2)  # after an hour's end until its last checks are stored
ROWS_AT_ONCE = 200_000  # raw rows whose times are held in memory, some 30 MB
ROWS_OF_ONE_STATEMENT = 1_000
ENDINGS = ("healthy", "degraded", "down")


def roll_up(source: Source, now: datetime, *, in_time: Callable[[], bool] = lambda: True) -> int:
    """Sum up the hours of one kind that were not yet, or have other rows now, oldest first; gives how many."""
    rolled, oldest_whole = 0, rules.hour_of(now - rules.RAW_KEPT)
    seen = dict(RolledHour.objects.filter(kind=source.kind).values_list("hour", "checks"))
    for hour in source.hours(before=now - SETTLING):
        if not in_time():
            break
        if hour in seen and hour < oldest_whole:
            continue  # some of its rows may be deleted already
        rows = source.rows(hour, hour + rules.HOUR).count()
        if rows != seen.get(hour, 0):
            if source.kind == SubjectKind.INSTANCE:
                utilisation.correct(hour, rows)  # first: until the hour is sealed, a run that dies is made good
            roll_hour(source, hour, rows, now=now)
            rolled += 1
    return rolled


def roll_hour(source: Source, hour: datetime, rows: int, *, now: datetime) -> None:
    """Sum up one hour, which had so many rows just now, and put the result in the place of what was there."""
    found = [row for chosen in _portions(source, hour, rows) for row in _summed(source, hour, chosen)]
    # A row that came since they were counted was noticed by nobody before: it is left to the next run.
    checks = min(rows, sum(row.checks for row in found))
    with transaction.atomic():
        RolledHour.objects.get_or_create(kind=source.kind, hour=hour, defaults={"checks": 0, "rolled_at": now})
        # One worker at a time, whatever each has read before.
        seal = RolledHour.objects.select_for_update().get(kind=source.kind, hour=hour)
        if hour < rules.hour_of(now - rules.RAW_KEPT) and seal.checks >= checks:
            return  # another one was faster, and its raw rows are being deleted: these here were too few
        for start in range(0, len(found), ROWS_OF_ONE_STATEMENT):
            batch = found[start : start + ROWS_OF_ONE_STATEMENT]
            # By name: what was summed up of a subject that is gone meanwhile stays.
            subjects = [row.subject for row in batch]
            HealthHourly.objects.filter(kind=source.kind, hour=hour, subject__in=subjects).delete()
            HealthHourly.objects.bulk_create(batch)
        seal.checks, seal.rolled_at = checks, now
        seal.save(update_fields=["checks", "rolled_at"])


def _portions(source: Source, hour: datetime, rows: int) -> Iterator[models.QuerySet[Any]]:
    """The hour's raw rows, in portions of whole subjects that fit into memory."""
    whole = source.rows(hour, hour + rules.HOUR)
    if rows <= ROWS_AT_ONCE:
        yield whole
        return
    chosen: list[Any] = []
    size = 0
    for subject, count in whole.values_list(source.subject).annotate(Count("pk")).order_by(source.subject):
        if chosen and size + count > ROWS_AT_ONCE:
            yield whole.filter(**{f"{source.subject}__in": chosen})
            chosen, size = [], 0
        chosen.append(subject)
        size += count
    yield whole.filter(**{f"{source.subject}__in": chosen})


def _summed(source: Source, hour: datetime, rows: models.QuerySet[Any]) -> Iterator[HealthHourly]:
    """One row for each subject.

    Two queries: what SQL sums, and the times, whose 95th percentile is found faster here than by a window function.
    In this order: a row that comes between them is missing in `checks`, so that the hour is summed up again.
    """
    columns = {"response": source.response, **source.loads}
    figures: dict[str, Any] = {"checks": Count("pk")}
    for name in ENDINGS:
        figures[name] = Count("pk", filter=Q(**{f"{source.status}__in": getattr(source, name)}))
    for name, column in columns.items():
        figures |= {f"{name}_count": Count(column), f"{name}_sum": Sum(column), f"{name}_max": Max(column)}
    # Renamed, for the raw table may have columns of these names.
    # Grouped by an expression: by the bare column MariaDB takes the index of subjects and reads the whole table by it.
    grouped = rows.values(summed_up=Coalesce(source.subject, source.subject))
    summed = list(grouped.annotate(**{f"of_{name}": figure for name, figure in figures.items()}))
    times: dict[Any, list[float]] = {}
    for subject, response in rows.values_list(source.subject, source.response):
        if response is not None:
            times.setdefault(subject, []).append(response)
    excused = _excused(source, hour, rows)
    for row in summed:
        value = {name: row[f"of_{name}"] for name in figures}
        # Of those counted, should more have come meanwhile.
        maintenance = min(len(excused.get(row["summed_up"], ())), value["down"])
        down = value["down"] - maintenance
        mean = {
            # Not SQL's own average, which is rounded to four digits where the column holds whole numbers.
            name: float(value[f"{name}_sum"]) / value[f"{name}_count"] if value[f"{name}_count"] else None
            for name in columns
        }
        yield HealthHourly(
            kind=source.kind,
            subject=str(row["summed_up"]),
            hour=hour,
            checks=value["checks"],
            healthy=value["healthy"],
            degraded=value["degraded"],
            down=down,
            unknown=value["checks"] - value["healthy"] - value["degraded"] - value["down"],
            maintenance=maintenance,
            uptime=rules.uptime(value["healthy"] + value["degraded"], down),
            measured=value["response_count"],
            response_mean_ms=mean["response"],
            response_p95_ms=rules.nearest_rank(times.get(row["summed_up"], ()), 95),
            response_max_ms=value["response_max"],
            cpu_mean=mean.get("cpu"),
            cpu_max=value.get("cpu_max"),
            memory_mean=mean.get("memory"),
            memory_max=value.get("memory_max"),
        )


def _excused(source: Source, hour: datetime, rows: models.QuerySet[Any]) -> dict[Any, set[Any]]:
    """The failed checks of each subject that were made while it was in a maintenance window."""
    found: dict[Any, set[Any]] = {}
    for one in windows.during(hour, hour + rules.HOUR):
        span = {f"{source.at}__gte": one.starts_at, f"{source.at}__lt": one.ends_at}
        failed = rows.filter(**span, **{f"{source.status}__in": source.down}).values_list(source.subject, "pk")
        checks: dict[Any, list[Any]] = {}
        for subject, check in failed:
            checks.setdefault(subject, []).append(check)
        for subject, place in source.places(checks).items():
            if one.window.covers(**place):
                found.setdefault(subject, set()).update(checks[subject])
    return found

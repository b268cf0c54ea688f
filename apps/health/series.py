"""What charts draw: how one instance, endpoint or database fared in the last day and the last 90 days.

Points are evenly spaced, and there is one for every stretch of time: where nobody looked, `checks` is 0 and figures are
missing, so that a gap is drawn as a gap. One query each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Avg, Count, F, FloatField, Func, IntegerField, Max, Q, QuerySet, Sum

from apps.health import rules
from apps.health.choices import SubjectKind
from apps.health.models import HealthHourly
from apps.health.raw import SOURCES

DAY, DAY_STEP = timedelta(days=1), timedelta(minutes=5)  # 288 points
HISTORY_STEP = timedelta(hours=6)  # 360 points of 90 days

_SOURCES = {source.kind: source for source in SOURCES}


@dataclass(frozen=True, slots=True)
class Point:
    """What the checks from `at` to `until` came to. Times in ms, loads in percent; None: not measured."""

    at: datetime
    until: datetime
    checks: int = 0
    healthy: int = 0
    degraded: int = 0
    down: int = 0
    unknown: int = 0
    maintenance: int = 0
    response_mean_ms: float | None = None
    response_p95_ms: float | None = None  # of 90 days: the worst of its hours; of a day: None
    response_max_ms: float | None = None
    cpu_mean: float | None = None
    cpu_max: float | None = None
    memory_mean: float | None = None
    memory_max: float | None = None

    @property
    def state(self) -> str:
        """The worst that was found: down, degraded, maintenance, unknown or healthy; empty in a gap."""
        return next((name for name in _WORST_FIRST if getattr(self, name)), "")


_WORST_FIRST = ("down", "degraded", "maintenance", "unknown", "healthy")


@dataclass(frozen=True, slots=True)
class Series:
    """Points from `start` to `end`, one every `step`. `uptime` is 0 to 1, None when no check could tell."""

    start: datetime
    end: datetime
    step: timedelta
    points: tuple[Point, ...]

    @property
    def uptime(self) -> float | None:
        return rules.uptime(
            sum(point.healthy + point.degraded for point in self.points), sum(point.down for point in self.points)
        )


class Bucket(Func):
    """The number of the stretch a moment lies in, counted from a start that is not later."""

    output_field = IntegerField()

    def __init__(self, column: str, start: datetime, step: timedelta) -> None:
        seconds = {"epoch": int(start.timestamp()), "step": int(step.total_seconds())}
        super().__init__(F(column), start=f"{start:%Y-%m-%d %H:%M:%S}", **seconds)

    def as_mysql(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "TIMESTAMPDIFF(SECOND, '%(start)s', %(expressions)s) DIV %(step)s"
        return self.as_sql(compiler, connection, template=template, **context)

    def as_sqlite(self, compiler: Any, connection: Any, **context: Any) -> Any:
        template = "(CAST(strftime('%%%%s', %(expressions)s) AS INTEGER) - %(epoch)s) / %(step)s"
        return self.as_sql(compiler, connection, template=template, **context)


def last_day(kind: SubjectKind, subject: Any, now: datetime, *, interval: timedelta = rules.SLOT) -> Series:
    """The last 24 hours, from raw rows; 288 points, fewer for what is looked at less than every five minutes."""
    source = _SOURCES[kind]
    step = max(DAY_STEP, interval)
    start, end = _span(now, DAY, step)
    ended = {name: Count("pk", filter=Q(**{f"{source.status}__in": getattr(source, name)})) for name in _ENDINGS}
    figures = {"checks": Count("pk"), **ended}
    for name, column in {"response": source.response, **source.loads}.items():
        unit = "_ms" if name == "response" else ""
        figures |= {f"{name}_mean{unit}": Avg(column, output_field=FloatField()), f"{name}_max{unit}": Max(column)}
    rows = source.rows(start, end).filter(**{source.subject: subject})
    return _series(rows.annotate(bucket=Bucket(source.at, start, step)), start, end, step, figures)


def last_90_days(kind: SubjectKind, subject: Any, now: datetime) -> Series:
    """The last 90 days, from the hours that have been summed up; 360 points."""
    start, end = _span(now, rules.HISTORY_KEPT, HISTORY_STEP)
    counts = ("checks", *_ENDINGS, "unknown", "maintenance")
    figures = {
        **{name: Sum(name) for name in counts},
        "response_mean_ms": Sum(F("response_mean_ms") * F("measured")) / Sum("measured", output_field=FloatField()),
        **{name: Max(name) for name in ("response_p95_ms", "response_max_ms", "cpu_max", "memory_max")},
        # An hour tells of how many checks its loads are means only roughly; for a curve that is near enough.
        **{name: Avg(name) for name in ("cpu_mean", "memory_mean")},
    }
    rows = HealthHourly.objects.filter(kind=kind, subject=str(subject), hour__gte=start, hour__lt=end)
    return _series(rows.annotate(bucket=Bucket("hour", start, HISTORY_STEP)), start, end, HISTORY_STEP, figures)


_ENDINGS = ("healthy", "degraded", "down")


def _span(now: datetime, length: timedelta, step: timedelta) -> tuple[datetime, datetime]:
    """A stretch of time that ends with the step `now` lies in, in whole steps since 1970, so that points stay put."""
    end = rules.EPOCH + ((now - rules.EPOCH) // step + 1) * step
    return end - (-(-length // step)) * step, end


def _series(rows: QuerySet[Any], start: datetime, end: datetime, step: timedelta, figures: Mapping[str, Any]) -> Series:
    # Renamed, for the table may have columns of these names.
    named = {f"of_{name}": figure for name, figure in figures.items()}
    found = {row.pop("bucket"): row for row in rows.order_by().values("bucket").annotate(**named)}
    points = []
    for number in range((end - start) // step):
        at = start + number * step
        row = found.get(number, {})
        values = {name: row.get(f"of_{name}") for name in figures} if row else {}
        if values and "unknown" not in values:
            values["unknown"] = values["checks"] - sum(values[name] for name in _ENDINGS)
        points.append(Point(at, at + step, **values))
    return Series(start, end, step, tuple(points))

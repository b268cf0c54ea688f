"""What charts draw: how one instance, endpoint or database fared in the last 90 days.

Points are evenly spaced, and there is one for every stretch of time: where nobody looked, `checks` is 0 and figures are
missing, so that a gap is drawn as a gap. One query.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Avg, F, FloatField, Func, IntegerField, Max, Sum

from apps.health import rules
from apps.health.choices import SubjectKind
from apps.health.models import HealthHourly

HISTORY_STEP = timedelta(hours=6)  # 360 points of 90 days


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
    response_p95_ms: float | None = None  # the worst of its hours
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


def last_90_days(kind: SubjectKind, subject: Any, now: datetime) -> Series:
    """The last 90 days, from the hours that have been summed up; 360 points."""
    # Ends with the step `now` lies in, in whole steps since 1970, so that points stay put.
    end = rules.EPOCH + ((now - rules.EPOCH) // HISTORY_STEP + 1) * HISTORY_STEP
    start = end - rules.HISTORY_KEPT
    figures = {
        **{name: Sum(name) for name in ("checks", "healthy", "degraded", "down", "unknown", "maintenance")},
        "response_mean_ms": Sum(F("response_mean_ms") * F("measured")) / Sum("measured", output_field=FloatField()),
        **{name: Max(name) for name in ("response_p95_ms", "response_max_ms", "cpu_max", "memory_max")},
        # An hour tells of how many checks its loads are means only roughly; for a curve that is near enough.
        **{name: Avg(name) for name in ("cpu_mean", "memory_mean")},
    }
    hours = HealthHourly.objects.filter(kind=kind, subject=str(subject), hour__gte=start, hour__lt=end).order_by()
    # Renamed, for the table has columns of these names.
    named = {f"of_{name}": figure for name, figure in figures.items()}
    rows = hours.annotate(bucket=Bucket("hour", start, HISTORY_STEP)).values("bucket").annotate(**named)
    found = {row["bucket"]: {name: row[f"of_{name}"] for name in figures} for row in rows}
    moments = (start + number * HISTORY_STEP for number in range(rules.HISTORY_KEPT // HISTORY_STEP))
    points = (Point(at, at + HISTORY_STEP, **found.get(number, {})) for number, at in enumerate(moments))
    return Series(start, end, HISTORY_STEP, tuple(points))

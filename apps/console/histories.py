"""What became of an endpoint or a database: the last day check by check, and the last 90 days by the hour.

Beside it, on the same axis, what else happened there: deployments, notes, maintenance windows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, QuerySet, Sum

from apps.alerts import windows
from apps.console.models import Note
from apps.core import ids
from apps.core.charts import BAD, GOOD, UNKNOWN, WARNING, Axis, Chart, Moment, Period, Sample, draw, lasting
from apps.core.display import moment, page_of
from apps.deployments.models import Deployment
from apps.health.choices import CheckStatus, SubjectKind
from apps.health.models import DatabaseCheck, EndpointCheck, HealthHourly, RolledHour
from apps.health.series import Series, last_90_days
from apps.inventory.models import Database, Endpoint, Service

DAY, HOUR = timedelta(hours=24), timedelta(hours=1)
MARKS = 200  # deployments, and notes, on one chart: more would be a wall

STATES = {
    CheckStatus.HEALTHY: GOOD,
    CheckStatus.DEGRADED: WARNING,
    CheckStatus.FAILED: BAD,
    CheckStatus.UNKNOWN: UNKNOWN,
}
WORST = {"healthy": GOOD, "unknown": UNKNOWN, "maintenance": UNKNOWN, "degraded": WARNING, "down": BAD}


def kind_of(row: Endpoint | Database) -> SubjectKind:
    """As which its hours are kept."""
    return SubjectKind.ENDPOINT if isinstance(row, Endpoint) else SubjectKind.DATABASE


def checks_of(row: Endpoint | Database) -> QuerySet[Any]:
    """Its raw checks."""
    if isinstance(row, Endpoint):
        return EndpointCheck.objects.filter(endpoint=row)
    return DatabaseCheck.objects.filter(database=row)


def hours_of(row: Endpoint | Database) -> QuerySet[HealthHourly]:
    """Its hours."""
    return HealthHourly.objects.filter(kind=kind_of(row), subject=str(row.pk))


def charts(row: Endpoint | Database, now: datetime) -> tuple[list[tuple[str, Chart]], float | None]:
    """The two charts of its page with their headings, and the uptime of 90 days. A handful of queries."""
    history = last_90_days(kind_of(row), row.pk, now)
    service, environment = place_of(row)
    marks = list(moments(history.start, environment, service_id=service.pk))
    silent = list(periods(row, history.start, now))
    found = []
    for heading, axis, samples in (
        ("The last 24 hours: response time and status of every check", Axis(now - DAY, now), list(day_of(row, now))),
        ("The last 90 days: 95th percentile of the worst hour, and status", Axis(history.start, now), _steps(history)),
    ):
        chart = draw(axis, lanes=[("status", samples)], curve=samples, moments=marks, periods=silent, label=heading)
        found.append((heading, chart))
    return found, history.uptime


def day_of(row: Endpoint | Database, now: datetime) -> Iterator[Sample]:
    """Its checks of the last 24 hours, one by one: so that what came first, a deployment or a failure, is not blurred.

    Two that are missing in a row are a gap.
    """
    every = timedelta(seconds=row.interval_seconds)
    columns = ("at", "status", "response_time_ms")
    found = list(checks_of(row).filter(at__gte=now - DAY, at__lte=now).order_by("at").values_list(*columns))
    for (at, status, ms), until in zip(found, lasting([at for at, _, _ in found], every=every), strict=True):
        yield Sample(at, until, STATES[status], ms)


def _steps(history: Series) -> list[Sample]:
    """A quarter of a day each, as bad as the worst of its checks."""
    return [
        Sample(point.at, point.until, WORST[point.state], point.response_p95_ms)
        for point in history.points
        if point.state
    ]


def moments(since: datetime, environment: str, *, service_id: int | None = None) -> Iterator[Moment]:
    """Deployments to an environment, of one service if it is named, and the notes about it. Two queries."""
    rows = Deployment.objects.filter(environment=environment, id__gte=ids.timestamped("deploy", since))
    if service_id is not None:
        rows = rows.filter(service=service_id)
    columns = ("pk", "started_at", "version", "kind", "status", "service__slug")
    for row in rows.select_related("service").only(*columns).newest_first()[:MARKS]:
        text = f"{row.service} {row.version}: {row.get_kind_display().lower()} {row.get_status_display().lower()}"
        yield Moment(row.started_at, "deployment", f"{text}, {moment(row.started_at)}", page_of(row))
    for note in Note.objects.filter(environment=environment, at__gte=since)[:MARKS]:
        yield Moment(note.at, "note", f"{note.text} ({note.by}), {moment(note.at)}")


def periods(row: Endpoint | Database, since: datetime, until: datetime) -> Iterator[Period]:
    """The maintenance windows that it was in."""
    service, environment = place_of(row)
    for one in windows.between(since, until, subject=subject_of(row), service=service.slug, environment=environment):
        yield Period(one.starts_at, one.ends_at, f"maintenance: {one.window.name}")


def place_of(row: Endpoint | Database) -> tuple[Service, str]:
    """Its service and environment."""
    place = row.workload if isinstance(row, Endpoint) else row
    return place.service, place.environment


def subject_of(row: Endpoint | Database) -> str:
    """How alerts and maintenance windows call it."""
    return f"endpoint:{row.pk}" if isinstance(row, Endpoint) else f"database:{row.name}"


def uptimes(rows: Iterable[Endpoint | Database], kind: SubjectKind, now: datetime) -> dict[int, float]:
    """The share of the checks of 24 hours that went well, of each of these that has any, by primary key.

    Hours that have been summed up, and the raw checks since then: three queries.
    """
    keys = [row.pk for row in rows]
    last = RolledHour.objects.filter(kind=kind, hour__gte=now - DAY).aggregate(Max("hour"))["hour__max"]
    edge = last + HOUR if last else now - DAY
    good: dict[int, int] = defaultdict(int)
    bad: dict[int, int] = defaultdict(int)
    hours = HealthHourly.objects.filter(kind=kind, subject__in=map(str, keys), hour__gte=now - DAY, hour__lt=edge)
    summed = hours.order_by().values_list("subject").annotate(Sum("healthy"), Sum("degraded"), Sum("down"))
    for subject, healthy, degraded, down in summed:
        good[int(subject)] += healthy + degraded
        bad[int(subject)] += down
    model, column = (EndpointCheck, "endpoint") if kind == SubjectKind.ENDPOINT else (DatabaseCheck, "database")
    raw = model.objects.filter(**{f"{column}__in": keys}, at__gte=edge, at__lte=now).order_by()
    for key, status, count in raw.values_list(f"{column}_id", "status").annotate(Count("pk")):
        if status != CheckStatus.UNKNOWN:
            (bad if status == CheckStatus.FAILED else good)[key] += count
    return {key: good[key] / (good[key] + bad[key]) for key in keys if good[key] + bad[key]}

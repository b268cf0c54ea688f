"""The last 24 hours of each environment on one axis: how it fared, what was wrong, what was changed.

Read from what has been summed up, from the present states and from what happened: never from the raw checks of
endpoints, of which there are millions.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.core.cache import cache
from django.db.models import Count, Min, Q

from apps.alerts import windows
from apps.alerts.choices import Severity
from apps.alerts.models import Alert
from apps.backups.choices import BackupStatus
from apps.backups.models import BackupJob
from apps.console.histories import DAY, HOUR, MARKS, STATES
from apps.console.models import Note
from apps.core import ids
from apps.core.charts import BAD, GOOD, UNKNOWN, WARNING, Axis, Chart, Moment, Period, Sample, draw
from apps.core.choices import Environment
from apps.core.display import moment, page_of
from apps.deployments.models import Deployment
from apps.health.choices import CheckStatus, HealthStatus, SubjectKind
from apps.health.models import HealthCheck, HealthHourly, RolledHour
from apps.inventory.models import Database, Endpoint, Instance
from apps.scaling.models import ScalingEvent

HOURS = 20_000  # bad hours of targets read at most: beyond that all is red anyway
ROWS = 500  # of what happened, of each kind
EVENTS = 8  # of an environment, told in words

_SEVERITIES = {Severity.CRITICAL: BAD, Severity.WARNING: WARNING, Severity.INFO: UNKNOWN}
_SAMPLES = {HealthStatus.UNHEALTHY: BAD, HealthStatus.DEGRADED: WARNING, HealthStatus.UNKNOWN: UNKNOWN}
_NAMES = {
    SubjectKind.INSTANCE: "Instances",
    SubjectKind.ENDPOINT: "Endpoints",
    SubjectKind.DATABASE: "Databases",
}


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for the list beside the drawing."""

    at: datetime
    kind: str
    text: str
    url: str = ""


@dataclass(slots=True)
class Place:
    """What is drawn of one environment."""

    lanes: dict[str, list[Sample]] = field(default_factory=lambda: defaultdict(list))
    moments: list[Moment] = field(default_factory=list)
    periods: list[Period] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def happened(self, at: datetime, kind: str, text: str, url: str = "") -> None:
        """A line across the drawing, and one in the list."""
        self.moments.append(Moment(at, kind, f"{text}, {moment(at)}", url))
        self.events.append(Event(at, kind, text, url))


class Timeline:
    """The axes of all environments. A bounded number of queries, whatever there is."""

    def __init__(self, now: datetime, *, instances: list[Instance], databases: list[Database]) -> None:
        self._now, self._since = now, now - DAY
        self._axis = Axis(self._since, now)
        self._instances, self._databases = instances, databases
        self._places: dict[str, Place] = defaultdict(Place)

    def chart(self, environment: str) -> Chart:
        """The drawing of one environment."""
        place = self._places[environment]
        return draw(
            self._axis,
            lanes=list(place.lanes.items()),
            moments=place.moments,
            periods=place.periods,
            label="The last 24 hours",
        )

    def events(self, environment: str) -> list[Event]:
        """What happened last, the newest first."""
        return sorted(self._places[environment].events, key=lambda event: event.at, reverse=True)[:EVENTS]

    def health(self) -> None:
        """Strips of instances, endpoints and databases, and the maintenance windows behind them. Eight queries."""
        ends = self._rolled()
        firsts = {
            SubjectKind.INSTANCE: _first((row.workload.environment, row.registered_at) for row in self._instances),
            SubjectKind.DATABASE: _first((row.environment, row.created_at) for row in self._databases if row.watch),
            SubjectKind.ENDPOINT: self._endpoints(),
        }
        for kind, name in _NAMES.items():
            for environment, first in firsts[kind].items():
                # Good unless something below says otherwise; from the first one on, and as far as somebody looked.
                self._places[environment].lanes[name] += self._looked(kind, first, ends.get(kind))
        for environment, kind, sample in self._bad_hours():
            self._places[environment].lanes[_NAMES[kind]].append(sample)
        self._present(ends)
        for one in windows.during(self._since, self._now):
            places = [one.window.environment] if one.window.environment else list(self._places)
            for environment in places:
                period = Period(one.starts_at, one.ends_at, f"maintenance: {one.window.name}")
                self._places[environment].periods.append(period)

    def alerts(self) -> None:
        """What was wrong, from when to when."""
        rows = Alert.objects.filter(Q(closed_at=None) | Q(closed_at__gte=self._since)).order_by("-opened_at")[:ROWS]
        for row in rows:
            if not row.environment:
                continue
            sample = Sample(row.opened_at, row.closed_at or self._now, _SEVERITIES[Severity(row.severity)])
            self._places[row.environment].lanes["Alerts"].append(sample)
            if row.opened_at >= self._since:
                self._places[row.environment].events.append(Event(row.opened_at, "alert", row.title, page_of(row)))

    def deployments(self) -> None:
        """What was brought out, and what was rolled back."""
        rows = Deployment.objects.filter(id__gte=ids.timestamped("deploy", self._since)).select_related("service")
        for row in rows.only("pk", "environment", "started_at", "version", "kind", "status", "service__slug")[:MARKS]:
            text = f"{row.service} {row.version}: {row.get_kind_display().lower()} {row.get_status_display().lower()}"
            self._places[row.environment].happened(row.started_at, "deployment", text, page_of(row))

    def scaling(self) -> None:
        """How the number of instances changed, or failed to."""
        rows = ScalingEvent.objects.filter(timestamp__gte=self._since).newest_first().select_related("service")
        for row in rows[:MARKS]:
            failed = "failed: " if row.success is False else ""
            text = f"{row.service}: {failed}{row.instances_before} → {row.instances_after} instances"
            self._places[row.environment].happened(row.timestamp, "scaling", text, page_of(row))

    def notes(self) -> None:
        """What people wrote down."""
        for row in Note.objects.filter(at__gte=self._since)[:MARKS]:
            self._places[row.environment].happened(row.at, "note", f"{row.text} ({row.by})")

    def backups(self) -> None:
        """When was dumped, and whether it can be relied upon."""
        rows = BackupJob.objects.filter(started_at__gte=self._since).select_related("database").order_by("-started_at")
        for row in rows.defer("tables", "notes")[:ROWS]:
            state = {BackupStatus.COMPLETED: GOOD, BackupStatus.FAILED: BAD}.get(BackupStatus(row.status), UNKNOWN)
            until = row.completed_at or self._now
            self._places[row.environment].lanes["Backups"].append(Sample(row.started_at, until, state))
            if state == BAD:
                text = f"backup of {row.database or row.database_name} failed"
                self._places[row.environment].events.append(Event(row.started_at, "backup", text, page_of(row)))

    def _rolled(self) -> dict[SubjectKind, datetime]:
        """Until when each kind has been summed up."""
        self._hours: dict[SubjectKind, dict[datetime, datetime]] = defaultdict(dict)
        found = RolledHour.objects.filter(hour__gte=self._since - HOUR).order_by("hour")
        for kind, hour, rolled_at in found.values_list("kind", "hour", "rolled_at"):
            self._hours[SubjectKind(kind)][hour] = rolled_at
        return {kind: max(hours) + HOUR for kind, hours in self._hours.items()}

    def _looked(self, kind: SubjectKind, first: datetime, end: datetime | None) -> Iterator[Sample]:
        for hour in self._hours[kind]:
            if hour + HOUR > first:
                yield Sample(max(hour, first), hour + HOUR, GOOD)
        # Not summed up yet: as it is now, which `_present` says where it is not good.
        yield Sample(max(end or first, first, self._now - 2 * HOUR), self._now, GOOD)

    def _endpoints(self) -> dict[str, datetime]:
        rows = Endpoint.objects.watched().exclude(health=None).order_by()
        return dict(rows.values_list("workload__environment").annotate(Min("created_at")))

    def _bad_hours(self) -> Iterator[tuple[str, SubjectKind, Sample]]:
        """The hours in which something was not good. One that is over stays what it was: it is read once and kept."""
        keys = {
            (kind, hour): f"timeline:{kind}:{hour:%Y%m%d%H}:{rolled_at.timestamp()}"
            for kind, hours in self._hours.items()
            for hour, rolled_at in hours.items()
        }
        kept: dict[str, dict[str, str]] = cache.get_many(keys.values())
        if missing := {place for place, key in keys.items() if key not in kept}:
            read = self._read({hour for _, hour in missing})
            new = {keys[place]: read.get(place, {}) for place in missing}
            cache.set_many(new, timeout=int((DAY + 2 * HOUR).total_seconds()))
            kept |= new
        for (kind, hour), key in keys.items():
            if kind == SubjectKind.DATABASE and not self._databases:
                continue  # there are none, or they are not for this person to see
            for environment, state in kept[key].items():
                yield environment, kind, Sample(hour, hour + HOUR, state)

    def _read(self, hours: set[datetime]) -> dict[tuple[SubjectKind, datetime], dict[str, str]]:
        """How bad these hours were in which environment, by kind and hour. Four queries; the same for everybody."""
        rows = HealthHourly.objects.filter(Q(down__gt=0) | Q(degraded__gt=0), hour__in=hours).order_by()
        found = list(rows.values_list("kind", "subject", "hour", "down")[:HOURS])
        asked: dict[str, set[str]] = defaultdict(set)
        for kind, subject, _, _ in found:
            asked[kind].add(subject)
        places: dict[tuple[str, str], str] = {}
        for kind, model, column in (
            (SubjectKind.INSTANCE, Instance, "workload__environment"),
            (SubjectKind.ENDPOINT, Endpoint, "workload__environment"),
            (SubjectKind.DATABASE, Database, "environment"),
        ):
            named = model.objects.filter(pk__in=asked[kind]).order_by().values_list("pk", column)
            places |= {(kind, str(pk)): environment for pk, environment in named}
        worst: dict[tuple[SubjectKind, datetime], dict[str, str]] = defaultdict(dict)
        for kind, subject, hour, down in found:
            if environment := places.get((kind, subject)):
                of_hour = worst[SubjectKind(kind), hour]
                of_hour[environment] = BAD if down or of_hour.get(environment) == BAD else WARNING
        return worst

    def _present(self, ends: dict[SubjectKind, datetime]) -> None:
        """What has not been summed up yet: instances by their samples, the others by the state they are in."""
        edge = max(ends.get(SubjectKind.INSTANCE, self._since), self._now - 2 * HOUR)
        # By an index of places, states and identifiers: these begin with the time, so no good sample is read.
        samples = HealthCheck.objects.filter(
            environment__in=Environment.values, overall_status__in=_SAMPLES, id__gte=ids.timestamped("health", edge)
        )
        found = samples.order_by().values_list("environment", "timestamp", "overall_status").distinct()
        for environment, at, status in found[:HOURS]:
            sample = Sample(at, min(at + timedelta(minutes=1), self._now), _SAMPLES[HealthStatus(status)])
            self._places[environment].lanes[_NAMES[SubjectKind.INSTANCE]].append(sample)
        bad = (
            Endpoint.objects.watched()
            .exclude(health__status=CheckStatus.HEALTHY)
            .filter(health__since__isnull=False)
            .order_by()
            .values_list("workload__environment", "health__status", "health__since")
            .annotate(Count("pk"))
        )
        states = [(*row[:3], SubjectKind.ENDPOINT) for row in bad[:HOURS]]
        for row in self._databases:
            state = getattr(row, "health", None)
            if row.watch and state and state.since and state.status != CheckStatus.HEALTHY:
                states.append((row.environment, state.status, state.since, SubjectKind.DATABASE))
        for environment, status, since, kind in states:
            sample = Sample(since, self._now, STATES[CheckStatus(status)])
            self._places[environment].lanes[_NAMES[kind]].append(sample)


def _first(found: Iterable[tuple[str, datetime]]) -> dict[str, datetime]:
    firsts: dict[str, datetime] = {}
    for environment, at in found:
        firsts[environment] = min(at, firsts.get(environment, at))
    return firsts

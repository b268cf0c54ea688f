"""The tables of raw checks, each described in a few words, so that summing up, deleting and drawing know no table."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

from django.db import models
from django.db.models import Case, F, Value, When

from apps.health import rules
from apps.health.choices import CheckStatus, HealthStatus, SampleSource, SubjectKind
from apps.health.models import DatabaseCheck, EndpointCheck, HealthCheck


@dataclass(frozen=True, slots=True)
class Source:
    """A table of raw checks: what its columns are called, and which words of its status mean what."""

    kind: SubjectKind
    model: type[models.Model]
    subject: str  # the column of the foreign key
    at: str = "at"
    status: str = "status"
    # Words of that status; one in none of the three means that nobody knows.
    healthy: tuple[str, ...] = (CheckStatus.HEALTHY,)
    degraded: tuple[str, ...] = (CheckStatus.DEGRADED,)
    down: tuple[str, ...] = (CheckStatus.FAILED,)
    response: str = "response_time_ms"
    loads: tuple[str, ...] = ()  # CPU and memory, where it has them
    uncounted: Mapping[str, Any] = field(default_factory=dict)  # rows that say nothing of how the subject fared
    # Where a subject belongs, and what alerts and maintenance windows call it.
    service: str = "workload__service__slug"
    environment: str = "workload__environment"
    name: str = "pk"
    key: str = ""

    def rows(self, start: datetime, end: datetime) -> models.QuerySet[Any]:
        """The raw rows of a time span, its end excluded; in no order."""
        span = {f"{self.at}__gte": start, f"{self.at}__lt": end}
        return self.model._default_manager.filter(**span).order_by()

    def counted(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Those of the rows that are summed up."""
        return rows.exclude(**self.uncounted) if self.uncounted else rows

    def figures(self, rows: models.QuerySet[Any]) -> models.QuerySet[Any]:
        """Of each row: subject, status (empty where it does not count), response and loads."""
        word: Any = F(self.status)
        if self.uncounted:
            word = Case(When(**self.uncounted, then=Value("")), default=word)
        return rows.annotate(word=word).values_list(self.subject, "word", self.response, *self.loads)

    def places(self, subjects: Iterable[Any]) -> dict[Any, dict[str, str]]:
        """Of each subject, by primary key: subject, service and environment as maintenance windows know them."""
        model = self.model._meta.get_field(self.subject.removesuffix("_id")).related_model
        columns = ("pk", self.name, self.service, self.environment)
        return {
            pk: {
                "subject": self.key.format(name=name, service=service, environment=environment),
                "service": service,
                "environment": environment,
            }
            for pk, name, service, environment in model._default_manager.filter(pk__in=subjects).values_list(*columns)
        }

    def first(self, start: datetime | None = None) -> datetime | None:
        """The time of the oldest row, or of the oldest one from a moment on."""
        rows = self.model._default_manager.order_by(self.at)
        if start is not None:
            rows = rows.filter(**{f"{self.at}__gte": start})
        found: datetime | None = rows.values_list(self.at, flat=True).first()
        return found

    def hours(self, before: datetime) -> Iterator[datetime]:
        """The hours that have rows, oldest first, as far as they are over by that moment."""
        at = self.first()
        while at is not None and (hour := rules.hour_of(at)) + rules.HOUR <= before:
            yield hour
            at = self.first(hour + rules.HOUR)


def parts(hour: datetime, rows: int, *, at_once: int) -> Iterator[tuple[datetime, datetime]]:
    """An hour that has so many rows, in equal parts of its time that have about as many as may be taken at once."""
    count = -(-rows // at_once)
    edges = [hour + rules.HOUR * part / count for part in range(count + 1)] if count else []
    return pairwise(edges)


SOURCES = (
    Source(
        kind=SubjectKind.INSTANCE,
        model=HealthCheck,
        subject="instance_id",
        at="timestamp",
        status="overall_status",
        healthy=(HealthStatus.HEALTHY,),
        degraded=(HealthStatus.DEGRADED,),
        down=(HealthStatus.UNHEALTHY,),
        loads=("cpu_usage_percent", "memory_usage_percent"),
        uncounted={"source": SampleSource.GATE},  # it looks more often, and just while something is changed
        key="workload:{service}/{environment}",
    ),
    Source(kind=SubjectKind.ENDPOINT, model=EndpointCheck, subject="endpoint_id", key="endpoint:{name}"),
    Source(
        kind=SubjectKind.DATABASE,
        model=DatabaseCheck,
        subject="database_id",
        service="service__slug",
        environment="environment",
        name="name",
        key="database:{name}",
    ),
)

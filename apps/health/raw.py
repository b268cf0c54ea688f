"""The tables of raw checks, each described in a few words, so that summing up, deleting and drawing know no table."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import models

from apps.health import rules
from apps.health.choices import CheckStatus, HealthStatus, SubjectKind
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
    loads: Mapping[str, str] = field(default_factory=dict)  # the hour's column without its ending → the raw one
    # Where a subject belongs, and what alerts and maintenance windows call it.
    service: str = "workload__service__slug"
    environment: str = "workload__environment"
    name: str = "pk"
    key: str = ""

    def rows(self, start: datetime, end: datetime) -> models.QuerySet[Any]:
        """The raw rows of a time span, its end excluded; in no order."""
        span = {f"{self.at}__gte": start, f"{self.at}__lt": end}
        return self.model._default_manager.filter(**span).order_by()

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
        loads={"cpu": "cpu_usage_percent", "memory": "memory_usage_percent"},
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

"""Samples that applications push, and the samples there are."""

from datetime import datetime
from typing import Annotated, Any

from django.utils import timezone
from ninja import Body, Query
from ninja.responses import Status
from pydantic import Discriminator, Field, Tag

from apps.api import bodies
from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.schemas import AskedMoment, EnvironmentName, Filters, Given, Identifier, Moment, Page, Shown, Slug, words
from apps.core.errors import Invalid
from apps.health import rules, services
from apps.health.choices import DependencyStatus, HealthStatus, SampleSource
from apps.health.models import HealthCheck
from apps.inventory.models import DEFAULT_SERVICE

router = Endpoints(tags=["Health"])

Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
BigCount = Annotated[int, Field(ge=0, le=2**53)]
Percent = Annotated[float, Field(ge=0, le=1_000_000)]  # of all limits: a core too many is more than 100
# 10,000 samples with all their fields are some 5 MB.
LIMIT = 8 * bodies.MIB


class Sample(Given):
    """What an application measured of itself. What is left out was not measured and counts against nobody."""

    instance_id: str = Field(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$", description="Container or host")
    service: Slug = DEFAULT_SERVICE
    environment: EnvironmentName
    timestamp: Moment = Field(description="When it was measured: within the last 24 hours")
    response_time_ms: Count
    database_status: words(DependencyStatus) = "unknown"
    database_response_ms: Count | None = None
    redis_status: words(DependencyStatus) = "unknown"
    redis_response_ms: Count | None = None
    memory_usage_mb: Count | None = None
    memory_usage_percent: Percent | None = None
    cpu_usage_percent: Percent | None = None
    uptime_seconds: BigCount | None = None
    version: str | None = Field(None, max_length=64)
    total_requests: BigCount | None = None
    active_connections: Count | None = None
    error_rate_5min: float | None = Field(None, ge=0, le=1)
    deployment_id: str | None = Field(None, min_length=1, max_length=64)
    id: str | None = Field(None, max_length=64, description="Ignored")
    overall_status: str | None = Field(None, max_length=16, description="Ignored: Pulsewatch's own rule decides")
    created_at: str | None = Field(None, max_length=40, description="Ignored")


Many = Annotated[list[Sample], Field(min_length=1, max_length=services.MAX_SAMPLES)]
Samples = Annotated[
    Annotated[Sample, Tag("one")] | Annotated[Many, Tag("many")],
    Discriminator(lambda value: "many" if isinstance(value, list) else "one"),
]


class PushShown(Shown):
    """What became of a push."""

    stored: int
    duplicates: int = Field(description="Samples that were there before, of the same instance and time")
    registered: int = Field(description="Instances that were unknown until now")


class HealthCheckShown(Shown):
    """One sample with its verdict."""

    id: str
    instance_id: str
    environment: str
    timestamp: datetime
    measured_at: datetime
    source: words(SampleSource) = Field(description="`gate`: asked for by a deployment's gate, several times a minute")
    overall_status: words(HealthStatus)
    reasons: list[dict[str, Any]]
    response_time_ms: int
    database_status: words(DependencyStatus)
    database_response_ms: int | None
    redis_status: words(DependencyStatus)
    redis_response_ms: int | None
    memory_usage_mb: int | None
    memory_usage_percent: float | None
    cpu_usage_percent: float | None
    uptime_seconds: int | None
    version: str | None
    total_requests: int | None
    active_connections: int | None
    error_rate_5min: float | None
    deployment_id: str | None
    created_at: datetime


class HealthCheckFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    instance_id: Identifier | None = None
    status: words(HealthStatus) | None = None
    since: AskedMoment | None = Field(None, description="From this time on")
    until: AskedMoment | None = Field(None, description="Before this time")


@router.write("POST", "/health-checks", scope=Scope.HEALTH_WRITE, answers={201: PushShown}, limit=LIMIT)
def push_health_checks(request: ApiRequest, body: Body[Samples]) -> Status[Any]:
    """Store one sample, or up to 10,000 in a list: all of them or, when one is wrong, none.

    Pulsewatch judges them by its own rule. An instance that is unknown is registered by its first sample.
    """
    many = isinstance(body, list)
    pushed = [_pushed(sample) for sample in (body if many else [body])]
    try:
        result = services.push_samples(samples=pushed, actor=actor(request), now=timezone.now())
    except Invalid as error:
        raise Invalid(str(error), field=error.field if many else error.field.removeprefix("[0].")) from error
    return Status(201, result)


@router.read("/health-checks", scope=Scope.HEALTH_READ, answer=Page[HealthCheckShown])
def list_health_checks(request: ApiRequest, given: Query[HealthCheckFilters]) -> Any:
    """Samples, the newest first."""
    columns = {
        "instance__workload__service__slug": given.service,
        "environment": given.environment,
        "instance_id": given.instance_id,
        "overall_status": given.status,
        "timestamp__gte": given.since,
        "timestamp__lt": given.until,
    }
    rows = HealthCheck.objects.filter(**{name: value for name, value in columns.items() if value is not None})
    # Of one instance no two samples have the same time, and its index has them in this order.
    order = [("-timestamp", datetime)] if given.instance_id else [("-timestamp", datetime), ("-id", str)]
    return page(rows, given, noun="health-checks", order=order)


def _pushed(given: Sample) -> services.Pushed:
    return services.Pushed(
        instance=given.instance_id,
        service=given.service,
        environment=given.environment,
        timestamp=given.timestamp,
        response_time_ms=given.response_time_ms,
        database=rules.dependency(given.database_status, given.database_response_ms, slow_ms=rules.DATABASE_SLOW_MS),
        redis=rules.dependency(given.redis_status, given.redis_response_ms, slow_ms=rules.REDIS_SLOW_MS),
        usage=rules.Usage(
            cpu_percent=given.cpu_usage_percent,
            memory_mb=given.memory_usage_mb,
            memory_percent=given.memory_usage_percent,
            uptime_seconds=given.uptime_seconds,
            error_rate=given.error_rate_5min,
        ),
        version=given.version,
        total_requests=given.total_requests,
        active_connections=given.active_connections,
        deployment_id=given.deployment_id,
    )

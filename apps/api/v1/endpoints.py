"""Endpoints: what is watched from outside, how each fares, what became of it; all of them into a file and back."""

from datetime import datetime
from typing import Annotated, Any, Literal

from django.db.models import Q, QuerySet
from django.http import HttpResponse
from ninja import Path, Query
from ninja.responses import Status
from pydantic import BaseModel, Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.refusals import NotFound
from apps.api.schemas import AskedMoment, EnvironmentName, Filters, Given, Page, Shown, Slug, words
from apps.core.choices import Environment
from apps.core.errors import Invalid
from apps.health import trial
from apps.health.choices import CheckStatus, SubjectKind
from apps.health.models import EndpointCheck, HealthHourly
from apps.inventory import exchange, targets
from apps.inventory.choices import HttpMethod
from apps.inventory.models import DEFAULT_SERVICE, Endpoint
from apps.inventory.parsers import MAX_BYTES, MEDIA_TYPES
from apps.inventory.services import ensure_workload

router = Endpoints(tags=["Endpoints"])

RowId = Annotated[int, Field(ge=1, le=2**63 - 1)]
Seconds = Annotated[float, Field(ge=0, le=3600)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Headers = Annotated[
    dict[str, str] | None, Field(max_length=20, description="Kept sealed and never shown; {} removes them")
]
# What the columns are called here and there.
_NAMES = {"path": "endpoint_path", "method": "http_method"}


class Settings(Given):
    """What an endpoint may be told. How each is read: docs/endpoints.md."""

    name: str | None = Field(None, max_length=100, description="Default: method and path")
    expected_status: str | None = Field(None, max_length=100, description="200, 200-299 or 200,301-308")
    body_contains: str | None = Field(None, max_length=300)
    body_json: str | None = Field(None, max_length=300, description='Such as $.status == "ok"')
    request_body: str | None = Field(None, max_length=10_000, description="Shown to everyone: no secrets")
    headers: Headers = None
    timeout_seconds: Seconds | None = None
    interval_seconds: Count | None = None
    slow_ms: Count | None = None
    failures_before_down: Count | None = None
    successes_before_up: Count | None = None
    follow_redirects: bool | None = None
    keep_alive: bool | None = None
    verify_tls: bool | None = None
    certificate_warning_days: Count | None = None
    certificate_critical_days: Count | None = None
    front_end: bool | None = Field(None, description='Answers "front end loading" of the checklists')
    enabled: bool | None = Field(None, description="Off: nobody asks it, its history stays")


class EndpointGiven(Settings):
    """An endpoint to watch. What is left out has its default."""

    service: Slug = DEFAULT_SERVICE
    environment: EnvironmentName
    path: str = Field(max_length=300, description="Behind the workload's base URL; may hold a query")
    method: words(HttpMethod) = "GET"


class EndpointChange(Settings):
    """What is to be changed; what is left out stays."""

    path: str | None = Field(None, max_length=300)
    method: words(HttpMethod) | None = None


class EndpointStateShown(Shown):
    """How it fares now."""

    status: words(CheckStatus)
    since: datetime | None
    last_checked: datetime | None
    response_ms: float | None
    http_status: int | None
    error: str
    consecutive_failures: int
    consecutive_successes: int
    certificate_expires_at: datetime | None


class EndpointShown(Shown):
    """What is asked, and how it fares; `state` is null until the first check."""

    id: int
    service: str
    environment: words(Environment)
    name: str
    method: words(HttpMethod)
    path: str
    url: str = Field(description="Empty while the workload has no base URL; nobody asks it then")
    expected_status: str
    body_contains: str
    body_json: str
    request_body: str
    has_headers: bool
    timeout_seconds: float
    interval_seconds: int
    slow_ms: int
    failures_before_down: int
    successes_before_up: int
    follow_redirects: bool
    keep_alive: bool
    verify_tls: bool
    certificate_warning_days: int
    certificate_critical_days: int
    front_end: bool
    enabled: bool
    created_at: datetime
    updated_at: datetime
    state: EndpointStateShown | None


class EndpointCheckShown(Shown):
    """One check; kept for 24 hours."""

    at: datetime
    status: words(CheckStatus)
    response_time_ms: float | None
    http_status: int | None
    error: str


class EndpointTrialShown(Shown):
    """What one check at once showed; nothing of it is stored."""

    status: words(CheckStatus)
    reason: str = Field(description="Why it is not healthy")
    response_ms: float | None
    http_status: int | None
    certificate_expires_at: datetime | None


class HourShown(Shown):
    """What the checks of one hour came to; kept for 90 days."""

    hour: datetime = Field(description="Its start")
    checks: int
    healthy: int
    degraded: int
    down: int
    unknown: int
    maintenance: int = Field(description="Failed while a maintenance window was open")
    uptime: float | None
    response_mean_ms: float | None
    response_p95_ms: float | None
    response_max_ms: float | None


class EndpointFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    status: words(CheckStatus) | None = None
    enabled: bool | None = None
    front_end: bool | None = None


class HistoryFilters(Filters):
    since: AskedMoment | None = Field(None, description="From this time on")
    until: AskedMoment | None = Field(None, description="Before this time")


class CheckFilters(HistoryFilters):
    status: words(CheckStatus) | None = None


class ExportQuery(BaseModel):
    format: Literal["csv", "yaml"] = "csv"
    service: Slug | None = None
    environment: EnvironmentName | None = None


class ImportQuery(BaseModel):
    dry_run: bool = Field(False, description="Say what would be done, and do nothing")


class ImportedShown(Shown):
    """What an import did, or would do."""

    created: int
    changed: int
    unchanged: int
    workloads: list[str] = Field(description="Added for it")
    unwatched: list[str] = Field(description="Workloads without a base URL: their endpoints are not asked yet")
    dry_run: bool


@router.read("/endpoints", scope=Scope.INVENTORY_READ, answer=Page[EndpointShown])
def list_endpoints(request: ApiRequest, given: Query[EndpointFilters]) -> Any:
    """Endpoints with how they fare, in the order they were added."""
    columns = {
        "workload__service__slug": given.service,
        "workload__environment": given.environment,
        "enabled": given.enabled,
        "front_end": given.front_end,
    }
    rows = _rows().filter(**{name: value for name, value in columns.items() if value is not None})
    if given.status is not None:
        unseen = Q(health=None) if given.status == CheckStatus.UNKNOWN else Q()
        rows = rows.filter(Q(health__status=given.status) | unseen)
    found = page(rows, given, noun="endpoints", order=(("id", int),))
    return found | {"items": [_shown(row) for row in found["items"]]}


@router.write("POST", "/endpoints", scope=Scope.INVENTORY_WRITE, answers={201: EndpointShown})
def add_endpoint(request: ApiRequest, body: EndpointGiven) -> Status[Any]:
    """Watch an endpoint. Its workload is added when it is missing; without a base URL there, nobody asks it."""
    workload = ensure_workload(service=body.service, environment=body.environment, actor=actor(request))
    row = _save(request, Endpoint(workload=workload), body)
    return Status(201, _shown(row))


@router.read("/endpoints/export", scope=Scope.INVENTORY_READ, answer=None, types=tuple(MEDIA_TYPES))
def export_endpoints(request: ApiRequest, given: Query[ExportQuery]) -> Any:
    """All endpoints as a file that `import` takes back. Of headers it says only that there are some."""
    place = {"workload__service__slug": given.service, "workload__environment": given.environment}
    rows = Endpoint.objects.filter(**{name: value for name, value in place.items() if value is not None})
    kind = next(media for media, name in MEDIA_TYPES.items() if name == given.format)
    return HttpResponse(
        exchange.export_endpoints(kind=given.format, endpoints=rows),
        content_type=f"{kind}; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="endpoints.{given.format}"'},
    )


@router.write(
    "POST",
    "/endpoints/import",
    scope=Scope.INVENTORY_WRITE,
    answers={200: ImportedShown},
    limit=MAX_BYTES,
    types=tuple(MEDIA_TYPES),
)
def import_endpoints(request: ApiRequest, given: Query[ImportQuery]) -> Any:
    """Add and change the endpoints of a file: all of it or, when a row is wrong, nothing. 422 names up to 20 rows."""
    media = request.META["CONTENT_TYPE"].partition(";")[0].strip().lower()
    return exchange.import_endpoints(
        content=request.upload.read(), kind=MEDIA_TYPES[media], actor=actor(request), dry_run=given.dry_run
    )


@router.read("/endpoints/{endpoint_id}", scope=Scope.INVENTORY_READ, answer=EndpointShown)
def get_endpoint(request: ApiRequest, endpoint_id: Path[RowId]) -> Any:
    """One endpoint with how it fares."""
    return _shown(_endpoint(endpoint_id))


@router.write("PATCH", "/endpoints/{endpoint_id}", scope=Scope.INVENTORY_WRITE, answers={200: EndpointShown})
def change_endpoint(request: ApiRequest, endpoint_id: Path[RowId], body: EndpointChange) -> Any:
    """Change an endpoint, or switch it off with `enabled`. Its service and environment stay."""
    return _shown(_save(request, _endpoint(endpoint_id), body))


@router.write("DELETE", "/endpoints/{endpoint_id}", scope=Scope.INVENTORY_WRITE, answers={200: EndpointShown})
def remove_endpoint(request: ApiRequest, endpoint_id: Path[RowId]) -> Any:
    """Watch it no longer and forget its checks; the answer is what it was. To keep them, switch it off instead."""
    row = _endpoint(endpoint_id)
    shown = _shown(row)
    targets.remove_endpoint(endpoint=row, actor=actor(request))
    return shown


@router.write(
    "POST",
    "/endpoints/{endpoint_id}/check",
    scope=Scope.HEALTH_WRITE,
    answers={200: EndpointTrialShown},
    keyed=False,
)
def check_endpoint(request: ApiRequest, endpoint_id: Path[RowId]) -> Any:
    """Ask it now, for at most 15 s, and tell what came back. Its state and history stay as they are."""
    return trial.try_endpoint(endpoint=_endpoint(endpoint_id), actor=actor(request))


@router.read("/endpoints/{endpoint_id}/checks", scope=Scope.HEALTH_READ, answer=Page[EndpointCheckShown])
def list_endpoint_checks(request: ApiRequest, endpoint_id: Path[RowId], given: Query[CheckFilters]) -> Any:
    """Every check of the last 24 hours, the newest first."""
    columns = {"status": given.status, "at__gte": given.since, "at__lt": given.until}
    rows = EndpointCheck.objects.filter(
        endpoint=_endpoint(endpoint_id), **{name: value for name, value in columns.items() if value is not None}
    )
    return page(rows, given, noun="endpoint-checks", order=[("-at", datetime)])


@router.read("/endpoints/{endpoint_id}/hours", scope=Scope.HEALTH_READ, answer=Page[HourShown])
def list_endpoint_hours(request: ApiRequest, endpoint_id: Path[RowId], given: Query[HistoryFilters]) -> Any:
    """What the checks of each hour came to, up to 90 days back, the newest first."""
    return hours(SubjectKind.ENDPOINT, _endpoint(endpoint_id).pk, given)


def hours(kind: SubjectKind, key: int, given: HistoryFilters) -> dict[str, Any]:
    """A page of a target's hours."""
    columns = {"hour__gte": given.since, "hour__lt": given.until}
    rows = HealthHourly.objects.filter(
        kind=kind, subject=str(key), **{name: value for name, value in columns.items() if value is not None}
    )
    return page(rows, given, noun=f"{kind}-hours", order=(("-hour", datetime), ("-id", int)))


def _rows() -> QuerySet[Endpoint]:
    return Endpoint.objects.select_related("workload__service", "health")


def _endpoint(endpoint_id: int) -> Endpoint:
    row = _rows().filter(pk=endpoint_id).first()
    if row is None:
        raise NotFound("endpoint")
    return row


def _save(request: ApiRequest, row: Endpoint, body: Settings) -> Endpoint:
    """Give a row what the body says. What validation names by its column is named as it was sent."""
    told = body.model_dump(exclude_unset=True, exclude={"service", "environment", "headers"})
    for name, value in told.items():
        if value is None:
            raise Invalid("Leave it out rather than null: then it stays as it is.", field=name)
        setattr(row, _NAMES.get(name, name), value)
    try:
        saved = targets.save_endpoint(endpoint=row, actor=actor(request), headers=body.headers)
    except Invalid as error:
        sent = {column: name for name, column in _NAMES.items()}
        raise Invalid(str(error), field=sent.get(error.field, error.field)) from error
    return _endpoint(saved.pk)


def _shown(row: Endpoint) -> dict[str, Any]:
    elsewhere = {
        "service": row.workload.service.slug,
        "environment": row.workload.environment,
        "method": row.http_method,
        "path": row.endpoint_path,
        "has_headers": bool(row.headers_sealed),
        "state": _state(row),
    }
    own = {name: getattr(row, name) for name in EndpointShown.model_fields if name not in elsewhere}
    return own | elsewhere


def _state(row: Endpoint) -> dict[str, Any] | None:
    state = getattr(row, "health", None)
    if state is None:
        return None
    elsewhere = {
        "response_ms": state.response_time,
        "http_status": state.actual_status,
        "error": state.error_message,
        "certificate_expires_at": state.tls_expires_at,
    }
    own = {name: getattr(state, name) for name in EndpointStateShown.model_fields if name not in elsewhere}
    return own | elsewhere

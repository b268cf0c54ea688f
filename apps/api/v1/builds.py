"""Builds and what tools find wrong in them, as CI reports both."""

from datetime import datetime
from typing import Annotated, Any, Literal

from ninja import Path, Query
from ninja.responses import Status
from pydantic import BaseModel, Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.refusals import NotFound
from apps.api.schemas import EnvironmentName, Filters, Given, Identifier, Page, Shown, Slug, words
from apps.builds import services
from apps.builds.choices import BuildStatus, Category, DiagnosticStatus, Level, ReportFormat, Severity
from apps.builds.models import MAX_NOTES, OPEN_BUILD, Build, Diagnostic, DiagnosticReport
from apps.builds.parsers.base import MAX_BYTES
from apps.core.choices import Environment
from apps.core.errors import Invalid
from apps.inventory.models import DEFAULT_SERVICE, Service

router = Endpoints(tags=["Builds"])

REPORT_TYPES = ("text/plain", "application/json", "application/sarif+json", "application/octet-stream")
Version = Annotated[str, Field(min_length=1, max_length=64)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class BuildFacts(Given):
    """What may be told of a build at any time."""

    commit_sha: str | None = Field(None, pattern=r"^[0-9a-fA-F]{7,40}$", description="7 to 40 hexadecimal digits")
    run_url: str | None = Field(None, min_length=1, max_length=300, description="Where the CI job shows its log")
    node_version: Version | None = None
    typescript_version: Version | None = None
    astro_version: Version | None = None
    build_command: str | None = Field(None, max_length=500)
    build_time: float | None = Field(None, gt=0, le=2_592_000, description="Seconds; measured here unless told")
    bundle_size: int | None = Field(None, ge=0, le=2**53, description="Bytes")
    error_count: Count | None = None
    warning_count: Count | None = None
    error_log: str | None = Field(None, max_length=1_000_000, description="Its last 64 KiB are kept, without secrets")


class BuildGiven(BuildFacts):
    """A build that begins, or one that is over already."""

    service: Slug = DEFAULT_SERVICE
    environment: EnvironmentName
    branch: str | None = Field(None, min_length=1, max_length=200)
    status: words(BuildStatus) = "building"


class BuildChange(BuildFacts):
    """What has become of a build."""

    status: words(BuildStatus) | None = None


class BuildShown(Shown):
    """One attempt to build a service."""

    id: str
    service: str
    environment: words(Environment)
    branch: str
    commit_sha: str
    run_url: str
    node_version: str | None
    typescript_version: str | None
    astro_version: str | None
    build_command: str
    status: words(BuildStatus)
    build_time: float | None
    bundle_size: int | None
    error_count: int
    warning_count: int
    error_log: str | None
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    updated_at: datetime


class BuildFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    branch: str | None = Field(None, max_length=200)
    status: words(BuildStatus) | None = None
    commit_sha: str | None = Field(None, max_length=40)


class ReportQuery(BaseModel):
    tool: words(ReportFormat) = Field(description="How the report is written: what tsc prints, or SARIF 2.1.0")
    complete: bool = Field(False, description="It is all the tool has to say: what it no longer shows is resolved")
    root: str = Field("", max_length=1000, description="Where the checkout lay, such as /home/runner/work/app")
    folder: str = Field("", max_length=1000, description="Where relative paths start, if not at the root")


class ReportShown(Shown):
    """What one tool reported, and what that changed."""

    tool: str
    complete: bool
    doubts: list[str] = Field(description="Why it was not taken for complete")
    outdated: bool = Field(description="A newer build had reported: no diagnostic was changed")
    errors: int
    warnings: int
    notes: int
    suppressed: int
    added: int
    carried: int
    reopened: int
    resolved: int
    received_at: datetime


class ReportsShown(BaseModel):
    reports: list[ReportShown] = Field(description="One for each tool in the report")


class DiagnosticShown(Shown):
    """What a tool finds wrong at one place of the source."""

    id: str
    service: str
    environment: words(Environment)
    branch: str
    tool: str
    file_path: str
    line_number: int | None
    column_number: int | None
    error_code: str
    error_message: str
    level: words(Level)
    category: words(Category)
    severity: words(Severity)
    status: words(DiagnosticStatus)
    resolution_notes: str | None
    first_build_id: str
    last_build_id: str
    created_at: datetime
    resolved_at: datetime | None
    updated_at: datetime


class DiagnosticFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    branch: str | None = Field(None, max_length=200)
    tool: str | None = Field(None, max_length=64, description="Such as tsc or eslint")
    status: words(DiagnosticStatus) | None = None
    severity: words(Severity) | None = None
    category: words(Category) | None = None
    build_id: Identifier | None = Field(None, description="The newest build that shows it")
    order: Literal["newest", "worst"] = Field(
        "newest", description="`worst`: by severity, of one severity what has been there longest first"
    )


class DiagnosticChange(Given):
    """What a person has decided."""

    status: words(DiagnosticStatus)
    resolution_notes: str = Field("", max_length=MAX_NOTES)


@router.write("POST", "/builds", scope=Scope.BUILDS_WRITE, answers={201: BuildShown})
def create_build(request: ApiRequest, body: BuildGiven) -> Status[Any]:
    """Report that a build begins, or one that is over. The figures of a build come when it is over."""
    service = Service.objects.filter(slug=body.service).first()
    if service is None:
        raise Invalid("There is no service of this name: add it in the console first.", field="service")
    told = body.model_dump(exclude={"service", "environment", "status"}, exclude_none=True)
    verb = services.start_build if body.status in OPEN_BUILD else services.report_build
    if verb is services.start_build and (early := sorted(set(told) & set(services.FIGURES))):
        raise Invalid("A build that is not over has no figures yet: give them with its end.", field=early[0])
    row = verb(service=service, environment=body.environment, actor=actor(request), status=body.status, **told)
    return Status(201, _shown(row))


@router.write("PATCH", "/builds/{build_id}", scope=Scope.BUILDS_WRITE, answers={200: BuildShown})
def change_build(request: ApiRequest, build_id: Path[Identifier], body: BuildChange) -> Any:
    """Tell what has become of a build. 409, with `legal`, for a status it cannot take from where it is."""
    told = body.model_dump(exclude={"status"}, exclude_none=True)
    return _shown(services.change_build(build=_build(build_id), actor=actor(request), status=body.status, **told))


@router.read("/builds", scope=Scope.BUILDS_READ, answer=Page[BuildShown])
def list_builds(request: ApiRequest, given: Query[BuildFilters]) -> Any:
    """Builds, the newest first."""
    columns = {
        "service__slug": given.service,
        "environment": given.environment,
        "branch": given.branch,
        "build_status": given.status,
        "commit_sha": given.commit_sha and given.commit_sha.lower(),
    }
    rows = Build.objects.prefetch_related("service").filter(
        **{name: value for name, value in columns.items() if value is not None}
    )
    found = page(rows, given, noun="builds", order=(("-created_at", datetime), ("-id", str)))
    return found | {"items": [_shown(row) for row in found["items"]]}


@router.read("/builds/{build_id}", scope=Scope.BUILDS_READ, answer=BuildShown)
def get_build(request: ApiRequest, build_id: Path[Identifier]) -> Any:
    """One build."""
    return _shown(_build(build_id))


@router.write(
    "POST",
    "/builds/{build_id}/diagnostics",
    scope=Scope.BUILDS_WRITE,
    answers={201: ReportsShown},
    limit=MAX_BYTES,
    types=REPORT_TYPES,
    repeatable=True,
)
def report_diagnostics(request: ApiRequest, build_id: Path[Identifier], given: Query[ReportQuery]) -> Status[Any]:
    """Send what a tool printed, as it is, up to 32 MiB. The same report again changes nothing."""
    try:
        rows = services.report_diagnostics(
            build=_build(build_id),
            actor=actor(request),
            report_format=given.tool,
            content=request.upload,
            root=given.root,
            folder=given.folder,
            complete=given.complete,
        )
    except Invalid as error:
        raise Invalid(str(error), field=error.field.replace("report", "body")) from error
    return Status(201, {"reports": [_report(row) for row in rows]})


@router.read("/diagnostics", scope=Scope.BUILDS_READ, answer=Page[DiagnosticShown])
def list_diagnostics(request: ApiRequest, given: Query[DiagnosticFilters]) -> Any:
    """Diagnostics, those that were seen first most recently before the others, or the worst before the others."""
    columns = {
        "service__slug": given.service,
        "environment": given.environment,
        "source__branch": given.branch,
        "source__tool": given.tool,
        "status": given.status,
        # Which says the same, and has an index in the order of both lists.
        "severity_rank": given.severity and Severity.values.index(given.severity),
        "category": given.category,
        "last_build_id": given.build_id,
    }
    rows = Diagnostic.objects.prefetch_related("service", "source").filter(
        **{name: value for name, value in columns.items() if value is not None}
    )
    if given.order == "worst":
        found = page(rows, given, noun="worst diagnostics", order=(("severity_rank", int), ("id", str)))
    else:  # identifiers begin with the time
        found = page(rows, given, noun="diagnostics", order=(("-id", str),))
    return found | {"items": [_diagnostic_shown(row) for row in found["items"]]}


@router.read("/diagnostics/{diagnostic_id}", scope=Scope.BUILDS_READ, answer=DiagnosticShown)
def get_diagnostic(request: ApiRequest, diagnostic_id: Path[Identifier]) -> Any:
    """One diagnostic."""
    return _diagnostic_shown(_diagnostic(diagnostic_id))


@router.write("PATCH", "/diagnostics/{diagnostic_id}", scope=Scope.BUILDS_WRITE, answers={200: DiagnosticShown})
def move_diagnostic(request: ApiRequest, diagnostic_id: Path[Identifier], body: DiagnosticChange) -> Any:
    """Take a diagnostic into work, defer it, or call it resolved. 409, with `legal`, for any other move."""
    row = services.move_diagnostic(
        diagnostic=_diagnostic(diagnostic_id), status=body.status, notes=body.resolution_notes, actor=actor(request)
    )
    return _diagnostic_shown(row)


def _build(build_id: str) -> Build:
    row = Build.objects.select_related("service").filter(pk=build_id).first()
    if row is None:
        raise NotFound("build")
    return row


def _diagnostic(diagnostic_id: str) -> Diagnostic:
    row = Diagnostic.objects.select_related("service", "source").filter(pk=diagnostic_id).first()
    if row is None:
        raise NotFound("diagnostic")
    return row


def _shown(row: Build) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in BuildShown.model_fields if name not in ("service", "status")}
    return own | {"service": row.service.slug, "status": row.build_status}


def _report(row: DiagnosticReport) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in ReportShown.model_fields if name != "tool"}
    return own | {"tool": row.source.tool}


def _diagnostic_shown(row: Diagnostic) -> dict[str, Any]:
    elsewhere = {"service": row.service.slug, "branch": row.source.branch, "tool": row.source.tool}
    own = {name: getattr(row, name) for name in DiagnosticShown.model_fields if name not in elsewhere}
    return own | elsewhere

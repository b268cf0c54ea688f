"""Deployments: CI starts them, tells their end, reports what it checked; anybody may ask how they went."""

from datetime import datetime
from typing import Annotated, Any, Literal

from ninja import Path, Query
from ninja.responses import Status
from pydantic import Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import Indexes, search
from apps.api.refusals import NotFound
from apps.api.schemas import (
    AskedMoment,
    EnvironmentName,
    Filters,
    Given,
    Identifier,
    Moment,
    Name,
    Page,
    Shown,
    Slug,
    words,
)
from apps.api.v1.services import place
from apps.builds.models import Build
from apps.core import ids
from apps.core.choices import Environment
from apps.core.errors import Invalid
from apps.core.models import MAX_REASON
from apps.deployments import checks, preparation, services
from apps.deployments.choices import (
    ChecklistPhase,
    DeploymentKind,
    DeploymentStatus,
    GateVerdict,
    ItemState,
    StepKind,
    ValidationStatus,
)
from apps.deployments.models import Deployment
from apps.deployments.rules import checklist, transitions, variables
from apps.inventory.models import DEFAULT_SERVICE

router = Endpoints(tags=["Deployments"])

StatusWord = Annotated[str, Field(max_length=16, description="Also deploying for in_progress, success for completed")]
StatusFilter = Literal[(*DeploymentStatus.values, *transitions.ALIASES)]
Person = Annotated[Name, Field(min_length=1, max_length=150)]
Reason = Annotated[str, Field(max_length=MAX_REASON)]
Url = Annotated[str, Field(min_length=1, max_length=500)]


class VariableGiven(Given):
    """One environment variable. Of a sensitive one send is_set, length and matches, never the value."""

    key: str = Field(min_length=1, max_length=variables.MAX_KEY)
    value: str | None = Field(None, max_length=10_000, description="Judged and dropped; refused for a sensitive one")
    is_set: bool | None = None
    length: int | None = Field(None, ge=0, le=1_000_000)
    matches: bool | None = Field(None, description="Whether the value matches the pattern of its rule")
    is_sensitive: bool | None = None


Variables = Annotated[list[VariableGiven], Field(max_length=variables.MAX_VARIABLES)]


class DeploymentFacts(Given):
    """What CI may tell at the start and add at the end."""

    migration_applied: bool | None = None
    migration_version: str | None = Field(None, max_length=255)
    instances_deployed: int | None = Field(None, ge=0, le=2**31 - 1)
    github_run_id: str | None = Field(None, min_length=1, max_length=64)
    github_run_attempt: int | None = Field(None, ge=1, le=transitions.MAX_ATTEMPT, description="1 for the first")
    deployment_log_url: Url | None = None
    deployment_url: Url | None = None
    health_check_url: Url | None = None


class DeploymentGiven(DeploymentFacts):
    """A deployment that begins or, with status queued, waits."""

    service: Slug = DEFAULT_SERVICE
    environment: EnvironmentName
    version: str = Field(min_length=1, max_length=64, description="v1.2.3, 1.2.3-rc.1, or a commit")
    commit_sha: str = Field(min_length=7, max_length=40, pattern="^[0-9a-fA-F]+$")
    commit_message: str = Field("", description="Its first 500 characters are kept")
    build_id: Identifier | None = Field(None, description="The build that goes out; only a successful one may")
    committed_at: Moment | None = Field(None, description="When the commit was made: lead time counts from here")
    triggered_by: Person | None = Field(None, description="Default: the token's name")
    status: StatusWord = "in_progress"
    deployment_platform: str | None = Field(None, max_length=50)
    domain: str | None = Field(None, max_length=253)
    checklist: dict[str, str] = Field({}, max_length=50, description='Such as {"migrations_run": "passed"}')
    environment_variables: Variables = []
    backup: bool = Field(False, description="Take a backup first; with status queued only")
    override_reason: Reason = Field("", description="Start in spite of what blocks")


class DeploymentChange(DeploymentFacts):
    """What has become of a deployment."""

    status: StatusWord
    error_message: str = Field("", max_length=100_000)
    override_reason: Reason = Field("", description="Begin a queued one in spite of what blocks")


class RollbackGiven(Given):
    reason: Reason


class ChecklistGiven(Given):
    """What CI has checked."""

    reported: dict[str, str] = Field(min_length=1, max_length=50, description='Such as {"images_tested": "passed"}')


class TickGiven(Given):
    """A manual item, and who has looked at it."""

    done: bool
    person: Person = Field(max_length=100, description="Who has looked")
    note: str = Field("", max_length=300)


class OverrideGiven(Given):
    """Items that shall block no more, and why."""

    items: list[str] = Field(min_length=1, max_length=50)
    reason: Reason


class VariablesGiven(Given):
    environment_variables: Variables


class DeploymentShown(Shown):
    """A version going out to a workload, or a former one coming back."""

    id: str
    service: str
    environment: words(Environment)
    kind: words(DeploymentKind)
    version: str
    status: words(DeploymentStatus)
    triggered_by: str
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: int | None
    github_run_id: str | None
    github_run_attempt: int | None
    commit_sha: str
    commit_message: str
    build_id: str | None
    committed_at: datetime | None
    migration_applied: bool
    migration_version: str | None
    health_check_passed: bool
    rollback_reason: str | None
    error_message: str | None
    deployment_log_url: str | None
    instances_deployed: int
    deployment_platform: str
    domain: str
    deployment_url: str | None
    health_check_url: str | None
    undoes_id: str | None = Field(description="The deployment a rollback undoes")
    returns_to_id: str | None = Field(description="The deployment whose version a rollback brings back")
    rolled_back_by_id: str | None
    override_reason: str
    observed: bool = Field(description="Told after the fact by a webhook")
    conflict: str
    archived: bool
    created_at: datetime
    updated_at: datetime


class StepShown(Shown):
    at: datetime
    claimed_at: datetime | None
    kind: words(StepKind)
    text: str
    by: str


class GateShown(Shown):
    """What the look at the instances after the deployment showed."""

    verdict: words(GateVerdict) | None
    started_at: datetime
    decided_at: datetime | None
    looks: int
    samples: int = Field(description="Healthy ones wanted in a row from each instance")
    window_seconds: int
    reasons: list[str]
    evidence: dict[str, Any]


class ItemShown(Shown):
    """Where one item of the checklist stands; of one that is open nobody has said anything yet."""

    key: str
    title: str
    phase: words(ChecklistPhase)
    blocking: bool = Field(description="While it has failed it refuses, unless overridden")
    state: words(ItemState) = ItemState.OPEN.value
    detail: str = ""
    by: str = ""
    at: datetime | None = None
    overridden_by: str = ""
    override_reason: str = ""


class VariableShown(Shown):
    key: str
    is_set: bool
    is_sensitive: bool
    validation_status: words(ValidationStatus)
    reason: str


class DeploymentDetail(DeploymentShown):
    """One deployment with all that is known of it."""

    rollback_available: bool
    gate: GateShown | None
    steps: list[StepShown]
    checklist: list[ItemShown]
    environment_variables: list[VariableShown]


class VariablesShown(Shown):
    environment_variables: list[VariableShown]


class DeploymentFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    status: StatusFilter | None = Field(None, description="Also deploying for in_progress, success for completed")
    kind: words(DeploymentKind) | None = None
    version: str | None = Field(None, max_length=64)
    commit_sha: str | None = Field(None, max_length=40)
    triggered_by: str | None = Field(None, max_length=150)
    archived: bool | None = None
    since: AskedMoment | None = Field(None, description="Begun from this second on")
    until: AskedMoment | None = Field(None, description="Begun before this second")


INDEXES = Indexes(
    (
        *(("commit_sha",), ("version",), ("workload_id", "status"), ("workload_id", "kind"), ("service_id", "status")),
        *(("workload_id",), ("service_id",), ("environment", "kind"), ("environment", "status"), ("kind",)),
        *(("triggered_by",), ("status",), ("environment",), ("archived",)),
    ),
    common={"status": DeploymentStatus.COMPLETED, "kind": DeploymentKind.DEPLOYMENT},
)


@router.write("POST", "/deployments", scope=Scope.DEPLOYMENTS_WRITE, answers={201: DeploymentShown})
def start_deployment(request: ApiRequest, body: DeploymentGiven) -> Status[Any]:
    """Tell that a deployment begins. It takes the workload's change lock: a second one is 409, with who holds it.

    A blocking item of the checklist that has failed is 409 too, and so is a version that has failed here before,
    unless `override_reason` says why.
    """
    told = body.model_dump(
        exclude={"checklist", "environment_variables", "triggered_by", "build_id"},
        exclude_none=True,
    )
    try:
        row = services.start_deployment(
            actor=actor(request),
            triggered_by=body.triggered_by or request.token.name,
            build=_build(body.build_id),
            reported=body.checklist,
            environment_variables=_reports(body.environment_variables),
            **told,
        )
    except Invalid as error:
        raise Invalid(str(error), field="build_id" if error.field == "build" else error.field) from error
    return Status(201, _shown(row))


@router.write(
    "PATCH",
    "/deployments/{deployment_id}",
    scope=Scope.DEPLOYMENTS_WRITE,
    answers={200: DeploymentShown, 202: DeploymentShown},
)
def change_deployment(request: ApiRequest, deployment_id: Path[Identifier], body: DeploymentChange) -> Status[Any]:
    """Tell what has become of a deployment. `completed` starts the gate: 202, and in_progress until its verdict.

    What it is already may be said again: 200, and only facts that come with it are kept, while it is open.
    A status it cannot take from where it is: 409, with the `legal` ones.
    """
    row = services.report(
        deployment=_deployment(deployment_id), actor=actor(request), **body.model_dump(exclude_none=True)
    )
    gate_runs = transitions.status_of(body.status) == DeploymentStatus.COMPLETED and row.is_open
    return Status(202 if gate_runs else 200, _shown(row))


@router.write(
    "POST", "/deployments/{deployment_id}/rollback", scope=Scope.DEPLOYMENTS_WRITE, answers={201: DeploymentShown}
)
def roll_back(request: ApiRequest, deployment_id: Path[Identifier], body: RollbackGiven) -> Status[Any]:
    """Bring back what ran before. The answer is the record of the rollback, which waits for a worker."""
    row = services.rollback(deployment=_deployment(deployment_id), reason=body.reason, actor=actor(request))
    return Status(201, _shown(row))


@router.write(
    "POST", "/deployments/{deployment_id}/checklist", scope=Scope.DEPLOYMENTS_WRITE, answers={200: DeploymentDetail}
)
def report_checklist(request: ApiRequest, deployment_id: Path[Identifier], body: ChecklistGiven) -> Any:
    """Say how items went that CI checks: passed, failed or not_applicable."""
    row = preparation.report_items(deployment=_deployment(deployment_id), reported=body.reported, actor=actor(request))
    return _detail(row.pk)


@router.write(
    "POST",
    "/deployments/{deployment_id}/checklist/{key}/tick",
    scope=Scope.DEPLOYMENTS_WRITE,
    answers={200: DeploymentDetail},
)
def tick_item(request: ApiRequest, deployment_id: Path[Identifier], key: Path[Identifier], body: TickGiven) -> Any:
    """Say that a named person has looked at a manual item, or take that back."""
    note = f"{body.person}: {body.note}".removesuffix(": ")
    row = preparation.tick(
        deployment=_deployment(deployment_id), key=key, done=body.done, note=note, actor=actor(request)
    )
    return _detail(row.pk)


@router.write(
    "POST",
    "/deployments/{deployment_id}/checklist/override",
    scope=Scope.DEPLOYMENTS_WRITE,
    answers={200: DeploymentDetail},
)
def override_items(request: ApiRequest, deployment_id: Path[Identifier], body: OverrideGiven) -> Any:
    """Let items block no more. The reason is kept and shown."""
    row = preparation.override(
        deployment=_deployment(deployment_id), keys=body.items, reason=body.reason, actor=actor(request)
    )
    return _detail(row.pk)


@router.write(
    "POST",
    "/deployments/{deployment_id}/environment-variables",
    scope=Scope.DEPLOYMENTS_WRITE,
    answers={200: VariablesShown},
)
def report_variables(request: ApiRequest, deployment_id: Path[Identifier], body: VariablesGiven) -> Any:
    """Have environment variables judged by the service's rules. No value is stored."""
    rows = preparation.report_variables(
        deployment=_deployment(deployment_id), reports=_reports(body.environment_variables), actor=actor(request)
    )
    return {"environment_variables": rows}


@router.read("/deployments", scope=Scope.DEPLOYMENTS_READ, answer=Page[DeploymentShown])
def list_deployments(request: ApiRequest, given: Query[DeploymentFilters]) -> Any:
    """Deployments, the newest first."""
    filters = {
        "status": given.status and transitions.status_of(given.status),
        "kind": given.kind,
        "version": given.version,
        "commit_sha": given.commit_sha and given.commit_sha.lower(),
        "triggered_by": given.triggered_by,
        "archived": given.archived,
        # Identifiers begin with the second in which their deployment began, and every index ends with them.
        "id__gte": given.since and ids.timestamped("deploy", given.since),
        "id__lt": given.until and ids.timestamped("deploy", given.until),
        **place(given.service, given.environment),
        **_archived(given),
    }
    rows = Deployment.objects.prefetch_related("service")
    found = search(rows, given, noun="deployments", order=(("-id", str),), filters=filters, indexes=INDEXES)
    return found | {"items": [_shown(row) for row in found["items"]]}


@router.read("/deployments/{deployment_id}", scope=Scope.DEPLOYMENTS_READ, answer=DeploymentDetail)
def get_deployment(request: ApiRequest, deployment_id: Path[Identifier]) -> Any:
    """One deployment with its steps, checklist, environment variables and the gate's evidence."""
    return _detail(deployment_id)


def _archived(given: DeploymentFilters) -> dict[str, Any]:
    """Where those begin that are archived, or those end that are not: the search need not come past the others."""
    if given.archived is None:
        return {}
    keys = Deployment.objects.filter(archived=given.archived).values_list("pk", flat=True)
    end = keys.order_by("-pk" if given.archived else "pk").first()
    if end is None:
        return {"id__in": ()}
    return {"id__range": ("", end) if given.archived else (end, "z")}


def _build(build_id: str | None) -> Build | None:
    if build_id is None:
        return None
    row = Build.objects.filter(pk=build_id).first()
    if row is None:
        raise Invalid("There is no such build.", field="build_id")
    return row


def _reports(given: list[VariableGiven]) -> list[variables.Report]:
    return [variables.Report(**one.model_dump()) for one in given]


def _deployment(deployment_id: str) -> Deployment:
    row = Deployment.objects.select_related("service").filter(pk=deployment_id).first()
    if row is None:
        raise NotFound("deployment")
    return row


def _shown(row: Deployment) -> dict[str, Any]:
    return {name: getattr(row, name) for name in DeploymentShown.model_fields} | {"service": row.service.slug}


def _detail(deployment_id: str) -> dict[str, Any]:
    rows = Deployment.objects.with_rollback_available().select_related("service", "workload", "gate")
    row = rows.filter(pk=deployment_id).first()
    if row is None:
        raise NotFound("deployment")
    return _shown(row) | {
        "rollback_available": row.rollback_available,
        "gate": getattr(row, "gate", None),
        "steps": list(row.steps.all()),
        "checklist": _checklist(row),
        "environment_variables": list(row.environment_variables.order_by("key")),
    }


def _checklist(row: Deployment) -> list[dict[str, Any]]:
    """Every item, in its order, with what is known of it."""
    known = {item.key: item for item in row.checklist_items.all()}
    told = ("state", "detail", "by", "at", "overridden_by", "override_reason")
    also = checks.demanded(row.workload)
    return [
        {
            "key": item.key,
            "title": item.title,
            "phase": item.phase,
            "blocking": item.blocking or item.key in also,
            **({name: getattr(known[item.key], name) for name in told} if item.key in known else {}),
        }
        for item in checklist.ITEMS.values()
    ]

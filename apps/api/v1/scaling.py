"""Scaling: policies and what they would have done, what they decided, what was changed, and changes by hand."""

from datetime import datetime
from typing import Annotated, Any

from django.utils import timezone
from ninja import Path, Query
from ninja.responses import Status
from pydantic import Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import Indexes, page, search
from apps.api.refusals import NotFound
from apps.api.schemas import AskedMoment, EnvironmentName, Filters, Given, Identifier, Moment, Page, Shown, Slug, words
from apps.api.v1.services import place
from apps.core.choices import Environment
from apps.core.errors import Invalid
from apps.core.models import MAX_REASON
from apps.inventory.models import DEFAULT_SERVICE, Service, Workload
from apps.scaling import backtest, services
from apps.scaling.choices import DecisionAction, EventAction, Metrics, Trigger
from apps.scaling.models import DAY, MAX_INSTANCES, MAX_PERIOD, SCALED, ScalingDecision, ScalingEvent, ScalingPolicy
from apps.scaling.rules.policy import MINUTE

router = Endpoints(tags=["Scaling"])

Instances = Annotated[int, Field(ge=1, le=MAX_INSTANCES)]
Share = Annotated[float, Field(gt=0, le=1, description="A share of 1: 0.8 means 80 %")]
Percentage = Annotated[float, Field(ge=1, le=100)]
Cooldown = Annotated[int, Field(ge=0, le=DAY)]
Reason = Annotated[str, Field(min_length=1, max_length=MAX_REASON)]


class SettingsGiven(Given):
    """Settings of a policy; what is left out stays."""

    min_instances: Instances | None = None
    max_instances: Instances | None = None
    scale_up_threshold: Share | None = None
    scale_down_threshold: Share | None = None
    scale_up_cooldown_seconds: Cooldown | None = Field(None, description="Since the last scale-up")
    scale_down_cooldown_seconds: Cooldown | None = Field(None, description="Since the last action in any direction")
    evaluation_period_seconds: Annotated[int, Field(ge=MINUTE, le=MAX_PERIOD)] | None = Field(
        None, description="A window; whole minutes"
    )
    datapoints_to_trigger: Annotated[int, Field(ge=1, le=12)] | None = Field(None, description="Windows in a row")
    metrics: words(Metrics) | None = None
    target_cpu_percent: Percentage | None = Field(None, description="Drawn and exported; decisions use the thresholds")
    target_memory_percent: Percentage | None = None

    def told(self) -> dict[str, Any]:
        """What was given. Raises Invalid for null: it would be neither a value nor nothing."""
        told = self.model_dump(exclude_unset=True)
        for field, value in told.items():
            if value is None:
                raise Invalid("Leave it out rather than null: then it stays as it is.", field=field)
        return told


class PolicyChange(SettingsGiven):
    """What is to be another than it is."""

    enabled: bool | None = None


class PolicyGiven(PolicyChange):
    """A policy for a service in an environment that has none; what is left out has its default."""

    service: Slug = DEFAULT_SERVICE
    environment: words(Environment) = Field(description="production or staging")


class PauseGiven(Given):
    """How long, and why."""

    until: Moment = Field(description="Within the next 30 days; then the policy goes on by itself")
    reason: Reason


class BacktestGiven(Given):
    """What to try, on how much of the past."""

    settings: SettingsGiven = SettingsGiven()
    days: int = Field(30, ge=1, le=backtest.LONGEST)


class ScaleGiven(Given):
    """How many instances a workload is to have."""

    instances: Instances
    reason: Reason


class PolicyShown(Shown):
    """When a workload gets another instance and when it loses one."""

    id: str
    service: str
    environment: words(Environment)
    enabled: bool
    min_instances: int
    max_instances: int
    scale_up_threshold: float
    scale_down_threshold: float
    scale_up_cooldown_seconds: int
    scale_down_cooldown_seconds: int
    evaluation_period_seconds: int
    datapoints_to_trigger: int
    metrics: words(Metrics)
    target_cpu_percent: float
    target_memory_percent: float
    paused_until: datetime | None = Field(description="A pause that lies in the past has ended")
    paused_by: str
    paused_reason: str
    created_at: datetime
    updated_at: datetime


class ActionShown(Shown):
    """A change that a replay makes, or what it decides at a time."""

    at: datetime
    action: words(DecisionAction)
    before: int = Field(alias="from")
    after: int = Field(alias="to")
    reason: str


class FiguresShown(Shown):
    actions: int
    instance_hours: float
    minutes_above_threshold: int = Field(
        description="In which CPU or memory was above the threshold for scaling up of the policy in force"
    )
    minutes_above_own_threshold: int = Field(description="The same by the threshold of the settings replayed")
    minutes_known: int
    thrash_count: int = Field(description="Actions that undo the one before within 30 minutes")


class CountShown(Shown):
    at: datetime
    instances: int


class ReplayShown(Shown):
    """What one set of settings comes to."""

    actions: list[ActionShown]
    figures: FiguresShown
    counts: list[CountShown] = Field(description="How many would have run, from each change on")


class DifferenceShown(Shown):
    tried: ActionShown
    present: ActionShown


class BacktestShown(ReplayShown):
    """What the tried settings would have done, beside those in force."""

    since: datetime = Field(alias="from")
    until: datetime
    minutes_recorded: int
    load_model: str = Field(description="What is assumed of the load when there are more or fewer instances")
    present: ReplayShown
    first_difference: DifferenceShown | None


class ScalingDecisionShown(Shown):
    """One evaluation of a policy; kept for 7 days."""

    id: int
    policy_id: str
    service: str
    environment: words(Environment)
    boundary: datetime = Field(description="The end of the newest window it looked at")
    evaluated_at: datetime
    action: words(DecisionAction)
    rule: str
    reason: str
    instances_before: int
    instances_after: int
    figures: list[dict[str, Any]] = Field(description="Each window it looked at, oldest first, in percent")
    late_samples: bool = Field(description="Samples of its windows came after it: a replay may differ")


class ScalingEventShown(Shown):
    """A change of a workload's count; kept for 90 days."""

    id: str
    service: str
    environment: words(Environment)
    timestamp: datetime
    action: words(EventAction)
    instances_before: int
    instances_after: int
    trigger_reason: str
    cpu_percent_avg: float | None
    memory_percent_avg: float | None
    triggered_by: words(Trigger)
    triggered_by_user: str | None
    success: bool | None = Field(description="null until the platform has confirmed or refused it")
    error_message: str | None
    settled_at: datetime | None
    created_at: datetime


class PolicyFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    enabled: bool | None = None


class DecisionFilters(Filters):
    policy_id: Identifier | None = None
    action: words(DecisionAction) | None = None
    since: AskedMoment | None = Field(None, description="Of windows that ended from this time on")
    until: AskedMoment | None = Field(None, description="Of windows that ended before this time")


class EventFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    action: words(EventAction) | None = None
    triggered_by: words(Trigger) | None = None
    success: bool | None = None
    since: AskedMoment | None = Field(None, description="From this time on")
    until: AskedMoment | None = Field(None, description="Before this time")


DECISION_INDEXES = Indexes((("policy_id",),))
EVENT_INDEXES = Indexes((("workload_id",), ("environment",)))


@router.read("/scaling-policies", scope=Scope.SCALING_READ, answer=Page[PolicyShown])
def list_scaling_policies(request: ApiRequest, given: Query[PolicyFilters]) -> Any:
    """Policies by their identifier."""
    columns = {"service__slug": given.service, "environment": given.environment, "enabled": given.enabled}
    rows = _policies().filter(**{name: value for name, value in columns.items() if value is not None})
    found = page(rows, given, noun="scaling-policies", order=(("id", str),))
    return found | {"items": [_policy_shown(row) for row in found["items"]]}


@router.read("/scaling-policies/{policy_id}", scope=Scope.SCALING_READ, answer=PolicyShown)
def get_scaling_policy(request: ApiRequest, policy_id: Path[Identifier]) -> Any:
    """One policy."""
    return _policy_shown(_policy(policy_id))


@router.write("POST", "/scaling-policies", scope=Scope.SCALING_WRITE, answers={201: PolicyShown})
def create_scaling_policy(request: ApiRequest, body: PolicyGiven) -> Status[Any]:
    """Add a policy. It scales the workload where its platform can, else it says what it would do."""
    service = Service.objects.filter(slug=body.service).first()
    if service is None:
        raise Invalid("There is no such service.", field="service")
    told = body.told()
    if body.environment not in SCALED:
        raise Invalid("Policies are for production and staging.", field="environment")
    row = ScalingPolicy(**told | {"service": service})
    return Status(201, _policy_shown(services.save_policy(row, actor=actor(request))))


@router.write("PATCH", "/scaling-policies/{policy_id}", scope=Scope.SCALING_WRITE, answers={200: PolicyShown})
def change_scaling_policy(request: ApiRequest, policy_id: Path[Identifier], body: PolicyChange) -> Any:
    """Change settings; try them with a backtest first."""
    row = services.change_policy(policy=_policy(policy_id), settings=body.told(), actor=actor(request))
    return _policy_shown(row)


@router.write("POST", "/scaling-policies/{policy_id}/pause", scope=Scope.SCALING_WRITE, answers={200: PolicyShown})
def pause_scaling_policy(request: ApiRequest, policy_id: Path[Identifier], body: PauseGiven) -> Any:
    """Let a policy change nothing for a while. It goes on deciding, and says that it held because of the pause."""
    row = services.pause(policy=_policy(policy_id), until=body.until, reason=body.reason, actor=actor(request))
    return _policy_shown(row)


@router.write("POST", "/scaling-policies/{policy_id}/resume", scope=Scope.SCALING_WRITE, answers={200: PolicyShown})
def resume_scaling_policy(request: ApiRequest, policy_id: Path[Identifier]) -> Any:
    """End a pause now."""
    return _policy_shown(services.resume(policy=_policy(policy_id), actor=actor(request)))


@router.write("POST", "/scaling-policies/{policy_id}/backtest", scope=Scope.SCALING_READ, answers={200: BacktestShown})
def backtest_scaling_policy(request: ApiRequest, policy_id: Path[Identifier], body: BacktestGiven) -> Any:
    """Replay the recorded minutes with other settings, or with the present ones. Changes nothing, so reading will do.

    409 when nothing was recorded, and while the web server is at another one; 422 for more days than it takes on with
    windows this short: the command line takes all.
    """
    row = backtest.changed(_policy(policy_id), body.settings.told())
    return backtest.as_json(backtest.for_the_web(policy=row, days=body.days, now=timezone.now()))


@router.read("/scaling-decisions", scope=Scope.SCALING_READ, answer=Page[ScalingDecisionShown])
def list_scaling_decisions(request: ApiRequest, given: Query[DecisionFilters]) -> Any:
    """What policies decided in the last 7 days and why, the newest first."""
    filters = {
        "policy_id": given.policy_id,
        "action": given.action,
        "boundary__gte": given.since,
        "boundary__lt": given.until,
    }
    found = search(
        ScalingDecision.objects.prefetch_related("policy__service"),
        given,
        noun="scaling-decisions",
        order=(("-boundary", datetime), ("-id", int)),
        filters=filters,
        indexes=DECISION_INDEXES,
    )
    return found | {"items": [_decision_shown(row) for row in found["items"]]}


@router.read("/scaling-events", scope=Scope.SCALING_READ, answer=Page[ScalingEventShown])
def list_scaling_events(request: ApiRequest, given: Query[EventFilters]) -> Any:
    """Changes of the number of instances, by whomever, the newest first."""
    filters = {
        "action": given.action,
        "triggered_by": given.triggered_by,
        "success": given.success,
        "timestamp__gte": given.since,
        "timestamp__lt": given.until,
        **place(given.service, given.environment),
    }
    found = search(
        ScalingEvent.objects.prefetch_related("service"),
        given,
        noun="scaling-events",
        order=(("-timestamp", datetime), ("-id", str)),
        filters=filters,
        indexes=EVENT_INDEXES,
    )
    return found | {"items": [_event_shown(row) for row in found["items"]]}


@router.write(
    "POST", "/workloads/{service}/{environment}/scale", scope=Scope.SCALING_WRITE, answers={202: ScalingEventShown}
)
def scale_workload(
    request: ApiRequest, service: Path[Slug], environment: Path[EnvironmentName], body: ScaleGiven
) -> Status[Any]:
    """Ask for a number of instances, within the bounds of the workload's policy. A worker sees to it: ask for the
    event to learn how it went.

    409 while somebody else changes the workload, and where its platform scales nothing.
    """
    workload = Workload.objects.filter(service__slug=service, environment=environment).select_related("service").first()
    if workload is None:
        raise NotFound("workload")
    try:
        row = services.scale_by_hand(workload=workload, to=body.instances, reason=body.reason, actor=actor(request))
    except Invalid as error:
        raise Invalid(str(error), field="instances" if error.field == "to" else error.field) from error
    return Status(202, _event_shown(row))


def _policies() -> Any:
    return ScalingPolicy.objects.select_related("service")


def _policy(policy_id: str) -> ScalingPolicy:
    row: ScalingPolicy | None = _policies().filter(pk=policy_id).first()
    if row is None:
        raise NotFound("scaling policy")
    return row


def _policy_shown(row: ScalingPolicy) -> dict[str, Any]:
    return {name: getattr(row, name) for name in PolicyShown.model_fields} | {"service": row.service.slug}


def _decision_shown(row: ScalingDecision) -> dict[str, Any]:
    policy = {"service": row.policy.service.slug, "environment": row.policy.environment}
    return {name: getattr(row, name) for name in ScalingDecisionShown.model_fields if name not in policy} | policy


def _event_shown(row: ScalingEvent) -> dict[str, Any]:
    return {name: getattr(row, name) for name in ScalingEventShown.model_fields} | {"service": row.service.slug}

"""Alerts, and the routes by which they are told. The address of a route comes in and never goes out."""

from datetime import datetime
from typing import Annotated, Any, Literal

from ninja import Path, Query
from ninja.responses import Status
from pydantic import Field

from apps.alerts import arrangements, services
from apps.alerts.channels import MAX_URL
from apps.alerts.choices import AlertKind, EventKind, Severity
from apps.alerts.models import Alert, Route
from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.refusals import NotFound
from apps.api.schemas import AskedMoment, EnvironmentName, Filters, Given, Identifier, Name, Page, Shown, Slug, words
from apps.core.errors import Invalid
from apps.core.models import MAX_REASON

router = Endpoints(tags=["Alerts"])

RowId = Annotated[int, Field(ge=1, le=2**63 - 1)]
Minutes = Annotated[int, Field(ge=0, le=7 * 24 * 60)]


class EventShown(Shown):
    """One line of the timeline."""

    at: datetime
    kind: words(EventKind)
    text: str
    by: str


class AlertShown(Shown):
    """That something is wrong, until it is well again."""

    id: str
    kind: words(AlertKind)
    subject: str = Field(description="Such as endpoint:17 or workload:app/production")
    severity: words(Severity)
    title: str
    detail: str
    environment: str
    service: str
    path: str = Field(description="Page of the subject in the console")
    runbook_url: str
    opened_at: datetime
    closed_at: datetime | None
    flapping: bool
    silenced_until: datetime | None = Field(description="A maintenance window keeps it from being told")
    acknowledged_at: datetime | None
    acknowledged_by: str
    acknowledged_note: str


class AlertWithEvents(AlertShown):
    """The same with its timeline."""

    events: list[EventShown]


class AlertFilters(Filters):
    state: Literal["open", "closed"] | None = None
    kind: words(AlertKind) | None = None
    severity: words(Severity) | None = None
    environment: EnvironmentName | None = None
    service: Slug | None = None
    subject: Annotated[str, Field(max_length=200)] | None = None
    since: AskedMoment | None = Field(None, description="Opened from this time on")


class Acknowledgement(Given):
    """Who looks after it says what others should know."""

    note: str = Field("", max_length=MAX_REASON)


class RouteShown(Shown):
    """Where messages go; never the address."""

    id: int
    name: str
    enabled: bool
    channel: str = Field(description="What the address belongs to, such as Slack")
    environments: list[str]
    kinds: list[str]
    services: list[str]
    minimum_severity: words(Severity)
    reminder_minutes: int
    send_recoveries: bool
    failing_since: datetime | None = Field(description="Messages have not arrived since then")
    last_error: str
    last_sent_at: datetime | None


class RouteFacts(Given):
    """What a route takes; an empty list means all."""

    enabled: bool | None = None
    environments: list[EnvironmentName] | None = Field(None, max_length=3)
    kinds: list[words(AlertKind)] | None = Field(None, max_length=len(AlertKind))
    services: list[Slug] | None = Field(None, max_length=100)
    minimum_severity: words(Severity) | None = None
    reminder_minutes: Minutes | None = Field(None, description="Until somebody acknowledges; 0: never")
    send_recoveries: bool | None = None


class RouteGiven(RouteFacts):
    """A new route."""

    name: Annotated[Name, Field(min_length=1, max_length=100)]
    url: str = Field(min_length=1, max_length=MAX_URL, description="An Apprise address; kept sealed and never shown")


class RouteChange(RouteFacts):
    """What is to be changed; what is left out stays."""

    name: Annotated[Name, Field(min_length=1, max_length=100)] | None = None
    url: Annotated[str, Field(min_length=1, max_length=MAX_URL)] | None = None


@router.read("/alerts", scope=Scope.ALERTS_READ, answer=Page[AlertShown])
def list_alerts(request: ApiRequest, given: Query[AlertFilters]) -> Any:
    """Alerts of the last 90 days and all that are open, the newest first."""
    columns = {
        "kind": given.kind,
        "severity": given.severity,
        "environment": given.environment,
        "service": given.service,
        "subject": given.subject and given.subject.lower(),
        "closed_at__isnull": None if given.state is None else given.state == "open",
        "opened_at__gte": given.since,
    }
    rows = Alert.objects.filter(**{name: value for name, value in columns.items() if value is not None})
    return page(rows, given, noun="alerts", order=(("-opened_at", datetime), ("-id", str)))


@router.read("/alerts/{alert_id}", scope=Scope.ALERTS_READ, answer=AlertWithEvents)
def get_alert(request: ApiRequest, alert_id: Path[Identifier]) -> Any:
    """One alert with what happened to it."""
    return _with_events(_alert(alert_id))


@router.write("POST", "/alerts/{alert_id}/acknowledge", scope=Scope.ALERTS_WRITE, answers={200: AlertWithEvents})
def acknowledge_alert(request: ApiRequest, alert_id: Path[Identifier], body: Acknowledgement) -> Any:
    """Say that somebody looks after it: no more reminders. 409 when it is closed, or was acknowledged before."""
    return _with_events(services.acknowledge(alert=_alert(alert_id), actor=actor(request), note=body.note))


@router.read("/alert-routes", scope=Scope.ALERTS_READ, answer=Page[RouteShown])
def list_routes(request: ApiRequest, given: Query[Filters]) -> Any:
    """All routes, in the order they were added."""
    return page(Route.objects.all(), given, noun="alert-routes", order=(("id", int),))


@router.write("POST", "/alert-routes", scope=Scope.ALERTS_WRITE, answers={201: RouteShown})
def add_route(request: ApiRequest, body: RouteGiven) -> Status[Any]:
    """Tell alerts to an address. It is checked, kept sealed, and never shown."""
    return Status(201, _save(request, Route(), body))


@router.read("/alert-routes/{route_id}", scope=Scope.ALERTS_READ, answer=RouteShown)
def get_route(request: ApiRequest, route_id: Path[RowId]) -> Any:
    """One route, and whether its messages arrive."""
    return _route(route_id)


@router.write("PATCH", "/alert-routes/{route_id}", scope=Scope.ALERTS_WRITE, answers={200: RouteShown})
def change_route(request: ApiRequest, route_id: Path[RowId], body: RouteChange) -> Any:
    """Change a route. Switched off, it forgets what waits for it."""
    return _save(request, _route(route_id), body)


@router.write("DELETE", "/alert-routes/{route_id}", scope=Scope.ALERTS_WRITE, answers={200: RouteShown})
def remove_route(request: ApiRequest, route_id: Path[RowId]) -> Any:
    """Forget a route with its address and its messages; the answer is what it was."""
    row = _route(route_id)
    shown = RouteShown.model_validate(row)
    arrangements.remove_route(route=row, actor=actor(request))
    return shown


def _alert(alert_id: str) -> Alert:
    row = Alert.objects.filter(pk=alert_id).first()
    if row is None:
        raise NotFound("alert")
    return row


def _with_events(row: Alert) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in AlertShown.model_fields}
    return own | {"events": list(row.events.all())}


def _route(route_id: int) -> Route:
    row = Route.objects.filter(pk=route_id).first()
    if row is None:
        raise NotFound("route")
    return row


def _save(request: ApiRequest, row: Route, body: RouteFacts) -> Route:
    told = body.model_dump(exclude_unset=True)
    url = told.pop("url", "")
    for name, value in (told | {"url": url}).items():
        if value is None:
            raise Invalid("Leave it out rather than null: then it stays as it is.", field=name)
        if name != "url":
            setattr(row, name, value)
    address = arrangements.check_address(url) if url else None
    return arrangements.save_route(route=row, actor=actor(request), address=address)

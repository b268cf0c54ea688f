"""Databases: how each fares, what became of it, how closely it is watched. They are registered in the console."""

from datetime import datetime
from typing import Annotated, Any

from django.db.models import Q, QuerySet
from ninja import Path, Query
from ninja.responses import Status
from pydantic import Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.refusals import NotFound
from apps.api.schemas import EnvironmentName, Filters, Given, Page, Shown, Slug, words
from apps.api.v1.endpoints import CheckFilters, Count, HistoryFilters, HourShown, Seconds, hours
from apps.core.choices import Environment
from apps.core.errors import Invalid
from apps.health import trial
from apps.health.choices import CheckStatus, ConnectionStatus, QueryStatus, SubjectKind
from apps.health.models import DatabaseCheck
from apps.inventory import targets
from apps.inventory.choices import DatabaseEngine
from apps.inventory.models import DEFAULT_SERVICE, Database

router = Endpoints(tags=["Databases"])

Name = Annotated[str, Field(min_length=1, max_length=50)]


class DatabaseGiven(Given):
    """A Redis server to watch; other databases are registered in the console or by `manage.py database add`."""

    name: Slug
    service: Slug = DEFAULT_SERVICE
    environment: EnvironmentName
    url: str = Field(max_length=2000, description="redis://user:password@host:6379/0; kept sealed, never shown")


class DatabaseChange(Given):
    """How closely a database is watched; what is left out stays."""

    watch: bool | None = None
    interval_seconds: Count | None = None
    timeout_seconds: Seconds | None = None
    slow_query_ms: Count | None = None
    failures_before_down: Count | None = None
    successes_before_up: Count | None = None


class DatabaseStateShown(Shown):
    """How it fares now."""

    status: words(CheckStatus)
    since: datetime | None
    last_tested: datetime | None
    connection_status: words(ConnectionStatus) | None
    query_test_status: words(QueryStatus)
    average_query_ms: float | None = Field(description="A moving average; the newest counts a fifth")
    connect_ms: float | None
    query_ms: float | None
    connections: int | None
    connections_max: int | None
    error: str
    consecutive_failures: int
    consecutive_successes: int


class DatabaseShown(Shown):
    """A registered database without its URLs; `state` is null until the first check."""

    name: str
    service: str
    environment: words(Environment)
    engine: words(DatabaseEngine)
    host: str
    port: int | None
    database_name: str
    watch: bool
    interval_seconds: int
    timeout_seconds: float
    slow_query_ms: int
    failures_before_down: int
    successes_before_up: int
    created_at: datetime
    updated_at: datetime
    state: DatabaseStateShown | None


class DatabaseCheckShown(Shown):
    """One check; kept for 24 hours."""

    at: datetime
    status: words(CheckStatus)
    connection_status: words(ConnectionStatus) | None
    query_status: words(QueryStatus)
    response_time_ms: float | None
    connect_ms: float | None
    query_ms: float | None
    connections_used: int | None
    connections_max: int | None
    error: str


class DatabaseTrialShown(Shown):
    """What one look at once showed; nothing of it is stored."""

    status: words(CheckStatus)
    reason: str = Field(description="Why it is not healthy")
    response_ms: float | None
    connection_status: words(ConnectionStatus) | None
    query_status: words(QueryStatus)
    connections: int | None
    connections_max: int | None


class DatabaseFilters(Filters):
    service: Slug | None = None
    environment: EnvironmentName | None = None
    engine: words(DatabaseEngine) | None = None
    status: words(CheckStatus) | None = None
    watch: bool | None = None


@router.read("/databases", scope=Scope.INVENTORY_READ, answer=Page[DatabaseShown])
def list_databases(request: ApiRequest, given: Query[DatabaseFilters]) -> Any:
    """Databases with how they fare, by name."""
    columns = {
        "service__slug": given.service,
        "environment": given.environment,
        "engine": given.engine,
        "watch": given.watch,
    }
    rows = _rows().filter(**{name: value for name, value in columns.items() if value is not None})
    if given.status is not None:
        unseen = Q(health=None) if given.status == CheckStatus.UNKNOWN else Q()
        rows = rows.filter(Q(health__status=given.status) | unseen)
    found = page(rows, given, noun="databases", order=(("name", str),))
    return found | {"items": [_shown(row) for row in found["items"]]}


@router.write("POST", "/databases", scope=Scope.INVENTORY_WRITE, answers={201: DatabaseShown})
def watch_database(request: ApiRequest, body: DatabaseGiven) -> Status[Any]:
    """Watch a Redis server from now on. Nothing is asked yet: the first check tells whether it answers."""
    if not body.url.startswith(("redis://", "rediss://")):
        raise Invalid("Give a URL that starts with redis:// or rediss://.", field="url")
    row = targets.watch_database(**body.model_dump(), actor=actor(request))
    return Status(201, _shown(_database(row.name)))


@router.read("/databases/{name}", scope=Scope.INVENTORY_READ, answer=DatabaseShown)
def get_database(request: ApiRequest, name: Path[Name]) -> Any:
    """One database with how it fares."""
    return _shown(_database(name))


@router.write("PATCH", "/databases/{name}", scope=Scope.INVENTORY_WRITE, answers={200: DatabaseShown})
def change_database(request: ApiRequest, name: Path[Name], body: DatabaseChange) -> Any:
    """Change how closely a database is watched. Its URLs are changed in the console, where they are tried first."""
    told = body.model_dump(exclude_unset=True)
    for field, value in told.items():
        if value is None:
            raise Invalid("Leave it out rather than null: then it stays as it is.", field=field)
    row = _database(name)
    targets.change_watch(database=row, actor=actor(request), **told)
    return _shown(_database(name))


@router.write(
    "POST", "/databases/{name}/check", scope=Scope.HEALTH_WRITE, answers={200: DatabaseTrialShown}, keyed=False
)
def check_database(request: ApiRequest, name: Path[Name]) -> Any:
    """Connect now, for at most 15 s, and tell what came of it. Its state and history stay as they are."""
    return trial.try_database(database=_database(name), actor=actor(request))


@router.read("/databases/{name}/checks", scope=Scope.HEALTH_READ, answer=Page[DatabaseCheckShown])
def list_database_checks(request: ApiRequest, name: Path[Name], given: Query[CheckFilters]) -> Any:
    """Every check of the last 24 hours, the newest first."""
    columns = {"status": given.status, "at__gte": given.since, "at__lt": given.until}
    rows = DatabaseCheck.objects.filter(
        database=_database(name), **{column: value for column, value in columns.items() if value is not None}
    )
    return page(rows, given, noun="database-checks", order=[("-at", datetime)])


@router.read("/databases/{name}/hours", scope=Scope.HEALTH_READ, answer=Page[HourShown])
def list_database_hours(request: ApiRequest, name: Path[Name], given: Query[HistoryFilters]) -> Any:
    """What the checks of each hour came to, up to 90 days back, the newest first."""
    return hours(SubjectKind.DATABASE, _database(name).pk, given)


def _rows() -> QuerySet[Database]:
    return Database.objects.select_related("service", "health")


def _database(name: str) -> Database:
    row = _rows().filter(name=name).first()
    if row is None:
        raise NotFound("database")
    return row


def _shown(row: Database) -> dict[str, Any]:
    elsewhere = {"service": row.service.slug, "state": _state(row)}
    own = {name: getattr(row, name) for name in DatabaseShown.model_fields if name not in elsewhere}
    return own | elsewhere


def _state(row: Database) -> dict[str, Any] | None:
    state = getattr(row, "health", None)
    if state is None:
        return None
    elsewhere = {
        "average_query_ms": state.average_query_time,
        "connections": state.connection_pool_size,
        "error": state.error_message,
    }
    own = {name: getattr(state, name) for name in DatabaseStateShown.model_fields if name not in elsewhere}
    return own | elsewhere

"""Times in which alerts are not told, and in which nothing may be deployed."""

import re
from datetime import date, datetime, time
from typing import Annotated, Any, Literal

from django.utils import timezone
from ninja import Path, Query
from ninja.responses import Status
from pydantic import BeforeValidator, Field, WithJsonSchema

from apps.alerts import arrangements
from apps.alerts.choices import Recurrence
from apps.alerts.models import WEEKDAYS, MaintenanceWindow
from apps.alerts.rules import times
from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.refusals import NotFound
from apps.api.schemas import (
    FIRST_YEAR,
    LAST_YEAR,
    EnvironmentName,
    Filters,
    Given,
    Name,
    Page,
    Shown,
    Slug,
    words,
)
from apps.core.errors import Invalid
from apps.core.models import MAX_REASON

router = Endpoints(tags=["Maintenance windows"])

SHOWN = 5  # next occurrences
# What null empties: the window is for all then, or has no end.
EMPTY = {"environment": "", "service": "", "subject": "", "last_day": None}
_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"


def _day(value: Any) -> date:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        try:
            day = date.fromisoformat(value)
        except ValueError:
            day = None
        if day and FIRST_YEAR < day.year < LAST_YEAR:
            return day
    raise ValueError("Give a day such as 2026-03-01")


def _clock(value: Any) -> time:
    if isinstance(value, str) and re.fullmatch(_CLOCK, value, re.ASCII):
        return time.fromisoformat(value)
    raise ValueError("Give a time such as 22:30")


Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"}, mode="validation")]
Clock = Annotated[
    time, BeforeValidator(_clock), WithJsonSchema({"type": "string", "pattern": _CLOCK}, mode="validation")
]
DayName = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
RowId = Annotated[int, Field(ge=1, le=2**63 - 1)]


class OccurrenceShown(Shown):
    """One time the window is open."""

    starts_at: datetime
    ends_at: datetime


class WindowShown(Shown):
    """A window, and when it is open next."""

    id: int
    name: str
    note: str
    recurrence: words(Recurrence)
    time_zone: str
    first_day: date
    start_time: str
    minutes: int
    weekdays: list[str]
    last_day: date | None
    environment: str = Field(description="Empty: all")
    service: str = Field(description="Empty: all")
    subject: str = Field(description="Empty: all")
    freeze_deployments: bool
    created_by: str
    cancelled_at: datetime | None
    cancelled_by: str
    next: list[OccurrenceShown] = Field(description="Up to five occurrences, beginning with one that is open")


class WindowFacts(Given):
    """What a window may be told."""

    note: str | None = Field(None, max_length=MAX_REASON)
    recurrence: words(Recurrence) | None = None
    time_zone: str | None = Field(None, min_length=1, max_length=64, description="An IANA name, such as Europe/Berlin")
    minutes: Annotated[int, Field(ge=1, le=times.MAX_MINUTES)] | None = None
    weekdays: list[DayName] | None = Field(None, max_length=7, description="Of a weekly window")
    last_day: Day | None = Field(None, description="Of a weekly window; null: it has no end")
    environment: EnvironmentName | None = Field(None, description="null: all")
    service: Slug | None = Field(None, description="null: all")
    subject: Annotated[str, Field(min_length=1, max_length=200)] | None = Field(
        None, description="Such as endpoint:17; null: all"
    )
    freeze_deployments: bool | None = Field(None, description="Nothing is deployed meanwhile")


class WindowGiven(WindowFacts):
    """A new window; what is left out has its default: once, UTC, an hour, for everything."""

    name: Annotated[Name, Field(min_length=1, max_length=100)]
    first_day: Day
    start_time: Clock


class WindowChange(WindowFacts):
    """What is to be changed; what is left out stays."""

    name: Annotated[Name, Field(min_length=1, max_length=100)] | None = None
    first_day: Day | None = None
    start_time: Clock | None = None


class WindowFilters(Filters):
    cancelled: bool | None = None
    environment: EnvironmentName | None = None
    service: Slug | None = None


@router.read("/maintenance-windows", scope=Scope.ALERTS_READ, answer=Page[WindowShown])
def list_windows(request: ApiRequest, given: Query[WindowFilters]) -> Any:
    """All windows, also those that are over, in the order they were made."""
    columns = {
        "environment": given.environment,
        "service": given.service,
        "cancelled_at__isnull": None if given.cancelled is None else not given.cancelled,
    }
    rows = MaintenanceWindow.objects.filter(**{name: value for name, value in columns.items() if value is not None})
    found = page(rows, given, noun="maintenance-windows", order=(("id", int),))
    return found | {"items": [_shown(row) for row in found["items"]]}


@router.write("POST", "/maintenance-windows", scope=Scope.ALERTS_WRITE, answers={201: WindowShown})
def add_window(request: ApiRequest, body: WindowGiven) -> Status[Any]:
    """Keep alerts from being told for a while, and freeze deployments if it says so."""
    return Status(201, _shown(_save(request, MaintenanceWindow(), body)))


@router.read("/maintenance-windows/{window_id}", scope=Scope.ALERTS_READ, answer=WindowShown)
def get_window(request: ApiRequest, window_id: Path[RowId]) -> Any:
    """One window."""
    return _shown(_window(window_id))


@router.write("PATCH", "/maintenance-windows/{window_id}", scope=Scope.ALERTS_WRITE, answers={200: WindowShown})
def change_window(request: ApiRequest, window_id: Path[RowId], body: WindowChange) -> Any:
    """Change a window; what it no longer silences is told. 409 when it was cancelled."""
    return _shown(_save(request, _window(window_id), body))


@router.write("DELETE", "/maintenance-windows/{window_id}", scope=Scope.ALERTS_WRITE, answers={200: WindowShown})
def cancel_window(request: ApiRequest, window_id: Path[RowId]) -> Any:
    """End a window for good; its row stays, for charts. 409 when it was cancelled before."""
    return _shown(arrangements.cancel_window(window=_window(window_id), actor=actor(request)))


def _window(window_id: int) -> MaintenanceWindow:
    row = MaintenanceWindow.objects.filter(pk=window_id).first()
    if row is None:
        raise NotFound("maintenance window")
    return row


def _save(request: ApiRequest, row: MaintenanceWindow, body: WindowFacts) -> MaintenanceWindow:
    told = body.model_dump(exclude_unset=True)
    for name, value in told.items():
        if value is None and name not in EMPTY:
            raise Invalid("Leave it out rather than null: then it stays as it is.", field=name)
        value = EMPTY[name] if value is None else value
        setattr(row, name, _numbers(value) if name == "weekdays" else value)
    return arrangements.save_window(window=row, actor=actor(request))


def _numbers(names: list[str]) -> list[int]:
    if len(set(names)) != len(names):
        raise Invalid("Name each day once.", field="weekdays")
    return [WEEKDAYS.index(name.capitalize()) for name in names]


def _shown(row: MaintenanceWindow) -> dict[str, Any]:
    elsewhere = {
        "start_time": f"{row.start_time:%H:%M}",
        "weekdays": [WEEKDAYS[day].lower() for day in row.weekdays],
        "next": [] if row.cancelled_at else times.upcoming(row.plan, timezone.now(), SHOWN),
    }
    return elsewhere | {name: getattr(row, name) for name in WindowShown.model_fields if name not in elsewhere}

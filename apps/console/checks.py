"""How endpoints and databases fare, in the words of the console."""

from datetime import datetime, timedelta
from typing import Any

from django.contrib import messages
from django.db.models import Case, IntegerField, QuerySet, Value, When
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.alerts.models import Alert
from apps.console.histories import HOUR, checks_of, hours_of, kind_of, subject_of
from apps.core.audit import Actor
from apps.core.confirm import require
from apps.core.display import badge, moment, page_of, share, span
from apps.core.errors import PulsewatchError
from apps.core.pages import buttons
from apps.health.choices import CheckStatus
from apps.health.models import DatabaseState, EndpointState
from apps.health.trial import Trial, try_database, try_endpoint
from apps.inventory.models import Database, Endpoint

RECENT = 20  # checks, hours and alerts listed on a page
COLOURS = {
    CheckStatus.FAILED: "danger",
    CheckStatus.DEGRADED: "warning",
    CheckStatus.UNKNOWN: "info",
    CheckStatus.HEALTHY: "success",
}
OFF = "off"  # not looked at, because somebody wants it so
WORST_FIRST = (CheckStatus.FAILED, CheckStatus.DEGRADED, CheckStatus.UNKNOWN, CheckStatus.HEALTHY)


def ranked(rows: QuerySet[Any], *, off: Any) -> QuerySet[Any]:
    """Rows with `rank`, the worst being 0; those that are switched off come last."""
    whens = [When(health__status=status, then=Value(rank)) for rank, status in enumerate(WORST_FIRST)]
    return rows.annotate(rank=Case(When(off, then=Value(9)), *whens, default=Value(2), output_field=IntegerField()))


def state_of(row: Endpoint | Database) -> EndpointState | DatabaseState | None:
    """Its state, read with it; None until the first check."""
    return getattr(row, "health", None)


def watched(row: Endpoint | Database) -> bool:
    """Whether it is looked at at all."""
    return row.enabled and bool(row.workload.base_url) if isinstance(row, Endpoint) else row.watch


def status_of(row: Endpoint | Database) -> str:
    """The word of its badge."""
    if not watched(row):
        return OFF
    state = state_of(row)
    return CheckStatus(state.status) if state else CheckStatus.UNKNOWN


def rank_of(row: Endpoint | Database) -> int:
    """As `ranked` has it."""
    status = status_of(row)
    return 9 if status == OFF else WORST_FIRST.index(CheckStatus(status))


def status_badge(row: Endpoint | Database) -> SafeString:
    """Its badge; the mouse shows why."""
    status, state = status_of(row), state_of(row)
    why = state.error_message if state and status != OFF else ""
    return badge(status, COLOURS.get(CheckStatus(status), "") if status != OFF else "", why)


def verdict(row: Endpoint | Database, now: datetime) -> str:
    """Why the badge says what it says, in a sentence."""
    state = state_of(row)
    if isinstance(row, Endpoint) and row.enabled and not row.workload.base_url:
        return f"It is not asked: {row.workload} has no base URL. Enter it on the page of the workload."
    if not watched(row):
        return "It is switched off, so nobody looks at it."
    if state is None or looked_at(row) is None:
        return f"Nobody has looked at it yet; the first check comes within {span(row.interval_seconds)}."
    lasting = f", for {span(now - state.since, units=1)} now" if state.since and state.since < now else ""
    if state.status == CheckStatus.HEALTHY:
        return f"It answers as expected{lasting}."
    return f"{state.get_status_display()}{lasting}: {state.error_message or 'nothing is known of why'}."


def looked_at(row: Endpoint | Database) -> datetime | None:
    """When its newest check was."""
    state = state_of(row)
    if isinstance(state, EndpointState):
        return state.last_checked
    return state.last_tested if state else None


def ago(when: datetime | None, now: datetime) -> SafeString | str:
    """How long something is past, with the time itself for the mouse."""
    if when is None:
        return "never"
    length = span(max(timedelta(0), now - when), units=1)
    return format_html('<time datetime="{}" title="{}">{} ago</time>', when.isoformat(), moment(when), length)


def milliseconds(value: float | None) -> str:
    """A duration as checks measure it."""
    return "-" if value is None else f"{value:,.0f}\u00a0ms" if value >= 10 else f"{value:.1f}\u00a0ms"


def days_left(when: datetime | None, now: datetime) -> int | None:
    """Whole days until a certificate ends; negative when it has."""
    return None if when is None else (when - now).days


def uptime(ratio: float | None) -> str:
    """A share with the digits that matter near 100 %."""
    if ratio is None:
        return "-"
    return "100 %" if ratio == 1 else f"{100 * ratio:.2f} %" if ratio >= 0.9 else share(ratio)


def _unbroken(text: str) -> SafeString:
    return format_html('<span class="whitespace-nowrap">{}</span>', text)


def try_button(request: HttpRequest, row: Endpoint | Database) -> list[dict[str, Any]]:
    """The button of `try_now`."""
    permission = f"inventory.change_{row._meta.model_name}"
    return [{**found, "post": True} for found in buttons(request, row, ("Check now", "try", permission, "", True))]


def lists(row: Endpoint | Database) -> list[dict[str, Any]]:
    """What the page of a target lists: newest checks, hours, alerts. Three queries."""
    return [_checks(row), _hours(row), _alerts(row)]


def _checks(row: Endpoint | Database) -> dict[str, Any]:
    name = "endpointcheck" if isinstance(row, Endpoint) else "databasecheck"
    everything = reverse(f"admin:health_{name}_changelist")
    column = "endpoint" if isinstance(row, Endpoint) else "database"
    found = checks_of(row).order_by("-at")[:RECENT]
    headers = ("Time", "Status", "Answer" if isinstance(row, Endpoint) else "Connection", "Response", "Why")
    return {
        "heading": "Newest checks",
        "headers": headers,
        "rows": [
            {
                "cells": (
                    _unbroken(f"{check.at:%Y-%m-%d %H:%M:%S}"),
                    badge(check.status, COLOURS[CheckStatus(check.status)]),
                    (check.http_status if isinstance(row, Endpoint) else check.get_connection_status_display()) or "-",
                    milliseconds(check.response_time_ms),
                    check.error,
                )
            }
            for check in found
        ],
        "empty": "None in the last 24 hours.",
        "more": (f"{everything}?{column}__id__exact={row.pk}", "All checks of the last 24 hours"),
    }


def _hours(row: Endpoint | Database) -> dict[str, Any]:
    everything = reverse("admin:health_healthhourly_changelist")
    return {
        "heading": "By the hour",
        "headers": ("Hour (UTC)", "Checks", "Uptime", "Failed", "Degraded", "Mean", "95 %", "Slowest"),
        "rows": [
            {
                "cells": (
                    _unbroken(f"{hour.hour:%Y-%m-%d %H}:00 to {hour.hour + HOUR:%H}:00"),
                    hour.checks,
                    uptime(hour.uptime),
                    hour.down or "-",
                    hour.degraded or "-",
                    milliseconds(hour.response_mean_ms),
                    milliseconds(hour.response_p95_ms),
                    milliseconds(hour.response_max_ms),
                )
            }
            for hour in hours_of(row).order_by("-hour")[:RECENT]
        ],
        "empty": "None yet: an hour is summed up some minutes after its end.",
        "more": (f"{everything}?kind__exact={kind_of(row)}&subject={row.pk}", "All hours of the last 90 days"),
    }


def _alerts(row: Endpoint | Database) -> dict[str, Any]:
    found = Alert.objects.filter(subject=subject_of(row)).order_by("-opened_at", "-pk")[:RECENT]
    return {
        "heading": "Alerts",
        "headers": ("Alert", "Severity", "Opened", "Closed"),
        "rows": [
            {
                "url": page_of(alert),
                "cells": (
                    alert.title,
                    alert.get_severity_display(),
                    moment(alert.opened_at),
                    moment(alert.closed_at) if alert.closed_at else badge("open", "danger"),
                ),
            }
            for alert in found
        ],
        "empty": "None.",
    }


def try_now(page: Any, request: HttpRequest, row: Endpoint | Database) -> HttpResponse:
    """Look at it at once, and show on its page what came of it. A POST, for it asks the world."""
    kind = row._meta.model_name
    require(request, f"inventory.change_{kind}")
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    actor = Actor.person(request.user)
    try:
        found = (
            try_endpoint(endpoint=row, actor=actor)
            if isinstance(row, Endpoint)
            else try_database(database=row, actor=actor)
        )
    except PulsewatchError as error:
        messages.error(request, str(error))
    else:
        level = messages.success if found.status == CheckStatus.HEALTHY else messages.warning
        level(request, f"Checked now, and not stored: {told(found)}.")
    return HttpResponseRedirect(page_of(row))


def told(found: Trial) -> str:
    """What a check at once showed, in a line."""
    what = f"HTTP {found.http_status}" if found.http_status else found.connection_status or ""
    facts = [CheckStatus(found.status).label.lower(), found.reason, what]
    facts.append(milliseconds(found.response_ms) if found.response_ms is not None else "")
    return ", ".join(filter(None, facts))


def attention(row: Endpoint | Database, now: datetime) -> dict[str, Any]:
    """A line of the overview: something that is not as it should be."""
    state = state_of(row)
    return {
        "badge": status_badge(row),
        "url": page_of(row),
        "row": row,
        "why": state.error_message if state else "",
        "since": ago(state.since, now) if state and state.since else "",
    }

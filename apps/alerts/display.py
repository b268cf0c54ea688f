"""Alerts, routes and windows in the words and colours of the console."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from apps.alerts.choices import DeliveryStatus, Recurrence, Severity
from apps.alerts.models import WEEKDAYS, Alert, Delivery, MaintenanceWindow, Route
from apps.alerts.rules import times
from apps.core.display import badges, moment, span
from apps.core.zones import zone

SEVERITY_COLOURS = {Severity.CRITICAL: "danger", Severity.WARNING: "warning", Severity.INFO: "info"}
STATUS_COLOURS = {
    DeliveryStatus.QUEUED: "info",
    DeliveryStatus.SENDING: "info",
    DeliveryStatus.SENT: "success",
    DeliveryStatus.FAILED: "danger",
}
PREVIEWED = 5  # next occurrences of a window


def labels(alert: Alert, now: datetime) -> list[tuple[str, str, str]]:
    """The badges of an alert: how bad, and what else one has to know."""
    if alert.closed_at is not None:
        return [("closed", "success", moment(alert.closed_at)), (alert.get_severity_display(), "", "")]
    found = [(alert.get_severity_display(), SEVERITY_COLOURS[Severity(alert.severity)], "")]
    if alert.acknowledged_at is not None:
        found.append((f"{alert.acknowledged_by} looks after it", "primary", alert.acknowledged_note))
    if alert.silenced_until is not None and alert.silenced_until > now:
        found.append((f"silenced until {alert.silenced_until:%H:%M} UTC", "", "by a maintenance window"))
    if alert.flapping:
        found.append(("flapping", "warning", "it keeps breaking and recovering"))
    return found


def lines(alerts: Sequence[Alert], now: datetime) -> list[dict[str, Any]]:
    """Alerts as lines of a table."""
    return [
        {
            "alert": alert,
            "badges": badges(labels(alert, now)),
            "since": span(now - alert.opened_at, units=1),
        }
        for alert in alerts
    ]


def delivery_status(row: Delivery, now: datetime) -> tuple[str, str, str]:
    """The badge of a delivery."""
    if row.status == DeliveryStatus.QUEUED and row.attempts:
        left = (row.next_attempt_at - now).total_seconds()
        again = f"again in {span(round(left), units=1)}" if left >= 1 else "again now"
        return (f"tried {row.attempts}×, {again}", "warning", row.error)  # noqa: RUF001  (times)
    return (row.get_status_display(), STATUS_COLOURS[DeliveryStatus(row.status)], row.error)


def route_state(route: Route) -> tuple[str, str, str]:
    """The badge of a route."""
    if not route.enabled:
        return ("off", "", "")
    if route.failing_since is not None:
        return ("broken", "danger", f"since {moment(route.failing_since)}: {route.last_error}")
    return ("works", "success", "") if route.last_sent_at else ("not used yet", "info", "send a test message")


def filters(route: Route) -> str:
    """What a route takes, in a few words."""
    parts = [
        ", ".join(route.environments),
        f"service {', '.join(route.services)}" if route.services else "",
        ", ".join(kind.replace("_", " ") for kind in route.kinds),
        f"{route.minimum_severity} and worse" if route.minimum_severity == Severity.WARNING else "",
        "critical only" if route.minimum_severity == Severity.CRITICAL else "",
    ]
    return "; ".join(filter(None, parts)) or "everything"


def scope(window: MaintenanceWindow) -> str:
    """What a window is for."""
    parts = [
        window.environment,
        f"service {window.service}" if window.service else "",
        window.subject,
    ]
    return ", ".join(filter(None, parts)) or "everything"


def rhythm(window: MaintenanceWindow) -> str:
    """When a window is, in words."""
    length = span(window.minutes * 60)
    start = f"{window.start_time:%H:%M} {window.time_zone}"
    if window.recurrence == Recurrence.ONCE:
        return f"{window.first_day:%a %Y-%m-%d} {start}, {length}"
    days = ", ".join(WEEKDAYS[day][:3] for day in sorted(window.weekdays))
    until = f", until {window.last_day:%Y-%m-%d}" if window.last_day else ""
    return f"{days} {start}, {length}{until}"


def preview(window: MaintenanceWindow, now: datetime, count: int = PREVIEWED) -> SafeString | str:
    """The next occurrences, in the zone of the window and in UTC."""
    if window.cancelled_at is not None:
        return f"cancelled by {window.cancelled_by}, {moment(window.cancelled_at)}"
    found = times.upcoming(window.plan, now, count)
    if not found:
        return "over"
    return format_html_join("", "<div>{}</div>", ((_occurrence(window, one, now),) for one in found))


def _occurrence(window: MaintenanceWindow, one: times.Span, now: datetime) -> SafeString:
    where = zone(window.time_zone)
    here = f"{one.starts_at.astimezone(where):%a %Y-%m-%d %H:%M} to {one.ends_at.astimezone(where):%a %H:%M %Z}"
    utc = "" if window.time_zone == "UTC" else f" = {one.starts_at:%a %H:%M} to {one.ends_at:%a %H:%M} UTC"
    return format_html("{}{}{}", here, utc, ", now" if one.starts_at <= now < one.ends_at else "")

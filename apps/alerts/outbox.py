"""Writing down whom to tell, in the transaction of what happened; the runner reads it."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from apps.alerts.choices import EventKind
from apps.alerts.models import Alert, AlertEvent, Notice, Route
from apps.alerts.rules.sending import DELAY
from apps.core.wake import wake

BATCH = 1_000  # rows of one statement
TOLD = (EventKind.OPENED, EventKind.ESCALATED, EventKind.CLOSED)


def record(events: Sequence[AlertEvent]) -> None:
    """Add lines to the timelines of their alerts, and a notice for every route that wants to know.

    That an alert is closed is told to those who were told of it, or are about to be. Call it within the transaction
    that changes the alerts; the events need their alerts at hand.
    """
    AlertEvent.objects.bulk_create(events, batch_size=BATCH)
    told = [event for event in events if event.kind in TOLD]
    routes = list(Route.objects.filter(enabled=True)) if told else []
    if not routes:
        return
    know = _know([event.alert for event in told if event.kind == EventKind.CLOSED])
    learn_keys(told)
    notices = [
        Notice(route=route, event=event, at=event.at)
        for event in told
        for route in routes
        if (_after(route, event.alert, know) if event.kind == EventKind.CLOSED else route.wants(event.alert))
    ]
    Notice.objects.bulk_create(notices, batch_size=BATCH)
    if notices:
        gather(seconds=DELAY.total_seconds())


def gather(*, seconds: float = 0) -> None:
    """Have what waits put together into messages, once the running transaction is committed."""
    wake("alerts.gather", "", seconds=seconds)


def line(alert: Alert, kind: EventKind, text: str, *, at: datetime, by: str = "Pulsewatch") -> AlertEvent:
    """One line of an alert's timeline; not stored yet."""
    return AlertEvent(alert=alert, kind=kind, severity=alert.severity, text=text, at=at, by=by)


def learn_keys(events: Sequence[AlertEvent]) -> None:
    """MySQL does not say which keys a statement for many rows has given them, so they are asked for."""
    if all(event.pk for event in events):
        return
    stored = AlertEvent.objects.filter(
        alert__in={event.alert_id for event in events}, at__in={event.at for event in events}
    )
    keys = {(alert, kind): key for alert, kind, key in stored.order_by("pk").values_list("alert", "kind", "pk")}
    for event in events:
        event.pk = keys[event.alert_id, event.kind]


def _know(alerts: Iterable[Alert]) -> set[tuple[str, int]]:
    keys = [alert.pk for alert in alerts]
    if not keys:
        return set()
    return set(Notice.objects.filter(event__alert__in=keys).order_by().values_list("event__alert", "route").distinct())


def _after(route: Route, alert: Alert, know: set[tuple[str, int]]) -> bool:
    return route.send_recoveries and (alert.pk, route.pk) in know

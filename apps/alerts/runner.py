"""What a worker does with alerts: put together what waits, remind, send, try again.

Writing and sending are two steps. `gather` turns notices into messages and asks nobody outside. `deliver` sends the
messages of one route, one after another. Each may run twice, or in two processes at once: rows are taken under a lock
or by compare-and-set. A message is sent at least once: a process that dies between sending and recording sends again,
under the same id.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models import Exists, F, Max, OuterRef, Q, Sum
from django.utils import timezone

from apps.alerts import channels, messages
from apps.alerts.choices import DeliveryStatus, EventKind, Occasion
from apps.alerts.models import MAX_ERROR, Alert, AlertEvent, Delivery, Notice, Route
from apps.alerts.outbox import BATCH, learn_keys, line
from apps.alerts.rules import sending
from apps.alerts.windows import Calendar, Window
from apps.core import freshness, heartbeats, ids, vault
from apps.core.display import moment
from apps.core.errors import PulsewatchError
from apps.core.models import StopSwitch
from apps.core.wake import wake

logger = logging.getLogger(__name__)

TAKEN = 10_000  # notices put together at once
# Parts without which nobody would notice that something breaks.
VITAL = (freshness.BEAT, freshness.FAST, freshness.SAMPLER, freshness.PROBER)
KEPT = timedelta(days=90)  # closed alerts, and messages
REMOVED_AT_ONCE = 1_000


def url_purpose(route: Route) -> str:
    """What the address is sealed for: this row and nothing else."""
    return f"alert_route:{route.pk}:url"


def gather(now: datetime) -> datetime | None:
    """Put what waits into messages and wake their routes; gives when to look again, None when nothing waits."""
    waiting = Notice.objects.waiting().order_by().values_list("route", flat=True).distinct()
    routes = list(waiting)
    if not routes:
        return None
    calendar = Calendar(now)
    again = [at for route in routes if (at := _gather_for(route, calendar, now)) is not None]
    return min(again, default=None)


def _gather_for(route_id: int, calendar: Calendar, now: datetime) -> datetime | None:
    with transaction.atomic():
        # Whoever holds the route puts its messages together; the next one finds what came meanwhile.
        route = Route.objects.select_for_update().filter(pk=route_id).first()
        if route is None:
            return None
        # A time that is ahead, though no window holds it: the clock was set back.
        ready = Q(at__lte=now) | Q(event__alert__silenced_until=None)
        notices = list(Notice.objects.waiting().filter(ready, route=route).select_related("event__alert")[:TAKEN])
        by_alert: dict[str, list[Notice]] = {}
        for notice in notices:
            by_alert.setdefault(notice.event.alert_id, []).append(notice)
        again = []
        for occasion, groups in _sorted(by_alert, _told_of(route, by_alert), calendar, now).items():
            times = [min(now, notice.at) for group in groups for notice in group]
            at = sending.gather_at(times, _told_lately(route, occasion, now))
            if at > now:
                again.append(at)
            else:
                _write(route, occasion, groups, now)
    return min(again, default=None)


def _told_of(route: Route, by_alert: dict[str, list[Notice]]) -> set[str]:
    """Which alerts that have closed this route has had a message about."""
    closed = [key for key, group in by_alert.items() if group[0].event.alert.closed_at is not None]
    if not closed:
        return set()
    told = Notice.objects.filter(route=route, event__alert__in=closed, delivery__isnull=False)
    return set(told.order_by().values_list("event__alert", flat=True).distinct())


def _sorted(
    by_alert: dict[str, list[Notice]], told_of: set[str], calendar: Calendar, now: datetime
) -> dict[Occasion, list[list[Notice]]]:
    """What is told now, by occasion. What a window silences waits for its end; what ended in it is not told at all."""
    told: dict[Occasion, list[list[Notice]]] = {Occasion.TROUBLE: [], Occasion.RECOVERY: []}
    held: list[tuple[Window, list[Notice]]] = []
    dropped: list[int] = []
    for key, group in by_alert.items():
        alert = group[0].event.alert
        window = calendar.silence(subject=alert.subject, service=alert.service, environment=alert.environment)
        if alert.closed_at is None and window is not None:
            held.append((window, group))
        elif alert.closed_at is None:
            told[Occasion.TROUBLE].append(group)
        elif key not in told_of and (window is not None or alert.silenced_until is not None):
            dropped += [notice.pk for notice in group]
        else:
            ended = any(notice.event.kind == EventKind.CLOSED for notice in group)
            told[Occasion.RECOVERY if ended else Occasion.TROUBLE].append(group)
    Notice.objects.filter(pk__in=dropped).delete()
    _hold(held, now)
    return {occasion: groups for occasion, groups in told.items() if groups}


def _hold(held: Iterable[tuple[Window, list[Notice]]], now: datetime) -> None:
    events, alerts, notices = [], [], []
    for window, group in held:
        alert = group[0].event.alert
        if alert.silenced_until is None:
            text = f"Not told until {moment(window.ends_at)}: maintenance window “{window.window.name}”."
            events.append(line(alert, EventKind.SILENCED, text, at=now))
        alert.silenced_until = window.ends_at
        alerts.append(alert)
        for notice in group:
            notice.at = window.ends_at
            notices.append(notice)
    Notice.objects.bulk_update(notices, ["at"], batch_size=REMOVED_AT_ONCE)
    Alert.objects.bulk_update(alerts, ["silenced_until"], batch_size=REMOVED_AT_ONCE)
    AlertEvent.objects.bulk_create(events, batch_size=REMOVED_AT_ONCE)


def _told_lately(route: Route, occasion: str, now: datetime) -> int:
    lately = Delivery.objects.filter(
        route=route, occasion=occasion, created_at__gt=now - sending.MINUTE, created_at__lte=now
    )
    return lately.aggregate(told=Sum("alerts"))["told"] or 0


def _write(route: Route, occasion: Occasion, groups: Sequence[list[Notice]], now: datetime) -> None:
    """Make one message of many alerts, or one for each of a few."""
    messages_of = [groups] if len(groups) >= sending.GROUP_FROM else [[group] for group in groups]
    for found in messages_of:
        alerts = [group[0].event.alert for group in found]
        row = _deliver_later(route, occasion, alerts, now)
        keys = [notice.pk for group in found for notice in group]
        Notice.objects.filter(pk__in=keys, delivery=None).update(delivery=row)
        fresh = [alert.pk for alert in alerts if alert.announced_at is None]
        Alert.objects.filter(pk__in=fresh).update(announced_at=now, silenced_until=None)


def _deliver_later(route: Route, occasion: str, alerts: Sequence[Alert], now: datetime) -> Delivery:
    key = f"{ids.timestamped('message', now)}_{ids.suffix(8)}"
    message = (
        messages.compose(occasion, alerts, key=key, now=now) if alerts else messages.test_message(route.name, key=key)
    )
    row = Delivery.objects.create(
        id=key,
        route=route,
        occasion=occasion,
        severity=message.severity,
        title=message.title,
        body=message.body,
        alerts=len(alerts),
        next_attempt_at=now,
        created_at=now,
    )
    wake("alerts.deliver", str(route.pk))
    return row


def write_test(route: Route, now: datetime) -> Delivery:
    """Queue a message that says only that the route works. Call it in a transaction."""
    return _deliver_later(route, Occasion.TEST, (), now)


def remind(now: datetime) -> int:
    """Tell each route again of what it was told, is still wrong, and nobody has acknowledged; gives how many."""
    open_ones = Alert.objects.open().filter(acknowledged_at=None, cleared_at=None, announced_at__isnull=False)
    if not open_ones.exists():
        return 0
    calendar = Calendar(now)
    return sum(_remind(route, calendar, now) for route in Route.objects.filter(enabled=True, reminder_minutes__gt=0))


def _remind(route: Route, calendar: Calendar, now: datetime) -> int:
    unsent = Delivery.objects.filter(route=route, occasion=Occasion.REMINDER).filter(
        status__in=(DeliveryStatus.QUEUED, DeliveryStatus.SENDING)
    )
    with transaction.atomic():
        # A route that fails for a day is to send one reminder when it is back, not all of the day's.
        if not Route.objects.select_for_update().filter(pk=route.pk).exists() or unsent.exists():
            return 0
        told = (
            Notice.objects.filter(
                route=route,
                delivery__isnull=False,
                event__alert__closed_at=None,
                event__alert__acknowledged_at=None,
                event__alert__cleared_at=None,
            )
            .order_by()
            .values_list("event__alert")
            .annotate(Max("delivery__created_at"))
        )
        late = [key for key, at in told if sending.reminder_due(at, route.reminder_minutes, now)]
        alerts = [
            alert
            for alert in Alert.objects.filter(pk__in=late).worst_first()
            if not calendar.silence(subject=alert.subject, service=alert.service, environment=alert.environment)
        ]
        groups = [alerts] if len(alerts) >= sending.GROUP_FROM else [[alert] for alert in alerts]
        for group in groups:
            row = _deliver_later(route, Occasion.REMINDER, group, now)
            events = [line(alert, EventKind.REMINDED, f"{route.name} reminded.", at=now) for alert in group]
            AlertEvent.objects.bulk_create(events, batch_size=BATCH)
            learn_keys(events)
            notices = [Notice(route=route, event=event, at=now, delivery=row) for event in events]
            Notice.objects.bulk_create(notices, batch_size=BATCH)
    return len(alerts)


def deliver(route_id: int, *, clock: Callable[[], datetime] = timezone.now) -> int:
    """Send what is due for a route, in the order it was written, until one fails; gives how many were sent.

    One that fails may be refused for what it says, so the others have their turn soon after.
    """
    sent = 0
    while (row := _claim(route_id, clock())) is not None:
        if not _send(row, clock):
            wake("alerts.deliver", str(route_id), seconds=sending.FIRST_RETRY.total_seconds())
            break
        sent += 1
    return sent


def _claim(route_id: int, now: datetime) -> Delivery | None:
    heal(now)
    may = Q(route__enabled=True) | Q(occasion=Occasion.TEST)
    due = Delivery.objects.due(now).filter(may, route=route_id)
    row = due.select_related("route").order_by("created_at", "pk").first()
    if row is None:
        return None
    try:
        with transaction.atomic():
            mine = Delivery.objects.filter(pk=row.pk, status=DeliveryStatus.QUEUED, attempts=row.attempts)
            taken = mine.update(
                status=DeliveryStatus.SENDING, lease_until=now + sending.LEASE, attempts=F("attempts") + 1
            )
    except IntegrityError:
        return None  # another worker sends for this route, and goes on with this one
    row.attempts += 1
    row.lease_until = now + sending.LEASE
    return row if taken else None


def _send(row: Delivery, clock: Callable[[], datetime]) -> bool:
    problem = ""
    try:
        url = vault.unseal(row.route.url_sealed, purpose=url_purpose(row.route))
        severity = "ok" if row.occasion == Occasion.RECOVERY else row.severity
        allowed = settings.ALERT_ALLOW_LOOPBACK
        channels.send(url, title=row.title, body=row.body, severity=severity, allow_loopback=allowed)
    except PulsewatchError as error:
        problem = str(error)[:MAX_ERROR]
    now = clock()
    held = Delivery.objects.filter(pk=row.pk, status=DeliveryStatus.SENDING, attempts=row.attempts)
    if not problem:
        held.update(status=DeliveryStatus.SENT, sent_at=now, lease_until=None, error="")
        Route.objects.filter(pk=row.route_id).update(failing_since=None, last_error="", last_sent_at=now)
        logger.info(
            "Message %s went to route %s",
            row.pk,
            row.route.name,
            extra={"event": "alert_sent", "event_type": "alert", "resource_id": row.pk, "attempts": row.attempts},
        )
        return True
    again = sending.retry_at(row.attempts, now)
    held.update(
        status=DeliveryStatus.QUEUED if again else DeliveryStatus.FAILED,
        next_attempt_at=again or now,
        lease_until=None,
        error=problem,
    )
    # After the message: a process that dies in between leaves nothing undone.
    broken = Route.objects.filter(pk=row.route_id)
    broken.update(last_error=problem)
    broken.filter(failing_since=None).update(failing_since=now)
    logger.warning(
        "Message %s did not reach route %s: %s",
        *(row.pk, row.route.name, problem),
        extra={"event": "alert_not_sent", "event_type": "alert", "resource_id": row.pk, "attempts": row.attempts},
    )
    return False


def heal(now: datetime) -> int:
    """Queue again what a process that is gone was sending; gives how many."""
    return Delivery.objects.expired(now).update(status=DeliveryStatus.QUEUED, next_attempt_at=now, lease_until=None)


def ping_deadman(now: datetime) -> bool:
    """Call the outside watcher, unless Pulsewatch itself is stale or nobody is set; whether the call was taken.

    That the database answers and this worker runs is proven by coming here; that it samples and checks is looked up.
    """
    if not settings.DEADMAN_URL or any(part.source in VITAL for part in heartbeats.stale(now)):
        return False
    try:
        channels.ping(settings.DEADMAN_URL)
    except PulsewatchError as error:
        logger.warning("The dead-man's address was not reached: %s", error, extra={"event": "deadman_not_reached"})
        return False
    return True


def tick(now: datetime) -> datetime | None:
    """Once a minute: remind, make good what was lost; gives when `gather` has something to do next."""
    remind(now)
    heal(now)
    for route in Delivery.objects.due(now).order_by().values_list("route", flat=True).distinct():
        wake("alerts.deliver", str(route))
    return gather(now)


def clean_up(now: datetime) -> int:
    """Forget closed alerts and messages after 90 days, batch by batch; none while the stop switch is on."""
    gone = 0
    old = now - KEPT
    # What an open alert was told by is kept: by it one knows whom to tell that it is over.
    needed = Notice.objects.filter(delivery=OuterRef("pk"), event__alert__closed_at=None)
    messages_of = Delivery.objects.filter(~Exists(needed), created_at__lt=old)
    for rows in (Alert.objects.filter(closed_at__lt=old), messages_of):
        while keys := list(rows.order_by().values_list("pk", flat=True)[:REMOVED_AT_ONCE]):
            if StopSwitch.objects.filter(on=True).exists():
                return gone
            rows.model._default_manager.filter(pk__in=keys).delete()
            gone += len(keys)
    return gone

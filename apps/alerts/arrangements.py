"""What a person or a client may ask of routes and maintenance windows. Every verb validates, writes, audits, wakes."""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import transaction
from django.forms.models import model_to_dict
from django.utils import timezone

from apps.alerts import channels, outbox, runner
from apps.alerts.choices import DeliveryStatus, Recurrence
from apps.alerts.models import WRONG_ORDER, Delivery, MaintenanceWindow, Notice, Route
from apps.alerts.rules import times
from apps.core import audit, vault
from apps.core.errors import Conflict, Invalid
from apps.core.wake import wake

Row = TypeVar("Row", Route, MaintenanceWindow)

FARTHEST = timedelta(days=3653)  # of a window's first day; calendars end in the year 9999


@dataclass(frozen=True, slots=True)
class Address:
    """An Apprise address that has been checked, and what it belongs to."""

    url: str = field(repr=False)  # a secret
    channel: str


def check_address(url: str) -> Address:
    """Check an Apprise address for `save_route`. Takes a second, at most 25: call it outside of transactions.

    Raises Invalid; the text shows nothing of the address.
    """
    return Address(url.strip(), channels.check(url.strip()))


def save_route(*, route: Route, actor: audit.Actor, address: Address | None = None) -> Route:
    """Add or change a route. `address` replaces the one that is kept; a new route needs one.

    Raises Invalid with the first wrong field; then nothing has changed.
    """
    adding = route._state.adding
    _clean(route)
    if adding and address is None:
        raise Invalid("A route needs an Apprise address: where its messages go.", field="url")
    vault.keyring()  # without a keyset nothing can be sealed: say so before anything is written
    with transaction.atomic():
        before = {} if adding else _state(Route.objects.select_for_update().get(pk=route.pk))
        if adding:
            route.save(force_insert=True)
        else:
            route.save(update_fields=[field.name for field in route._meta.concrete_fields if _is_saved(field)])
        if address is not None:
            _keep_address(route, address, actor)
        _audit(route, "alert_route", before, actor)
        if not route.enabled:
            _drop(route)
    return route


def remove_route(*, route: Route, actor: audit.Actor) -> None:
    """Forget a route with its address and the record of its messages."""
    with transaction.atomic():
        audit.record(
            actor=actor, action="alert_route.delete", subject=f"alert_route:{route.name}", before=_state(route)
        )
        route.delete()


def send_test(*, route: Route, actor: audit.Actor) -> Delivery:
    """Queue a message that says only that the route works. What became of it is on the delivery that comes back."""
    with transaction.atomic():
        row = runner.write_test(route, timezone.now())
        audit.record(
            actor=actor, action="alert_route.test", subject=f"alert_route:{route.name}", after={"delivery": row.pk}
        )
    return row


def save_window(*, window: MaintenanceWindow, actor: audit.Actor) -> MaintenanceWindow:
    """Add or change a maintenance window. Raises Invalid with the first wrong field, Conflict for a cancelled one.

    What it no longer silences is told now.
    """
    adding, now = window._state.adding, timezone.now()
    if adding:
        window.created_by = actor.name
    if window.recurrence == Recurrence.ONCE:
        window.weekdays, window.last_day = [], None
    window.subject = window.subject.lower()
    if window.last_day is not None and window.last_day < window.first_day:
        raise Invalid(WRONG_ORDER, field="last_day")
    _clean(window)
    if window.recurrence == Recurrence.WEEKLY and not window.weekdays:
        raise Invalid("Choose at least one day of the week.", field="weekdays")
    if window.first_day > now.date() + FARTHEST:
        raise Invalid("Its first day is more than ten years ahead: look at the year.", field="first_day")
    if window.freeze_deployments and window.subject:
        raise Invalid(
            "A window for one target freezes no deployments: leave the target empty, or do not freeze.",
            field="freeze_deployments",
        )
    if not times.upcoming(window.plan, now, 1):
        raise Invalid("This window is over already, or never comes: look at its days.", field="first_day")
    with transaction.atomic():
        before = {}
        if not adding:
            stored = MaintenanceWindow.objects.select_for_update().get(pk=window.pk)
            if stored.cancelled_at is not None:
                raise Conflict(f"{stored.name} was cancelled by {stored.cancelled_by}; make a new window.")
            before = _state(stored)
            window.save(update_fields=[field.name for field in window._meta.concrete_fields if _is_saved(field)])
        else:
            window.save(force_insert=True)
        _audit(window, "maintenance_window", before, actor)
        _tell_again()
    return window


def cancel_window(*, window: MaintenanceWindow, actor: audit.Actor) -> MaintenanceWindow:
    """End a window for good. Raises Conflict when it has been cancelled already."""
    now = timezone.now()
    with transaction.atomic():
        mine = MaintenanceWindow.objects.filter(pk=window.pk, cancelled_at=None)
        if not mine.update(cancelled_at=now, cancelled_by=actor.name, updated_at=now):
            raise Conflict(f"{window.name} has been cancelled already.")
        audit.record(actor=actor, action="maintenance_window.cancel", subject=_subject(window, "maintenance_window"))
        _tell_again()
    window.refresh_from_db()
    return window


def _tell_again() -> None:
    """Have what windows hold back looked at anew."""
    Notice.objects.waiting().filter(at__gt=timezone.now()).update(at=timezone.now())
    outbox.gather()


def _keep_address(route: Route, address: Address, actor: audit.Actor) -> None:
    now = timezone.now()
    route.url_sealed = vault.seal(address.url, purpose=runner.url_purpose(route))
    route.channel = address.channel
    route.failing_since, route.last_error = None, ""
    route.save(update_fields=["url_sealed", "channel", "failing_since", "last_error"])
    Delivery.objects.filter(route=route, status=DeliveryStatus.QUEUED).update(next_attempt_at=now)
    wake("alerts.deliver", str(route.pk))
    audit.record(
        actor=actor,
        action="alert_route.address_set",
        subject=_subject(route, "alert_route"),
        after={"channel": address.channel},
    )


def _drop(route: Route) -> None:
    """A route that is switched off says nothing of what happened before, when it is switched on again."""
    Notice.objects.waiting().filter(route=route).delete()
    waiting = Delivery.objects.filter(route=route, status=DeliveryStatus.QUEUED)
    waiting.update(status=DeliveryStatus.FAILED, error="The route was switched off.")


def _clean(row: Row) -> None:
    try:
        row.full_clean()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise Invalid(messages[0], field="" if field == "__all__" else field) from error


def _audit(row: Row, noun: str, before: dict[str, Any], actor: audit.Actor) -> None:
    after = _state(row)
    changed = {name for name in after if before.get(name) != after[name]}
    if changed:
        audit.record(
            actor=actor,
            action=f"{noun}.{'update' if before else 'create'}",
            subject=_subject(row, noun),
            before={name: value for name, value in before.items() if name in changed},
            after={name: value for name, value in after.items() if name in changed},
        )


def _subject(row: Row, noun: str) -> str:
    return f"{noun}:{row.name if isinstance(row, Route) else row.pk}"


def _state(row: Row) -> dict[str, Any]:
    return model_to_dict(row)


def _is_saved(field: Any) -> bool:
    return not field.primary_key and (field.editable or getattr(field, "auto_now", False))

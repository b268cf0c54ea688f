"""What webhooks bring in. A delivery is stored first and applied then, so a process that dies in between loses nothing:
its row is the work, and the tick comes back to it.
"""

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, OperationalError, transaction

from apps.api import reports
from apps.api.choices import DeliveryOutcome
from apps.api.models import WebhookDelivery
from apps.core.audit import Actor
from apps.core.errors import Conflict, Invalid
from apps.core.wake import wake
from apps.deployments import sources
from apps.deployments.sources.base import Event, Ignored, Report, RunEnded, moment

logger = logging.getLogger(__name__)

ATTEMPTS = 5  # a delivery that cannot be applied this often needs a person
PATIENCE = timedelta(seconds=30)  # after which the tick takes over from the request that stored a delivery
KEPT = timedelta(days=30)  # for which a delivery is recognised when it comes again; GitHub resends those of 3 days
BATCH = 1000  # rows woken or deleted at once
_GIVEN_UP = f"It could not be applied in {ATTEMPTS} attempts; the log says why. Have it sent again afterwards."


def receive(
    *, source: str, delivery_id: str, event: str, payload: Mapping[str, Any], now: datetime
) -> tuple[WebhookDelivery, bool]:
    """Store a genuine delivery and apply it. Gives its row, and whether it is new.

    One that was applied before changes nothing. One that was ignored or failed is looked at again: somebody may have
    mapped its repository since, and had it sent once more.
    """
    found = sources.read(source, event, payload)
    row = WebhookDelivery(
        source=source,
        delivery_id=delivery_id,
        event=event,
        received_at=now,
        outcome=DeliveryOutcome.PENDING,
        content=_packed(found),
    )
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        with transaction.atomic():
            named = delivery_id.encode().hex().upper()
            row = WebhookDelivery.objects.select_for_update().get(source=source, delivery_bytes=named)
            if row.outcome == DeliveryOutcome.APPLIED:
                return row, False
            if row.outcome != DeliveryOutcome.PENDING:
                row.outcome, row.content, row.attempts = DeliveryOutcome.PENDING, _packed(found), 0
                row.save(update_fields=["outcome", "content", "attempts"])
    try:
        applied = apply(row.pk)
    except (OperationalError, IntegrityError):
        # It is stored and will be applied; the sender, who asks only once, must not be told that it failed.
        logger.warning(
            "Delivery %s waits: other writes were in the way",
            row.delivery_id,
            exc_info=True,
            extra={"event": "webhook_pending", "event_type": "deployment"},
        )
        wake("api.apply_delivery", str(row.pk))
        return WebhookDelivery.objects.get(pk=row.pk), True
    return (applied, True) if applied else (WebhookDelivery.objects.get(pk=row.pk), False)


def apply(key: int) -> WebhookDelivery | None:
    """Act on a pending delivery, once; None when somebody else has. Safe to call again after any failure."""
    with transaction.atomic():
        row = _pending(key)
        if row is None:
            return None
        row.attempts += 1  # counted before anything can go wrong
        row.save(update_fields=["attempts"])
    with transaction.atomic():
        row = _pending(key)
        if row is None:
            return None
        if row.attempts > ATTEMPTS:
            row.outcome, row.detail = DeliveryOutcome.FAILED, _GIVEN_UP
        else:
            actor = Actor.automation(f"{row.get_source_display()} webhook")
            try:
                with transaction.atomic():
                    result = reports.act(_unpacked(row.content), actor=actor)
            except (Conflict, Invalid) as error:
                result = reports.Result(DeliveryOutcome.FAILED, str(error))
            row.outcome, row.detail, row.deployment_id = result.outcome, result.detail, result.deployment_id
        row.detail = row.detail[: WebhookDelivery.MAX_DETAIL]
        row.save(update_fields=["outcome", "detail", "deployment_id"])
    logger.log(
        logging.WARNING if row.outcome == DeliveryOutcome.FAILED else logging.INFO,
        "Delivery %s of %s was %s: %s",
        row.delivery_id,
        row.get_source_display(),
        row.outcome,
        row.detail,
        extra={"event": f"webhook_{row.outcome}", "event_type": "deployment", "resource_id": row.deployment_id or None},
    )
    return row


def _pending(key: int) -> WebhookDelivery | None:
    """The row, locked, if it is still to be acted on.

    Found by its key alone: a condition on the outcome would lock that index before the row, and whoever changes the
    outcome of the row comes the other way.
    """
    row = WebhookDelivery.objects.select_for_update().filter(pk=key).first()
    return row if row and row.outcome == DeliveryOutcome.PENDING else None


def wake_waiting(now: datetime) -> int:
    """Wake a worker for each delivery that was stored and not acted on; gives how many."""
    waiting = WebhookDelivery.objects.pending().filter(received_at__lte=now - PATIENCE)
    keys = list(waiting.order_by("received_at").values_list("pk", flat=True)[:BATCH])
    for key in keys:
        wake("api.apply_delivery", str(key))
    return len(keys)


def clean_up(now: datetime) -> int:
    """Remove what is older than KEPT, a batch at a time; gives how many. What is pending stays."""
    old = WebhookDelivery.objects.exclude(outcome=DeliveryOutcome.PENDING).filter(received_at__lt=now - KEPT)
    removed = 0
    while keys := list(old.order_by("received_at").values_list("pk", flat=True)[:BATCH]):
        removed += WebhookDelivery.objects.filter(pk__in=keys).delete()[0]
    return removed


_KINDS: dict[str, type[Report] | type[RunEnded] | type[Ignored]] = {
    "report": Report,
    "run_ended": RunEnded,
    "ignored": Ignored,
}

_MOMENTS = ("claimed_at", "committed_at")


def _packed(event: Event) -> dict[str, Any]:
    """An event as JSON: all that is kept of a payload of up to 25 MB."""
    kind = next(name for name, made in _KINDS.items() if isinstance(event, made))
    values = asdict(event)
    for name in _MOMENTS:
        if isinstance(given := values.get(name), datetime):
            values[name] = given.isoformat()
    return {"kind": kind, **values}


def _unpacked(content: Mapping[str, Any]) -> Event:
    made = _KINDS[content["kind"]]
    values = {item.name: content[item.name] for item in fields(made) if item.name in content}
    for name in _MOMENTS:
        if name in values:
            values[name] = moment(values[name])
    if values.get("place"):
        values["place"] = tuple(values["place"])
    return made(**values)

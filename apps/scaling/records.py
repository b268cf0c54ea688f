"""How a change of a workload's count is intended, settled and remembered. Every function runs in its caller's
transaction."""

from collections.abc import Collection
from datetime import UTC, datetime

from django.db import IntegrityError, transaction
from django.db.models import F, Max, Q

from apps.core import ids
from apps.core.errors import Conflict
from apps.core.models import MAX_REASON
from apps.core.wake import wake
from apps.inventory import platforms
from apps.inventory import services as inventory
from apps.inventory.models import Workload
from apps.scaling.choices import EventAction, Trigger
from apps.scaling.models import ScalingEvent
from apps.scaling.rules.evaluation import Past

MAX_ERROR = 1000  # characters


def scales(workload: Workload) -> bool:
    """Whether Pulsewatch can change this workload's count itself."""
    return platforms.scales(workload.platform, workload.platform_settings)


def intend(
    *,
    workload: Workload,
    at: datetime,
    action: str,
    before: int,
    after: int,
    reason: str,
    trigger: str,
    now: datetime,
    user: str | None = None,
    cpu: float | None = None,
    memory: float | None = None,
) -> ScalingEvent:
    """Record a change that is to be made, take the workload's change lock for it and wake a worker.

    Raises Conflict while somebody else changes the workload or another change of its count is not settled.
    """
    event = ScalingEvent(
        service_id=workload.service_id,
        workload=workload,
        environment=workload.environment,
        timestamp=at,
        action=action,
        instances_before=before,
        instances_after=after,
        trigger_reason=reason,
        cpu_percent_avg=cpu,
        memory_percent_avg=memory,
        triggered_by=trigger,
        triggered_by_user=user,
    )
    _insert(event, now)
    inventory.take_lock(workload=workload, holder=event.pk, by=user or trigger, now=now)
    wake("scaling.act", event.pk)
    return event


def note_foreign(
    workload: Workload, *, before: int, after: int, late: str = "", known_at: datetime, now: datetime
) -> ScalingEvent | None:
    """Record that the count was moved by somebody else; under a change lock it was the deployment that holds it.

    `before` is what was known at `known_at`; `late` is a change of ours that counted as failed and wanted this count.
    None when another worker, which found the same, has recorded it.
    """
    with transaction.atomic():
        Workload.objects.select_for_update().get(pk=workload.pk)
        if (
            ScalingEvent.objects.successful()
            .filter(workload=workload, settled_at__gt=known_at, settled_at__lte=now)
            .exists()
        ):
            return None
        return _foreign(workload, before=before, after=after, late=late, now=now)


def _foreign(workload: Workload, *, before: int, after: int, late: str, now: datetime) -> ScalingEvent:
    deploying = bool(workload.change_lock)
    who = f"{workload.change_lock} ({workload.change_lock_by})" if deploying else "somebody outside Pulsewatch"
    why = f"{late}, which counted as failed, changed" if late else f"{who} changed"
    deploying = deploying and not late
    event = ScalingEvent(
        service_id=workload.service_id,
        workload=workload,
        environment=workload.environment,
        timestamp=now,
        action=EventAction.SCALE_UP if after > before else EventAction.SCALE_DOWN,
        instances_before=before,
        instances_after=after,
        trigger_reason=f"{why} the count from {before} to {after}{' after all' if late else ''}"[:MAX_REASON],
        triggered_by=Trigger.DEPLOYMENT if deploying else Trigger.OTHER,
        success=True,
        settled_at=now,
    )
    _insert(event, now)
    return event


def settle(event: ScalingEvent, *, error: str = "", now: datetime) -> bool:
    """Say how a change ended, and give the lock back. False when somebody else had said so before."""
    mine = ScalingEvent.objects.unsettled().filter(pk=event.pk)
    with transaction.atomic():
        if not mine.update(success=not error, error_message=error[:MAX_ERROR] or None, settled_at=now,
                           lease_until=None):  # fmt: skip
            return False
        inventory.free_lock(workload_id=event.workload_id, holder=event.pk)
    return True


def pasts(workload_ids: Collection[int], *, until: datetime) -> dict[int, Past]:
    """The newest successful actions of each workload before then, in one query.

    What lies ahead was done while the clock was wrong: no cooldown lasts until then.
    """
    rows = (
        ScalingEvent.objects.successful()
        .filter(workload__in=workload_ids, timestamp__lte=until)
        .values("workload")
        .annotate(
            up=Max("timestamp", filter=Q(instances_after__gt=F("instances_before"))),
            any=Max("timestamp"),
        )
    )
    return {row["workload"]: Past(_seconds(row["up"]), _seconds(row["any"])) for row in rows}


def _seconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.astimezone(UTC).timestamp())


def _insert(event: ScalingEvent, now: datetime) -> None:
    stem = ids.timestamped("scale", now)
    taken = ScalingEvent.objects.filter(pk=stem).exists()
    for key in [stem, *(f"{stem}_{ids.suffix(4)}" for _ in range(8))][taken:]:
        event.pk = key
        try:
            with transaction.atomic():
                event.save(force_insert=True)
        except IntegrityError:
            if ScalingEvent.objects.filter(pk=key).exists():
                continue
            open_one = ScalingEvent.objects.unsettled().filter(workload=event.workload_id).first()
            if open_one is None:
                raise
            raise Conflict(
                f"{open_one.workload} is being scaled to {open_one.instances_after} by {open_one.pk}: wait.",
                facts={"held_by": open_one.pk, "held_since": open_one.created_at.isoformat()},
            ) from None
        return
    raise Conflict("Too many changes were asked for in this second; try again.")

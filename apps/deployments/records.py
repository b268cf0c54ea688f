"""How a deployment's record is opened, moved and ended. Every function runs inside its caller's transaction."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError
from django.db.models import Q

from apps.core import audit, ids, inserts
from apps.core.errors import Conflict, Invalid
from apps.core.models import MAX_REASON
from apps.core.reads import Reader
from apps.core.redaction import redact
from apps.core.wake import wake
from apps.deployments.choices import DeploymentKind, DeploymentStatus, StepKind
from apps.deployments.models import OPEN, Deployment, DeploymentStep, FailedVersion
from apps.deployments.rules import transitions
from apps.inventory import services as inventory
from apps.inventory.models import Service, Workload

logger = logging.getLogger(__name__)

AUTOMATIC = "automatic"  # who did it, where nobody did


def locked(deployment: Deployment) -> Deployment:
    """The row as it is now; everybody else who wants to move it waits for this transaction."""
    # Without a join: what is joined would be locked as well.
    return Deployment.objects.select_for_update().get(pk=deployment.pk)


def still_open(row: Deployment) -> None:
    """Raises Conflict once a deployment has ended."""
    if not row.is_open:
        raise Conflict(f"{row.pk} has ended as {row.status}; nothing can be added.", facts={"legal": []})


def reason_text(text: str, *, required: bool = True) -> str:
    """A reason as it is kept and shown: without secrets. Raises Invalid for none, or a long one."""
    text = redact(text.replace("\x00", "").strip())
    if len(text) > MAX_REASON or (required and not text):
        raise Invalid(f"Say why, in 1 to {MAX_REASON} characters: the next person on call will ask.", field="reason")
    return text


def audit_entry(
    row: Deployment, verb: str, actor: audit.Actor, *, reason: str = "", after: Mapping[str, Any] | None = None
) -> None:
    """Record who did what to a deployment."""
    audit.record(
        actor=actor,
        action=f"deployment.{verb}",
        subject=f"deployment:{row.pk}",
        reason=reason,
        after={"workload": str(row.workload), **(after or {})},
    )


@dataclass(frozen=True, slots=True)
class Known:
    """A workload, and what there is at all of that which a new deployment on it has to heed."""

    workload: Workload
    variable_rules: bool
    databases: bool
    failure: bool  # of this version
    freeze: bool  # a maintenance window that forbids deployments, for whom and when ever
    in_this_second: bool  # a deployment that has the first identifier of this second
    observed: bool  # one that others have announced and not ended


# For each report of CI, in one statement: most deployments have nothing of it, and then no further question is needed.
_WORKLOAD = Reader(
    Workload,
    "JOIN services ON services.id = workloads.service_id WHERE services.slug = %s AND workloads.environment = %s",
    extra=(
        "services.slug",
        "EXISTS (SELECT 1 FROM environment_variable_rules WHERE service_id = services.id)",
        "EXISTS (SELECT 1 FROM `databases` WHERE service_id = services.id AND environment = workloads.environment)",
        "EXISTS (SELECT 1 FROM failed_versions WHERE workload_id = workloads.id AND version = %s)",
        "EXISTS (SELECT 1 FROM maintenance_windows WHERE freeze_deployments AND cancelled_at IS NULL)",
        "EXISTS (SELECT 1 FROM deployments WHERE id = %s)",
        "EXISTS (SELECT 1 FROM deployments WHERE workload_id = workloads.id AND completed_at IS NULL AND observed)",
    ),
)


def known(*, service: str, environment: str, version: str, now: datetime) -> Known:
    """Raises Invalid when there is no such workload. Of its service the slug alone is read."""
    found = _WORKLOAD.first([version, _stem(now), service, environment])
    if found is None:
        raise Invalid(
            f"There is no workload {service}/{environment}: add it under Inventory, Workloads first."[:200],
            field="service",
        )
    workload, (slug, *facts) = found
    workload.service = Service.from_db(workload._state.db, ("id", "slug"), (workload.service_id, slug))
    return Known(workload, *map(bool, facts))


def _stem(now: datetime) -> str:
    return ids.timestamped("deploy", now)


def insert(row: Deployment, *, now: datetime, lock_of: str | None = None, taken: bool | None = None) -> Deployment:
    """Store a new record under the first free id of the second `now` and take its workload's change lock.

    Ids sort as deployments began, within one second too: what a workload got last is told by them.

    `lock_of` hands over the lock another record holds. Observed records take none. `taken`: whether the first id is,
    if that is known. Raises Conflict while somebody else changes the workload.
    """
    stem = _stem(now)
    if taken is None:  # asked first: a refused insert costs more than a look
        taken = Deployment.objects.filter(pk=stem).exists()
    for number in range(taken, 9):
        key = f"{stem}_{ids.in_order(now, number - 1)}" if number else stem
        row.pk = key
        # The workload's row first: everybody takes the two in this order, so nobody waits in a circle.
        _lock(row, now=now, lock_of=lock_of)
        try:
            inserts.insert([row])
        except IntegrityError:
            # A refused statement leaves the transaction as it was, with the lock under the key that was taken.
            if not Deployment.objects.filter(pk=key).exists():
                raise
            lock_of = key
        else:
            return row
    raise Conflict("Too many deployments were started in this second; try again.")


def _lock(row: Deployment, *, now: datetime, lock_of: str | None) -> None:
    if row.observed:
        return
    if lock_of is None:
        inventory.take_lock(workload=row.workload, holder=row.pk, by=row.triggered_by, now=now)
    elif not inventory.pass_lock(workload_id=row.workload_id, holder=lock_of, to=row.pk, by=row.triggered_by, now=now):
        raise Conflict(inventory.lock_text(Workload.objects.select_related("service").get(pk=row.workload_id)))


def open_rollback(
    undone: Deployment, target: Deployment, *, reason: str, by: str, now: datetime, lock_of: str | None = None
) -> Deployment:
    """Queue a record that brings `target`'s version back, and wake a worker for it."""
    workload = undone.workload
    row = Deployment(
        service_id=undone.service_id,
        environment=undone.environment,
        workload=workload,
        kind=DeploymentKind.ROLLBACK,
        version=target.version,
        commit_sha=target.commit_sha,
        commit_message=target.commit_message,
        status=DeploymentStatus.QUEUED,
        triggered_by=by,
        started_at=now,
        created_at=now,
        open_until=now + timedelta(minutes=workload.deployment_timeout_minutes),
        rollback_reason=redact(reason)[:MAX_REASON],
        undoes=undone,
        returns_to=target,
        deployment_platform=workload.platform,
        domain=workload.domain,
        deployment_url=workload.base_url or None,
        instances_deployed=target.instances_deployed,
    )
    insert(row, now=now, lock_of=lock_of)
    step(row, StepKind.CREATED, f"Rollback to {target.version} queued: {reason}", by=by, at=now)
    step(undone, StepKind.ROLLBACK, f"Rolled back by {row.pk} to {target.version}: {reason}", by=by, at=now)
    wake("deployments.roll_back", row.pk)
    return row


def end(
    row: Deployment,
    *,
    status: str,
    now: datetime,
    text: str,
    by: str = AUTOMATIC,
    keeps_lock: bool = False,
    corrects: bool = False,
    learned: datetime | None = None,
    **facts: Any,
) -> bool:
    """Give an open record its verdict and its workload's lock back. False when it had ended already.

    `text` goes into the timeline, and into `error_message` of one that failed or was cancelled. `keeps_lock` leaves the
    lock for `open_rollback` to take over. `corrects` takes one that had only timed out as well.
    `learned`: when that is later than `now`, at which it ended.
    """
    text = redact(text)
    facts["error_message"] = text if status in (DeploymentStatus.FAILED, DeploymentStatus.CANCELLED) else None
    ending = Q(status__in=OPEN) | Q(timed_out=True) if corrects else Q(status__in=OPEN)
    facts.setdefault("timed_out", False)
    ended = max(now, row.started_at)
    seconds = round((ended - row.started_at).total_seconds())
    moved = Deployment.objects.filter(ending, pk=row.pk).update(
        status=status, completed_at=ended, duration_seconds=seconds, updated_at=learned or now, **facts
    )
    if not moved:
        return False
    if not keeps_lock:
        inventory.free_lock(workload_id=row.workload_id, holder=row.pk)
    step(row, StepKind.ENDED, text, by=by, at=learned or now)
    wake("deployments.alarms", str(row.workload_id))
    good = status in (DeploymentStatus.COMPLETED, DeploymentStatus.ROLLED_BACK, DeploymentStatus.CANCELLED)
    logger.log(
        logging.INFO if good else logging.ERROR,
        "Deployment %s of %s is %s: %s",
        row.pk,
        row.version,
        status,
        text,
        extra={"event": f"deployment_{status}", "event_type": "deployment", "resource_id": row.pk},
    )
    row.refresh_from_db()
    return True


def step(row: Deployment, kind: str, text: str, *, by: str, at: datetime, claimed_at: datetime | None = None) -> None:
    """Add a line to the timeline."""
    line = DeploymentStep(
        deployment=row, kind=kind, text=redact(text)[:MAX_REASON], by=by, at=at, claimed_at=claimed_at
    )
    inserts.insert([line])


def remember_failure(row: Deployment, *, reason: str, now: datetime) -> None:
    """Deploying this version here again needs an override from now on."""
    for version in transitions.spellings(row.version, row.commit_sha):
        FailedVersion.objects.update_or_create(
            workload_id=row.workload_id,
            version=version,
            defaults={"deployment": row, "failed_at": now, "reason": redact(reason)[:MAX_REASON]},
        )


def forget_failure(row: Deployment) -> None:
    """The version has succeeded after all."""
    written = Q(version__in=transitions.spellings(row.version, row.commit_sha))
    shortened = Q(version__startswith=row.commit_sha[:7])  # its commit, however many digits were given
    FailedVersion.objects.filter(written | shortened, workload_id=row.workload_id).delete()


def make_current(row: Deployment) -> None:
    """From now on the workload runs what this record brought: its samples carry the record's id."""
    Workload.objects.filter(pk=row.workload_id).update(current_deployment_id=row.pk)

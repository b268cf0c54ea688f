"""What a tick does: open due plans, take over from dead workers, wake for what still waits, remove what has expired.

Every step may run twice, or in two processes at once: rows are taken by compare-and-set, slots are unique.
"""

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from apps.backups import rules
from apps.backups.choices import BackupStatus, BackupType, RestoreKind, RestoreStatus, Trigger
from apps.backups.models import OPEN_RESTORE, BackupJob, BackupPlan, Restore
from apps.backups.restorer import left_behind
from apps.backups.runner import discard, fail, storage
from apps.backups.sidecar import sidecar_paths
from apps.core.errors import Conflict, PulsewatchError
from apps.core.models import StopSwitch
from apps.core.wake import wake

logger = logging.getLogger(__name__)

# A queued row is woken for again after this long: the first message may still be on its way.
PATIENCE = timedelta(minutes=2)
REMOVED_AT_ONCE = 100  # objects in one batch of a clean-up


def open_due_plans(now: datetime) -> int:
    """Queue a backup for each plan whose slot has come; gives how many."""
    opened = 0
    for plan in BackupPlan.objects.filter(enabled=True).select_related("database"):
        owed = rules.due(plan.cron, plan.time_zone, last=plan.last_slot, now=now)
        if owed.run is None:
            continue
        for slot in owed.missed:
            _open(plan, slot, now, BackupStatus.MISSED)
        if _open(plan, owed.run, now, BackupStatus.QUEUED):
            opened += 1
        # Last, so that a crash in between opens the same slots again, which are there already.
        BackupPlan.objects.filter(pk=plan.pk, last_slot__lt=owed.run).update(last_slot=owed.run)
    return opened


def _open(plan: BackupPlan, slot: datetime, now: datetime, status: str) -> bool:
    try:
        BackupJob.objects.open(
            plan.database,
            now=now,
            storage_location=settings.BACKUP_STORAGE,
            triggered_by=Trigger.SCHEDULED,
            backup_type=BackupType.FULL,
            requested_by="beat",
            slot=slot,
            status=status,
        )
    except Conflict as conflict:
        if BackupJob.objects.filter(plan=plan, slot=slot).exists():
            return False  # the other beat was faster
        # The one before still runs. This slot stands as missed, so that the gap is seen.
        logger.warning(
            "The slot %s of %s is missed: %s", slot, plan.database, conflict, extra={"event": "backup_missed"}
        )
        return status != BackupStatus.MISSED and _open(plan, slot, now, BackupStatus.MISSED) and False
    return True


def heal(now: datetime) -> int:
    """Fail what dead workers left, so that it is tried again; gives how many."""
    healed = 0
    for job in BackupJob.objects.expired(now).select_related("database"):
        mine = BackupJob.objects.filter(pk=job.pk, status=BackupStatus.IN_PROGRESS, lease_until=job.lease_until)
        # Taken by moving the lease on: of two ticks, and of a worker that wakes up again, one goes on.
        if mine.update(lease_owner="tick", lease_until=now):
            taken = BackupJob.objects.filter(pk=job.pk, status=BackupStatus.IN_PROGRESS, lease_owner="tick")
            fail(taken, job, "Its worker died.", now)
            healed += 1
    for row in Restore.objects.expired(now).select_related("safety_backup"):
        left = Restore.objects.filter(pk=row.pk, status=RestoreStatus.IN_PROGRESS, lease_until=row.lease_until)
        repeatable = row.kind in (RestoreKind.DRILL, RestoreKind.VERIFY) and not row.attended
        if repeatable and row.next_attempt_at is None and not row.cancel_requested:
            # A drill begins by dropping its schema, so it can run again; once, lest it kills worker after worker.
            healed += left.update(
                status=RestoreStatus.QUEUED, next_attempt_at=now, lease_owner="", lease_until=None, progress_bytes=0
            )
            continue
        healed += left.update(
            status=RestoreStatus.FAILED,
            lease_owner="tick",
            completed_at=max(now, row.started_at),
            error_message=f"Its worker died. {left_behind(row)}".strip(),
        )
    return healed


def wake_waiting(now: datetime) -> int:
    """Send again for rows whose message was lost; gives how many."""
    late = now - PATIENCE
    jobs = [*BackupJob.objects.claimable(now).filter(updated_at__lte=late).values_list("pk", flat=True)]
    jobs += BackupJob.objects.claimable(now).filter(next_attempt_at__isnull=False).values_list("pk", flat=True)
    restores = [*Restore.objects.claimable(now).filter(updated_at__lte=late).values_list("pk", flat=True)]
    for key in dict.fromkeys(jobs):
        wake("backups.run", key)
    for key in restores:
        wake("backups.restore", key)
    return len(jobs) + len(restores)


def clean_up(now: datetime) -> int:
    """Delete expired objects, keeping their rows; never the newest verified one of a database. Gives how many."""
    if StopSwitch.objects.filter(on=True).exists():
        return 0
    ours = BackupJob.objects.ours(settings.BACKUP_STORAGE)
    newest = {
        ours.verified().filter(source=source).order_by("-started_at").values_list("pk", flat=True).first()
        for source in ours.verified().order_by().values_list("source", flat=True).distinct()
    }
    expired = ours.filter(retention_expires_at__lte=now, object_deleted_at=None, legal_hold=False)
    expired = expired.exclude(sidecar_path="").exclude(pk__in=newest).order_by("retention_expires_at")
    halves = BackupJob.objects.filter(
        status__in=(BackupStatus.FAILED, BackupStatus.CANCELLED), sidecar_path=""
    ).exclude(object_path="")
    for job in halves[:REMOVED_AT_ONCE]:
        try:
            with storage(job.storage_location) as place:
                discard(place, job, job.object_path)
        except PulsewatchError as error:  # a storage that is no longer set up; the others are cleaned all the same
            logger.warning("%s could not be cleaned up: %s", job.pk, error, extra={"event": "backup_delete_failed"})
    gone, tried = 0, 0
    # Batch after batch, until all are gone or a whole batch could not be removed.
    while batch := list(expired[tried : tried + REMOVED_AT_ONCE]):
        for job in batch:
            if _may_go(job, newest, now) and _remove(job, now):
                gone += 1
            else:
                tried += 1
        if tried >= REMOVED_AT_ONCE:
            break
    return gone


def _may_go(job: BackupJob, newest: set[str], now: datetime) -> bool:
    kept = rules.Kept(
        expires_at=job.retention_expires_at,
        verified=bool(job.integrity_check_passed),
        newest_verified=job.pk in newest,
        legal_hold=job.legal_hold,
        deleted=job.object_deleted_at is not None,
    )
    return rules.may_delete(kept, now)


def _remove(job: BackupJob, now: datetime) -> bool:
    """Delete a backup's files. False when the storage refuses, a restore reads it, or somebody held it meanwhile."""
    if not BackupJob.objects.filter(pk=job.pk, legal_hold=False, object_deleted_at=None).exists():
        return False
    if Restore.objects.filter(Q(backup=job) | Q(safety_backup=job), status__in=OPEN_RESTORE).exists():
        return False  # the next clean-up finds it again
    try:
        with storage(job.storage_location) as place:
            # Sidecars first: without one the object is no backup, so a crash leaves none that looks like one.
            for path in sidecar_paths(place, job.object_path):
                place.delete(path)
            place.delete(job.object_path)
    except PulsewatchError as error:
        logger.warning("%s could not be deleted: %s", job.pk, error, extra={"event": "backup_delete_failed"})
        return False
    return bool(BackupJob.objects.filter(pk=job.pk, object_deleted_at=None).update(object_deleted_at=now))


def open_due_drills(now: datetime) -> int:
    """Queue the monthly drill of each plan whose time has come, on the newest verified backup; gives how many."""
    opened = 0
    for plan in BackupPlan.objects.filter(enabled=True, drill=True).select_related("database"):
        slot = rules.drill_due(plan.time_zone, last=plan.last_drill_slot, now=now)
        backup = BackupJob.objects.verified().filter(database=plan.database).order_by("-completed_at").first()
        if slot is None or backup is None:
            continue
        with transaction.atomic():
            if BackupPlan.objects.filter(pk=plan.pk, last_drill_slot__lt=slot).update(last_drill_slot=slot):
                Restore.objects.open(backup, now=now, kind=RestoreKind.DRILL, host=plan.database, requested_by="beat")
                opened += 1
    return opened

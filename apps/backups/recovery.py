"""For the day on which the console itself is lost: the recovery kit, and finding backups again in their storage."""

from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.backups import kit, rules
from apps.backups import sidecar as sidecars
from apps.backups.choices import BackupStatus, BackupType, Trigger
from apps.backups.models import BACKED_UP, DEFAULT_DAYS, DEFAULT_MONTHS, BackupJob, RecoveryKit
from apps.backups.runner import storage
from apps.backups.sidecar import Found, Sidecar
from apps.backups.storage import Missing, Storage
from apps.core import audit, vault
from apps.core.errors import Invalid
from apps.core.redaction import redact
from apps.inventory.models import Database


def export_kit(*, folder: Path, passphrase: str, actor: audit.Actor) -> RecoveryKit:
    """Write the recovery kit into a new folder and note that it was. Raises Invalid; then there is none."""
    keyring = vault.keyring()
    kit.write_kit(folder, keyring, passphrase, redact(settings.BACKUP_STORAGE))
    with transaction.atomic():
        row = RecoveryKit.objects.create(
            key_id=keyring.key_id, exported_at=timezone.now(), exported_by=actor.name[:150]
        )
        audit.record(actor=actor, action="keys.export_kit", subject="keyset", after={"key_id": keyring.key_id})
    return row


def kit_missing() -> str:
    """Why a recovery kit should be exported now, in a sentence; empty while there is no need."""
    if not BackupJob.objects.verified().exists():
        return ""
    try:
        key_id = vault.keyring().key_id
    except Invalid:
        return ""
    kits = RecoveryKit.objects
    if kits.filter(key_id=key_id).exists():
        return ""
    why = "The keys were rotated since the last export" if kits.exists() else "No recovery kit was exported yet"
    return (
        f"{why}: without one, losing this console and its keyset means losing every backup. Run: python manage.py "
        "backup kit --out DIR, and keep it where neither the console nor the backups are."
    )


@dataclass(frozen=True, slots=True)
class Imported:
    """What was found in a storage."""

    added: tuple[BackupJob, ...]
    known: tuple[str, ...]
    problems: tuple[tuple[str, str], ...]  # path and why it cannot be used


def import_backups(*, storage_url: str, actor: audit.Actor) -> Imported:
    """Make a row for every backup that a storage holds and that has none. Nothing in the storage is changed.

    Each is given to the registered database of its name, when there is one. Raises Invalid for a URL that names no
    storage, StorageError when it does not answer; what was found until then is kept, and a second call goes on.
    """
    added, known, problems = [], [], []
    with storage(storage_url) as place:
        for found in sidecars.find(place, vault.keyring()):
            if found.sidecar is None:
                problems.append((found.path, found.problem))
            elif BackupJob.objects.filter(pk=found.backup_id).exists():
                known.append(found.backup_id)
            elif problem := _fault(place, found.sidecar):
                problems.append((found.path, problem))
            else:
                added.append(_added(place, found, actor))
    return Imported(tuple(added), tuple(known), tuple(problems))


def _fault(place: Storage, sidecar: Sidecar) -> str:
    if sidecar.environment not in BACKED_UP:
        return f"It is of environment {sidecar.environment}, which is not backed up here."
    try:
        size = place.size(sidecar.object_path)
    except Missing:
        return f"Its object {sidecar.object_path} is not there: it was deleted or moved."
    if size != sidecar.stored_bytes:
        return f"Its object has {size} bytes instead of {sidecar.stored_bytes}: it was cut off or replaced."
    return ""


def _added(place: Storage, found: Found, actor: audit.Actor) -> BackupJob:
    sidecar = found.sidecar
    assert sidecar is not None
    now = timezone.now()
    database = Database.objects.filter(name=sidecar.database, engine=sidecar.engine).first()
    plan = getattr(database, "plan", None)
    days, months = (plan.retention_days, plan.archive_months) if plan else (DEFAULT_DAYS, DEFAULT_MONTHS)
    expires = rules.expires_at(sidecar.started_at, archive=sidecar.monthly_archive, days=days, months=months)
    # Whoever has just found his backups again has time to look at them.
    soonest = rules.expires_at(now, archive=False, days=DEFAULT_DAYS, months=DEFAULT_MONTHS)
    job = BackupJob(
        id=found.backup_id,
        database=database,
        source=sidecar.database,
        slot=sidecar.slot,
        backup_type=BackupType.FULL if sidecar.slot else BackupType.MANUAL,
        environment=sidecar.environment,
        status=BackupStatus.COMPLETED,
        triggered_by=Trigger.SCHEDULED if sidecar.slot else Trigger.MANUAL,
        requested_by=actor.name,
        started_at=sidecar.started_at,
        completed_at=sidecar.completed_at,
        duration_seconds=round((sidecar.completed_at - sidecar.started_at).total_seconds()),
        database_name=sidecar.schema,
        engine=sidecar.server,
        backup_bytes=sidecar.plain_bytes,
        compressed_bytes=sidecar.stored_bytes,
        backup_size_mb=rules.megabytes(sidecar.plain_bytes),
        compressed_size_mb=rules.megabytes(sidecar.stored_bytes),
        compression_ratio=sidecar.stored_bytes / sidecar.plain_bytes if sidecar.plain_bytes else None,
        storage_location=place.url,
        storage_url=f"{place.url.rstrip('/')}/{sidecar.object_path}",
        object_path=sidecar.object_path,
        sidecar_path=found.path,
        key_id=sidecar.key_id,
        imported=True,
        retention_expires_at=max(expires, soonest),
        is_monthly_archive=sidecar.monthly_archive,
        notes=list(sidecar.notes),
        tables=dict(sidecar.digests),
        progress_bytes=sidecar.plain_bytes,
    )
    archive = f"{sidecar.database}-{sidecar.slot:%Y-%m}" if sidecar.monthly_archive and sidecar.slot else None
    for key in dict.fromkeys((archive, None)):
        job.archive_of = key
        try:
            with transaction.atomic():
                job.save(force_insert=True)
                audit.record(
                    actor=actor, action="backup.import", subject=f"backup:{job.pk}", after={"from": redact(place.url)}
                )
            break
        except IntegrityError:
            if key is None:
                raise
            # another backup is that month's archive already
    return job

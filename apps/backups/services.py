"""What a person or a client may ask about backups. Every verb validates, writes, audits, and returns the row."""

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.backups.choices import BackupStatus, BackupType, Trigger
from apps.backups.engines import engine_for
from apps.backups.engines.address import parse_url
from apps.backups.engines.base import Preflight
from apps.backups.models import BACKED_UP, BackupJob, BackupPlan, Restore
from apps.core import audit, vault
from apps.core.errors import Conflict, Invalid
from apps.inventory.models import DEFAULT_SERVICE, Database, Service


def add_database(
    *,
    name: str,
    url: str,
    environment: str,
    actor: audit.Actor,
    service: str = DEFAULT_SERVICE,
    replica_url: str = "",
    scratch_url: str = "",
    max_rate_mb: int | None = None,
) -> tuple[Database, Preflight]:
    """Register a database after a preflight, with the default plan. When it raises, nothing is kept."""
    if environment not in BACKED_UP:
        raise Invalid(f"Databases are backed up in {' and '.join(BACKED_UP)} only.", field="environment")
    owner = Service.objects.filter(slug=service).first()
    if owner is None:
        raise Invalid(f"There is no service {service}: add it in the console first.", field="service")
    engine = engine_for(parse_url(url))
    preflight = engine.preflight()
    if errors := [finding for finding in preflight.findings if finding.level == "error"]:
        raise Invalid(" ".join(f"{error.text} {error.remedy}".strip() for error in errors), field="url")
    address = engine.address
    sealed = {
        f"{column}_sealed": vault.seal(text, purpose=f"database:{name}:{column}")
        for column, text in (("url", url), ("replica_url", replica_url), ("scratch_url", scratch_url))
        if text and parse_url(text)
    }
    database = Database(
        name=name,
        service=owner,
        environment=environment,
        engine=address.engine,
        host=address.host,
        port=address.port or None,
        database_name=address.database,
        max_rate_mb=max_rate_mb,
        **sealed,
    )
    try:
        database.full_clean()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise Invalid(messages[0], field=field) from error
    now = timezone.now()
    with transaction.atomic():
        database.save(force_insert=True)
        BackupPlan.objects.create(database=database, last_slot=now, last_drill_slot=now)
        audit.record(
            actor=actor,
            action="database.create",
            subject=f"database:{name}",
            after={"environment": environment, "service": service, "engine": address.engine, "host": address.host},
        )
    return database, preflight


def request_backup(
    *,
    database: Database,
    actor: audit.Actor,
    storage_location: str,
    triggered_by: str = Trigger.MANUAL,
    backup_type: str = BackupType.MANUAL,
) -> BackupJob:
    """Queue a backup. Raises Conflict while one is open for the database, Invalid for what cannot be backed up."""
    if backup_type == BackupType.INCREMENTAL:
        raise Invalid("Incremental backups are not available yet; take a full one.", field="backup_type")
    job = BackupJob.objects.open(
        database,
        now=timezone.now(),
        storage_location=storage_location,
        triggered_by=triggered_by,
        backup_type=backup_type,
        requested_by=actor.name,
    )
    audit.record(
        actor=actor,
        action="backup.request",
        subject=f"database:{database.name}",
        after={"backup": job.pk, "type": backup_type},
    )
    return job


def request_restore(
    *,
    backup: BackupJob,
    actor: audit.Actor,
    kind: str,
    schema: str = "",
    target_database: Database | None = None,
    table: str = "",
    safety_backup: BackupJob | None = None,
) -> Restore:
    """Queue a restore or a drill of a verified backup. Raises Conflict while another one writes to the same target."""
    if backup.status != BackupStatus.COMPLETED or not backup.integrity_check_passed or backup.object_deleted_at:
        raise Conflict(f"{backup.pk} is not a verified backup that is still stored; choose another one.")
    host = target_database or backup.database
    if host is None:
        raise Invalid("The database of this backup is no longer registered: name another one.", field="target")
    if table and table not in backup.tables:
        raise Invalid(f"The backup holds no table {table}.", field="table")
    try:
        with transaction.atomic():
            row = Restore.objects.open(
                backup,
                now=timezone.now(),
                kind=kind,
                host=host,
                schema=schema,
                table=table,
                requested_by=actor.name,
                safety_backup=safety_backup,
            )
            audit.record(
                actor=actor,
                action=f"backup.{kind}",
                subject=f"database:{host.name}",
                after={"restore": row.pk, "backup": backup.pk, "target": row.target, "table": table},
            )
    except IntegrityError as error:
        raise Conflict("Another restore into this target is under way; wait for its end or cancel it.") from error
    return row


def cancel(row: BackupJob | Restore, *, actor: audit.Actor) -> bool:
    """Stop a queued one at once, a running one within seconds. False when it had ended already."""
    kind = "backup" if isinstance(row, BackupJob) else "restore"
    rows = type(row)._default_manager.filter(pk=row.pk)
    now = timezone.now()
    with transaction.atomic():
        stopped = rows.filter(status="queued").update(
            status="cancelled", completed_at=max(now, row.started_at), error_message="Cancelled."
        ) or rows.filter(status="in_progress").update(cancel_requested=True)
        if stopped:
            audit.record(actor=actor, action=f"{kind}.cancel", subject=f"{kind}:{row.pk}")
    return bool(stopped)

"""What a person or a client may ask about backups. Every verb validates, writes, audits, and returns the row."""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.backups.choices import BackupStatus, BackupType, Trigger
from apps.backups.engines import engine_for
from apps.backups.engines.address import parse_url
from apps.backups.engines.base import Address, EngineError, Preflight
from apps.backups.models import BACKED_UP, BackupJob, BackupPlan, Restore
from apps.core import audit, vault
from apps.core.errors import Conflict, Invalid
from apps.core.models import MAX_REASON
from apps.core.redaction import redact
from apps.inventory.models import DEFAULT_SERVICE, Database, Service

PLAN_FIELDS = frozenset({"enabled", "cron", "time_zone", "retention_days", "archive_months", "drill"})


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


def change_database(
    *,
    database: Database,
    actor: audit.Actor,
    url: str = "",
    replica_url: str | None = None,
    scratch_url: str | None = None,
    max_rate_mb: int | None = None,
) -> Database:
    """Change where and how a database is reached, and the speed limit in MB/s (None: no limit).

    An empty `url` keeps the one there is, and so does None for the other two, which an empty text removes. A new URL is
    tried before the old one is given up. Raises Invalid for the wrong field; then nothing was changed.
    """
    given = {"url": url or None, "replica_url": replica_url, "scratch_url": scratch_url}
    texts = {column: text for column, text in given.items() if text is not None}
    columns: dict[str, Any] = {}
    for column, text in texts.items():
        if text:
            address = _tried(text, column, database.engine)
            columns[f"{column}_sealed"] = vault.seal(text, purpose=f"database:{database.name}:{column}")
            if column == "url":
                columns |= {"host": address.host, "port": address.port or None, "database_name": address.database}
        else:
            columns[f"{column}_sealed"] = None
    if max_rate_mb is not None and max_rate_mb < 1:
        raise Invalid("The limit is at least 1 MB/s; without one, a dump is as fast as it goes.", field="max_rate_mb")
    columns["max_rate_mb"] = max_rate_mb
    with transaction.atomic():
        row = Database.objects.select_for_update().get(pk=database.pk)
        shown = {name for name in columns if not name.endswith("_sealed")}
        before = {name: getattr(row, name) for name in shown}
        for name, value in columns.items():
            setattr(row, name, value)
        row.save()
        after = {name: columns[name] for name in shown if before[name] != columns[name]}
        if texts or after:
            audit.record(
                actor=actor,
                action="database.update",
                subject=f"database:{database.name}",
                before={name: before[name] for name in after},
                after={**after, "changed": sorted(texts)},  # never what a URL says
            )
    return row


def _tried(text: str, column: str, engine: str) -> Address:
    """The address of a URL that was signed in to. Raises Invalid for the column."""
    try:
        address = parse_url(text)
        if address.engine != engine:
            raise Invalid("Its backups restore into this kind of server alone: add another database.", field=column)
        if column == "scratch_url":
            engine_for(address).exists()  # its privileges show in the first drill
            return address
        findings = engine_for(address).preflight().findings
    except EngineError as error:
        raise Invalid(str(error), field=column) from error
    if errors := [finding for finding in findings if finding.level == "error"]:
        raise Invalid(" ".join(f"{error.text} {error.remedy}".strip() for error in errors), field=column)
    return address


@transaction.atomic
def change_plan(*, plan: BackupPlan, actor: audit.Actor, **changes: Any) -> BackupPlan:
    """Change when a database is backed up and how long its backups are kept: any of `enabled`, `cron`, `time_zone`,
    `retention_days`, `archive_months`, `drill`. Raises Invalid with the first wrong field; then nothing has changed.

    Slots count from now on: those that the former schedule, or one that was off, let pass are neither run nor missed.
    Backups that exist keep the date until which they are kept.
    """
    if unknown := changes.keys() - PLAN_FIELDS:
        raise Invalid(f"A plan has no {', '.join(sorted(unknown))}.")
    plan = BackupPlan.objects.select_for_update().select_related("database").get(pk=plan.pk)
    before = {name: getattr(plan, name) for name in changes}
    for name, value in changes.items():
        setattr(plan, name, value)
    try:
        plan.full_clean()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise Invalid(messages[0], field=field) from error
    changed = {name for name in changes if before[name] != changes[name]}
    if changed & {"enabled", "cron", "time_zone"}:
        plan.last_slot = timezone.now()
    if changed & {"enabled", "drill", "time_zone"}:
        plan.last_drill_slot = timezone.now()
    plan.save()
    if changed:
        audit.record(
            actor=actor,
            action="backup_plan.update",
            subject=f"database:{plan.database.name}",
            before={name: before[name] for name in changed},
            after={name: changes[name] for name in changed},
        )
    return plan


@transaction.atomic
def set_legal_hold(*, backup: BackupJob, on: bool, reason: str, actor: audit.Actor) -> BackupJob:
    """Keep a backup whatever retention says, or leave it to retention again. Raises Invalid without a reason, Conflict
    when nothing of it is stored any more.
    """
    reason = redact(reason.strip())
    if not 1 <= len(reason) <= MAX_REASON:
        raise Invalid(f"Say why, in 1 to {MAX_REASON} characters (secrets hidden): somebody will ask.", field="reason")
    row = BackupJob.objects.select_for_update().get(pk=backup.pk)
    if on and (not row.object_path or row.object_deleted_at):
        raise Conflict(f"Nothing of {row} is stored, so there is nothing to hold.")
    if row.legal_hold != on:
        BackupJob.objects.filter(pk=row.pk).update(legal_hold=on)
        audit.record(
            actor=actor,
            action="backup.hold" if on else "backup.release",
            subject=f"backup:{row.pk}",
            before={"legal_hold": row.legal_hold},
            after={"legal_hold": on},
            reason=reason,
        )
        row.legal_hold = on
    return row

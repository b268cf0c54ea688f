"""What a person or a client may ask about backups. Every verb validates, writes, audits, and returns the row.

With `held_by`, the caller runs the work itself, now, under that lease: no worker is woken and nothing is tried again.
"""

from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.backups.choices import BackupStatus, BackupType, RestoreKind, Trigger
from apps.backups.engines import engine_for
from apps.backups.engines.address import parse_url
from apps.backups.engines.base import EngineError, Preflight
from apps.backups.models import BACKED_UP, BackupJob, BackupPlan, Restore, place_of, schema_beside
from apps.core import audit, vault
from apps.core.errors import Conflict, Invalid
from apps.core.models import MAX_REASON
from apps.core.redaction import redact
from apps.inventory.addresses import Address
from apps.inventory.choices import DatabaseEngine
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
    preflight = _looked_at(url)
    address = parse_url(url)
    for column, text in (("replica_url", replica_url), ("scratch_url", scratch_url)):
        if text:
            _tried(text, column, address.engine)
    sealed = _sealed(name, url=url, replica_url=replica_url, scratch_url=scratch_url)
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
    held_by: str = "",
) -> BackupJob:
    """Queue a backup. Raises Conflict while one is open for the database, Invalid for what cannot be backed up."""
    if backup_type == BackupType.INCREMENTAL:
        raise Invalid("Incremental backups are not available yet; take a full one.", field="backup_type")
    if database.engine == DatabaseEngine.REDIS:
        raise Invalid(f"{database} is a Redis server: it is watched, and never backed up.", field="database")
    if writing := Restore.objects.writing_to(database).first():
        raise Conflict(f"{writing} is writing to {database}; wait for its end or cancel it.")
    with transaction.atomic():
        job = BackupJob.objects.open(
            database,
            now=timezone.now(),
            storage_location=storage_location,
            triggered_by=triggered_by,
            backup_type=backup_type,
            requested_by=actor.name,
            held_by=held_by,
        )
        audit.record(
            actor=actor,
            action="backup.request",
            subject=f"database:{database.name}",
            after={"backup": job.pk, "type": backup_type},
        )
    return job


def request_verify(*, backup: BackupJob, actor: audit.Actor, held_by: str = "") -> Restore:
    """Queue reading a backup back and checking all of it. Raises Conflict for one that is not stored.

    What is found is recorded on the backup: a damaged one no longer counts as verified.
    """
    if backup.status != BackupStatus.COMPLETED or backup.object_deleted_at:
        raise Conflict(f"{backup.pk} left nothing that is stored; choose another one.")
    return _open(backup, actor=actor, kind=RestoreKind.VERIFY, host=None, held_by=held_by)


def request_restore(
    *,
    backup: BackupJob,
    actor: audit.Actor,
    kind: str,
    schema: str = "",
    target_database: Database | None = None,
    table: str = "",
    overwrite: bool = False,
    held_by: str = "",
) -> Restore:
    """Queue a restore or a drill of a verified backup, on the server of `target_database` or of its own database.

    With `overwrite`, what is in the target is replaced, after a backup of it was taken and verified; the target has to
    be a registered database then. Raises Conflict while another one writes to the same target.
    """
    if backup.status != BackupStatus.COMPLETED or backup.object_deleted_at:
        raise Conflict(f"{backup.pk} is not a verified backup that is still stored; choose another one.")
    # None is an imported backup: every restore verifies first in any case.
    if backup.integrity_check_passed is False:
        raise Conflict(
            f"{backup.pk} was found damaged at {backup.integrity_check_at:%Y-%m-%d %H:%M} UTC; choose another one, or "
            "verify it again if its storage has been repaired."
        )
    host = target_database or backup.database
    if host is None:
        raise Invalid("The database of this backup is no longer registered: name another one.", field="target")
    if table and table not in backup.tables:
        raise Invalid(f"The backup holds no table {table}.", field="table")
    if kind != RestoreKind.DRILL:
        if not schema:
            raise Invalid("Name the schema to restore into.", field="schema")
        schema = schema_beside(host, schema)
    if overwrite:
        host = overwritten(host, schema)
        schema = host.database_name
    return _open(
        backup, actor=actor, kind=kind, host=host, schema=schema, table=table, overwrite=overwrite, held_by=held_by
    )


def overwritten(host: Database, schema: str) -> Database:
    """The registered database that a schema on the server of `host` is. Raises Invalid when it is none."""
    place = place_of(host, schema)
    # The host itself first: servers behind two sockets of one machine have the same place.
    for database in (host, *Database.objects.filter(engine=host.engine)):
        if place_of(database) == place:
            return database
    raise Invalid(
        f"{schema} is no registered database, so what is there cannot be backed up before it is replaced. Register it "
        "first (python manage.py database add), or restore into a new schema.",
        field="schema",
    )


def _open(backup: BackupJob, *, actor: audit.Actor, kind: str, host: Database | None, **facts: Any) -> Restore:
    try:
        with transaction.atomic():
            row = Restore.objects.open(
                backup, now=timezone.now(), kind=kind, host=host, requested_by=actor.name, **facts
            )
            audit.record(
                actor=actor,
                action=f"backup.{kind}",
                subject=f"database:{host.name}" if host else f"backup:{backup.pk}",
                after={
                    "restore": row.pk,
                    "backup": backup.pk,
                    "target": row.target,
                    "table": row.table,
                    "overwrite": row.overwrite,
                },
            )
    except IntegrityError as error:
        if kind == RestoreKind.VERIFY:
            raise Conflict(f"{backup.pk} is being verified already; wait for the end.") from error
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


def _looked_at(url: str) -> Preflight:
    """What a preflight says of a URL. Raises Invalid when something stands in the way of a backup."""
    preflight = engine_for(parse_url(url)).preflight()
    if errors := [finding for finding in preflight.findings if finding.level == "error"]:
        raise Invalid(" ".join(f"{error.text} {error.remedy}".strip() for error in errors), field="url")
    return preflight


def _sealed(name: str, **urls: str) -> dict[str, bytes]:
    """The columns of the URLs that were given."""
    return {
        f"{column}_sealed": vault.seal(text, purpose=f"database:{name}:{column}")
        for column, text in urls.items()
        if text
    }

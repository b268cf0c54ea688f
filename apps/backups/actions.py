"""What people may do about backups in the console. Each asks first, on a page that names server, schema and cost."""

from typing import Any

from django.conf import settings
from django.contrib.admin import ModelAdmin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from apps.backups import services
from apps.backups.choices import RestoreKind
from apps.backups.display import place
from apps.backups.forms import SchemaForm, TableForm, TargetForm, TypedNameForm
from apps.backups.models import OPEN_RESTORE, BackupJob, Restore
from apps.backups.standing import states
from apps.core.audit import Actor
from apps.core.confirm import Question, ask, posted, require
from apps.core.display import moment, page_of, size, span
from apps.core.forms import ReasonForm
from apps.core.redaction import redact
from apps.inventory.models import Database


def may_use(backup: BackupJob) -> bool:
    """Whether a backup can be restored from: found whole, and still stored."""
    usable = backup.integrity_check_passed is not False  # None: imported; a restore verifies first in any case
    return backup.status == "completed" and usable and backup.object_deleted_at is None


def back_up(page: ModelAdmin, request: HttpRequest, database: Database) -> HttpResponse:
    """A backup now."""
    require(request, "backups.run_backup")
    state = states([database], timezone.now())[0]
    last = state.verified
    refusal = ""
    if state.open:
        refusal = f"{state.open} of this database is under way: wait for its end, or cancel it."
    question = Question(
        title=f"Back up {database} now",
        lead="A full dump is taken, compressed, encrypted and stored; then it is read back and checked. The database "
        "is only read.",
        facts=(
            ("Schema", place(database)),
            ("Read from", "its replica" if database.replica_url_sealed else "the database itself"),
            ("Speed limit", f"{database.max_rate_mb} MB/s" if database.max_rate_mb else "none"),
            ("Expected size", f"about {size(last.backup_bytes)}, as the last one" if last else "not known yet"),
            ("Expected duration", f"about {span(last.duration_seconds)}" if last else "not known yet"),
            ("Stored in", redact(settings.BACKUP_STORAGE)),
        ),
        submit="Back up now",
        back=page_of(database),
        refusal=refusal,
    )

    def act(_: dict[str, Any]) -> tuple[str, str]:
        job = services.request_backup(
            database=database, actor=Actor.person(request.user), storage_location=settings.BACKUP_STORAGE
        )
        return f"{job} is queued.", page_of(job)

    return ask(request, page, question, act)


def verify(page: ModelAdmin, request: HttpRequest, backup: BackupJob) -> HttpResponse:
    """Read a backup again and check all of it."""
    require(request, "backups.verify_backup")
    question = Question(
        title=f"Verify {backup}",
        lead="The whole backup is read from its storage, decrypted and compared with what was written. Nothing is "
        "changed.",
        facts=(*_facts(backup), ("To read", size(backup.compressed_bytes))),
        submit="Verify",
        back=page_of(backup),
        refusal="" if backup.sidecar_path and not backup.object_deleted_at else _gone(backup),
    )

    def act(_: dict[str, Any]) -> tuple[str, str]:
        row = services.request_verify(backup=backup, actor=Actor.person(request.user))
        return f"{row} is queued.", page_of(row)

    return ask(request, page, question, act)


def drill(page: ModelAdmin, request: HttpRequest, backup: BackupJob) -> HttpResponse:
    """Prove a backup by restoring it into a scratch schema."""
    require(request, "backups.drill_backup")
    database = backup.database
    where = "-"
    if database is not None:
        where = "its scratch server" if database.scratch_url_sealed else f"the same server as {place(database)}"
    question = Question(
        title=f"Drill {backup}",
        lead="The backup is verified, restored into a scratch schema, dumped again and compared table by table. The "
        "scratch schema is dropped whatever happens; restored events do not run; the database itself is not touched.",
        facts=(
            *_facts(backup),
            ("Scratch schema", "a new one, pulsewatch_drill_…"),
            ("On", where),
            ("Space needed there", f"about {size(backup.backup_bytes)}"),
            ("Expected duration", _restore_time(database, drilled=True)),
        ),
        submit="Start the drill",
        back=page_of(backup),
        refusal=_refusal(backup, needs_database=True) or _drill_under_way(backup),
    )

    def act(_: dict[str, Any]) -> tuple[str, str]:
        row = services.request_restore(backup=backup, actor=Actor.person(request.user), kind=RestoreKind.DRILL)
        return f"{row} is queued.", page_of(row)

    return ask(request, page, question, act)


def restore(page: ModelAdmin, request: HttpRequest, backup: BackupJob) -> HttpResponse:
    """Restore into a new schema."""
    require(request, "backups.restore_backup")
    form = SchemaForm(
        posted(request),
        servers=_servers(backup),
        initial={"server": backup.database_id, "schema": _new_schema(backup)},
    )
    question = Question(
        title=f"Restore {backup} into a new schema",
        lead="The backup is verified, then written into a schema that is made for it. Nothing that exists is changed.",
        facts=(*_facts(backup), ("Expected duration", _restore_time(backup.database))),
        form=form,
        submit="Restore",
        back=page_of(backup),
        refusal=_refusal(backup),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        row = services.request_restore(
            backup=backup,
            actor=Actor.person(request.user),
            kind=RestoreKind.RESTORE,
            target_database=values["server"],
            schema=values["schema"],
        )
        return f"{row} is queued.", page_of(row)

    return ask(request, page, question, act)


def one_table(page: ModelAdmin, request: HttpRequest, backup: BackupJob) -> HttpResponse:
    """Restore a single table into a new schema."""
    require(request, "backups.restore_backup")
    form = TableForm(
        posted(request),
        servers=_servers(backup),
        tables=sorted(backup.tables),
        initial={"server": backup.database_id, "schema": _new_schema(backup)},
    )
    question = Question(
        title=f"Restore one table of {backup}",
        lead="The backup is verified, then this table alone is written into a new or empty schema, from where you can "
        "copy what you need. Nothing that exists is changed.",
        facts=_facts(backup),
        form=form,
        submit="Restore the table",
        back=page_of(backup),
        refusal=_refusal(backup),
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        row = services.request_restore(
            backup=backup,
            actor=Actor.person(request.user),
            kind=RestoreKind.TABLE,
            target_database=values["server"],
            schema=values["schema"],
            table=values["table"],
        )
        return f"{row} is queued.", page_of(row)

    return ask(request, page, question, act)


def overwrite(page: ModelAdmin, request: HttpRequest, backup: BackupJob) -> HttpResponse:
    """Restore over a registered database, whose name has to be typed."""
    require(request, "backups.overwrite_database")
    targets = _servers(backup)
    wanted = request.GET.get("target")
    target = targets.filter(name=wanted).first() if wanted else backup.database or targets.first()
    refusal = _refusal(backup)
    if target is None:
        refusal = refusal or "There is no registered database of this kind to restore into."
    now = states([target], timezone.now())[0] if target else None
    newest = now.verified if now else None
    name = target.name if target else ""
    same = target is not None and target.pk == backup.database_id
    lost = f"everything written since {moment(backup.started_at)}" if same else "everything that is in it"
    question = Question(
        title=f"Restore {backup} over {name}",
        lead="The backup is verified. Then a new backup of what is there now is taken and verified; when that fails, "
        "nothing is overwritten. Then the schema is emptied and filled from this backup.",
        facts=(
            *_facts(backup),
            ("Overwritten", place(target) if target else "-"),
            ("Lost there", lost),
            ("Size there now", f"about {size(newest.backup_bytes)}, by its last backup" if newest else "not known"),
            ("Safety backup", "taken first; its id is on the page of the restore"),
            ("Expected duration", _restore_time(target)),
        ),
        warnings=(f"Applications that use {name} lose it while this runs: stop them first.",) if target else (),
        choice=TargetForm(targets=targets, initial={"target": name}) if targets.count() > 1 and not refusal else None,
        form=TypedNameForm(posted(request), name=name),
        submit=f"Overwrite {name}",
        danger=True,
        back=page_of(backup),
        refusal=refusal,
    )

    def act(_: dict[str, Any]) -> tuple[str, str]:
        row = services.request_restore(
            backup=backup,
            actor=Actor.person(request.user),
            kind=RestoreKind.RESTORE,
            target_database=target,
            schema=target.database_name,
            overwrite=True,
        )
        return f"{row} is queued; a safety backup of {target} is taken first.", page_of(row)

    return ask(request, page, question, act)


def cancel(page: ModelAdmin, request: HttpRequest, row: BackupJob | Restore) -> HttpResponse:
    """Stop what is queued or runs."""
    require(request, "backups.cancel_backup")
    if isinstance(row, BackupJob):
        lead = "What was stored of it so far is removed. Older backups are not touched."
    elif row.kind == RestoreKind.DRILL:
        lead = "The scratch schema is dropped."
    elif row.kind in (RestoreKind.RESTORE, RestoreKind.TABLE):
        lead = f"What is already written stays in {row.target} and is not complete."
    else:
        lead = "Nothing else changes."
    question = Question(
        title=f"Cancel {row}",
        lead=f"It stops at once while it waits, within seconds while it runs. {lead}",
        submit="Cancel it",
        danger=True,
        back=page_of(row),
        refusal="" if row.status in ("queued", "in_progress") else "It has ended already.",
    )

    def act(_: dict[str, Any]) -> tuple[str, str]:
        stopped = services.cancel(row, actor=Actor.person(request.user))
        return f"{row} is being cancelled." if stopped else f"{row} had ended already.", page_of(row)

    return ask(request, page, question, act)


def hold(page: ModelAdmin, request: HttpRequest, backup: BackupJob) -> HttpResponse:
    """Put a backup on legal hold, or lift the hold."""
    on = not backup.legal_hold
    require(request, "backups.hold_backup" if on else "backups.release_backup")
    lifted = "It may then be deleted by retention"
    until = f"{lifted} on {moment(backup.retention_expires_at)}."
    if backup.retention_expires_at <= timezone.now():
        until = f"{lifted} at the next clean-up, for it was kept until {moment(backup.retention_expires_at)}."
    question = Question(
        title=f"Put {backup} on legal hold" if on else f"Lift the legal hold of {backup}",
        lead="Retention never deletes it until somebody lifts the hold." if on else until,
        facts=_facts(backup),
        form=ReasonForm(posted(request)),
        submit="Put on hold" if on else "Lift the hold",
        danger=not on,
        back=page_of(backup),
        refusal=_gone(backup) if on and backup.object_deleted_at else "",
    )

    def act(values: dict[str, Any]) -> tuple[str, str]:
        services.set_legal_hold(backup=backup, on=on, reason=values["reason"], actor=Actor.person(request.user))
        return f"{backup} is on legal hold." if on else f"The legal hold of {backup} is lifted.", page_of(backup)

    return ask(request, page, question, act)


def _facts(backup: BackupJob) -> tuple[tuple[str, Any], ...]:
    return (
        ("Backup of", place(backup.database) if backup.database else backup.database_name),
        ("Taken", moment(backup.started_at)),
        ("Size", f"{size(backup.backup_bytes)} in {len(backup.tables)} tables"),
    )


def _servers(backup: BackupJob) -> QuerySet[Database]:
    """The databases on whose servers this backup can be restored."""
    if backup.database is None:
        return Database.objects.all()
    return Database.objects.filter(engine=backup.database.engine)


def _new_schema(backup: BackupJob) -> str:
    """A name that most likely is free: for SQLite a file beside the database."""
    return f"{backup.database_name}_{backup.started_at:%Y%m%d_%H%M}"


def _restore_time(database: Database | None, *, drilled: bool = False) -> str:
    """The measured restore time in words."""
    measured = states([database], timezone.now())[0].measured if database else None
    if measured is None:
        return "not known: no drill of this database has measured it yet"
    last = f"about {span(measured.restore_seconds)}, as the last drill measured"
    return f"{last}, and a dump of the copy after it" if drilled else f"{last}, after the verification"


def _refusal(backup: BackupJob, *, needs_database: bool = False) -> str:
    if not may_use(backup):
        return _gone(backup)
    if needs_database and backup.database is None:
        return "Its database is no longer registered, so there is no server to restore on: register it again."
    return ""


def _drill_under_way(backup: BackupJob) -> str:
    running = backup.restores.filter(kind=RestoreKind.DRILL, status__in=OPEN_RESTORE).first()
    return f"{running} of this backup is under way: wait for its end, or cancel it." if running else ""


def _gone(backup: BackupJob) -> str:
    if backup.object_deleted_at:
        return f"Its object was removed by retention {moment(backup.object_deleted_at)}; choose another backup."
    return f"It is not a verified backup (status {backup.get_status_display()}); choose another one."

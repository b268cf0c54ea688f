"""Backups: what there is, and the start of one. Restores: to look at; they are asked for in the console."""

from datetime import datetime
from typing import Any

from django.conf import settings
from ninja import Path, Query
from ninja.responses import Status
from pydantic import Field

from apps.api.choices import Scope
from apps.api.endpoints import ApiRequest, Endpoints, actor
from apps.api.paging import page
from apps.api.refusals import NotFound
from apps.api.schemas import EnvironmentName, Filters, Given, Identifier, Page, Shown, Slug, words
from apps.backups import services
from apps.backups.choices import BackupStatus, BackupType, RestoreKind, RestoreStatus, Trigger
from apps.backups.models import BackupJob, Restore
from apps.core.choices import Environment
from apps.core.errors import Invalid
from apps.inventory.models import Database

router = Endpoints(tags=["Backups"])


class BackupGiven(Given):
    """A backup to make now."""

    database: Slug = Field(description="Name of a database in the console")
    backup_type: words(BackupType) = "manual"
    triggered_by: words(Trigger) = Field("manual", description="`pre_deployment` by a pipeline; not `scheduled`")


class BackupShown(Shown):
    """One backup: how it went, and what is known of its worth."""

    id: str
    database: str | None
    backup_type: words(BackupType)
    environment: words(Environment)
    status: words(BackupStatus)
    triggered_by: words(Trigger)
    requested_by: str
    slot: datetime | None
    started_at: datetime
    completed_at: datetime | None
    duration_seconds: int | None
    database_name: str
    engine: str
    backup_bytes: int | None
    compressed_bytes: int | None
    backup_size_mb: int | None
    compressed_size_mb: int | None
    compression_ratio: float | None
    encrypted: bool
    encryption_algorithm: str
    integrity_check_passed: bool | None
    integrity_check_at: datetime | None
    restore_tested: bool
    restore_tested_at: datetime | None
    retention_expires_at: datetime
    is_monthly_archive: bool
    legal_hold: bool
    object_deleted_at: datetime | None
    error_message: str | None
    notes: list[str]
    retry_count: int
    next_attempt_at: datetime | None
    created_at: datetime
    updated_at: datetime


class BackupFilters(Filters):
    database: Slug | None = None
    environment: EnvironmentName | None = None
    status: words(BackupStatus) | None = None


class RestoreShown(Shown):
    """One use of a backup: a drill that proves it, or a restore."""

    id: str
    backup_id: str
    kind: words(RestoreKind)
    target: str
    table: str
    status: words(RestoreStatus)
    requested_by: str
    started_at: datetime
    completed_at: datetime | None
    restore_seconds: float | None
    equal: bool | None
    first_difference: str
    error_message: str | None


class RestoreFilters(Filters):
    backup_id: Identifier | None = None
    kind: words(RestoreKind) | None = None
    status: words(RestoreStatus) | None = None


NEWEST_FIRST = (("-started_at", datetime), ("-id", str))


@router.read("/backups", scope=Scope.BACKUPS_READ, answer=Page[BackupShown])
def list_backups(request: ApiRequest, given: Query[BackupFilters]) -> Any:
    """Backups, the newest first."""
    columns = {"database__name": given.database, "environment": given.environment, "status": given.status}
    rows = BackupJob.objects.prefetch_related("database").filter(
        **{name: value for name, value in columns.items() if value is not None}
    )
    found = page(rows, given, noun="backups", order=NEWEST_FIRST)
    return found | {"items": [_shown(row) for row in found["items"]]}


@router.read("/backups/{backup_id}", scope=Scope.BACKUPS_READ, answer=BackupShown)
def get_backup(request: ApiRequest, backup_id: Path[Identifier]) -> Any:
    """One backup."""
    row = BackupJob.objects.select_related("database").filter(pk=backup_id).first()
    if row is None:
        raise NotFound("backup")
    return _shown(row)


@router.write("POST", "/backups", scope=Scope.BACKUPS_WRITE, answers={202: BackupShown})
def start_backup(request: ApiRequest, body: BackupGiven) -> Status[Any]:
    """Start a backup; ask for it by its `id` to see how it went. 409 while one of this database is under way."""
    database = Database.objects.filter(name=body.database).first()
    if database is None:
        raise Invalid("There is no database of this name: `manage.py database list` shows them.", field="database")
    if body.triggered_by == Trigger.SCHEDULED:
        raise Invalid("Scheduled backups are started by their plan alone.", field="triggered_by")
    row = services.request_backup(
        database=database,
        actor=actor(request),
        storage_location=settings.BACKUP_STORAGE,
        triggered_by=body.triggered_by,
        backup_type=body.backup_type,
    )
    return Status(202, _shown(row))


@router.read("/restores", scope=Scope.BACKUPS_READ, answer=Page[RestoreShown])
def list_restores(request: ApiRequest, given: Query[RestoreFilters]) -> Any:
    """Drills and restores, the newest first."""
    columns = {"backup_id": given.backup_id, "kind": given.kind, "status": given.status}
    rows = Restore.objects.filter(**{name: value for name, value in columns.items() if value is not None})
    return page(rows, given, noun="restores", order=NEWEST_FIRST)


def _shown(row: BackupJob) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in BackupShown.model_fields if name != "database"}
    return own | {"database": row.database.name if row.database else None}

"""Plans, backups and restores."""

from datetime import datetime
from pathlib import Path
from typing import Self

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import IntegrityError, models, transaction
from django.db.models import Case, F, Q, Value, When

from apps.backups import rules
from apps.backups.choices import BackupStatus, BackupType, RestoreKind, RestoreStatus, Trigger
from apps.core import ids, lease
from apps.core.choices import Environment
from apps.core.errors import Conflict
from apps.core.wake import wake
from apps.inventory.addresses import place
from apps.inventory.choices import DatabaseEngine
from apps.inventory.models import Database

OPEN_BACKUP = (BackupStatus.QUEUED, BackupStatus.IN_PROGRESS)
OPEN_RESTORE = (RestoreStatus.QUEUED, RestoreStatus.IN_PROGRESS)
DRILL_SCHEMA = "pulsewatch_drill_"  # scratch schemas of drills begin like this, so that a person may drop a lost one
MAX_TARGET = 300  # characters; two places that agree so far count as one
_ID_WORDS = {RestoreKind.DRILL: "drill", RestoreKind.VERIFY: "verify"}
DEFAULT_DAYS, DEFAULT_MONTHS = 30, 12  # kept without a plan
# Development is not backed up: nothing there is worth a restore.
BACKED_UP = (Environment.STAGING, Environment.PRODUCTION)


def place_of(database: Database, schema: str = "") -> str:
    """Where a schema on the server of a database is, in one spelling; without `schema`, the database itself."""
    return place(database.engine, database.host, database.port, schema or database.database_name)


def schema_beside(database: Database, name: str) -> str:
    """The schema that `name` means on the server of a database: for SQLite a file, by default beside it."""
    if database.engine == DatabaseEngine.SQLITE:
        return str(Path(database.database_name).parent / name)
    return name


def cron_expression(value: str) -> None:
    """A field's validator."""
    try:
        rules.check_cron(value)
    except rules.BadSchedule as error:
        raise ValidationError(str(error)) from error


def zone_name(value: str) -> None:
    """A field's validator."""
    try:
        rules.zone(value)
    except rules.BadSchedule as error:
        raise ValidationError(str(error)) from error


class BackupPlan(models.Model):
    """When a database is backed up and for how long the backups are kept."""

    database = models.OneToOneField(Database, on_delete=models.CASCADE, related_name="plan")
    enabled = models.BooleanField(default=True)
    cron = models.CharField(max_length=100, default="0 2 * * *", validators=[cron_expression])
    time_zone = models.CharField(max_length=64, default="UTC", validators=[zone_name])
    retention_days = models.PositiveIntegerField(default=DEFAULT_DAYS, validators=[MinValueValidator(1)])
    archive_months = models.PositiveIntegerField(default=DEFAULT_MONTHS, validators=[MinValueValidator(1)])
    drill = models.BooleanField("monthly restore drill", default=True, help_text="Last Sunday of the month, 04:00")
    last_slot = models.DateTimeField(help_text="The newest slot that was opened")
    last_drill_slot = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "backup_plans"
        default_permissions = ("view", "change")
        ordering = ("database__name",)
        constraints = (
            models.CheckConstraint(
                condition=Q(retention_days__gt=0) & Q(archive_months__gt=0), name="backup_plans_keep_something"
            ),
        )

    def __str__(self) -> str:
        return f"{self.database}: {self.cron} {self.time_zone}"


class LeasedQuerySet(models.QuerySet):
    """Rows that a worker holds for a while."""

    def expired(self, now: datetime) -> Self:
        """In progress, but nobody has renewed the lease: its worker is gone."""
        return self.filter(status="in_progress", lease_until__lt=now)

    def claimable(self, now: datetime) -> Self:
        return self.filter(status="queued").filter(Q(next_attempt_at=None) | Q(next_attempt_at__lte=now))

    def held(self, owner: str) -> Self:
        """In progress, and this worker's."""
        return self.filter(status="in_progress", lease_owner=owner)


class BackupJobQuerySet(LeasedQuerySet):
    def open(
        self,
        database: Database,
        *,
        now: datetime,
        storage_location: str,
        triggered_by: str,
        backup_type: str,
        requested_by: str = "",
        slot: datetime | None = None,
        status: str = BackupStatus.QUEUED,
        held_by: str = "",
    ) -> "BackupJob":
        """Queue a backup and wake a worker for it, under the first free id of this second.

        With `held_by`, the caller runs it itself: it is in progress from the start under that lease, no worker is
        woken, and it is not tried again. Raises Conflict while another one is open for the database, or when the slot
        has its row already.
        """
        if held_by:
            status = BackupStatus.IN_PROGRESS
        plan = BackupPlan.objects.filter(database=database).first()
        days, months = (plan.retention_days, plan.archive_months) if plan else (DEFAULT_DAYS, DEFAULT_MONTHS)
        job = BackupJob(
            database=database,
            plan=plan if slot else None,
            slot=slot,
            backup_type=backup_type,
            environment=database.environment,
            status=status,
            triggered_by=triggered_by,
            requested_by=requested_by,
            started_at=now,
            completed_at=now if status == BackupStatus.MISSED else None,
            database_name=database.database_name,
            source=database.name,
            attended=bool(held_by),
            lease_owner=held_by,
            lease_until=now + lease.LENGTH if held_by else None,
            storage_location=storage_location,
            retention_expires_at=rules.expires_at(now, archive=False, days=days, months=months),
        )
        stem = ids.timestamped("backup", now)
        for key in (stem, *(f"{stem}_{ids.suffix(4)}" for _ in range(8))):
            job.pk = key
            try:
                with transaction.atomic():
                    job.save(force_insert=True)
                    if status == BackupStatus.QUEUED:
                        wake("backups.run", key)
            except IntegrityError:
                if not self.filter(pk=key).exists():
                    raise self._conflict(job) from None
            else:
                return job
        raise Conflict("Too many backups were asked for in this second; ask again.")

    def _conflict(self, job: "BackupJob") -> Conflict:
        other = self.filter(open_database=job.database_id).first()
        if other:
            return Conflict(f"{other.pk} of {job.database} is under way since {other.started_at:%Y-%m-%d %H:%M} UTC.")
        return Conflict(f"The slot {job.slot:%Y-%m-%d %H:%M} UTC of {job.database} has its backup already.")

    def ours(self, location: str) -> Self:
        """Without what was found in another storage than this one: that belongs to whoever stored it there."""
        return self.filter(Q(imported=False) | Q(storage_location=location))

    def verified(self) -> Self:
        """Stored, read back and found whole, and still there."""
        return self.filter(status=BackupStatus.COMPLETED, integrity_check_passed=True, object_deleted_at=None)


class BackupJob(models.Model):
    """One backup: what was asked for, how it went, where it is, and what is known of its worth."""

    id = models.CharField(max_length=64, primary_key=True)
    database = models.ForeignKey(Database, null=True, on_delete=models.SET_NULL, related_name="backups")
    plan = models.ForeignKey(BackupPlan, null=True, on_delete=models.SET_NULL, related_name="backups")
    slot = models.DateTimeField(null=True, help_text="The scheduled time it stands for")
    backup_type = models.CharField("type", max_length=16, choices=BackupType)
    environment = models.CharField(max_length=16, choices=Environment)
    status = models.CharField(max_length=16, choices=BackupStatus, default=BackupStatus.QUEUED)
    triggered_by = models.CharField(max_length=16, choices=Trigger)
    requested_by = models.CharField(max_length=150, blank=True)
    started_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True)
    duration_seconds = models.PositiveIntegerField("duration (s)", null=True)
    database_name = models.CharField("schema", max_length=255)
    source = models.CharField(
        max_length=50, blank=True, help_text="The name its database was registered under, also when that is gone"
    )
    engine = models.CharField(max_length=64, blank=True)
    backup_bytes = models.PositiveBigIntegerField("size (bytes)", null=True)
    compressed_bytes = models.PositiveBigIntegerField("stored (bytes)", null=True)
    backup_size_mb = models.PositiveIntegerField("size (MB)", null=True)
    compressed_size_mb = models.PositiveIntegerField("stored (MB)", null=True)
    compression_ratio = models.FloatField(null=True)
    encrypted = models.BooleanField(default=True)
    encryption_algorithm = models.CharField(max_length=32, default="AES-256")
    storage_location = models.CharField(max_length=500)
    storage_url = models.CharField(max_length=700)
    object_path = models.CharField(max_length=255, blank=True)
    sidecar_path = models.CharField(max_length=255, blank=True)
    key_id = models.CharField(max_length=16, blank=True, help_text="The key that its data key is sealed with")
    imported = models.BooleanField(default=False, help_text="Found in a storage, not made here")
    integrity_check_passed = models.BooleanField(null=True)
    integrity_check_at = models.DateTimeField(null=True)
    restore_tested = models.BooleanField(default=False)
    restore_tested_at = models.DateTimeField(null=True)
    retention_expires_at = models.DateTimeField("kept until")
    is_monthly_archive = models.BooleanField(default=False)
    # `database-year-month` for the archive of that month, NULL for all others: one archive a month, by constraint.
    archive_of = models.CharField(max_length=80, null=True, unique=True)
    legal_hold = models.BooleanField(default=False)
    object_deleted_at = models.DateTimeField(null=True)
    error_message = models.TextField(null=True)
    size_anomaly = models.CharField(max_length=200, blank=True, help_text="Why its size is odd, in a sentence")
    notes = models.JSONField(default=list, help_text="What the dump cannot carry, in sentences")
    tables = models.JSONField(default=dict, help_text="Digest of each table's section of the dump")
    attended = models.BooleanField(default=False, help_text="Run where it was asked for, and not tried again")
    retry_count = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True)
    cancel_requested = models.BooleanField(default=False)
    progress_step = models.CharField(max_length=16, blank=True, help_text="What its worker does now")
    progress_bytes = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    # The database while the backup is open, NULL after: with the constraint below at most one is open for each.
    open_database = models.GeneratedField(
        expression=Case(When(status__in=OPEN_BACKUP, then=F("database_id")), default=Value(None)),
        output_field=models.BigIntegerField(null=True),
        db_persist=True,
    )

    objects = BackupJobQuerySet.as_manager()

    class Meta:
        db_table = "backup_jobs"
        verbose_name = "backup"
        ordering = ("-started_at", "-id")
        default_permissions = ("view",)
        permissions = (
            ("run_backup", "Can back up a database now, and check what that needs"),
            ("verify_backup", "Can have a backup read back and checked"),
            ("drill_backup", "Can prove a backup by a restore drill"),
            ("restore_backup", "Can restore a backup into a new schema"),
            ("overwrite_database", "Can restore a backup over a registered database"),
            ("cancel_backup", "Can cancel a backup, drill or restore"),
            ("hold_backup", "Can put a backup on legal hold"),
            ("release_backup", "Can lift the legal hold of a backup"),
        )
        indexes = (
            models.Index(fields=("environment", "status"), name="idx_backup_jobs_environment_status"),
            models.Index(fields=("retention_expires_at",), name="idx_backup_jobs_retention_expires_at"),
            models.Index(fields=("started_at",), name="idx_backup_jobs_started_at"),
            models.Index(fields=("status", "next_attempt_at"), name="idx_backup_jobs_due"),
            models.Index(fields=("database", "status", "started_at"), name="idx_backup_jobs_database_status"),
        )
        constraints = (
            models.UniqueConstraint(fields=("plan", "slot"), name="backup_jobs_plan_slot"),
            models.UniqueConstraint(fields=("open_database",), name="backup_jobs_one_open"),
            models.CheckConstraint(condition=Q(status__in=BackupStatus.values), name="backup_jobs_status_known"),
            models.CheckConstraint(condition=Q(backup_type__in=BackupType.values), name="backup_jobs_type_known"),
            models.CheckConstraint(condition=Q(triggered_by__in=Trigger.values), name="backup_jobs_trigger_known"),
            models.CheckConstraint(condition=Q(environment__in=BACKED_UP), name="backup_jobs_not_development"),
            models.CheckConstraint(
                condition=Q(completed_at=None) | Q(completed_at__gte=F("started_at")),
                name="backup_jobs_ends_after_start",
            ),
            models.CheckConstraint(condition=Q(retry_count__lt=rules.ATTEMPTS), name="backup_jobs_retries_bounded"),
        )

    def __str__(self) -> str:
        return self.id


class RestoreQuerySet(LeasedQuerySet):
    def open(
        self,
        backup: BackupJob,
        *,
        now: datetime,
        kind: str,
        host: Database | None,
        schema: str = "",
        table: str = "",
        overwrite: bool = False,
        requested_by: str = "",
        held_by: str = "",
    ) -> "Restore":
        """Queue a use of a backup and wake a worker. IntegrityError: another one has the same target.

        `host` is the database on whose server it happens; a verification has none. With `held_by`, the caller runs it
        itself: it is in progress from the start under that lease, and no worker is woken.
        """
        if kind == RestoreKind.DRILL and host is not None:
            schema = DRILL_SCHEMA + ids.suffix(8)
            if host.engine == DatabaseEngine.SQLITE:
                schema = f"{host.database_name}.{schema}"
        row = self.create(
            id=f"{ids.timestamped(_ID_WORDS.get(kind, 'restore'), now)}_{ids.suffix(4)}",
            backup=backup,
            kind=kind,
            status=RestoreStatus.IN_PROGRESS if held_by else RestoreStatus.QUEUED,
            attended=bool(held_by),
            lease_owner=held_by,
            lease_until=now + lease.LENGTH if held_by else None,
            target=(place_of(host, schema) if host is not None else f"backup:{backup.pk}")[:MAX_TARGET],
            target_database=host,
            schema=schema,
            table=table,
            overwrite=overwrite,
            requested_by=requested_by,
            started_at=now,
        )
        if not held_by:
            wake("backups.restore", row.pk)
        return row

    def writing_to(self, database: Database) -> Self:
        """Open restores whose target is this database itself."""
        return self.filter(open_target=place_of(database)[:MAX_TARGET])


class Restore(models.Model):
    """One use of a backup: a verification, a drill that proves it, a restore, or a restore of one table."""

    id = models.CharField(max_length=64, primary_key=True)
    backup = models.ForeignKey(BackupJob, on_delete=models.PROTECT, related_name="restores")
    kind = models.CharField(max_length=16, choices=RestoreKind)
    target = models.CharField(
        max_length=MAX_TARGET, help_text="Where to, without credentials: engine://host:port/schema, or backup:id"
    )
    target_database = models.ForeignKey(Database, null=True, on_delete=models.SET_NULL, related_name="+")
    schema = models.CharField(max_length=255, blank=True)
    table = models.CharField(max_length=255, blank=True)
    overwrite = models.BooleanField(default=False, help_text="Somebody confirmed that what is there is replaced")
    target_touched = models.BooleanField(default=False, help_text="From here on the target is not as it was")
    attended = models.BooleanField(default=False, help_text="Run where it was asked for, and not tried again")
    status = models.CharField(max_length=16, choices=RestoreStatus, default=RestoreStatus.QUEUED)
    requested_by = models.CharField(max_length=150, blank=True)
    started_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True)
    restore_seconds = models.FloatField("restore time (s)", null=True, help_text="Measured recovery time")
    equal = models.BooleanField("digests equal", null=True)
    first_difference = models.CharField(max_length=300, blank=True)
    tables = models.JSONField(default=dict, help_text="Digest of each table after the restore")
    safety_backup = models.ForeignKey(BackupJob, null=True, on_delete=models.SET_NULL, related_name="+")
    error_message = models.TextField(null=True)
    next_attempt_at = models.DateTimeField(null=True)
    lease_owner = models.CharField(max_length=100, blank=True)
    lease_until = models.DateTimeField(null=True)
    cancel_requested = models.BooleanField(default=False)
    progress_step = models.CharField(max_length=16, blank=True, help_text="What its worker does now")
    progress_bytes = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    # The target while the restore is open, NULL after: two restores never write into one schema.
    open_target = models.GeneratedField(
        expression=Case(When(status__in=OPEN_RESTORE, then=F("target")), default=Value(None)),
        output_field=models.CharField(max_length=MAX_TARGET, null=True),
        db_persist=True,
    )

    objects = RestoreQuerySet.as_manager()

    class Meta:
        db_table = "restores"
        ordering = ("-started_at", "-id")
        default_permissions = ("view",)
        constraints = (
            models.UniqueConstraint(fields=("open_target",), name="restores_one_open"),
            models.CheckConstraint(condition=Q(status__in=RestoreStatus.values), name="restores_status_known"),
            models.CheckConstraint(condition=Q(kind__in=RestoreKind.values), name="restores_kind_known"),
            models.CheckConstraint(
                condition=Q(completed_at=None) | Q(completed_at__gte=F("started_at")), name="restores_ends_after_start"
            ),
        )

    def __str__(self) -> str:
        return self.id


class RecoveryKit(models.Model):
    """That the keys were exported: which one was the primary, when, and by whom."""

    key_id = models.CharField(max_length=16)
    exported_at = models.DateTimeField()
    exported_by = models.CharField(max_length=150)

    class Meta:
        db_table = "recovery_kits"
        ordering = ("-exported_at", "-id")
        indexes = (models.Index(fields=("key_id",), name="idx_recovery_kits_key"),)

    def __str__(self) -> str:
        return f"key {self.key_id}, {self.exported_at:%Y-%m-%d}"

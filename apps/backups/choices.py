"""The words of backups."""

from django.db.models import TextChoices


class BackupType(TextChoices):
    FULL = "full"
    INCREMENTAL = "incremental"
    MANUAL = "manual"


class BackupStatus(TextChoices):
    """`missed`: a scheduled slot nobody ran in time, recorded so that the gap is seen."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    MISSED = "missed"


class Trigger(TextChoices):
    SCHEDULED = "scheduled"
    MANUAL = "manual"
    PRE_DEPLOYMENT = "pre_deployment", "Before a deployment"
    PRE_RESTORE = "pre_restore", "Before a restore"


class RestoreKind(TextChoices):
    """What a backup is used for. `verify` reads all of it and writes nowhere."""

    DRILL = "drill"
    RESTORE = "restore"
    TABLE = "table", "One table"
    VERIFY = "verify"


class RestoreStatus(TextChoices):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

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


class RestoreKind(TextChoices):
    DRILL = "drill"
    RESTORE = "restore"
    TABLE = "table", "One table"


class RestoreStatus(TextChoices):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

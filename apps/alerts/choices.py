"""The words of alerts."""

from django.db.models import TextChoices


class AlertKind(TextChoices):
    WORKLOAD_UNHEALTHY = "workload_unhealthy"
    ENDPOINT_DOWN = "endpoint_down"
    DATABASE_DOWN = "database_down"
    CERTIFICATE_EXPIRES = "certificate_expires"
    BACKUP_FAILED = "backup_failed"
    BACKUP_OVERDUE = "backup_overdue"
    BACKUP_SIZE_ANOMALY = "backup_size_anomaly"
    DRILL_FAILED = "drill_failed"
    DEPLOYMENT_FAILED = "deployment_failed"
    DEPLOYMENT_INCONCLUSIVE = "deployment_inconclusive"
    SCALING_FAILED = "scaling_failed"
    PULSEWATCH_STALE = "pulsewatch_stale"
    MASS_FAILURE = "mass_failure"


class Severity(TextChoices):
    """`critical` = get up; `warning` = today; `info` = good to know."""

    CRITICAL = "critical"
    WARNING = "warning"
    INFO = "info"


class EventKind(TextChoices):
    """What happened to an alert."""

    OPENED = "opened"
    ESCALATED = "escalated"
    FLAPPING = "flapping"
    SILENCED = "silenced"
    ACKNOWLEDGED = "acknowledged"
    REMINDED = "reminded"
    CLOSED = "closed"


class Occasion(TextChoices):
    """Why a message goes out."""

    TROUBLE = "trouble"
    RECOVERY = "recovery"
    REMINDER = "reminder"
    TEST = "test"


class DeliveryStatus(TextChoices):
    QUEUED = "queued"
    SENDING = "sending"
    SENT = "sent"
    FAILED = "failed", "Given up"


class Recurrence(TextChoices):
    ONCE = "once"
    WEEKLY = "weekly"

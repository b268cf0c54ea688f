"""The words of health."""

from django.db.models import TextChoices


class HealthStatus(TextChoices):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class DependencyStatus(TextChoices):
    """How an instance sees a server it depends on. `unknown` = it does not say."""

    CONNECTED = "connected"
    SLOW = "slow"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"

"""The words of health."""

from django.db.models import TextChoices


class HealthStatus(TextChoices):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class SampleSource(TextChoices):
    """Who asked for a sample: the minute's tick, the gate of a deployment, which looks more often, or nobody."""

    SCHEDULED = "scheduled"
    GATE = "gate"
    PUSHED = "pushed"


class DependencyStatus(TextChoices):
    """How an instance sees a server it depends on. `unknown` = it does not say."""

    CONNECTED = "connected"
    SLOW = "slow"
    DISCONNECTED = "disconnected"
    UNKNOWN = "unknown"


class CheckStatus(TextChoices):
    """How an endpoint or a database fares. `unknown`: not looked at, or Pulsewatch itself was at fault."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


class ConnectionStatus(TextChoices):
    """What became of connecting to a database."""

    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    TIMEOUT = "timeout"
    ERROR = "error"


class QueryStatus(TextChoices):
    """What became of the query of a check."""

    SUCCESS = "success"
    SLOW = "slow"
    FAILED = "failed"
    NOT_TESTED = "not_tested"


class SubjectKind(TextChoices):
    """What a check was of."""

    INSTANCE = "instance"
    ENDPOINT = "endpoint"
    DATABASE = "database"

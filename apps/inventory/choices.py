"""The words of the inventory."""

from django.db.models import TextChoices


class Platform(TextChoices):
    """Where a workload runs, and so what can change it. `advisory` is never changed: Pulsewatch only advises."""

    ADVISORY = "advisory"
    KUBERNETES = "kubernetes"
    DOCKER = "docker", "Docker"
    GUNICORN = "gunicorn", "gunicorn on this host"
    WEBHOOK = "webhook"
    GITHUB = "github", "GitHub Actions"
    ZEABUR = "zeabur", "Zeabur"


class MetricsPreset(TextChoices):
    """Which metric names a service exports; the names are in apps.health.probers.exposition."""

    DJANGO = "django", "Django (django-prometheus)"
    PROCESS = "process", "plain process_* metrics"
    NONE = "none", "no metrics, readiness only"


class DatabaseEngine(TextChoices):
    MYSQL = "mysql", "MySQL or MariaDB"
    POSTGRESQL = "postgresql", "PostgreSQL"
    SQLITE = "sqlite", "SQLite"
    REDIS = "redis", "Redis"


class HttpMethod(TextChoices):
    """How an endpoint is asked."""

    GET = "GET", "GET"
    POST = "POST", "POST"
    PUT = "PUT", "PUT"
    PATCH = "PATCH", "PATCH"
    DELETE = "DELETE", "DELETE"
    HEAD = "HEAD", "HEAD"

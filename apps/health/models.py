"""Samples of instances."""

from datetime import datetime
from typing import Self

from django.db import models
from django.db.models import Q

from apps.core.choices import Environment
from apps.health.choices import DependencyStatus, HealthStatus
from apps.inventory.models import Instance


def _known(name: str, column: str, words: type[models.TextChoices]) -> models.CheckConstraint:
    return models.CheckConstraint(condition=Q(**{f"{column}__in": words.values}), name=f"health_checks_{name}_known")


def _not_negative(*columns: str) -> models.CheckConstraint:
    condition = Q()
    for column in columns:
        condition &= Q(**{column: None}) | Q(**{f"{column}__gte": 0})
    return models.CheckConstraint(condition=condition, name="health_checks_not_negative")


class HealthCheckQuerySet(models.QuerySet["HealthCheck"]):
    def newest_first(self) -> Self:
        return self.order_by("-timestamp", "-id")

    def since(self, moment: datetime) -> Self:
        return self.filter(timestamp__gte=moment)


class HealthCheck(models.Model):
    """One look at one instance. A column that is NULL was not measured; it is never zero."""

    id = models.CharField(max_length=64, primary_key=True)
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="health_checks", db_index=False)
    environment = models.CharField(max_length=16, choices=Environment)
    timestamp = models.DateTimeField("time", help_text="Scheduled samples carry the start of their minute")
    measured_at = models.DateTimeField(help_text="When the instance answered, or failed to")
    overall_status = models.CharField("status", max_length=16, choices=HealthStatus)
    reasons = models.JSONField(default=list, help_text="Rules broken, each with the value that broke it and the limit")
    response_time_ms = models.PositiveIntegerField("response (ms)")
    database_status = models.CharField("database", max_length=16, choices=DependencyStatus)
    database_response_ms = models.PositiveIntegerField("database (ms)", null=True)
    redis_status = models.CharField("Redis", max_length=16, choices=DependencyStatus)
    redis_response_ms = models.PositiveIntegerField("Redis (ms)", null=True)
    memory_usage_mb = models.PositiveIntegerField("memory (MiB)", null=True)
    memory_usage_percent = models.FloatField("memory (%)", null=True)
    cpu_usage_percent = models.FloatField("CPU (%)", null=True)
    uptime_seconds = models.PositiveBigIntegerField("uptime (s)", null=True)
    version = models.CharField(max_length=64, null=True)
    total_requests = models.PositiveBigIntegerField("requests since start", null=True)
    active_connections = models.PositiveIntegerField("database connections", null=True)
    error_rate_5min = models.FloatField("error rate, 5 min", null=True)
    # The raw counters the next sample's rates are computed from.
    cpu_seconds_total = models.FloatField(null=True)
    errors_total = models.PositiveBigIntegerField(null=True)
    deployment_id = models.CharField("deployment", max_length=64, null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    objects = HealthCheckQuerySet.as_manager()

    class Meta:
        db_table = "health_checks"
        ordering = ("-timestamp", "-id")
        indexes = (
            models.Index(fields=("environment", "overall_status"), name="idx_health_checks_environment_status"),
            # The newest page and the hourly deletion read by time alone.
            models.Index(fields=("timestamp",), name="idx_health_checks_timestamp"),
        )
        constraints = (
            # Serves as the index too: samples of one instance in the order of time.
            models.UniqueConstraint(fields=("instance", "timestamp"), name="idx_health_checks_instance_timestamp"),
            _known("environment", "environment", Environment),
            _known("status", "overall_status", HealthStatus),
            _known("database_status", "database_status", DependencyStatus),
            _known("redis_status", "redis_status", DependencyStatus),
            _not_negative("memory_usage_percent", "cpu_usage_percent", "cpu_seconds_total"),
            models.CheckConstraint(
                condition=Q(error_rate_5min=None) | Q(error_rate_5min__gte=0, error_rate_5min__lte=1),
                name="health_checks_error_rate_is_share",
            ),
        )

    def __str__(self) -> str:
        return f"{self.instance_id} at {self.timestamp:%Y-%m-%d %H:%M} UTC: {self.overall_status}"

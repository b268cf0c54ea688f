"""Samples of instances; how endpoints and databases fare; who probes them; what the checks of hours came to."""

from datetime import datetime
from typing import Any, Self

from django.db import models
from django.db.models import F, Q

from apps.core.choices import Environment
from apps.health.choices import (
    CheckStatus,
    ConnectionStatus,
    DependencyStatus,
    HealthStatus,
    QueryStatus,
    SampleSource,
    SubjectKind,
)
from apps.inventory.choices import HttpMethod
from apps.inventory.models import Database, Endpoint, Instance, Workload

MAX_ERROR = 300  # characters kept of why a check failed


def _known(
    name: str, column: str, words: type[models.TextChoices], table: str = "health_checks"
) -> models.CheckConstraint:
    return models.CheckConstraint(condition=Q(**{f"{column}__in": words.values}), name=f"{table}_{name}_known")


def _not_negative(*columns: str, table: str = "health_checks") -> models.CheckConstraint:
    condition = Q()
    for column in columns:
        condition &= Q(**{column: None}) | Q(**{f"{column}__gte": 0})
    return models.CheckConstraint(condition=condition, name=f"{table}_not_negative")


class HealthCheckQuerySet(models.QuerySet["HealthCheck"]):
    def newest_first(self) -> Self:
        return self.order_by("-timestamp", "-id")

    def of(self, instance: Any) -> Self:
        """Those of one instance, the newest first.

        By time alone, of which an instance has no two samples alike: in that order an index has them. With `id` behind
        it the database reads all there are and sorts them, for each instance of a page.
        """
        return self.filter(instance=instance).order_by("-timestamp")

    def since(self, moment: datetime) -> Self:
        return self.filter(timestamp__gte=moment)


class HealthCheck(models.Model):
    """One look at one instance. A column that is NULL was not measured; it is never zero."""

    id = models.CharField(max_length=64, primary_key=True)
    instance = models.ForeignKey(Instance, on_delete=models.CASCADE, related_name="health_checks", db_index=False)
    environment = models.CharField(max_length=16, choices=Environment)
    timestamp = models.DateTimeField("time", help_text="Scheduled samples carry the start of their minute")
    measured_at = models.DateTimeField(help_text="When the instance answered, or failed to")
    source = models.CharField(
        max_length=16, choices=SampleSource, default=SampleSource.SCHEDULED, db_default=SampleSource.SCHEDULED.value,
        help_text="A deployment's gate looks several times a minute",
    )  # fmt: skip
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
            _known("source", "source", SampleSource),
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


class Standing(models.Model):
    """What endpoints and databases have in common: how one fares now. Written by the prober, one row for each."""

    environment = models.CharField(max_length=16, choices=Environment)
    status = models.CharField(max_length=16, choices=CheckStatus, default=CheckStatus.UNKNOWN)
    since = models.DateTimeField(null=True, help_text="When it took this status")
    error_message = models.CharField("error", max_length=MAX_ERROR, blank=True)
    consecutive_failures = models.PositiveIntegerField("failures in a row", default=0)
    consecutive_successes = models.PositiveIntegerField("good answers in a row", default=0)

    class Meta:
        abstract = True


class EndpointState(Standing):
    """How an endpoint fares now. What was asked is repeated here, as it was at the newest check."""

    endpoint = models.OneToOneField(Endpoint, on_delete=models.CASCADE, primary_key=True, related_name="health")
    endpoint_path = models.CharField("path", max_length=300)
    http_method = models.CharField("method", max_length=8, choices=HttpMethod)
    expected_status = models.CharField(max_length=100)
    actual_status = models.PositiveSmallIntegerField(null=True)
    response_time = models.FloatField("response (ms)", null=True, help_text="Until the answer or the failure")
    last_checked = models.DateTimeField(null=True, help_text="NULL: never yet")
    tls_expires_at = models.DateTimeField("certificate expires", null=True)

    class Meta:
        db_table = "api_health"
        indexes = (
            models.Index(fields=("endpoint_path", "status"), name="idx_api_health_endpoint_status"),
            # What is down now, and which certificates end soon, are asked for each minute.
            models.Index(fields=("status",), name="idx_api_health_status"),
            models.Index(fields=("tls_expires_at",), name="idx_api_health_tls_expires_at"),
        )
        constraints = (
            _known("environment", "environment", Environment, "api_health"),
            _known("status", "status", CheckStatus, "api_health"),
            _known("method", "http_method", HttpMethod, "api_health"),
            _not_negative("response_time", table="api_health"),
            models.CheckConstraint(
                condition=Q(actual_status=None) | Q(actual_status__gte=100, actual_status__lte=999),
                name="api_health_actual_status_is_http",
            ),
        )

    def __str__(self) -> str:
        return f"{self.http_method} {self.endpoint_path} in {self.environment}: {self.status}"


class DatabaseState(Standing):
    """How a database fares now."""

    database = models.OneToOneField(Database, on_delete=models.CASCADE, primary_key=True, related_name="health")
    connection_name = models.CharField("database", max_length=50)
    host = models.CharField(max_length=255, blank=True)
    database_name = models.CharField("schema", max_length=255, blank=True)
    connection_status = models.CharField(
        "connection", max_length=16, choices=ConnectionStatus, null=True, help_text="NULL: never tested yet"
    )
    query_test_status = models.CharField("query", max_length=16, choices=QueryStatus, default=QueryStatus.NOT_TESTED)
    average_query_time = models.FloatField(
        "query (ms)", null=True, help_text="A moving average; the newest counts a fifth"
    )
    connect_ms = models.FloatField("connect (ms)", null=True)
    query_ms = models.FloatField("newest query (ms)", null=True)
    connection_pool_size = models.PositiveIntegerField("connections", null=True)
    connections_max = models.PositiveIntegerField("limit of connections", null=True)
    last_tested = models.DateTimeField(null=True, help_text="NULL: never yet")

    class Meta:
        db_table = "database_health"
        indexes = (models.Index(fields=("status",), name="idx_database_health_status"),)
        constraints = (
            _known("environment", "environment", Environment, "database_health"),
            _known("status", "status", CheckStatus, "database_health"),
            models.CheckConstraint(
                condition=Q(connection_status=None) | Q(connection_status__in=ConnectionStatus.values),
                name="database_health_connection_status_known",
            ),
            _known("query_status", "query_test_status", QueryStatus, "database_health"),
            _not_negative("average_query_time", "connect_ms", "query_ms", table="database_health"),
        )

    def __str__(self) -> str:
        return f"{self.connection_name}: {self.status}"


class EndpointCheck(models.Model):
    """One check of an endpoint; kept for a day. `at` is the time it was planned for."""

    id = models.BigAutoField(primary_key=True)
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="checks", db_index=False)
    at = models.DateTimeField("time")
    status = models.CharField(max_length=16, choices=CheckStatus)
    response_time_ms = models.FloatField("response (ms)", null=True, help_text="NULL: not measured")
    http_status = models.PositiveSmallIntegerField("answer", null=True)
    error = models.CharField(max_length=MAX_ERROR, blank=True)

    class Meta:
        db_table = "endpoint_checks"
        ordering = ("-at", "-id")
        indexes = (models.Index(fields=("at",), name="idx_endpoint_checks_at"),)
        constraints = (
            # Serves as the index too. A doubled message or a second beat can store nothing twice.
            models.UniqueConstraint(fields=("endpoint", "at"), name="idx_endpoint_checks_endpoint_at"),
            _known("status", "status", CheckStatus, "endpoint_checks"),
            _not_negative("response_time_ms", table="endpoint_checks"),
        )

    def __str__(self) -> str:
        return f"{self.endpoint_id} at {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.status}"


class DatabaseCheck(models.Model):
    """One check of a database; kept for a day. `at` is the time it was planned for."""

    id = models.BigAutoField(primary_key=True)
    database = models.ForeignKey(Database, on_delete=models.CASCADE, related_name="checks", db_index=False)
    at = models.DateTimeField("time")
    status = models.CharField(max_length=16, choices=CheckStatus)
    connection_status = models.CharField("connection", max_length=16, choices=ConnectionStatus, null=True)
    query_status = models.CharField("query", max_length=16, choices=QueryStatus, default=QueryStatus.NOT_TESTED)
    response_time_ms = models.FloatField(
        "response (ms)", null=True, help_text="Connecting and query; NULL: not measured"
    )
    connect_ms = models.FloatField("connect (ms)", null=True)
    query_ms = models.FloatField("query (ms)", null=True)
    connections_used = models.PositiveIntegerField("connections", null=True)
    connections_max = models.PositiveIntegerField("limit of connections", null=True)
    error = models.CharField(max_length=MAX_ERROR, blank=True)

    class Meta:
        db_table = "database_checks"
        ordering = ("-at", "-id")
        indexes = (models.Index(fields=("at",), name="idx_database_checks_at"),)
        constraints = (
            models.UniqueConstraint(fields=("database", "at"), name="idx_database_checks_database_at"),
            _known("status", "status", CheckStatus, "database_checks"),
            models.CheckConstraint(
                condition=Q(connection_status=None) | Q(connection_status__in=ConnectionStatus.values),
                name="database_checks_connection_status_known",
            ),
            _known("query_status", "query_status", QueryStatus, "database_checks"),
            _not_negative("response_time_ms", "connect_ms", "query_ms", table="database_checks"),
        )

    def __str__(self) -> str:
        return f"{self.database_id} at {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.status}"


class ProbeSlice(models.Model):
    """One shard's checks of one minute, and the worker that has them. The row is made by whoever takes it first."""

    id = models.BigAutoField(primary_key=True)
    shard = models.PositiveSmallIntegerField()
    shards = models.PositiveSmallIntegerField(help_text="How many there were in all")
    starts_at = models.DateTimeField(help_text="The minute")
    holder = models.CharField(
        max_length=64, help_text="Never used again: a late finisher settles nothing that is not his"
    )
    beat_at = models.DateTimeField(help_text="When the holder last said that it lives")
    finished_at = models.DateTimeField(null=True)
    suspicious = models.BooleanField(default=False, help_text="Nearly all targets failed at once: ours is the fault")

    class Meta:
        db_table = "probe_slices"
        constraints = (
            models.UniqueConstraint(fields=("starts_at", "shard"), name="probe_slices_starts_at_shard"),
            models.CheckConstraint(condition=Q(shards__gt=0, shard__lt=F("shards")), name="probe_slices_shard_exists"),
        )

    def __str__(self) -> str:
        return f"shard {self.shard} of {self.shards} at {self.starts_at:%Y-%m-%d %H:%M} UTC"


class HealthHourly(models.Model):
    """What the checks of one subject came to in one hour; kept for 90 days. Made by `rollups` from raw rows.

    `subject` is the primary key of the instance, endpoint or database, as text; there is no foreign key, for the row
    stays when its subject is removed. Times in ms, loads in percent of the limit; NULL = nothing of it was measured.
    """

    kind = models.CharField(max_length=16, choices=SubjectKind)
    subject = models.CharField(max_length=170)
    hour = models.DateTimeField(help_text="Its start; hours are UTC")
    checks = models.PositiveIntegerField()
    # How these checks ended, each in one of the five.
    healthy = models.PositiveIntegerField()
    degraded = models.PositiveIntegerField()
    down = models.PositiveIntegerField(help_text="Unhealthy or failed, outside of maintenance")
    unknown = models.PositiveIntegerField()
    maintenance = models.PositiveIntegerField(help_text="Unhealthy or failed while a maintenance window was open")
    uptime = models.FloatField(null=True, help_text="(healthy + degraded) ÷ (healthy + degraded + down)")
    measured = models.PositiveIntegerField(help_text="Checks that took a response time")
    response_mean_ms = models.FloatField(null=True)
    response_p95_ms = models.FloatField(null=True, help_text="By nearest rank: one of the times measured")
    response_max_ms = models.FloatField(null=True)
    cpu_mean = models.FloatField("CPU, mean (%)", null=True)
    cpu_max = models.FloatField("CPU, highest (%)", null=True)
    memory_mean = models.FloatField("memory, mean (%)", null=True)
    memory_max = models.FloatField("memory, highest (%)", null=True)

    class Meta:
        db_table = "health_hourly"
        ordering = ("-hour", "kind", "subject")
        verbose_name = "hour of checks"
        verbose_name_plural = "hours of checks"
        indexes = (
            # An hour's replacement, and the deletion of old ones, go by time.
            models.Index(fields=("hour", "kind"), name="idx_health_hourly_hour"),
        )
        constraints = (
            models.UniqueConstraint(fields=("kind", "subject", "hour"), name="health_hourly_subject_hour"),
            _known("kind", "kind", SubjectKind, "health_hourly"),
            models.CheckConstraint(
                condition=Q(checks=F("healthy") + F("degraded") + F("down") + F("unknown") + F("maintenance"))
                & Q(checks__gt=0, measured__lte=F("checks")),
                name="health_hourly_counts_add_up",
            ),
            models.CheckConstraint(
                condition=Q(uptime=None) | Q(uptime__gte=0, uptime__lte=1), name="health_hourly_uptime_is_share"
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}, {self.hour:%Y-%m-%d %H}:00 UTC"


class RolledHour(models.Model):
    """An hour of one kind whose raw rows have been summed up, and how many rows these were.

    More raw rows than that: some came late, and the hour is summed up again. No row: it never was, and its raw rows
    must not be deleted.
    """

    kind = models.CharField(max_length=16, choices=SubjectKind)
    hour = models.DateTimeField()
    checks = models.PositiveIntegerField()
    rolled_at = models.DateTimeField()

    class Meta:
        db_table = "health_rolled_hours"
        ordering = ("-hour", "kind")
        constraints = (
            models.UniqueConstraint(fields=("hour", "kind"), name="health_rolled_hours_hour_kind"),
            _known("kind", "kind", SubjectKind, "health_rolled_hours"),
        )

    def __str__(self) -> str:
        return f"{self.kind}, {self.hour:%Y-%m-%d %H}:00 UTC"


class UtilisationMinute(models.Model):
    """How loaded the instances of a workload were in one minute; kept for 90 days. Scaling reads nothing else.

    Written when the samples of the minute are stored, and again when some come late. No row: nobody looked. An instance
    with several samples in the minute counts once, with their mean. Percentages are of an instance's limit, so a sum of
    250 over 3 instances is a mean of 83.3 %.

    Missing are `expected - reported`; those of whom only CPU is missing are
    `expected - cpu_count - warming_cpu_count`, and of memory likewise.
    """

    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="utilisation", db_index=False)
    minute = models.DateTimeField(help_text="Its start")
    expected = models.PositiveIntegerField(
        help_text="Instances with a sample in this minute, and active ones seen at work within the hour that ends then"
    )
    reported = models.PositiveIntegerField(help_text="Of these, how many told their CPU or memory")
    warming = models.PositiveIntegerField(
        help_text="Of the expected ones, how many had been running for less than three minutes"
    )
    cpu_sum = models.FloatField("CPU, sum (%)", help_text="Over instances that are not warming")
    cpu_count = models.PositiveIntegerField(help_text="How many instances that sum is of")
    memory_sum = models.FloatField("memory, sum (%)")
    memory_count = models.PositiveIntegerField()
    warming_cpu_sum = models.FloatField(help_text="The same over instances that are warming")
    warming_cpu_count = models.PositiveIntegerField()
    warming_memory_sum = models.FloatField()
    warming_memory_count = models.PositiveIntegerField()
    samples = models.PositiveIntegerField(help_text="How many raw samples the row was made from")
    units = models.PositiveIntegerField(
        null=True, help_text="How many instances the platform ran at the end of a window that ends here, where it told"
    )

    class Meta:
        db_table = "utilisation_minutes"
        ordering = ("-minute", "workload")
        verbose_name = "utilisation of a minute"
        verbose_name_plural = "utilisation by the minute"
        indexes = (
            # What is written again, and the deletion of old ones, go by time.
            models.Index(fields=("minute",), name="idx_utilisation_minutes_minute"),
        )
        constraints = (
            models.UniqueConstraint(fields=("workload", "minute"), name="utilisation_minutes_workload_minute"),
            models.CheckConstraint(
                condition=Q(
                    expected__gte=F("reported"),
                    warming__lte=F("expected"),
                    reported__gte=F("cpu_count") + F("warming_cpu_count"),
                )
                & Q(reported__gte=F("memory_count") + F("warming_memory_count")),
                name="utilisation_minutes_counts_fit",
            ),
            _not_negative(
                "cpu_sum", "memory_sum", "warming_cpu_sum", "warming_memory_sum", table="utilisation_minutes"
            ),
        )

    def __str__(self) -> str:
        return f"{self.workload_id} at {self.minute:%Y-%m-%d %H:%M} UTC: {self.reported} of {self.expected}"

"""What runs where: Service → Workload (a service in an environment) → Instance (one running copy)."""

from itertools import chain, count
from typing import Self

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import F, Q

from apps.core.choices import Environment
from apps.inventory.choices import DatabaseEngine, HttpMethod, MetricsPreset, Platform
from apps.inventory.rules import (
    MAX_INTERVAL,
    MAX_TIMEOUT,
    MIN_INTERVAL,
    MIN_TIMEOUT,
    http_url_fault,
    json_condition_fault,
    path_fault,
    repository_fault,
    statuses_fault,
)

DEFAULT_SERVICE = "app"  # every team has this one from the start, so a team with one application never meets the word
OWN_SERVICE = "pulsewatch"


def http_url(value: str) -> None:
    """A field's validator."""
    if fault := http_url_fault(value):
        raise ValidationError(fault, code="invalid")


def repository_address(value: str) -> None:
    """A field's validator."""
    if fault := repository_fault(value):
        raise ValidationError(fault, code="invalid")


def endpoint_path(value: str) -> None:
    """A field's validator."""
    if fault := path_fault(value):
        raise ValidationError(fault, code="invalid")


def statuses(value: str) -> None:
    """A field's validator."""
    if fault := statuses_fault(value):
        raise ValidationError(fault, code="invalid")


def json_condition(value: str) -> None:
    """A field's validator."""
    if fault := json_condition_fault(value):
        raise ValidationError(fault, code="invalid")


http_path = RegexValidator(r"^/[^\s#]*\Z", message="Enter a path that starts with / and has no spaces, such as /ready.")
domain_name = RegexValidator(
    r"^(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z",
    message="Enter a domain name in lower case without scheme or path, such as app.example.com.",
)


class Service(models.Model):
    """An application the team runs."""

    slug = models.SlugField(max_length=50, unique=True, help_text="Short name used in URLs, ids and the API")
    name = models.CharField(max_length=100)
    repository_url = models.CharField("repository", max_length=300, blank=True, validators=[repository_address])
    runbook_url = models.CharField("runbook", max_length=300, blank=True, validators=[http_url])
    metrics_preset = models.CharField(max_length=16, choices=MetricsPreset, default=MetricsPreset.DJANGO)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "services"
        ordering = ("slug",)
        constraints = (
            models.CheckConstraint(condition=~Q(slug=""), name="services_slug_given"),
            models.CheckConstraint(
                condition=Q(metrics_preset__in=MetricsPreset.values), name="services_metrics_preset_known"
            ),
        )

    def __str__(self) -> str:
        return self.slug


class Workload(models.Model):
    """A service in an environment. Its platform's secret is write-only: kept sealed, never shown."""

    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="workloads")
    environment = models.CharField(max_length=16, choices=Environment)
    platform = models.CharField(max_length=16, choices=Platform, default=Platform.ADVISORY)
    platform_settings = models.JSONField(default=dict, blank=True, help_text="A JSON object; docs/platforms.md")
    platform_secret_sealed = models.BinaryField(null=True, editable=False)
    base_url = models.CharField(
        "base URL", max_length=300, blank=True, validators=[http_url], help_text="Where its users reach it"
    )
    domain = models.CharField(max_length=253, blank=True, validators=[domain_name])
    readiness_path = models.CharField(max_length=200, default="/ready", validators=[http_path])
    metrics_path = models.CharField(max_length=200, default="/metrics", validators=[http_path])
    auto_rollback = models.BooleanField(
        "automatic rollback", default=False, help_text="Bring the last good version back when the gate fails"
    )
    gate_samples = models.PositiveSmallIntegerField(
        default=3, validators=[MinValueValidator(1), MaxValueValidator(20)],
        help_text="Healthy samples in a row that a deployment needs from each instance",
    )  # fmt: skip
    gate_window_seconds = models.PositiveIntegerField(
        "gate window (s)", default=180, validators=[MinValueValidator(10), MaxValueValidator(3600)],
        help_text="Within this time; an application that pushes its samples each minute needs some minutes",
    )  # fmt: skip
    deployment_timeout_minutes = models.PositiveIntegerField(
        "time-out (min)", default=60, validators=[MinValueValidator(1), MaxValueValidator(1440)],
        help_text="A deployment nobody finishes fails after this time, and frees the change lock",
    )  # fmt: skip
    strict_checklist = models.BooleanField(
        default=False, help_text="A blocking item that nobody has reported refuses as well, not only one that failed"
    )
    require_backup = models.BooleanField(
        default=False, help_text="Deploy only when every database of the service here has a fresh verified backup"
    )
    backup_max_age_hours = models.PositiveIntegerField(
        "fresh means (h)", default=24, validators=[MinValueValidator(1), MaxValueValidator(8760)]
    )
    # Who may change this workload now. The holder is the key of the one operation that took it and is never used
    # again, so a late finisher frees nothing that is not his.
    change_lock = models.CharField(max_length=64, null=True, blank=True, editable=False)
    change_lock_by = models.CharField(max_length=150, blank=True, editable=False)
    change_lock_since = models.DateTimeField(null=True, blank=True, editable=False)
    current_deployment_id = models.CharField("current deployment", max_length=64, null=True, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "workloads"
        ordering = ("service__slug", "environment")
        constraints = (
            models.UniqueConstraint(
                fields=("service", "environment"),
                name="workloads_service_environment",
                violation_error_message="This service already has a workload in this environment.",
            ),
            models.CheckConstraint(condition=Q(environment__in=Environment.values), name="workloads_environment_known"),
            models.CheckConstraint(condition=Q(platform__in=Platform.values), name="workloads_platform_known"),
            models.CheckConstraint(
                condition=Q(readiness_path__startswith="/") & Q(metrics_path__startswith="/"),
                name="workloads_paths_start_with_slash",
            ),
            models.CheckConstraint(
                condition=Q(change_lock=None, change_lock_since=None)
                | (Q(change_lock__isnull=False, change_lock_since__isnull=False) & ~Q(change_lock="")),
                name="workloads_lock_has_holder_and_time",
            ),
            models.CheckConstraint(
                condition=Q(gate_samples__gt=0, gate_window_seconds__gt=0, deployment_timeout_minutes__gt=0),
                name="workloads_gate_positive",
            ),
        )

    def __str__(self) -> str:
        return f"{self.service}/{self.environment}"


class InstanceQuerySet(models.QuerySet["Instance"]):
    def sampled(self) -> Self:
        """Those Pulsewatch reads itself: active ones with an address. The others push their samples."""
        return self.filter(active=True).exclude(url="")

    def free_id(self, name: str, workload: Workload) -> str:
        """The name; when another instance is called that, the name with the workload and a number behind it."""
        names = chain((name, f"{name}@{workload}"), (f"{name}@{workload}-{n}" for n in count(2)))
        return next(found for found in names if not self.filter(pk=found).exists())


class Instance(models.Model):
    """One running copy of a workload: a container, pod or host.

    `id` is the identifier its samples carry. It equals `name` unless another workload has an instance of that name.
    """

    id = models.CharField("identifier", max_length=170, primary_key=True, editable=False)
    name = models.CharField(
        max_length=100,
        validators=[RegexValidator(r"^[A-Za-z0-9][A-Za-z0-9_.:-]*\Z", message="Use letters, digits and _ . : - only.")],
        help_text="Container id, pod or host name",
    )
    workload = models.ForeignKey(Workload, on_delete=models.PROTECT, related_name="instances")
    url = models.CharField(
        "URL",
        max_length=300,
        blank=True,
        validators=[http_url],
        help_text="Where Pulsewatch reads readiness and metrics; empty when the application pushes its samples",
    )
    cpu_limit_cores = models.FloatField(
        "CPU limit (cores)", null=True, blank=True, validators=[MinValueValidator(0.001)],
        help_text="Empty: what its metrics say",
    )  # fmt: skip
    memory_limit_mb = models.PositiveIntegerField(
        "memory limit (MiB)", null=True, blank=True, validators=[MinValueValidator(1)],
        help_text="Empty: what its metrics say",
    )  # fmt: skip
    active = models.BooleanField(default=True, help_text="Inactive instances are neither sampled nor expected")
    # An instance that was registered by hand is nobody's but his who did it. One that was found is switched off when
    # the platform no longer names it; what a person changes in between stands.
    listed = models.BooleanField(
        "on its platform", null=True, editable=False, help_text="Whether its platform runs it; empty: added by hand"
    )
    registered_at = models.DateTimeField(auto_now_add=True)

    objects = InstanceQuerySet.as_manager()

    class Meta:
        db_table = "instances"
        ordering = ("workload", "name")
        constraints = (
            models.UniqueConstraint(
                fields=("workload", "name"),
                name="instances_workload_name",
                violation_error_message="This workload already has an instance of that name.",
            ),
            models.CheckConstraint(condition=~Q(name="") & ~Q(id=""), name="instances_name_given"),
            models.CheckConstraint(
                condition=Q(cpu_limit_cores=None) | Q(cpu_limit_cores__gt=0), name="instances_cpu_limit_positive"
            ),
            models.CheckConstraint(
                condition=Q(memory_limit_mb=None) | Q(memory_limit_mb__gt=0), name="instances_memory_limit_positive"
            ),
        )

    def __str__(self) -> str:
        return self.name


def _positive(*, most: int, least: int = 1) -> list[MinValueValidator | MaxValueValidator]:
    return [MinValueValidator(least), MaxValueValidator(most)]


class EndpointQuerySet(models.QuerySet["Endpoint"]):
    def watched(self) -> Self:
        """Those that are checked: switched on, at a workload whose address is known."""
        return self.filter(enabled=True).exclude(workload__base_url="")


class Endpoint(models.Model):
    """A path of a workload that is watched from outside: what to ask, what must come back, and when it counts as down.

    Its headers are write-only: kept sealed, never shown. The body of its request is not, so no secret belongs there.
    """

    workload = models.ForeignKey(Workload, on_delete=models.PROTECT, related_name="endpoints")
    name = models.CharField(max_length=100, blank=True, help_text="Empty: method and path, such as GET /api/orders")
    endpoint_path = models.CharField(
        "path", max_length=300, validators=[endpoint_path], help_text="Behind the workload's base URL; may hold a query"
    )
    http_method = models.CharField("method", max_length=8, choices=HttpMethod, default=HttpMethod.GET)
    expected_status = models.CharField(
        max_length=100, default="200", validators=[statuses], help_text="200, 200-299 or 200,301-308"
    )
    body_contains = models.CharField(max_length=300, blank=True, help_text="Text that must occur in the answer")
    body_json = models.CharField(
        "JSON condition", max_length=300, blank=True, validators=[json_condition],
        help_text='Of a JSON answer: $.status == "ok", $.queue.length < 100, or $.items[0] for "is there"',
    )  # fmt: skip
    headers_sealed = models.BinaryField(null=True, editable=False)
    request_body = models.TextField(blank=True, max_length=10_000, help_text="Shown to everyone here: no secrets")
    timeout_seconds = models.FloatField(
        "time-out (s)", default=10, validators=[MinValueValidator(MIN_TIMEOUT), MaxValueValidator(MAX_TIMEOUT)]
    )
    interval_seconds = models.PositiveIntegerField(
        "interval (s)", default=60, validators=_positive(least=MIN_INTERVAL, most=MAX_INTERVAL)
    )
    slow_ms = models.PositiveIntegerField(
        "slow from (ms)", default=1000, validators=_positive(most=60_000), help_text="From here on it is degraded"
    )
    failures_before_down = models.PositiveSmallIntegerField(
        default=3, validators=_positive(most=20), help_text="Failures in a row until it counts as failed"
    )
    successes_before_up = models.PositiveSmallIntegerField(
        default=2, validators=_positive(most=20), help_text="Good answers in a row until it is back"
    )
    follow_redirects = models.BooleanField(default=True)
    keep_alive = models.BooleanField(
        default=False, help_text="Use one connection for many checks: cheaper, but the cost of connecting is not seen"
    )
    verify_tls = models.BooleanField("verify certificate", default=True)
    certificate_warning_days = models.PositiveSmallIntegerField(
        default=21, validators=_positive(least=0, most=365), help_text="Warn so many days before it expires; 0: never"
    )
    certificate_critical_days = models.PositiveSmallIntegerField(default=7, validators=_positive(least=0, most=365))
    front_end = models.BooleanField(
        default=False, help_text='Answers the item "front end loading" of a deployment\'s checklist'
    )
    enabled = models.BooleanField(default=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        db_table = "endpoints"
        ordering = ("workload", "name")
        constraints = (
            models.UniqueConstraint(
                fields=("workload", "name"),
                name="endpoints_workload_name",
                violation_error_message="This workload already has an endpoint of that name: give it another one.",
            ),
            models.CheckConstraint(condition=~Q(name=""), name="endpoints_name_given"),
            models.CheckConstraint(condition=Q(endpoint_path__startswith="/"), name="endpoints_path_starts_with_slash"),
            models.CheckConstraint(condition=Q(http_method__in=HttpMethod.values), name="endpoints_method_known"),
            models.CheckConstraint(
                condition=Q(
                    interval_seconds__gte=MIN_INTERVAL,
                    interval_seconds__lte=MAX_INTERVAL,
                    timeout_seconds__gt=0,
                    timeout_seconds__lte=F("interval_seconds"),
                ),
                name="endpoints_timeout_within_interval",
                violation_error_message="The time-out must not be longer than the interval.",
            ),
            models.CheckConstraint(
                condition=Q(failures_before_down__gt=0, successes_before_up__gt=0, slow_ms__gt=0),
                name="endpoints_thresholds_positive",
            ),
            models.CheckConstraint(
                condition=Q(certificate_critical_days__lte=F("certificate_warning_days")),
                name="endpoints_critical_after_warning",
                violation_error_message="The critical days must not be more than the warning days.",
            ),
        )

    def __str__(self) -> str:
        return f"{self.workload}: {self.name}"

    @property
    def url(self) -> str:
        """Where it is asked; empty while its workload has no base URL."""
        return self.workload.base_url.rstrip("/") + self.endpoint_path if self.workload.base_url else ""


class DatabaseQuerySet(models.QuerySet["Database"]):
    def watched(self) -> Self:
        """Those that are checked."""
        return self.filter(watch=True)

    def backed_up(self) -> Self:
        """Those of a kind that is backed up."""
        return self.exclude(engine=DatabaseEngine.REDIS)


class Database(models.Model):
    """A database Pulsewatch watches and backs up. Its URLs are write-only: kept sealed, never shown.

    A Redis server is one too: it is watched, and never backed up.
    """

    name = models.SlugField(max_length=50, unique=True)
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="databases")
    environment = models.CharField(max_length=16, choices=Environment)
    engine = models.CharField(max_length=16, choices=DatabaseEngine, editable=False)
    host = models.CharField(max_length=255, blank=True, editable=False)
    port = models.PositiveIntegerField(null=True, editable=False)
    database_name = models.CharField("schema", max_length=255, editable=False, help_text="For SQLite the file's path")
    url_sealed = models.BinaryField(editable=False)
    replica_url_sealed = models.BinaryField(null=True, editable=False)
    scratch_url_sealed = models.BinaryField(null=True, editable=False)
    max_rate_mb = models.PositiveIntegerField(
        "limit (MB/s)", null=True, blank=True, validators=[MinValueValidator(1)], help_text="Empty: as fast as it goes"
    )
    watch = models.BooleanField(default=True, help_text="Connect and ask it something small at every interval")
    interval_seconds = models.PositiveIntegerField(
        "interval (s)", default=60, validators=_positive(least=MIN_INTERVAL, most=MAX_INTERVAL)
    )
    timeout_seconds = models.FloatField(
        "time-out (s)", default=5, validators=[MinValueValidator(MIN_TIMEOUT), MaxValueValidator(MAX_TIMEOUT)]
    )
    slow_query_ms = models.PositiveIntegerField(
        "slow from (ms)", default=100, validators=_positive(most=60_000), help_text="A query of the check itself"
    )
    failures_before_down = models.PositiveSmallIntegerField(
        default=3, validators=_positive(most=20), help_text="Failures in a row until it counts as failed"
    )
    successes_before_up = models.PositiveSmallIntegerField(
        default=2, validators=_positive(most=20), help_text="Good answers in a row until it is back"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = DatabaseQuerySet.as_manager()

    class Meta:
        db_table = "databases"
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=Q(environment__in=Environment.values), name="databases_environment_known"),
            models.CheckConstraint(condition=Q(engine__in=DatabaseEngine.values), name="databases_engine_known"),
            models.CheckConstraint(
                condition=Q(max_rate_mb=None) | Q(max_rate_mb__gt=0), name="databases_rate_positive"
            ),
            models.CheckConstraint(
                condition=Q(
                    interval_seconds__gte=MIN_INTERVAL,
                    interval_seconds__lte=MAX_INTERVAL,
                    timeout_seconds__gt=0,
                    timeout_seconds__lte=F("interval_seconds"),
                ),
                name="databases_timeout_within_interval",
                violation_error_message="The time-out must not be longer than the interval.",
            ),
            models.CheckConstraint(
                condition=Q(failures_before_down__gt=0, successes_before_up__gt=0, slow_query_ms__gt=0),
                name="databases_thresholds_positive",
            ),
        )

    def __str__(self) -> str:
        return self.name

"""Builds, the diagnostics their tools report, and the reports that brought them."""

from datetime import datetime
from typing import Self

from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Case, Q, Value, When

from apps.builds import rules
from apps.builds.choices import BuildStatus, Category, DiagnosticStatus, Level, ReportFormat, Severity
from apps.builds.paths import MAX_PATH
from apps.core.choices import Environment
from apps.inventory.models import Service, http_url

OPEN_BUILD = (BuildStatus.PENDING, BuildStatus.BUILDING)
# What somebody may still have to do something about.
ACTIVE = (DiagnosticStatus.IDENTIFIED, DiagnosticStatus.IN_PROGRESS)
WORST_FIRST = ("severity_rank", "id")  # those that have been there longest first; as indexes have them
MAX_NOTES = 2000  # characters
MAX_ERROR_LOG = 65_536  # characters: the end of a log, which holds the cause

semantic_version = RegexValidator(rules.SEMVER, message="Enter a semantic version, such as 20.11.1 or v20.11.1.")
commit_hash = RegexValidator(rules.COMMIT, message="Enter a commit as 7 to 40 hexadecimal digits in lower case.")
branch_name = RegexValidator(rules.BRANCH, message="Enter a branch as git names it, such as main or feature/login.")


class BuildQuerySet(models.QuerySet["Build"]):
    def open(self) -> Self:
        return self.filter(build_status__in=OPEN_BUILD)

    def left(self, before: datetime) -> Self:
        """Open ones of which nobody has told anything since."""
        return self.open().filter(created_at__lte=before, updated_at__lte=before)

    def deployable(self) -> Self:
        """Those that may be deployed, in their own environment and promoted to others."""
        return self.filter(build_status=BuildStatus.SUCCESS)

    def newest_first(self) -> Self:
        return self.order_by("-created_at", "-pk")


class Build(models.Model):
    """One attempt to build a service, with what it was built by and how it went."""

    id = models.CharField(max_length=64, primary_key=True)
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="builds")
    environment = models.CharField(max_length=16, choices=Environment)
    branch = models.CharField(max_length=200, blank=True, validators=[branch_name])
    commit_sha = models.CharField("commit", max_length=40, blank=True, validators=[commit_hash])
    run_url = models.CharField(
        "run", max_length=300, blank=True, validators=[http_url], help_text="Where the CI job shows its log"
    )
    node_version = models.CharField("Node.js", max_length=64, null=True, blank=True, validators=[semantic_version])
    typescript_version = models.CharField(
        "TypeScript", max_length=64, null=True, blank=True, validators=[semantic_version]
    )
    astro_version = models.CharField("Astro", max_length=64, null=True, blank=True, validators=[semantic_version])
    build_command = models.CharField("command", max_length=500, blank=True)
    build_status = models.CharField("status", max_length=16, choices=BuildStatus, default=BuildStatus.BUILDING)
    build_time = models.FloatField("build time (s)", null=True, blank=True)
    bundle_size = models.PositiveBigIntegerField("bundle size (bytes)", null=True, blank=True)
    error_count = models.PositiveIntegerField("errors", default=0)
    warning_count = models.PositiveIntegerField("warnings", default=0)
    error_log = models.TextField(null=True, blank=True)
    requested_by = models.CharField("reported by", max_length=150, blank=True)
    created_at = models.DateTimeField("attempted at")
    started_at = models.DateTimeField("building since", null=True)
    completed_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = BuildQuerySet.as_manager()

    class Meta:
        db_table = "build_configs"
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("service", "environment", "created_at"), name="idx_build_configs_trend"),
            models.Index(fields=("build_status", "created_at"), name="idx_build_configs_status_created"),
            models.Index(fields=("created_at",), name="idx_build_configs_created"),
        )
        constraints = (
            models.CheckConstraint(condition=~Q(id=""), name="build_configs_id_given"),
            models.CheckConstraint(
                condition=Q(environment__in=Environment.values), name="build_configs_environment_known"
            ),
            models.CheckConstraint(condition=Q(build_status__in=BuildStatus.values), name="build_configs_status_known"),
            models.CheckConstraint(
                condition=Q(completed_at=None, build_status__in=OPEN_BUILD)
                | (Q(completed_at__isnull=False) & ~Q(build_status__in=OPEN_BUILD)),
                name="build_configs_completed_when_over",
            ),
            models.CheckConstraint(
                condition=Q(completed_at=None) | Q(completed_at__gte=models.F("created_at")),
                name="build_configs_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(build_time=None) | Q(build_time__gt=0), name="build_configs_time_positive"
            ),
        )

    def __str__(self) -> str:
        return self.id

    @property
    def deployable(self) -> bool:
        """Whether it may be deployed or promoted: only a successful build may."""
        return self.build_status == BuildStatus.SUCCESS

    @property
    def over(self) -> bool:
        return self.build_status not in OPEN_BUILD


class DiagnosticSource(models.Model):
    """Whose diagnostics are compared from build to build: those of one service, environment, branch and tool.

    Whoever stores a report holds this row's lock, so two reports never judge the same diagnostics at once.
    """

    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="+")
    environment = models.CharField(max_length=16, choices=Environment)
    branch = models.CharField(max_length=200, blank=True)
    tool = models.CharField(max_length=64)
    newest_build = models.ForeignKey(
        Build, null=True, on_delete=models.PROTECT, related_name="+", help_text="The newest build that reported"
    )

    class Meta:
        db_table = "diagnostic_sources"
        ordering = ("service__slug", "environment", "branch", "tool")
        constraints = (
            models.UniqueConstraint(
                fields=("service", "environment", "branch", "tool"), name="diagnostic_sources_service_branch_tool"
            ),
            models.CheckConstraint(
                condition=Q(environment__in=Environment.values), name="diagnostic_sources_environment_known"
            ),
            models.CheckConstraint(condition=~Q(tool=""), name="diagnostic_sources_tool_given"),
        )

    def __str__(self) -> str:
        return f"{self.tool}: {self.service}/{self.environment}" + (f" ({self.branch})" if self.branch else "")


class DiagnosticReport(models.Model):
    """What one tool reported about one build, and what that changed. The same report again finds this row."""

    build = models.ForeignKey(Build, on_delete=models.CASCADE, related_name="reports")
    source = models.ForeignKey(DiagnosticSource, on_delete=models.PROTECT, related_name="reports")
    format = models.CharField(max_length=16, choices=ReportFormat)
    digest = models.CharField(max_length=64, editable=False, help_text="SHA-256 of what was sent, and how it was read")
    complete = models.BooleanField(help_text="It is all the tool has to say, so what it does not show is resolved")
    doubts = models.JSONField(default=list, help_text="Why it was not taken for complete, in sentences")
    outdated = models.BooleanField(default=False, help_text="A newer build had reported: no diagnostic was changed")
    errors = models.PositiveIntegerField(default=0)
    warnings = models.PositiveIntegerField(default=0)
    notes = models.PositiveIntegerField(default=0)
    suppressed = models.PositiveIntegerField(default=0, help_text="Left out, for the source says so")
    added = models.PositiveIntegerField(default=0)
    carried = models.PositiveIntegerField(default=0, help_text="Known from earlier builds")
    reopened = models.PositiveIntegerField(default=0)
    resolved = models.PositiveIntegerField(default=0)
    reported_by = models.CharField(max_length=150, blank=True)
    received_at = models.DateTimeField()

    class Meta:
        db_table = "diagnostic_reports"
        ordering = ("-received_at", "-id")
        indexes = (models.Index(fields=("received_at",), name="idx_diagnostic_reports_received"),)
        constraints = (
            models.UniqueConstraint(fields=("build", "source", "digest"), name="diagnostic_reports_once"),
            models.CheckConstraint(condition=Q(format__in=ReportFormat.values), name="diagnostic_reports_format_known"),
        )

    def __str__(self) -> str:
        return f"{self.source_id}:{self.build_id}"


class DiagnosticQuerySet(models.QuerySet["Diagnostic"]):
    def active(self) -> Self:
        """Those somebody may have to do something about: neither resolved nor deferred."""
        return self.filter(status__in=ACTIVE)

    def worst_first(self) -> Self:
        return self.order_by(*WORST_FIRST)


class Diagnostic(models.Model):
    """What a tool finds wrong at one place of the source, followed from the build that showed it first."""

    id = models.CharField(max_length=64, primary_key=True)
    source = models.ForeignKey(
        DiagnosticSource, on_delete=models.PROTECT, related_name="diagnostics", db_index=False
    )  # the unique constraint below begins with it
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="diagnostics")
    environment = models.CharField(max_length=16, choices=Environment)
    fingerprint = models.CharField(max_length=32, editable=False, help_text="The same wherever its line moves")
    file_path = models.CharField("file", max_length=MAX_PATH, blank=True, help_text="From the root of the checkout")
    line_number = models.PositiveIntegerField("line", null=True, validators=[MinValueValidator(1)])
    column_number = models.PositiveIntegerField("column", null=True, validators=[MinValueValidator(1)])
    error_code = models.CharField("code", max_length=rules.MAX_CODE, blank=True)
    error_message = models.TextField("message")
    level = models.CharField(max_length=16, choices=Level)
    category = models.CharField(max_length=24, choices=Category, default=Category.OTHER)
    severity = models.CharField(max_length=16, choices=Severity)
    severity_rank = models.GeneratedField(
        expression=Case(
            *(When(severity=word, then=Value(rank)) for rank, word in enumerate(Severity.values)), default=Value(9)
        ),
        output_field=models.PositiveSmallIntegerField(),
        db_persist=True,
        help_text="0 is the worst",
    )
    status = models.CharField(max_length=16, choices=DiagnosticStatus, default=DiagnosticStatus.IDENTIFIED)
    resolution_notes = models.TextField(null=True, blank=True)
    first_build = models.ForeignKey(Build, on_delete=models.PROTECT, related_name="+")
    last_build = models.ForeignKey(Build, on_delete=models.PROTECT, related_name="diagnostics")
    created_at = models.DateTimeField("first seen")
    resolved_at = models.DateTimeField(null=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = DiagnosticQuerySet.as_manager()

    class Meta:
        db_table = "typescript_errors"
        ordering = ("-created_at", "-id")
        indexes = (
            models.Index(fields=("status", "severity"), name="idx_ts_errors_status_severity"),
            models.Index(fields=("resolved_at",), name="idx_ts_errors_resolved_at"),
            # Worst first, of all and of a service in its environment; the id ends every index.
            models.Index(fields=("severity_rank",), name="idx_ts_errors_rank"),
            models.Index(fields=("status", "severity_rank"), name="idx_ts_errors_status_rank"),
            models.Index(fields=("service", "environment", "status", "severity_rank"), name="idx_ts_errors_worst"),
        )
        constraints = (
            models.UniqueConstraint(fields=("source", "fingerprint"), name="ts_errors_source_fingerprint"),
            models.CheckConstraint(condition=Q(environment__in=Environment.values), name="ts_errors_environment_known"),
            models.CheckConstraint(condition=Q(level__in=Level.values), name="ts_errors_level_known"),
            models.CheckConstraint(condition=Q(category__in=Category.values), name="ts_errors_category_known"),
            models.CheckConstraint(condition=Q(severity__in=Severity.values), name="ts_errors_severity_known"),
            models.CheckConstraint(condition=Q(status__in=DiagnosticStatus.values), name="ts_errors_status_known"),
            models.CheckConstraint(
                condition=(Q(line_number=None) | Q(line_number__gt=0))
                & (Q(column_number=None) | Q(column_number__gt=0)),
                name="ts_errors_place_positive",
            ),
            models.CheckConstraint(
                condition=Q(resolved_at=None, status__in=(*ACTIVE, DiagnosticStatus.DEFERRED))
                | (Q(resolved_at__isnull=False) & Q(status=DiagnosticStatus.RESOLVED)),
                name="ts_errors_resolved_at_when_resolved",
            ),
        )

    def __str__(self) -> str:
        return f"{self.error_code} {self.place}".strip()

    @property
    def place(self) -> str:
        """Where it is, such as `src/a.ts:12:5`; empty when it belongs to no file."""
        numbers = (self.line_number, self.column_number) if self.line_number else ()
        return ":".join([self.file_path, *(str(number) for number in numbers if number)])

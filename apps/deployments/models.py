"""Deployments, the steps each went through, what was checked, and what is remembered of versions that failed."""

from datetime import datetime, timedelta
from typing import Self

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Case, Exists, F, Func, OuterRef, Q, Value, When

from apps.builds.models import Build
from apps.core import ids
from apps.core.choices import Environment
from apps.core.models import MAX_REASON
from apps.deployments.choices import (
    ChecklistPhase,
    DeploymentKind,
    DeploymentStatus,
    GateVerdict,
    ItemState,
    StepKind,
    ValidationStatus,
)
from apps.deployments.rules import transitions, variables
from apps.inventory.models import Service, Workload, domain_name

OPEN = (DeploymentStatus.QUEUED, DeploymentStatus.IN_PROGRESS)
ARCHIVED_AFTER = timedelta(days=90)
GOOD = (DeploymentStatus.COMPLETED, DeploymentStatus.ROLLED_BACK)


class DeploymentQuerySet(models.QuerySet["Deployment"]):
    """An id begins with the second it was made in, and every index ends in the id: lists are read in its order."""

    def newest_first(self) -> Self:
        return self.order_by("-id")

    def open(self) -> Self:
        return self.filter(status__in=OPEN)

    def overdue(self, now: datetime) -> Self:
        """Left open by whoever started them; those whose gate runs are the gate's."""
        return self.open().filter(open_until__lte=now, gate=None)

    def rollbacks_due(self, now: datetime) -> Self:
        """Rollbacks that wait for a worker, or whose worker has died: `updated_at` is when it took them."""
        left = Q(status=DeploymentStatus.IN_PROGRESS, updated_at__lte=now - transitions.ASKING)
        return self.filter(Q(status=DeploymentStatus.QUEUED) | left, kind=DeploymentKind.ROLLBACK)

    def old(self, now: datetime) -> Self:
        """Those recorded more than 90 days ago: what is archived is among them."""
        return self.filter(id__lt=ids.timestamped("deploy", now - ARCHIVED_AFTER))

    def good(self) -> Self:
        """Those that brought a version out which nobody has undone."""
        return self.filter(status__in=GOOD, rolled_back_by=None)

    def targets(self, undone: "Deployment") -> Self:
        """What a rollback of `undone` could return to, newest first: an older good one of another version."""
        failed = FailedVersion.objects.filter(workload=undone.workload_id, version=OuterRef("version"))
        older = self.good().filter(workload=undone.workload_id, id__lt=undone.pk)
        return older.exclude(version=undone.version).exclude(Exists(failed)).newest_first()

    def with_rollback_available(self) -> Self:
        """Adds `rollback_available`: it is what the workload got last, and there is something to return to."""
        own = Deployment.objects.filter(workload=OuterRef("workload"))
        failed = FailedVersion.objects.filter(workload=OuterRef("workload"), version=OuterRef("version"))
        older = own.good().filter(id__lt=OuterRef("pk")).exclude(version=OuterRef("version")).exclude(Exists(failed))
        newer = own.filter(id__gt=OuterRef("pk")).filter(
            Q(status__in=GOOD) | Q(kind=DeploymentKind.ROLLBACK, status__in=OPEN)
        )
        return self.annotate(
            rollback_available=Case(
                When(
                    Q(status__in=(DeploymentStatus.COMPLETED, DeploymentStatus.FAILED), kind=DeploymentKind.DEPLOYMENT)
                    & Q(rolled_back_by=None)
                    & Exists(older)
                    & ~Exists(newer),
                    then=Value(True),
                ),
                default=Value(False),
                output_field=models.BooleanField(),
            )
        )


class Deployment(models.Model):
    """A version going out to a workload, or a former one coming back (a rollback).

    `version` and `commit_sha` are what runs afterwards, so for a rollback those returned to.
    """

    id = models.CharField(max_length=64, primary_key=True)
    # The service and environment of the workload, for lists that name only one of them.
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="deployments", db_index=False)
    environment = models.CharField(max_length=16, choices=Environment)
    workload = models.ForeignKey(Workload, on_delete=models.PROTECT, related_name="deployments", db_index=False)
    kind = models.CharField(max_length=16, choices=DeploymentKind, default=DeploymentKind.DEPLOYMENT)
    version = models.CharField(max_length=transitions.MAX_VERSION)
    build = models.ForeignKey(Build, null=True, on_delete=models.PROTECT, related_name="deployments")
    status = models.CharField(max_length=16, choices=DeploymentStatus)
    triggered_by = models.CharField(max_length=150, help_text="GitHub user name, or automated")
    started_at = models.DateTimeField()
    completed_at = models.DateTimeField(null=True)
    duration_seconds = models.PositiveIntegerField("duration (s)", null=True)
    open_until = models.DateTimeField(help_text="When it fails if nobody has finished it")
    github_run_id = models.CharField("GitHub run", max_length=64, null=True, blank=True)
    github_run_attempt = models.PositiveSmallIntegerField("attempt of the run", null=True, blank=True)
    commit_sha = models.CharField("commit", max_length=40)
    commit_message = models.CharField(max_length=transitions.MAX_MESSAGE)
    committed_at = models.DateTimeField(null=True, help_text="When the commit was made; lead time counts from here")
    migration_applied = models.BooleanField(default=False)
    migration_version = models.CharField(max_length=255, null=True, blank=True)
    health_check_passed = models.BooleanField(default=False)
    rollback_reason = models.CharField(max_length=MAX_REASON, null=True)
    error_message = models.TextField(null=True)
    deployment_log_url = models.CharField("log", max_length=500, null=True, blank=True)
    instances_deployed = models.PositiveIntegerField(default=1)
    deployment_platform = models.CharField("platform", max_length=50)
    domain = models.CharField(max_length=253, blank=True, validators=[domain_name])
    deployment_url = models.CharField("URL", max_length=500, null=True, blank=True)
    health_check_url = models.CharField("health check", max_length=500, null=True, blank=True)
    # A rollback names what it undoes; what was undone keeps its status and names who undid it.
    undoes = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="rollbacks")
    returns_to = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="+")
    rolled_back_by = models.ForeignKey("self", null=True, on_delete=models.PROTECT, related_name="+")
    override_reason = models.CharField(max_length=MAX_REASON, blank=True)
    # Told by a webhook after the fact: could not be refused, holds no lock, and may contradict what Pulsewatch knows.
    observed = models.BooleanField(default=False)
    external_id = models.CharField(max_length=128, null=True, unique=True, help_text="What the sender calls it")
    claimed_at = models.DateTimeField(null=True, help_text="When the newest report says it happened")
    conflict = models.CharField(max_length=300, blank=True)
    timed_out = models.BooleanField(default=False, help_text="Failed because nobody told how it ended in time")
    archived = models.BooleanField(default=False)
    created_at = models.DateTimeField("received at")
    updated_at = models.DateTimeField(auto_now=True)
    # The workload while a deployment of ours is open, NULL after: with the constraint below at most one is.
    open_workload = models.GeneratedField(
        expression=Case(When(status__in=OPEN, observed=False, then=F("workload_id")), default=Value(None)),
        output_field=models.BigIntegerField(null=True),
        db_persist=True,
    )

    objects = DeploymentQuerySet.as_manager()

    class Meta:
        db_table = "deployments"
        ordering = ("-id",)
        default_permissions = ("view",)
        permissions = (
            ("rollback_deployment", "Can roll a deployment back"),
            ("move_deployment", "Can finish, fail or cancel a deployment by hand"),
            ("tick_deployment", "Can tick items of a deployment's checklist"),
        )
        indexes = (
            models.Index(fields=("environment", "status"), name="idx_deployments_environment_status"),
            models.Index(fields=("started_at",), name="idx_deployments_started_at"),
            models.Index(fields=("status", "created_at"), name="idx_deployments_status_created"),
            # Lists by one or two filters, in the order of the id that ends every index; see docs/decisions.
            models.Index(fields=("environment",), name="idx_deployments_environment"),
            models.Index(fields=("status",), name="idx_deployments_status"),
            models.Index(fields=("service",), name="idx_deployments_service"),
            models.Index(fields=("service", "status"), name="idx_deployments_service_status"),
            models.Index(fields=("workload",), name="idx_deployments_workload"),
            models.Index(fields=("workload", "status"), name="idx_deployments_workload_status"),
            models.Index(fields=("version",), name="idx_deployments_version"),
            models.Index(fields=("commit_sha",), name="idx_deployments_commit_sha"),
            models.Index(fields=("triggered_by",), name="idx_deployments_triggered_by"),
            models.Index(fields=("kind",), name="idx_deployments_kind"),
            models.Index(fields=("environment", "kind"), name="idx_deployments_environment_kind"),
            models.Index(fields=("workload", "kind"), name="idx_deployments_workload_kind"),
            models.Index(fields=("archived",), name="idx_deployments_archived"),
            models.Index(fields=("workload", "completed_at"), name="idx_deployments_workload_completed"),
        )
        constraints = (
            models.UniqueConstraint(fields=("open_workload",), name="deployments_one_open"),
            models.CheckConstraint(condition=Q(status__in=DeploymentStatus.values), name="deployments_status_known"),
            models.CheckConstraint(condition=Q(kind__in=DeploymentKind.values), name="deployments_kind_known"),
            models.CheckConstraint(
                condition=Q(environment__in=Environment.values), name="deployments_environment_known"
            ),
            models.CheckConstraint(
                condition=Q(status__in=OPEN, completed_at=None) | (~Q(status__in=OPEN) & ~Q(completed_at=None)),
                name="deployments_ended_has_time",
            ),
            models.CheckConstraint(
                condition=Q(completed_at=None) | Q(completed_at__gte=F("started_at")),
                name="deployments_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(timed_out=False) | Q(status=DeploymentStatus.FAILED), name="deployments_timed_out_failed"
            ),
            models.CheckConstraint(
                condition=~Q(version="") & ~Q(commit_sha="") & ~Q(triggered_by=""), name="deployments_says_what"
            ),
            models.CheckConstraint(
                condition=Q(kind=DeploymentKind.DEPLOYMENT, undoes=None, rollback_reason=None)
                & ~Q(status=DeploymentStatus.ROLLED_BACK)
                | Q(kind=DeploymentKind.ROLLBACK)
                & ~Q(undoes=None)
                & ~Q(rollback_reason=None)
                & ~Q(status__in=(DeploymentStatus.COMPLETED, DeploymentStatus.CANCELLED)),
                name="deployments_rollback_says_why",
            ),
        )

    def __str__(self) -> str:
        return self.id

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


class DeploymentStep(models.Model):
    """One line of a deployment's timeline: what happened, in a sentence. Only ever added."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="steps")
    at = models.DateTimeField(help_text="When Pulsewatch learned of it")
    claimed_at = models.DateTimeField(null=True, help_text="When the sender says it happened")
    kind = models.CharField(max_length=16, choices=StepKind)
    text = models.CharField(max_length=MAX_REASON)
    by = models.CharField(max_length=150)

    class Meta:
        db_table = "deployment_steps"
        ordering = ("at", "pk")
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=StepKind.values), name="deployment_steps_kind_known"),
        )

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} UTC: {self.text}"


class GateQuerySet(models.QuerySet["Gate"]):
    def running(self) -> Self:
        return self.filter(verdict=None)

    def due(self, now: datetime) -> Self:
        """Those that have to look now."""
        return self.running().filter(next_look_at__lte=now)


class Gate(models.Model):
    """The look at the instances after a deployment: what it demands, what it saw, what it decided.

    The policy is a copy: a workload edited during a gate changes only the next one. Each look is a short task.
    """

    deployment = models.OneToOneField(Deployment, on_delete=models.CASCADE, primary_key=True, related_name="gate")
    started_at = models.DateTimeField()
    samples = models.PositiveSmallIntegerField()
    window_seconds = models.PositiveIntegerField()
    next_look_at = models.DateTimeField()
    looks = models.PositiveIntegerField(default=0)
    verdict = models.CharField(max_length=16, choices=GateVerdict, null=True)
    decided_at = models.DateTimeField(null=True)
    reasons = models.JSONField(default=list, help_text="Sentences")
    evidence = models.JSONField(default=dict, help_text="Which instances, by what, and what each showed")

    objects = GateQuerySet.as_manager()

    class Meta:
        db_table = "deployment_gates"
        indexes = (models.Index(fields=("verdict", "next_look_at"), name="idx_deployment_gates_due"),)
        constraints = (
            models.CheckConstraint(
                condition=Q(verdict=None, decided_at=None) | (Q(verdict__in=GateVerdict.values) & ~Q(decided_at=None)),
                name="deployment_gates_verdict_known",
            ),
            models.CheckConstraint(
                condition=Q(samples__gt=0, window_seconds__gt=0), name="deployment_gates_demands_something"
            ),
        )

    def __str__(self) -> str:
        return f"gate of {self.deployment_id}"


class EnvironmentVariableRule(models.Model):
    """What a service demands of one variable, in every environment."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="variable_rules")
    key = models.CharField(max_length=variables.MAX_KEY)
    required = models.BooleanField(default=True)
    sensitive = models.BooleanField(default=False, help_text="Its value is refused; CI says is_set, length, matches")
    pattern = models.CharField(max_length=300, blank=True, help_text="Regular expression for the whole value")
    min_length = models.PositiveIntegerField(default=0, validators=[MinValueValidator(0)])

    class Meta:
        db_table = "environment_variable_rules"
        ordering = ("service", "key")
        verbose_name = "environment variable rule"
        constraints = (
            models.UniqueConstraint(
                fields=("service", "key"),
                name="environment_variable_rules_service_key",
                violation_error_message="This service already has a rule for that variable.",
            ),
            models.CheckConstraint(condition=~Q(key=""), name="environment_variable_rules_key_given"),
        )

    def __str__(self) -> str:
        return f"{self.service}: {self.key}"


class EnvironmentVariable(models.Model):
    """The verdict on one variable of one deployment. No value is ever stored."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="environment_variables")
    key = models.CharField(max_length=variables.MAX_KEY)
    is_set = models.BooleanField()
    is_sensitive = models.BooleanField()
    validation_status = models.CharField("verdict", max_length=16, choices=ValidationStatus)
    reason = models.CharField(max_length=200, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # `http_proxy` and `HTTP_PROXY` are two variables, and one text to MySQL; their bytes differ everywhere.
    key_bytes = models.GeneratedField(
        expression=Func(F("key"), function="HEX"),
        output_field=models.CharField(max_length=2 * variables.MAX_KEY),
        db_persist=True,
    )

    class Meta:
        db_table = "environment_variables"
        ordering = ("deployment", "key")
        constraints = (
            models.UniqueConstraint(fields=("deployment", "key_bytes"), name="environment_variables_deployment_key"),
            models.CheckConstraint(
                condition=Q(validation_status__in=ValidationStatus.values), name="environment_variables_status_known"
            ),
        )

    def __str__(self) -> str:
        return self.key


class ChecklistItem(models.Model):
    """Where one item of the checklist stands for one deployment. An item without a row is open."""

    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="checklist_items")
    key = models.CharField(max_length=32)
    phase = models.CharField(max_length=8, choices=ChecklistPhase)
    state = models.CharField(max_length=16, choices=ItemState)
    detail = models.CharField(max_length=300, blank=True)
    by = models.CharField(max_length=150, help_text="Who ticked or reported it; a real check says automatic")
    at = models.DateTimeField()
    overridden_by = models.CharField(max_length=150, blank=True)
    override_reason = models.CharField(max_length=MAX_REASON, blank=True)

    class Meta:
        db_table = "checklist_items"
        ordering = ("deployment", "pk")
        constraints = (
            models.UniqueConstraint(fields=("deployment", "key"), name="checklist_items_deployment_key"),
            models.CheckConstraint(condition=Q(state__in=ItemState.values), name="checklist_items_state_known"),
            models.CheckConstraint(condition=Q(phase__in=ChecklistPhase.values), name="checklist_items_phase_known"),
            models.CheckConstraint(
                condition=Q(overridden_by="", override_reason="") | ~Q(overridden_by="") & ~Q(override_reason=""),
                name="checklist_items_override_says_why",
            ),
        )

    def __str__(self) -> str:
        return self.key


class FailedVersion(models.Model):
    """A version that failed on a workload. Deploying it again needs an override, until it succeeds.

    One failure has a row for each way its version is written.
    """

    workload = models.ForeignKey(Workload, on_delete=models.CASCADE, related_name="failed_versions")
    version = models.CharField(max_length=transitions.MAX_VERSION)
    deployment = models.ForeignKey(Deployment, on_delete=models.CASCADE, related_name="+")
    failed_at = models.DateTimeField()
    reason = models.CharField(max_length=MAX_REASON)

    class Meta:
        db_table = "failed_versions"
        constraints = (
            models.UniqueConstraint(fields=("workload", "version"), name="failed_versions_workload_version"),
        )

    def __str__(self) -> str:
        return f"{self.version} on {self.workload}"

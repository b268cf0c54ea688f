"""Scaling policies, what they decided, and what was done."""

from datetime import datetime
from typing import Self

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Case, F, Q, Value, When

from apps.core.choices import Environment
from apps.core.models import MAX_REASON
from apps.inventory.models import DEFAULT_SERVICE, Service, Workload
from apps.scaling.choices import DecisionAction, EventAction, Metrics, Outcome, Trigger
from apps.scaling.rules.policy import MINUTE, Policy

SCALED = (Environment.PRODUCTION, Environment.STAGING)  # development is nobody's load
MAX_INSTANCES = 1000
DAY = 86_400  # seconds
MAX_PERIOD = 3600  # seconds

_share = (MinValueValidator(0.01), MaxValueValidator(1.0))
_percentage = (MinValueValidator(1.0), MaxValueValidator(100.0))


def policy_id(service: str, environment: str) -> str:
    """`policy_production` for the service every team has, else `policy_<service>_<environment>`."""
    return f"policy_{environment}" if service == DEFAULT_SERVICE else f"policy_{service}_{environment}"


class ScalingPolicy(models.Model):
    """When a workload gets another instance and when it loses one."""

    id = models.CharField(max_length=80, primary_key=True, editable=False)
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="scaling_policies")
    environment = models.CharField(max_length=16, choices=[(one.value, one.label) for one in SCALED])
    enabled = models.BooleanField(default=True)
    min_instances = models.PositiveIntegerField(
        "fewest instances", default=1, validators=[MinValueValidator(1), MaxValueValidator(MAX_INSTANCES)]
    )
    max_instances = models.PositiveIntegerField(
        "most instances", default=3, validators=[MinValueValidator(1), MaxValueValidator(MAX_INSTANCES)]
    )
    target_cpu_percent = models.FloatField(
        "target CPU (%)", default=70.0, validators=_percentage,
        help_text="Drawn on charts and exported for a HorizontalPodAutoscaler; decisions use the thresholds",
    )  # fmt: skip
    target_memory_percent = models.FloatField("target memory (%)", default=75.0, validators=_percentage)
    scale_up_threshold = models.FloatField(
        default=0.8, validators=_share, help_text="Share of 1: above 0.8 means above 80 %"
    )
    scale_down_threshold = models.FloatField(default=0.4, validators=_share, help_text="Share of 1")
    scale_up_cooldown_seconds = models.PositiveIntegerField(
        "scale-up cooldown (s)", default=300, validators=[MaxValueValidator(DAY)], help_text="Since the last scale-up"
    )
    scale_down_cooldown_seconds = models.PositiveIntegerField(
        "scale-down cooldown (s)", default=600, validators=[MaxValueValidator(DAY)],
        help_text="Since the last action in any direction",
    )  # fmt: skip
    evaluation_period_seconds = models.PositiveIntegerField(
        "window (s)", default=300, validators=[MinValueValidator(MINUTE), MaxValueValidator(MAX_PERIOD)],
        help_text="Whole minutes",
    )  # fmt: skip
    datapoints_to_trigger = models.PositiveIntegerField(
        "windows in a row", default=2, validators=[MinValueValidator(1), MaxValueValidator(12)]
    )
    metrics = models.CharField("looks at", max_length=16, choices=Metrics, default=Metrics.BOTH)
    paused_until = models.DateTimeField(null=True, blank=True, editable=False)
    paused_by = models.CharField(max_length=150, blank=True, editable=False)
    paused_reason = models.CharField(max_length=MAX_REASON, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "scaling_policies"
        verbose_name_plural = "scaling policies"
        ordering = ("service__slug", "environment")
        permissions = (("pause_scalingpolicy", "Can pause a scaling policy"), ("scale", "Can scale by hand"))
        indexes = (models.Index(fields=("environment",), name="idx_scaling_policies_environment"),)
        constraints = (
            models.UniqueConstraint(
                fields=("service", "environment"),
                name="scaling_policies_service_environment",
                violation_error_message="This service already has a scaling policy in this environment.",
            ),
            models.CheckConstraint(condition=Q(environment__in=SCALED), name="scaling_policies_environment_known"),
            models.CheckConstraint(condition=Q(metrics__in=Metrics.values), name="scaling_policies_metrics_known"),
            models.CheckConstraint(
                condition=Q(min_instances__gte=1, max_instances__gte=F("min_instances")),
                name="scaling_policies_bounds_in_order",
            ),
            models.CheckConstraint(
                condition=Q(scale_down_threshold__gt=0, scale_up_threshold__lte=1)
                & Q(scale_down_threshold__lt=F("scale_up_threshold")),
                name="scaling_policies_thresholds_in_order",
            ),
            models.CheckConstraint(
                condition=Q(target_cpu_percent__gt=0, target_cpu_percent__lte=100)
                & Q(target_memory_percent__gt=0, target_memory_percent__lte=100),
                name="scaling_policies_targets_are_percentages",
            ),
            models.CheckConstraint(
                condition=Q(evaluation_period_seconds__gte=MINUTE, datapoints_to_trigger__gte=1),
                name="scaling_policies_periods_positive",
            ),
        )

    def __str__(self) -> str:
        return f"{self.service}/{self.environment}"

    def rule(self) -> Policy:
        """The settings as the rules know them."""
        return Policy(
            min_instances=self.min_instances,
            max_instances=self.max_instances,
            scale_up_threshold=self.scale_up_threshold,
            scale_down_threshold=self.scale_down_threshold,
            scale_up_cooldown_seconds=self.scale_up_cooldown_seconds,
            scale_down_cooldown_seconds=self.scale_down_cooldown_seconds,
            evaluation_period_seconds=self.evaluation_period_seconds,
            datapoints_to_trigger=self.datapoints_to_trigger,
            target_cpu_percent=self.target_cpu_percent,
            target_memory_percent=self.target_memory_percent,
            metrics=tuple(self.metrics.split("_")),
        )


class ScalingDecision(models.Model):
    """One evaluation of a policy at the end of a window. Kept for 7 days; never changed but for the mark."""

    policy = models.ForeignKey(ScalingPolicy, on_delete=models.CASCADE, related_name="decisions", db_index=False)
    boundary = models.DateTimeField("window's end")
    evaluated_at = models.DateTimeField()
    action = models.CharField(max_length=16, choices=DecisionAction)
    rule = models.CharField(max_length=32)
    reason = models.CharField(max_length=MAX_REASON)
    instances_before = models.PositiveIntegerField("instances")
    instances_after = models.PositiveIntegerField("decided")
    figures = models.JSONField(default=list, help_text="The windows it looked at, with the use of each metric")
    looked_from = models.DateTimeField("start of its windows", null=True)
    samples = models.PositiveIntegerField(null=True, help_text="How many raw samples its windows were made from")
    late_samples = models.BooleanField(
        default=False, help_text="Samples of its windows came after it: a replay differs"
    )

    class Meta:
        db_table = "scaling_decisions"
        ordering = ("-boundary",)
        default_permissions = ("view",)
        indexes = (
            models.Index(fields=("boundary",), name="idx_scaling_decisions_boundary"),
            models.Index(fields=("policy", "action"), name="idx_scaling_decisions_counted"),
        )
        constraints = (
            models.UniqueConstraint(fields=("policy", "boundary"), name="scaling_decisions_one_a_window"),
            models.CheckConstraint(
                condition=Q(action__in=DecisionAction.values), name="scaling_decisions_action_known"
            ),
            models.CheckConstraint(
                condition=Q(action=DecisionAction.HOLD, instances_after=F("instances_before"))
                | Q(action=DecisionAction.SCALE_UP, instances_after__gt=F("instances_before"))
                | Q(action=DecisionAction.SCALE_DOWN, instances_after__lt=F("instances_before")),
                name="scaling_decisions_count_follows_action",
            ),
        )

    def __str__(self) -> str:
        return f"{self.policy_id} at {self.boundary:%Y-%m-%d %H:%M} UTC: {self.reason}"


class ScalingEventQuerySet(models.QuerySet["ScalingEvent"]):
    def newest_first(self) -> Self:
        return self.order_by("-timestamp", "-id")

    def unsettled(self) -> Self:
        """Intended, and not known yet to have happened."""
        return self.filter(success=None)

    def successful(self) -> Self:
        return self.filter(success=True)

    def since(self, moment: datetime) -> Self:
        return self.filter(timestamp__gte=moment)


class ScalingEvent(models.Model):
    """One change of a workload's count: intended, then acted on, then confirmed by what the platform says."""

    id = models.CharField(max_length=64, primary_key=True)
    service = models.ForeignKey(Service, on_delete=models.PROTECT, related_name="scaling_events")
    workload = models.ForeignKey(Workload, on_delete=models.PROTECT, related_name="scaling_events", db_index=False)
    environment = models.CharField(max_length=16, choices=Environment)
    timestamp = models.DateTimeField("time", help_text="The window's end it was decided for, or when it was asked for")
    action = models.CharField(max_length=16, choices=EventAction)
    instances_before = models.PositiveIntegerField("before")
    instances_after = models.PositiveIntegerField("after")
    trigger_reason = models.CharField("reason", max_length=MAX_REASON)
    cpu_percent_avg = models.FloatField("CPU (%)", null=True)
    memory_percent_avg = models.FloatField("memory (%)", null=True)
    triggered_by = models.CharField(max_length=16, choices=Trigger)
    triggered_by_user = models.CharField("by", max_length=150, null=True, blank=True)
    success = models.BooleanField(null=True, help_text="Empty until the platform has confirmed or refused it")
    error_message = models.TextField("error", null=True, blank=True)
    lease_until = models.DateTimeField(null=True, help_text="Until then its worker is at it; later another settles it")
    settled_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    # The workload while the event is unsettled, NULL after: one change at a time.
    unsettled_workload = models.GeneratedField(
        expression=Case(When(success=None, then=F("workload_id")), default=Value(None)),
        output_field=models.BigIntegerField(null=True),
        db_persist=True,
    )

    objects = ScalingEventQuerySet.as_manager()

    class Meta:
        db_table = "scaling_events"
        ordering = ("-timestamp", "-id")
        default_permissions = ("view",)
        indexes = (
            models.Index(fields=("environment", "timestamp"), name="idx_scaling_events_environment_timestamp"),
            models.Index(fields=("action",), name="idx_scaling_events_action"),
            models.Index(fields=("workload", "timestamp"), name="idx_scaling_events_workload"),
            models.Index(fields=("workload", "action", "success"), name="idx_scaling_events_counted"),
            models.Index(fields=("timestamp",), name="idx_scaling_events_timestamp"),
        )
        constraints = (
            models.UniqueConstraint(fields=("unsettled_workload",), name="scaling_events_one_unsettled"),
            models.CheckConstraint(condition=Q(environment__in=Environment.values), name="scaling_events_env_known"),
            models.CheckConstraint(condition=Q(action__in=EventAction.values), name="scaling_events_action_known"),
            models.CheckConstraint(condition=Q(triggered_by__in=Trigger.values), name="scaling_events_trigger_known"),
            models.CheckConstraint(condition=~Q(trigger_reason=""), name="scaling_events_says_why"),
            models.CheckConstraint(
                condition=Q(success=None, settled_at=None) | Q(success__isnull=False, settled_at__isnull=False),
                name="scaling_events_settled_at_a_time",
            ),
        )

    def __str__(self) -> str:
        return f"{self.id}: {self.instances_before} → {self.instances_after}"


class ScalingTotal(models.Model):
    """How many decisions, or changes, of a kind have been forgotten, so that what is counted never falls."""

    service = models.ForeignKey(Service, on_delete=models.CASCADE, related_name="+", db_index=False)
    environment = models.CharField(max_length=16, choices=Environment)
    action = models.CharField(max_length=16, choices=[*DecisionAction.choices, ("manual_scale", "Manual Scale")])
    outcome = models.CharField(max_length=16, choices=Outcome)
    count = models.PositiveBigIntegerField(default=0)

    class Meta:
        db_table = "scaling_totals"
        default_permissions = ()
        constraints = (
            models.UniqueConstraint(
                fields=("service", "environment", "action", "outcome"), name="scaling_totals_one_of_a_kind"
            ),
            models.CheckConstraint(condition=Q(outcome__in=Outcome.values), name="scaling_totals_outcome_known"),
        )

    def __str__(self) -> str:
        return f"{self.service_id}/{self.environment} {self.action} {self.outcome}: {self.count}"

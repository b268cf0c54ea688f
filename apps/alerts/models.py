"""Alerts, what happened to them, where they are told, and when they are not."""

import re
from collections.abc import Collection
from datetime import date, datetime, timedelta
from typing import Self

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Case, F, Q, Value, When

from apps.alerts.choices import AlertKind, DeliveryStatus, EventKind, Occasion, Recurrence, Severity
from apps.alerts.rules import sending, times
from apps.core.choices import Environment
from apps.core.models import MAX_REASON
from apps.core.zones import UnknownZone, zone

MAX_TITLE = 200  # characters
MAX_DETAIL = 2000
MAX_SUBJECT = 200
MAX_ERROR = 300
# Kind and key, such as workload:app/production: ASCII, for MySQL takes letters with and without accents for the same.
SUBJECT = re.compile(r"[a-z_]+:[\x21-\x7e]+")
WRONG_ORDER = "The last day comes before the first."
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

subject_form = RegexValidator(
    rf"^{SUBJECT.pattern}\Z", message="Enter a subject such as endpoint:17 or workload:app/production."
)


def zone_name(value: str) -> None:
    """A field's validator."""
    try:
        zone(value)
    except UnknownZone as error:
        raise ValidationError(str(error)) from error


def _words(known: Collection[str], value: object) -> None:
    if not isinstance(value, list) or not all(isinstance(word, str) and word in known for word in value):
        raise ValidationError(f"Enter a list of words from {', '.join(known)}.")


def environment_words(value: object) -> None:
    """A field's validator."""
    _words(Environment.values, value)


def kind_words(value: object) -> None:
    """A field's validator."""
    _words(AlertKind.values, value)


def service_slugs(value: object) -> None:
    """A field's validator."""
    if not isinstance(value, list) or not all(
        isinstance(slug, str) and re.fullmatch(r"[-a-zA-Z0-9_]{1,50}", slug) for slug in value
    ):
        raise ValidationError("Enter a list of short names of services.")


def weekday_numbers(value: object) -> None:
    """A field's validator."""
    if not isinstance(value, list) or any(day not in range(7) for day in value) or len(set(value)) != len(value):
        raise ValidationError("Enter a list of days, Monday being 0 and Sunday 6.")


class AlertQuerySet(models.QuerySet["Alert"]):
    def open(self) -> Self:
        return self.filter(closed_at=None)

    def worst_first(self) -> Self:
        """The most severe on top, then the newest."""
        rank = Case(When(severity=Severity.CRITICAL, then=0), When(severity=Severity.WARNING, then=1), default=2)
        return self.order_by(rank, "-opened_at", "-pk")


class Alert(models.Model):
    """That something is wrong, from when it was noticed until it is well again."""

    id = models.CharField(max_length=64, primary_key=True)
    kind = models.CharField(max_length=32, choices=AlertKind)
    subject = models.CharField(max_length=MAX_SUBJECT, help_text="Kind and key of what is wrong, such as endpoint:17")
    severity = models.CharField(max_length=16, choices=Severity, help_text="Only rises while the alert is open")
    title = models.CharField(max_length=MAX_TITLE)
    detail = models.CharField(max_length=MAX_DETAIL, blank=True)
    environment = models.CharField(max_length=16, choices=Environment, blank=True)
    service = models.CharField(max_length=50, blank=True)
    path = models.CharField(max_length=300, blank=True, help_text="Page of the subject in the console")
    runbook_url = models.CharField("runbook", max_length=300, blank=True)
    opened_at = models.DateTimeField("since")
    closed_at = models.DateTimeField(null=True)
    # Not firing since then, and still open because it flaps.
    cleared_at = models.DateTimeField("well since", null=True)
    flapping = models.BooleanField(default=False)
    flaps = models.PositiveIntegerField(default=0, help_text="How often it recovered while it was kept open")
    announced_at = models.DateTimeField("told", null=True, help_text="When the first message about it was written")
    silenced_until = models.DateTimeField(null=True, help_text="A maintenance window keeps it from being told")
    acknowledged_at = models.DateTimeField("acknowledged", null=True)
    acknowledged_by = models.CharField(max_length=150, blank=True)
    acknowledged_note = models.CharField("note", max_length=MAX_REASON, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    # The subject while the alert is open, NULL after: with the constraint below one is open for each kind and subject.
    open_subject = models.GeneratedField(
        expression=Case(When(closed_at=None, then=F("subject")), default=Value(None)),
        output_field=models.CharField(max_length=MAX_SUBJECT, null=True),
        db_persist=True,
    )

    objects = AlertQuerySet.as_manager()

    class Meta:
        db_table = "alerts"
        ordering = ("-opened_at", "-id")
        default_permissions = ("view",)
        permissions = (("acknowledge_alert", "Can acknowledge an alert"),)
        indexes = (
            models.Index(fields=("closed_at", "severity"), name="idx_alerts_closed_severity"),
            models.Index(fields=("opened_at",), name="idx_alerts_opened_at"),
            models.Index(fields=("kind", "subject", "closed_at"), name="idx_alerts_kind_subject_closed"),
            models.Index(fields=("subject", "opened_at"), name="idx_alerts_subject_opened"),
        )
        constraints = (
            models.UniqueConstraint(fields=("kind", "open_subject"), name="alerts_one_open"),
            models.CheckConstraint(condition=Q(kind__in=AlertKind.values), name="alerts_kind_known"),
            models.CheckConstraint(condition=Q(severity__in=Severity.values), name="alerts_severity_known"),
            models.CheckConstraint(
                condition=Q(environment="") | Q(environment__in=Environment.values), name="alerts_environment_known"
            ),
            models.CheckConstraint(condition=~Q(title="") & ~Q(subject=""), name="alerts_says_what"),
            models.CheckConstraint(
                condition=Q(closed_at=None) | Q(closed_at__gte=F("opened_at")), name="alerts_closes_after_opening"
            ),
            models.CheckConstraint(
                condition=Q(acknowledged_at=None, acknowledged_by="")
                | Q(acknowledged_at__isnull=False) & ~Q(acknowledged_by=""),
                name="alerts_acknowledged_by_somebody",
            ),
        )

    def __str__(self) -> str:
        return self.title

    @property
    def is_open(self) -> bool:
        return self.closed_at is None


class AlertEvent(models.Model):
    """One line of an alert's timeline. Only ever added."""

    alert = models.ForeignKey(Alert, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField()
    kind = models.CharField(max_length=16, choices=EventKind)
    severity = models.CharField(max_length=16, choices=Severity)
    text = models.CharField(max_length=MAX_REASON)
    by = models.CharField(max_length=150)

    class Meta:
        db_table = "alert_events"
        ordering = ("at", "pk")
        constraints = (
            models.CheckConstraint(condition=Q(kind__in=EventKind.values), name="alert_events_kind_known"),
            models.CheckConstraint(condition=Q(severity__in=Severity.values), name="alert_events_severity_known"),
        )

    def __str__(self) -> str:
        return f"{self.at:%Y-%m-%d %H:%M:%S} UTC: {self.text}"


class RouteQuerySet(models.QuerySet["Route"]):
    def broken(self) -> Self:
        """Those whose newest attempts failed."""
        return self.filter(enabled=True, failing_since__isnull=False)


class Route(models.Model):
    """Where alerts are told. Its address is an Apprise URL, a secret: write-only, kept sealed, never shown."""

    name = models.CharField(max_length=100, unique=True)
    enabled = models.BooleanField(default=True)
    url_sealed = models.BinaryField(null=True, editable=False)
    channel = models.CharField(max_length=100, blank=True, editable=False, help_text="What the address belongs to")
    environments = models.JSONField(default=list, blank=True, validators=[environment_words])
    kinds = models.JSONField(default=list, blank=True, validators=[kind_words])
    services = models.JSONField(default=list, blank=True, validators=[service_slugs])
    minimum_severity = models.CharField(max_length=16, choices=Severity, default=Severity.INFO)
    reminder_minutes = models.PositiveIntegerField(
        "remind every (min)", default=60, validators=[MaxValueValidator(7 * 24 * 60)],
        help_text="Until somebody acknowledges the alert; 0: never",
    )  # fmt: skip
    send_recoveries = models.BooleanField(default=True, help_text="Tell also when it is well again")
    failing_since = models.DateTimeField(null=True, editable=False)
    last_error = models.CharField(max_length=MAX_ERROR, blank=True, editable=False)
    last_sent_at = models.DateTimeField("last message", null=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = RouteQuerySet.as_manager()

    class Meta:
        db_table = "alert_routes"
        ordering = ("name",)
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="alert_routes_name_given"),
            models.CheckConstraint(
                condition=Q(minimum_severity__in=Severity.values), name="alert_routes_severity_known"
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def filter(self) -> sending.Filter:
        return sending.Filter(
            environments=frozenset(self.environments),
            kinds=frozenset(self.kinds),
            services=frozenset(self.services),
            severity=self.minimum_severity,
        )

    def wants(self, alert: Alert) -> bool:
        return sending.wanted(
            self.filter,
            kind=alert.kind,
            severity=alert.severity,
            environment=alert.environment,
            service=alert.service,
        )


class DeliveryQuerySet(models.QuerySet["Delivery"]):
    def due(self, now: datetime) -> Self:
        """Those whose time has come, and those whose time is farther than any can be: the clock was set back since."""
        come = Q(next_attempt_at__lte=now) | Q(next_attempt_at__gt=now + 2 * sending.LONGEST_RETRY)
        return self.filter(come, status=DeliveryStatus.QUEUED)

    def expired(self, now: datetime) -> Self:
        """Being sent, but for longer than sending takes: its worker is gone. The same for a clock that was set back.

        Twice the lease, for another process may have looked at its clock a moment later than this one.
        """
        gone = Q(lease_until__lt=now) | Q(lease_until__gt=now + 2 * sending.LEASE)
        return self.filter(gone, status=DeliveryStatus.SENDING)


class Delivery(models.Model):
    """One message to one route: about one alert, or about many at once. Its id stays the same over all attempts."""

    id = models.CharField(max_length=64, primary_key=True)
    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    occasion = models.CharField(max_length=16, choices=Occasion)
    severity = models.CharField(max_length=16, choices=Severity)
    title = models.CharField(max_length=MAX_TITLE)
    body = models.TextField()
    alerts = models.PositiveIntegerField(default=0, help_text="How many it tells of")
    status = models.CharField(max_length=16, choices=DeliveryStatus, default=DeliveryStatus.QUEUED)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    lease_until = models.DateTimeField(null=True)
    error = models.CharField(max_length=MAX_ERROR, blank=True, help_text="Of the newest attempt, without secrets")
    sent_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField("written")
    # The route while a message is being sent, NULL before and after: one at a time, in the order they were written.
    sending_route = models.GeneratedField(
        expression=Case(When(status=DeliveryStatus.SENDING, then=F("route_id")), default=Value(None)),
        output_field=models.BigIntegerField(null=True),
        db_persist=True,
    )

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        db_table = "alert_deliveries"
        verbose_name_plural = "deliveries"
        ordering = ("-created_at", "-id")
        default_permissions = ("view",)
        indexes = (
            models.Index(fields=("route", "created_at"), name="idx_alert_deliveries_route_created"),
            models.Index(fields=("status", "next_attempt_at"), name="idx_alert_deliveries_due"),
            models.Index(fields=("created_at",), name="idx_alert_deliveries_created"),
        )
        constraints = (
            models.UniqueConstraint(fields=("sending_route",), name="alert_deliveries_one_sending"),
            models.CheckConstraint(condition=Q(status__in=DeliveryStatus.values), name="alert_deliveries_status_known"),
            models.CheckConstraint(condition=Q(occasion__in=Occasion.values), name="alert_deliveries_occasion_known"),
            models.CheckConstraint(condition=Q(severity__in=Severity.values), name="alert_deliveries_severity_known"),
            models.CheckConstraint(
                condition=Q(status=DeliveryStatus.SENT, sent_at__isnull=False)
                | ~Q(status=DeliveryStatus.SENT) & Q(sent_at=None),
                name="alert_deliveries_sent_has_time",
            ),
        )

    def __str__(self) -> str:
        return self.id


class NoticeQuerySet(models.QuerySet["Notice"]):
    def waiting(self) -> Self:
        return self.filter(delivery=None)


class Notice(models.Model):
    """That a route is to be told of an event: the outbox. Written with the event, in one transaction, once."""

    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="notices", db_index=False)
    event = models.ForeignKey(AlertEvent, on_delete=models.CASCADE, related_name="notices")
    at = models.DateTimeField(help_text="When the event happened, or was told to wait for: the end of its window")
    delivery = models.ForeignKey(Delivery, null=True, on_delete=models.CASCADE, related_name="notices")

    objects = NoticeQuerySet.as_manager()

    class Meta:
        db_table = "alert_notices"
        ordering = ("pk",)
        default_permissions = ()
        indexes = (models.Index(fields=("delivery", "route", "at"), name="idx_alert_notices_waiting"),)
        constraints = (models.UniqueConstraint(fields=("route", "event"), name="alert_notices_once"),)

    def __str__(self) -> str:
        return f"{self.event_id} for {self.route_id}"


class WindowQuerySet(models.QuerySet["MaintenanceWindow"]):
    def valid(self, since: datetime) -> Self:
        """Those that may have an occurrence at this moment or later; cancelled ones only for what came before."""
        day = since.date() - timedelta(days=times.MAX_MINUTES // 1440 + 2)
        alive = Q(cancelled_at=None) | Q(cancelled_at__gt=since)
        once = Q(recurrence=Recurrence.ONCE, first_day__gte=day)
        weekly = Q(recurrence=Recurrence.WEEKLY) & (Q(last_day=None) | Q(last_day__gte=day))
        return self.filter(alive & (once | weekly))


class MaintenanceWindow(models.Model):
    """A time in which alerts are not told, and in which nothing may be deployed if it says so."""

    name = models.CharField(max_length=100)
    note = models.CharField(max_length=MAX_REASON, blank=True, help_text="What is done, and whom to ask")
    recurrence = models.CharField(max_length=8, choices=Recurrence, default=Recurrence.ONCE)
    time_zone = models.CharField(max_length=64, default="UTC", validators=[zone_name])
    first_day = models.DateField(help_text="Its day; a weekly window begins then")
    start_time = models.TimeField("begins at", help_text="As the clocks there show it")
    minutes = models.PositiveIntegerField(
        "lasts (min)", default=60, validators=[MinValueValidator(1), MaxValueValidator(times.MAX_MINUTES)]
    )
    weekdays = models.JSONField(default=list, blank=True, validators=[weekday_numbers])
    last_day = models.DateField(null=True, blank=True, help_text="A weekly window ends then; empty: never")
    environment = models.CharField(max_length=16, choices=Environment, blank=True, help_text="Empty: all")
    service = models.CharField(
        max_length=50, blank=True, validators=[RegexValidator(r"^[-a-zA-Z0-9_]+\Z", message="Enter its short name.")],
        help_text="Short name of a service; empty: all",
    )  # fmt: skip
    subject = models.CharField(
        max_length=MAX_SUBJECT, blank=True, validators=[subject_form],
        help_text="One target, such as endpoint:17; empty: all",
    )  # fmt: skip
    freeze_deployments = models.BooleanField(default=False, help_text="Nothing is deployed meanwhile")
    created_by = models.CharField(max_length=150, editable=False)
    cancelled_at = models.DateTimeField(null=True, editable=False)
    cancelled_by = models.CharField(max_length=150, blank=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    objects = WindowQuerySet.as_manager()

    class Meta:
        db_table = "maintenance_windows"
        ordering = ("-first_day", "-pk")
        default_permissions = ("add", "change", "view")
        constraints = (
            models.CheckConstraint(condition=~Q(name=""), name="maintenance_windows_name_given"),
            models.CheckConstraint(
                condition=Q(recurrence__in=Recurrence.values), name="maintenance_windows_recurrence_known"
            ),
            models.CheckConstraint(
                condition=Q(environment="") | Q(environment__in=Environment.values),
                name="maintenance_windows_environment_known",
            ),
            models.CheckConstraint(
                condition=Q(minutes__gte=1, minutes__lte=times.MAX_MINUTES), name="maintenance_windows_last"
            ),
            models.CheckConstraint(
                condition=Q(last_day=None) | Q(last_day__gte=F("first_day")),
                name="maintenance_windows_end_after_beginning",
            ),
        )

    def __str__(self) -> str:
        return self.name

    @property
    def plan(self) -> times.Plan:
        """Its times, for the rules."""
        weekly = self.recurrence == Recurrence.WEEKLY
        first: date = self.first_day
        return times.Plan(
            time_zone=self.time_zone,
            first_day=first,
            start=self.start_time,
            minutes=self.minutes,
            weekdays=frozenset(self.weekdays) if weekly else frozenset(),
            last_day=self.last_day if weekly else None,
        )

    def covers(self, *, subject: str, service: str, environment: str) -> bool:
        """Whether something is within its bounds. What is of no environment or service is only in a window for all."""
        return (
            self.environment in ("", environment)
            and self.service in ("", service)
            and self.subject.lower() in ("", subject.lower())
        )

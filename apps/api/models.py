"""API tokens, the answers kept for requests that may be sent again, and what webhooks have brought."""

from datetime import datetime, timedelta
from typing import Self

from django.db import models
from django.db.models import Case, F, Func, Q, Value, When

from apps.api.choices import DeliveryOutcome, DeliverySource

# A retry comes within minutes, at worst on the next day's run of a pipeline.
KEPT = timedelta(hours=24)


class ApiTokenQuerySet(models.QuerySet["ApiToken"]):
    def live(self, now: datetime) -> Self:
        """Those that open the door at this moment."""
        return self.filter(revoked_at=None).filter(Q(expires_at=None) | Q(expires_at__gt=now))


class ApiToken(models.Model):
    """What a program signs its requests with. Of the secret only a hash is kept: it is shown once."""

    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=8, unique=True, help_text="What follows pw_ in the token")
    secret_hash = models.CharField(max_length=64)
    scopes = models.JSONField(default=list)
    created_at = models.DateTimeField()
    created_by = models.CharField(max_length=150)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True)
    revoked_by = models.CharField(max_length=150, blank=True)
    last_used_at = models.DateTimeField("last used", null=True, help_text="To the minute")
    # The name until the token is revoked, NULL after: a new token may then take over the name.
    live_name = models.GeneratedField(
        expression=Case(When(revoked_at=None, then=F("name")), default=Value(None)),
        output_field=models.CharField(max_length=100, null=True),
        db_persist=True,
    )

    objects = ApiTokenQuerySet.as_manager()

    class Meta:
        db_table = "api_tokens"
        verbose_name = "API token"
        verbose_name_plural = "API tokens"
        ordering = ("-created_at", "-pk")
        constraints = (
            models.UniqueConstraint(fields=("live_name",), name="api_tokens_live_name"),
            models.CheckConstraint(condition=~Q(name="") & ~Q(prefix=""), name="api_tokens_name_given"),
            models.CheckConstraint(
                condition=Q(expires_at=None) | Q(expires_at__gt=F("created_at")), name="api_tokens_expires_after_start"
            ),
            models.CheckConstraint(
                condition=Q(revoked_at=None) | Q(revoked_at__gte=F("created_at")), name="api_tokens_revoked_after_start"
            ),
        )

    def __str__(self) -> str:
        return self.name

    def state(self, now: datetime) -> str:
        """`live`, `revoked` or `expired`."""
        if self.revoked_at:
            return "revoked"
        return "expired" if self.expires_at and self.expires_at <= now else "live"


class StoredAnswerQuerySet(models.QuerySet["StoredAnswer"]):
    def stale(self, now: datetime) -> Self:
        return self.filter(created_at__lt=now - KEPT)


class StoredAnswer(models.Model):
    """What was answered to a write that carried an Idempotency-Key. Written in the transaction of the write itself."""

    # Of token and key: keys differ in case, which a text column of MySQL does not see.
    digest = models.CharField(max_length=64, unique=True)
    fingerprint = models.CharField(max_length=64, help_text="Of method, path and body")
    status = models.PositiveSmallIntegerField(null=True)
    body = models.TextField(blank=True)
    location = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(db_index=True)

    objects = StoredAnswerQuerySet.as_manager()

    class Meta:
        db_table = "api_stored_answers"
        constraints = (
            models.CheckConstraint(
                condition=Q(status=None) | Q(status__gte=200, status__lt=300), name="api_stored_answers_are_successes"
            ),
        )

    def __str__(self) -> str:
        return self.digest


class WebhookDeliveryQuerySet(models.QuerySet["WebhookDelivery"]):
    def pending(self) -> Self:
        """Stored, and not acted on yet."""
        return self.filter(outcome=DeliveryOutcome.PENDING)


class WebhookDelivery(models.Model):
    """One delivery of a webhook, genuine and unlike any before: what it said, and what became of it."""

    MAX_DETAIL = 300

    source = models.CharField(max_length=16, choices=DeliverySource)
    delivery_id = models.CharField("delivery", max_length=128)
    # Ids that differ only by case are two, and one text to MySQL; their bytes differ everywhere.
    delivery_bytes = models.GeneratedField(
        expression=Func(F("delivery_id"), function="HEX"),
        output_field=models.CharField(max_length=256),
        db_persist=True,
    )
    event = models.CharField(max_length=50)
    received_at = models.DateTimeField("received")
    outcome = models.CharField(max_length=16, choices=DeliveryOutcome)
    detail = models.CharField(max_length=MAX_DETAIL, blank=True)
    deployment_id = models.CharField("deployment", max_length=64, blank=True)
    content = models.JSONField(default=dict, help_text="What was read of the payload, which itself is not kept")
    attempts = models.PositiveSmallIntegerField(default=0)

    objects = WebhookDeliveryQuerySet.as_manager()

    class Meta:
        db_table = "webhook_deliveries"
        verbose_name_plural = "webhook deliveries"
        ordering = ("-received_at", "-pk")
        indexes = (
            models.Index(fields=("received_at",), name="idx_webhook_deliveries_received"),
            models.Index(fields=("outcome", "received_at"), name="idx_webhook_deliveries_outcome"),
        )
        constraints = (
            models.UniqueConstraint(fields=("source", "delivery_bytes"), name="webhook_deliveries_once"),
            models.CheckConstraint(
                condition=Q(source__in=DeliverySource.values), name="webhook_deliveries_source_known"
            ),
            models.CheckConstraint(
                condition=Q(outcome__in=DeliveryOutcome.values), name="webhook_deliveries_outcome_known"
            ),
            models.CheckConstraint(condition=~Q(delivery_id=""), name="webhook_deliveries_id_given"),
        )

    def __str__(self) -> str:
        return f"{self.source}:{self.delivery_id}"

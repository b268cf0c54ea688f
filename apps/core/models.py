"""The audit trail, the stop switch, and the signs of life of Pulsewatch's own parts."""

from typing import Any, Never, Self

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.core.choices import ActorKind, HeartbeatSource

MAX_REASON = 500  # characters: a few sentences for the next person on call


class AuditQuerySet(models.QuerySet["AuditEntry"]):
    """Entries can be added and read. Nothing in Pulsewatch changes or removes one."""

    def update(self, **kwargs: Any) -> Never:
        raise TypeError("audit entries are append-only")

    def delete(self) -> Never:
        raise TypeError("audit entries are append-only")

    def of(self, subject: str) -> Self:
        """What was done to one subject, newest first."""
        return self.filter(subject=subject).order_by("-at", "-pk")


class AuditEntry(models.Model):
    """Who did what to which subject, from where, with the state before and after. Append-only."""

    at = models.DateTimeField("time")
    actor_kind = models.CharField(max_length=16, choices=ActorKind)
    actor = models.CharField(max_length=150, help_text="User name, token name, or the automation's name")
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )
    action = models.CharField(max_length=64, help_text="Verb, such as workload.update")
    subject = models.CharField(max_length=200, help_text="Kind and key, such as workload:app/production")
    ip_address = models.GenericIPAddressField("address", null=True, blank=True)
    request_id = models.CharField(max_length=36, blank=True)
    reason = models.CharField(max_length=MAX_REASON, blank=True)
    before = models.JSONField(default=dict, blank=True)
    after = models.JSONField(default=dict, blank=True)

    objects = AuditQuerySet.as_manager()

    class Meta:
        db_table = "audit_entries"
        verbose_name = "audit entry"
        verbose_name_plural = "audit entries"
        ordering = ("-at", "-pk")
        indexes = (
            models.Index(fields=("-at", "-id"), name="idx_audit_entries_at"),
            models.Index(fields=("subject", "-at"), name="idx_audit_entries_subject"),
        )
        constraints = (
            models.CheckConstraint(condition=Q(actor_kind__in=ActorKind.values), name="audit_entries_actor_kind_known"),
            models.CheckConstraint(condition=~Q(action="") & ~Q(subject=""), name="audit_entries_says_what"),
        )

    def __str__(self) -> str:
        return f"{self.actor}: {self.action} {self.subject}"

    # Models here leave save() alone, for what it does behind a caller's back surprises; this one does less, not more:
    # it only ever inserts, so that neither a row that was read nor one made with a taken key overwrites history.
    def save(self, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("audit entries are append-only")
        super().save(**{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> Never:
        raise TypeError("audit entries are append-only")


class StopSwitch(models.Model):
    """While on, no automation changes the world: no scaling, no automatic rollback, no deletion by retention.

    One row, made by the first change; no row means off.
    """

    SINGLETON = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=SINGLETON, editable=False)
    on = models.BooleanField(default=False)
    reason = models.CharField(max_length=MAX_REASON)
    changed_at = models.DateTimeField()
    changed_by = models.CharField(max_length=150)

    class Meta:
        db_table = "stop_switch"
        verbose_name = "stop switch"
        verbose_name_plural = "stop switch"
        constraints = (models.CheckConstraint(condition=Q(id=1), name="stop_switch_is_one_row"),)

    def __str__(self) -> str:
        return "on" if self.on else "off"


class Heartbeat(models.Model):
    """When a part of Pulsewatch last gave a sign of life. `prepare` makes the rows; see `heartbeats`."""

    source = models.CharField(max_length=16, primary_key=True, choices=HeartbeatSource)
    at = models.DateTimeField()

    class Meta:
        db_table = "heartbeats"
        constraints = (
            models.CheckConstraint(condition=Q(source__in=HeartbeatSource.values), name="heartbeats_source_known"),
        )

    def __str__(self) -> str:
        return f"{self.source} at {self.at:%Y-%m-%d %H:%M:%S} UTC"

"""What people write down about an environment."""

from django.db import models
from django.db.models import Q

from apps.core.choices import Environment

MAX_NOTE = 300  # characters: a line beside a chart


class Note(models.Model):
    """Something that happened outside of Pulsewatch, such as "DNS changed": drawn where one looks for causes."""

    at = models.DateTimeField("time", help_text="When it happened, in UTC")
    text = models.CharField(max_length=MAX_NOTE, help_text="Shown to everyone here: no secrets")
    environment = models.CharField(max_length=16, choices=Environment, default=Environment.PRODUCTION)
    by = models.CharField(max_length=150, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "notes"
        ordering = ("-at", "-pk")
        default_permissions = ("add", "view", "delete")
        indexes = (models.Index(fields=("environment", "at"), name="idx_notes_environment_at"),)
        constraints = (
            models.CheckConstraint(condition=~Q(text=""), name="notes_text_given"),
            models.CheckConstraint(condition=Q(environment__in=Environment.values), name="notes_environment_known"),
        )

    def __str__(self) -> str:
        return self.text

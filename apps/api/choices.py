"""What a token may be allowed, and what becomes of a webhook's delivery."""

from django.db.models import TextChoices


class Scope(TextChoices):
    """A noun and what may be done with it; writing includes reading."""

    ALERTS_READ = "alerts:read"
    ALERTS_WRITE = "alerts:write"
    BACKUPS_READ = "backups:read"
    BACKUPS_WRITE = "backups:write"
    BUILDS_READ = "builds:read"
    BUILDS_WRITE = "builds:write"
    DEPLOYMENTS_READ = "deployments:read"
    DEPLOYMENTS_WRITE = "deployments:write"
    HEALTH_READ = "health:read"
    HEALTH_WRITE = "health:write"
    INVENTORY_READ = "inventory:read"
    INVENTORY_WRITE = "inventory:write"
    SCALING_READ = "scaling:read"
    SCALING_WRITE = "scaling:write"


class DeliverySource(TextChoices):
    """Who sends webhooks."""

    GITHUB = "github", "GitHub"
    ZEABUR = "zeabur", "Zeabur"


class DeliveryOutcome(TextChoices):
    """`pending`: stored, not acted on yet. Sent again, one that was ignored or failed is looked at anew."""

    PENDING = "pending"
    APPLIED = "applied"
    IGNORED = "ignored"
    FAILED = "failed"

"""What a token may be allowed."""

from django.db.models import TextChoices


class Scope(TextChoices):
    """A noun and what may be done with it; writing includes reading."""

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

"""The words every app shares."""

from django.db.models import TextChoices


class Environment(TextChoices):
    DEVELOPMENT = "development"
    STAGING = "staging"
    PRODUCTION = "production"


class ActorKind(TextChoices):
    """Who did something: a signed-in person, an API token, or Pulsewatch's own automation."""

    USER = "user"
    TOKEN = "token"
    AUTOMATION = "automation"

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


class HeartbeatSource(TextChoices):
    """A part of Pulsewatch that gives signs of life. `fast` and `long` are the queues, each beat and its workers."""

    FAST = "fast"
    LONG = "long"
    SAMPLER = "sampler"
    PROBER = "prober"
    ROLLUPS = "rollups"

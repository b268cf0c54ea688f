"""The words of scaling."""

from django.db.models import TextChoices


class Metrics(TextChoices):
    """What a policy looks at. An application without a memory limit reports no memory percentage."""

    BOTH = "cpu_memory", "CPU and memory"
    CPU = "cpu", "CPU only"
    MEMORY = "memory", "memory only"


class DecisionAction(TextChoices):
    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    HOLD = "hold"


class EventAction(TextChoices):
    SCALE_UP = "scale_up"
    SCALE_DOWN = "scale_down"
    MANUAL_SCALE = "manual_scale"


class Trigger(TextChoices):
    """Who moved the count. `other` is somebody outside Pulsewatch: the platform's count had changed by itself."""

    AUTOSCALER = "autoscaler"
    MANUAL = "manual"
    DEPLOYMENT = "deployment"
    OTHER = "other", "somebody else"


class Outcome(TextChoices):
    """What a total counts: decisions, or changes by how they ended."""

    DECIDED = "decided"
    SUCCESS = "success"
    FAILED = "failed"

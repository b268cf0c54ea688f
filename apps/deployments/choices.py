"""The words of deployments."""

from django.db.models import TextChoices


class DeploymentStatus(TextChoices):
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ROLLED_BACK = "rolled_back"


class DeploymentKind(TextChoices):
    """A rollback is a deployment of its own: it brings a former version back."""

    DEPLOYMENT = "deployment"
    ROLLBACK = "rollback"


class GateVerdict(TextChoices):
    PASSED = "passed"
    FAILED = "failed"
    INCONCLUSIVE = "inconclusive"


class StepKind(TextChoices):
    """What a line of a deployment's timeline tells of."""

    CREATED = "created"
    STARTED = "started"
    REPORTED = "reported"
    CHECKLIST = "checklist"
    OVERRIDDEN = "overridden"
    GATE_STARTED = "gate_started"
    GATE_DECIDED = "gate_decided"
    PLATFORM = "platform", "Platform asked"
    ENDED = "ended"
    ROLLBACK = "rollback"
    CONFLICT = "conflict"


class ChecklistPhase(TextChoices):
    BEFORE = "before", "Before the deployment"
    AFTER = "after", "After the deployment"


class ItemState(TextChoices):
    """`open`: nobody has checked, reported or ticked it yet."""

    OPEN = "open"
    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not_applicable"


class ValidationStatus(TextChoices):
    """`not_validated`: set, as far as was reported, but what its rule asks was not."""

    VALID = "valid"
    INVALID = "invalid"
    NOT_VALIDATED = "not_validated"

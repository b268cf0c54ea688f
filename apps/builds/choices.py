"""The words of builds and diagnostics."""

from django.db.models import TextChoices


class BuildStatus(TextChoices):
    PENDING = "pending"
    BUILDING = "building"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ReportFormat(TextChoices):
    """How a report of diagnostics is written."""

    TSC = "tsc", "what tsc prints"
    SARIF = "sarif", "SARIF 2.1.0"


class Level(TextChoices):
    """What the tool itself calls a diagnostic."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Severity(TextChoices):
    """How much a diagnostic matters to the team; worst first."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Category(TextChoices):
    TYPE_MISMATCH = "type_mismatch"
    IMPLICIT_ANY = "implicit_any", "Implicit any"
    MISSING_TYPES = "missing_types"
    PROPERTY_VIOLATION = "property_violation"
    IMPORT_EXPORT = "import_export", "Import or export"
    STRICT_MODE = "strict_mode"
    OTHER = "other"


class DiagnosticStatus(TextChoices):
    IDENTIFIED = "identified"
    IN_PROGRESS = "in_progress"
    RESOLVED = "resolved"
    DEFERRED = "deferred"

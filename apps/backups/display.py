"""States of databases, backups and restores in the words of the console, and how far something has come."""

from datetime import datetime, timedelta

from apps.backups.choices import BackupStatus, RestoreKind, RestoreStatus
from apps.backups.models import BackupJob, Restore
from apps.backups.rules import Standing
from apps.core import lease
from apps.core.display import Progress, moment, size, span
from apps.inventory.models import Database

WORKER = "celery -A pulsewatch worker -Q long"
# A queued row that no worker took for this long says so: the tick has sent its message again by then.
PATIENCE = timedelta(minutes=2)
# Two renewals late: the worker is about to count as dead.
QUIET = timedelta(seconds=2 * lease.RENEWAL_SECONDS)

STANDING_COLOURS = {
    Standing.NEVER: "danger",
    Standing.FAILED: "danger",
    Standing.OVERDUE: "danger",
    Standing.DRILL_FAILED: "danger",
    Standing.PAUSED: "warning",
    Standing.UNDRILLED: "info",
    Standing.PROVEN: "success",
}
STATUS_COLOURS = {
    BackupStatus.QUEUED: "info",
    BackupStatus.IN_PROGRESS: "info",
    BackupStatus.COMPLETED: "success",
    BackupStatus.FAILED: "danger",
    BackupStatus.CANCELLED: "",
    BackupStatus.MISSED: "warning",
}
STEPS = {
    "dump": ("Dumping", "step 1 of 2"),
    "check": ("Reading it back from the storage", "step 2 of 2"),
    "verify": ("Verifying the backup", "step 1 of 2"),
    "safety": ("Backing up what is there now", "step 2 of 3"),
    "restore": ("Writing into the target", "step 2 of 2"),
    "compare": ("Dumping the restored copy to compare it", "step 3 of 3"),
}


def place(database: Database) -> str:
    """Where a database is, without its user: the server and the schema, or the file."""
    if database.engine == "sqlite":
        return database.database_name
    port = f":{database.port}" if database.port else ""
    return f"{database.database_name} on {database.host}{port}"


def job_status(job: BackupJob) -> tuple[str, str, str]:
    """The badge of a backup's state."""
    if job.status == BackupStatus.COMPLETED and job.integrity_check_passed:
        return ("verified", "success", "stored, read back and found whole")
    if job.status == BackupStatus.COMPLETED and job.integrity_check_passed is None:
        return ("not verified yet", "info", "it was imported; verify it")
    if job.status == BackupStatus.COMPLETED:
        return ("damaged", "danger", "its last check did not find it whole")
    if job.status == BackupStatus.QUEUED and job.retry_count:
        return ("waits to try again", "warning", f"attempt {job.retry_count + 1} of 4")
    return (job.get_status_display(), STATUS_COLOURS[BackupStatus(job.status)], "")


def proofs(job: BackupJob) -> list[tuple[str, str, str]]:
    """What else is known of a backup's worth."""
    found = []
    if job.restore_tested:
        found.append(("drilled", "success", f"restored and compared {moment(job.restore_tested_at)}"))
    if job.is_monthly_archive:
        found.append(("archive", "primary", "the archive of its month"))
    if job.legal_hold:
        found.append(("legal hold", "warning", "kept until somebody lifts the hold"))
    if job.size_anomaly:
        found.append(("odd size", "warning", job.size_anomaly))
    if job.imported:
        found.append(("imported", "info", "found in a storage, not made here"))
    if job.object_deleted_at:
        found.append(("deleted", "", f"removed by retention {moment(job.object_deleted_at)}"))
    return found


def outcome(row: Restore) -> tuple[str, str, str]:
    """The badge of a restore, a drill or a verification."""
    if row.status == RestoreStatus.COMPLETED:
        words = {RestoreKind.DRILL: "digests equal", RestoreKind.VERIFY: "whole"}
        return (words.get(row.kind, "restored"), "success", "")
    if row.status == RestoreStatus.FAILED and row.equal is False:
        return ("differs", "danger", row.first_difference)
    return (row.get_status_display(), STATUS_COLOURS[BackupStatus(row.status)], "")


def progress(row: BackupJob | Restore, now: datetime) -> Progress | None:
    """What a person who waits wants to know; None once it has ended. Up to two queries."""
    if row.status == BackupStatus.QUEUED:
        return _waiting(row, now)
    if row.status != BackupStatus.IN_PROGRESS:
        return None
    doing, step = STEPS.get(row.progress_step, ("Starting", ""))
    if isinstance(row, Restore):
        step = _step(row, step)
    total, about = _total(row)
    percent = min(99, 100 * row.progress_bytes // total) if total and row.progress_step else None
    beat = max(timedelta(0), now - (row.lease_until - lease.LENGTH)) if row.lease_until else None
    facts = [
        f"{size(row.progress_bytes)} of {about}{size(total)}" if total else size(row.progress_bytes),
        f"running for {span(now - row.started_at)}",
        f"last sign of life of its worker {span(round(beat.total_seconds()))} ago" if beat is not None else "",
    ]
    warning = ""
    if row.cancel_requested:
        warning = "Cancelling: it stops within seconds."
    elif beat is not None and beat > QUIET:
        limit = span(lease.LENGTH)
        warning = f"Its worker is silent. After {limit} without a sign of life it counts as dead and is dealt with."
    return Progress(
        headline=f"{doing} ({step})" if step else doing,
        detail=" · ".join(filter(None, facts)),
        percent=percent,
        warning=warning,
    )


def _step(row: Restore, step: str) -> str:
    """A verification has one step; a drill, and a restore over something, have three."""
    if row.kind == RestoreKind.VERIFY:
        return ""
    if row.overwrite and row.progress_step == "restore":
        return "step 3 of 3"
    return step.replace("of 2", "of 3") if row.kind == RestoreKind.DRILL or row.overwrite else step


def _total(row: BackupJob | Restore) -> tuple[int | None, str]:
    """How many bytes there will be: known for a restore, guessed from the last backup for a dump."""
    if isinstance(row, Restore):
        return (None if row.progress_step == "safety" else row.backup.backup_bytes), ""
    last = BackupJob.objects.verified().filter(database=row.database_id).order_by("-started_at")
    return last.values_list("backup_bytes", flat=True).first(), "about "


def _waiting(row: BackupJob | Restore, now: datetime) -> Progress:
    later = row.next_attempt_at
    if later and later > now:
        attempt = f", attempt {row.retry_count + 1} of 4" if isinstance(row, BackupJob) else ""
        return Progress("Waits to try again", f"at {moment(later)}{attempt}; before: {row.error_message}")
    since = max(later or row.started_at, row.started_at)
    waited = now - since
    if waited <= PATIENCE:
        return Progress("Queued", "A worker of queue “long” takes it within seconds.")
    ahead = (
        BackupJob.objects.filter(status="in_progress", lease_until__gte=now).values_list("pk", flat=True).first()
        or Restore.objects.filter(status="in_progress", lease_until__gte=now).values_list("pk", flat=True).first()
    )
    if ahead:
        return Progress("Queued", f"Waits behind {ahead}, for {span(waited)} now.")
    return Progress(
        "Queued",
        warning=f"No worker of queue “long” has picked it up for {span(waited)}. Is one running? {WORKER}",
    )

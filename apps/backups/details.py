"""What the pages of a database, a backup and a restore show, and which buttons a person has there."""

from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from django.utils.safestring import SafeString

from apps.backups.actions import may_use
from apps.backups.choices import RestoreKind
from apps.backups.display import STANDING_COLOURS, job_status, outcome, place, progress, proofs
from apps.backups.models import BackupJob, Restore
from apps.backups.recovery import kit_missing
from apps.backups.rules import Standing
from apps.backups.standing import State, states
from apps.core.display import badge, badges, linked, moment, page_of, share, size, span
from apps.core.pages import button, buttons
from apps.inventory.models import Database

RECENT = 10  # backups and restores listed on another row's page


def where(database: Database) -> str:
    """Engine and place."""
    return f"{database.get_engine_display()}: {place(database)}"


def of_database(request: HttpRequest, database: Database) -> dict[str, Any]:
    """The page of a database."""
    now = timezone.now()
    state = states([database], now)[0]
    plan = state.plan
    labels = [(state.standing.value, STANDING_COLOURS[state.standing], "")]
    verified, measured = state.verified, state.measured
    recent = database.backups.defer("tables", "notes").order_by("-started_at", "-pk")[:RECENT]
    return {
        "badges": badges(labels),
        "lead": _judgement(state),
        "progress": progress(state.open, now) if state.open else None,
        "live_url": f"{page_of(database).removesuffix('change/')}live/",
        "kit_missing": kit_missing(),
        "actions": buttons(
            request,
            database,
            ("Back up now", "back-up", "backups.run_backup", "primary", state.open is None),
            ("Check", "check", "backups.run_backup", "", True),
            ("Change", "edit", "inventory.change_database", "", True),
        )
        + ([button("Plan", page_of(plan))] if plan and request.user.has_perm("backups.view_backupplan") else []),
        "sections": (
            {
                "heading": "How safe it is",
                "facts": (
                    ("Newest verified", linked(verified, f"{span(state.age)} old") if verified else "never"),
                    (
                        "Size",
                        f"{size(verified.backup_bytes)}, stored as {size(verified.compressed_bytes)}"
                        if verified
                        else "",
                    ),
                    ("Last drill", _drilled(state)),
                    ("Restore time (RTO)", span(measured.restore_seconds) if measured else "not measured yet"),
                    ("Under way", linked(state.open) if state.open else "nothing"),
                    ("Next backup", moment(state.next_slot) if state.next_slot else "none planned"),
                ),
            },
            {
                "heading": "What it is",
                "facts": (
                    ("Where", where(database)),
                    ("Environment", database.get_environment_display()),
                    ("Service", str(database.service)),
                    ("Dumped from", "a replica" if database.replica_url_sealed else "the database itself"),
                    (
                        "Drills on",
                        "a scratch server" if database.scratch_url_sealed else "the same server, in a scratch schema",
                    ),
                    ("Speed limit", f"{database.max_rate_mb} MB/s" if database.max_rate_mb else "none"),
                    ("Plan", f"{plan.cron} {plan.time_zone}, kept {plan.retention_days} days" if plan else "none"),
                ),
            },
        ),
        "lists": (
            {
                "heading": "Recent backups",
                "headers": ("Backup", "Status", "Size", "Took", "Proof"),
                "rows": [
                    {
                        "url": page_of(job),
                        "cells": (
                            job,
                            badge(*job_status(job)),
                            size(job.backup_bytes),
                            span(job.duration_seconds),
                            badges(proofs(job)),
                        ),
                    }
                    for job in recent
                ],
                "empty": "None yet. Take the first one now, or wait for the plan.",
            },
        ),
    }


def _judgement(state: State) -> str | SafeString:
    """Why the badge says what it says, and what to do."""
    return {
        Standing.NEVER: "No verified backup is stored: this database could not be restored. Back it up now.",
        Standing.FAILED: linked(state.last, "the newest backup, did not succeed. Look at why, then back up again.")
        if state.last
        else "",
        Standing.OVERDUE: f"The backup of {moment(state.owed_since)} is not there. "
        "Are beat and a worker of queue “long” running?",
        Standing.DRILL_FAILED: linked(
            state.drill, "the last restore drill, did not succeed. Until one does, do not rely on these backups."
        )
        if state.drill
        else "",
        Standing.PAUSED: "Its plan is off: no backup is taken by itself.",
        Standing.UNDRILLED: "Verified backups are stored; no drill has proven yet that they restore.",
        Standing.PROVEN: "Verified backups are stored, and the last drill restored one with every table equal.",
    }[state.standing]


def of_job(request: HttpRequest, job: BackupJob) -> dict[str, Any]:
    """The page of a backup."""
    now = timezone.now()
    usable = may_use(job)
    ended = job.status not in ("queued", "in_progress")
    uses = job.restores.defer("tables").order_by("-started_at", "-pk")[:RECENT]
    asked = "its plan" if job.triggered_by == "scheduled" else job.requested_by or "nobody known"
    return {
        "badges": badges([job_status(job), *proofs(job)]),
        "lead": _worth(job),
        "progress": progress(job, now),
        "live_url": f"{page_of(job).removesuffix('change/')}live/",
        "fault": job.error_message if ended else "",
        "advice": _advice(job),
        "actions": buttons(
            request,
            job,
            ("Drill", "drill", "backups.drill_backup", "primary", usable and job.database is not None),
            (
                "Verify again",
                "verify",
                "backups.verify_backup",
                "",
                bool(job.sidecar_path) and not job.object_deleted_at,
            ),
            ("Restore", "restore", "backups.restore_backup", "", usable),
            ("Restore one table", "table", "backups.restore_backup", "", usable and bool(job.tables)),
            ("Restore over a database", "overwrite", "backups.overwrite_database", "danger", usable),
            ("Put on legal hold", "hold", "backups.hold_backup", "", usable and not job.legal_hold),
            ("Lift the legal hold", "hold", "backups.release_backup", "", job.legal_hold),
            ("Cancel", "cancel", "backups.cancel_backup", "danger", not ended),
        ),
        "sections": (
            {
                "heading": "What it is",
                "facts": (
                    ("Database", linked(job.database) if job.database else f"{job.database_name} (not registered)"),
                    ("Schema", job.database_name),
                    ("Environment", job.get_environment_display()),
                    ("Kind", job.get_backup_type_display()),
                    ("Asked by", asked),
                    ("For the slot", moment(job.slot)),
                    ("Server", job.engine),
                ),
            },
            {
                "heading": "How it went",
                "facts": (
                    ("Began", moment(job.started_at)),
                    ("Ended", moment(job.completed_at)),
                    ("Took", span(job.duration_seconds)),
                    ("Attempts", f"{job.retry_count + 1} of 4"),
                    ("Size", size(job.backup_bytes)),
                    ("Stored", _stored(job)),
                    ("Odd size", job.size_anomaly),
                    ("Verified", moment(job.integrity_check_at) if job.integrity_check_passed else "no"),
                    ("Drilled", moment(job.restore_tested_at) if job.restore_tested else "no"),
                ),
            },
            {
                "heading": "Where it is kept",
                "facts": (
                    ("Object", job.storage_url if job.object_path else "nothing is stored"),
                    ("Encryption", f"{job.encryption_algorithm}, by a key of its own"),
                    ("Kept until", _kept(job)),
                ),
            },
        ),
        "notes": job.notes,
        "tables": [{"name": name, "digest": job.tables[name]} for name in sorted(job.tables)],
        "table_headers": ("Table", "SHA-256 of its part of the dump"),
        "lists": (
            {
                "heading": "What it was used for",
                "headers": ("Id", "Kind", "Outcome", "Restore time"),
                "rows": [
                    {
                        "url": page_of(row),
                        "cells": (row, row.get_kind_display(), badge(*outcome(row)), span(row.restore_seconds)),
                    }
                    for row in uses
                ],
                "empty": "Nothing yet. A drill proves that it restores.",
            },
        )
        if usable or uses
        else (),
    }


def of_restore(request: HttpRequest, row: Restore) -> dict[str, Any]:
    """The page of a restore, a drill or a verification."""
    ended = row.status not in ("queued", "in_progress")
    expected = row.backup.tables
    names = sorted(expected.keys() | row.tables.keys()) if row.tables else []
    verdicts = {name: "equal" if expected.get(name) == row.tables.get(name) else "differs" for name in names}
    equal = sum(verdict == "equal" for verdict in verdicts.values())
    lead = ""
    if row.status == "completed" and row.kind == RestoreKind.DRILL:
        lead = f"Restored: digests equal, {equal} tables in {span(row.restore_seconds)}."
    elif row.status == "completed" and row.kind == RestoreKind.VERIFY:
        lead = "The whole backup was read back and is what was written."
    elif row.status == "completed":
        lead = f"Restored into {row.target} in {span(row.restore_seconds)}."
    return {
        "badges": badges([outcome(row)]),
        "lead": lead,
        "progress": progress(row, timezone.now()),
        "live_url": f"{page_of(row).removesuffix('change/')}live/",
        "fault": row.error_message if ended else "",
        "actions": buttons(request, row, ("Cancel", "cancel", "backups.cancel_backup", "danger", not ended)),
        "sections": (
            {
                "heading": row.get_kind_display(),
                "facts": (
                    ("Backup", linked(row.backup)),
                    ("Target", row.target),
                    ("Table", row.table),
                    ("Asked by", row.requested_by),
                    ("Began", moment(row.started_at)),
                    ("Ended", moment(row.completed_at)),
                    ("Restore time", span(row.restore_seconds)),
                    ("First difference", row.first_difference),
                    ("Safety backup", linked(row.safety_backup) if row.safety_backup else ""),
                ),
            },
        ),
        "tables": [
            {"name": name, "verdict": verdicts[name], "digest": row.tables.get(name, "not there")} for name in names
        ],
        "table_headers": ("Table", "Compared", "SHA-256 after the restore"),
    }


def _worth(job: BackupJob) -> str:
    """What is proven of a backup, in a sentence."""
    if not may_use(job):
        return ""
    if not job.integrity_check_passed:
        return "Imported and not verified here yet; every restore verifies it first."
    if job.restore_tested:
        return "Stored, read back and found whole; a drill restored it with every table equal."
    return "Stored, read back and found whole. No drill has restored it yet."


def _advice(job: BackupJob) -> str:
    if job.status == "failed":
        return (
            "Nothing of it is kept. Put right what the message names, then back up again; “Check” on the page of the "
            "database tells whether it is right."
        )
    if job.status == "missed":
        return "Nobody ran it in time: the backup before still ran, or beat and workers were down."
    return ""


def _stored(job: BackupJob) -> str:
    if job.compressed_bytes is None:
        return ""
    return f"{size(job.compressed_bytes)}, {share(job.compression_ratio)} of its size"


def _kept(job: BackupJob) -> str:
    if job.object_deleted_at:
        return f"removed by retention {moment(job.object_deleted_at)}"
    if job.legal_hold:
        return "somebody lifts the legal hold"
    return f"{moment(job.retention_expires_at)}, and as long as it is the newest verified one"


def _drilled(state: State) -> str | SafeString:
    if state.drill is None:
        return "never"
    word = "all tables equal" if state.drill.equal else "failed"
    return linked(state.drill, f"{span(state.now - state.drill.started_at)} ago: {word}")

"""How each registered database stands: its newest verified backup, its last drill, what runs, what comes next.

Read by the console and the metrics page; the number of queries does not grow with the number of databases.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import OuterRef, Subquery

from apps.backups import rules
from apps.backups.choices import BackupStatus, RestoreKind, RestoreStatus
from apps.backups.models import BackupJob, BackupPlan, Restore
from apps.inventory.models import Database

# Cancelled ones say nothing of the database.
TELLING = (BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.MISSED)
WORST_FIRST = tuple(rules.Standing)


@dataclass(frozen=True, slots=True)
class State:
    """One database as it is now."""

    database: Database
    plan: BackupPlan | None
    verified: BackupJob | None  # the newest one that was read back whole and is still stored
    last: BackupJob | None  # the newest one that ended and was not cancelled
    open: BackupJob | None  # queued or in progress
    drill: Restore | None  # the newest one that ended and was not cancelled
    measured: Restore | None  # the newest one that found all digests equal: its time is the measured RTO
    standing: rules.Standing
    owed_since: datetime | None  # the slot whose backup is missing
    next_slot: datetime | None
    now: datetime

    @property
    def age(self) -> timedelta | None:
        """How old the data would be after a restore (RPO)."""
        return max(timedelta(0), self.now - self.verified.started_at) if self.verified else None

    @property
    def drill_age(self) -> timedelta | None:
        """Time since a drill last found every table equal."""
        return max(timedelta(0), self.now - self.measured.completed_at) if self.measured else None


def states(databases: Sequence[Database], now: datetime) -> list[State]:
    """The state of each, in the order given. Three queries; `plan` should be selected with the databases."""
    jobs = BackupJob.objects.filter(database=OuterRef("pk")).order_by("-started_at", "-pk").values("pk")
    drills = Restore.objects.filter(backup__database=OuterRef("pk"), kind=RestoreKind.DRILL)
    ended = drills.filter(status__in=(RestoreStatus.COMPLETED, RestoreStatus.FAILED))
    found = {
        row[0]: row[1:]
        for row in Database.objects.filter(pk__in=[database.pk for database in databases])
        .order_by()
        .values_list(
            "pk",
            Subquery(jobs.verified()[:1]),
            Subquery(jobs.filter(status__in=TELLING)[:1]),
            Subquery(BackupJob.objects.filter(open_database=OuterRef("pk")).values("pk")[:1]),
            Subquery(ended.order_by("-started_at", "-pk").values("pk")[:1]),
            Subquery(ended.filter(equal=True).order_by("-started_at", "-pk").values("pk")[:1]),
        )
    }
    job_rows = BackupJob.objects.defer("tables", "notes").in_bulk([key for row in found.values() for key in row[:3]])
    drill_rows = Restore.objects.defer("tables").in_bulk([key for row in found.values() for key in row[3:]])
    return [
        _state(
            database,
            [job_rows.get(key) for key in found[database.pk][:3]],
            [drill_rows.get(key) for key in found[database.pk][3:]],
            now,
        )
        for database in databases
        if database.pk in found  # else it was removed in between
    ]


def worst_first(rows: Sequence[State]) -> list[State]:
    """Trouble on top, otherwise in the order given."""
    return sorted(rows, key=lambda row: WORST_FIRST.index(row.standing))


def _state(
    database: Database, jobs: Sequence[BackupJob | None], drills: Sequence[Restore | None], now: datetime
) -> State:
    verified, last, running = jobs
    drill, measured = drills
    plan = getattr(database, "plan", None)
    on = plan is not None and plan.enabled
    facts = rules.Facts(
        verified_at=verified.started_at if verified else None,
        failed_at=last.started_at if last and last.status != BackupStatus.COMPLETED else None,
        drill_equal=None if drill is None else bool(drill.equal),
        registered_at=database.created_at,
        cron=plan.cron if on else None,
        time_zone=plan.time_zone if plan else "UTC",
    )
    return State(
        database=database,
        plan=plan,
        verified=verified,
        last=last,
        open=running,
        drill=drill,
        measured=measured,
        standing=rules.standing(facts, now),
        owed_since=rules.owed_since(facts, now),
        next_slot=rules.next_slot(plan.cron, plan.time_zone, now) if on else None,
        now=now,
    )

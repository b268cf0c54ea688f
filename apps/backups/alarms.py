"""What is wrong with the backups of each database, as alerts: the newest one, the newest drill, what is owed."""

from collections.abc import Iterator
from datetime import datetime

from apps.alerts.choices import AlertKind, Severity
from apps.alerts.services import Firing, settle
from apps.backups.choices import BackupStatus
from apps.backups.standing import State, states
from apps.core.choices import Environment
from apps.core.display import moment, page_of, span
from apps.inventory.models import Database

MAX_REASON = 500  # characters of a tool's own words


def check(now: datetime) -> None:
    """Settle the alerts of all registered databases. The number of queries does not grow with them."""
    rows = states(list(Database.objects.select_related("plan", "service")), now)
    for kind, found in (
        (AlertKind.BACKUP_FAILED, _failed),
        (AlertKind.BACKUP_OVERDUE, _overdue),
        (AlertKind.BACKUP_SIZE_ANOMALY, _odd),
        (AlertKind.DRILL_FAILED, _drill),
    ):
        settle(kind, [one for row in rows for one in found(row)], now=now)


def _failed(row: State) -> Iterator[Firing]:
    last = row.last
    if last is None or (row.verified is not None and row.verified.started_at > last.started_at):
        return
    if last.status == BackupStatus.FAILED:
        why = (last.error_message or "It says no reason.")[:MAX_REASON]
        yield _firing(row, f"Backup of {row.database} failed", f"{why} {_newest(row)}", page_of(last))
    elif last.status == BackupStatus.COMPLETED and last.integrity_check_passed is False:
        detail = f"{last.pk} was checked and is not whole. {_newest(row)} Look at its storage, then back up again."
        yield _firing(row, f"Newest backup of {row.database} is damaged", detail, page_of(last))


def _overdue(row: State) -> Iterator[Firing]:
    if row.owed_since is None or any(_failed(row)):
        return  # a failed one is told already
    detail = (
        f"The backup of {moment(row.owed_since)} is not there. {_newest(row)} "
        "Are beat and a worker of queue “long” running, and is there room in the storage?"
    )
    yield _firing(row, f"Backup of {row.database} is overdue", detail, page_of(row.database))


def _odd(row: State) -> Iterator[Firing]:
    if row.verified is not None and row.verified.size_anomaly:
        detail = f"It is {row.verified.size_anomaly}. Was much data added or removed? If not, look into the database."
        yield _firing(row, f"Backup of {row.database} has an odd size", detail, page_of(row.verified), Severity.WARNING)


def _drill(row: State) -> Iterator[Firing]:
    drill = row.drill
    if drill is None or drill.equal:
        return
    if drill.equal is False:
        why = f"Table {drill.first_difference} differs after the restore."
    else:
        why = (drill.error_message or "It says no reason.")[:MAX_REASON]
    detail = f"{why} Until a drill succeeds, do not rely on these backups."
    yield _firing(row, f"Restore drill of {row.database} failed", detail, page_of(drill))


def _newest(row: State) -> str:
    if row.verified is None:
        return "There is no verified backup at all."
    return f"The newest verified backup is {span(row.age, units=1)} old."


def _firing(row: State, title: str, detail: str, path: str, severity: str = "") -> Firing:
    database = row.database
    grave = Severity.CRITICAL if database.environment == Environment.PRODUCTION else Severity.WARNING
    return Firing(
        subject=f"database:{database.name}",
        title=title,
        detail=detail,
        severity=severity or grave,
        environment=database.environment,
        service=database.service.slug,
        path=path,
        runbook_url=database.service.runbook_url,
    )

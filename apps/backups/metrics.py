"""What Prometheus is told of backups, read from rows. The labels are names of registered databases."""

from collections.abc import Iterator

from django.db.models import Count
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from apps.backups.choices import BackupStatus
from apps.backups.models import BackupJob
from apps.backups.standing import State, states
from apps.inventory.models import Database

# A queued backup is tried again on the same row, so that a row has one outcome, and only once.
OUTCOMES = (BackupStatus.COMPLETED, BackupStatus.FAILED, BackupStatus.CANCELLED, BackupStatus.MISSED)
GAUGES = {
    "last_verified_age_seconds": "Age of the data in the newest verified backup; absent while there is none",
    "never_verified": "1 while no verified backup of this database is stored, else 0",
    "size_bytes": "Size of the newest verified backup's dump",
    "stored_bytes": "Size of the newest verified backup as it is stored, compressed and encrypted",
    "duration_seconds": "Time the newest verified backup took",
    "last_drill_age_seconds": "Time since a restore drill last found every table equal; absent while there was none",
    "restore_seconds": "Restore time that drill measured (RTO)",
    "overdue": "1 while a scheduled backup should be verified by now and is not, else 0",
}


def read() -> Iterator[Metric]:
    """The families of all registered databases. Four queries."""
    rows = states(list(Database.objects.backed_up().select_related("plan")), timezone.now())
    for name, meaning in GAUGES.items():
        family = GaugeMetricFamily(f"pulsewatch_backup_{name}", meaning, labels=["database"])
        for row in rows:
            value = _values(row)[name]
            if value is not None:
                family.add_metric([row.database.name], value)
        yield family
    yield _outcomes([row.database for row in rows])


def _values(row: State) -> dict[str, float | None]:
    backup, drill = row.verified, row.measured
    return {
        "last_verified_age_seconds": None if row.age is None else row.age.total_seconds(),
        "never_verified": backup is None,
        "size_bytes": backup and backup.backup_bytes,
        "stored_bytes": backup and backup.compressed_bytes,
        "duration_seconds": backup and backup.duration_seconds,
        "last_drill_age_seconds": None if row.drill_age is None else row.drill_age.total_seconds(),
        "restore_seconds": drill and drill.restore_seconds,
        "overdue": row.owed_since is not None,
    }


def _outcomes(databases: list[Database]) -> Metric:
    family = CounterMetricFamily(
        "pulsewatch_backups",
        "Backups by how they ended, since the database was registered",
        labels=["database", "outcome"],
    )
    counted = BackupJob.objects.filter(database__in=databases, status__in=OUTCOMES).order_by()
    counts = {
        (database, status): count
        for database, status, count in counted.values_list("database", "status").annotate(Count("pk"))
    }
    for database in databases:
        for outcome in OUTCOMES:
            family.add_metric([database.name, outcome.value], counts.get((database.pk, outcome.value), 0))
    return family

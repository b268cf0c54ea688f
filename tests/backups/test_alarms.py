"""What is wrong with backups, as alerts: opened by the event, closed by the next that is well."""

from datetime import timedelta

import pytest

from apps.alerts.models import Alert
from apps.backups import alarms
from apps.backups.models import BackupJob, Restore
from tests.alerts.conftest import NOW
from tests.factories import BackupJobFactory, BackupPlanFactory, DatabaseFactory, RestoreFactory, ServiceFactory

pytestmark = pytest.mark.django_db


def hours(count: float):
    return NOW + timedelta(hours=count)


@pytest.fixture
def shop():
    row = DatabaseFactory(name="shop", service=ServiceFactory(slug="shop"))
    row.created_at = NOW
    row.save()
    return row


def open_kinds() -> set[str]:
    return set(Alert.objects.open().values_list("kind", flat=True))


def test_a_failed_backup_opens_and_the_next_verified_one_closes(shop):
    BackupJobFactory(database=shop, started_at=hours(1))
    failed = {"status": "failed", "integrity_check_passed": None, "object_path": "", "sidecar_path": ""}
    bad = BackupJobFactory(database=shop, started_at=hours(25), error_message="mysqldump: disk full", **failed)
    alarms.check(hours(25.5))
    alert = Alert.objects.get()
    assert (alert.kind, alert.subject, alert.severity) == ("backup_failed", "database:shop", "critical")
    assert alert.detail == "mysqldump: disk full The newest verified backup is 1 d old."
    assert bad.pk.replace("_", "_5F") in alert.path or bad.pk in alert.path
    BackupJobFactory(database=shop, started_at=hours(26))
    alarms.check(hours(26.5))
    assert open_kinds() == set()


def test_an_overdue_backup_a_failed_one_is_not_told_twice(shop):
    BackupPlanFactory(database=shop, cron="0 4 * * *", last_slot=NOW)
    alarms.check(hours(1.9))
    assert open_kinds() == set()
    alarms.check(hours(2.1))
    assert open_kinds() == {"backup_overdue"}
    BackupJobFactory(database=shop, started_at=hours(2.2), status="failed", integrity_check_passed=None)
    alarms.check(hours(2.5))
    assert open_kinds() == {"backup_failed"}


def test_a_damaged_one_and_an_odd_size(shop):
    job = BackupJobFactory(database=shop, started_at=hours(1), size_anomaly="3.1 times the median")
    alarms.check(hours(2))
    assert open_kinds() == {"backup_size_anomaly"}
    BackupJob.objects.filter(pk=job.pk).update(integrity_check_passed=False)
    alarms.check(hours(3))
    assert Alert.objects.open().get().title == "Newest backup of shop is damaged"


def test_a_drill_that_finds_a_difference_and_one_that_fails(shop):
    backup = BackupJobFactory(database=shop, started_at=hours(1))
    drill = RestoreFactory(backup=backup, started_at=hours(2), equal=False, first_difference="orders")
    alarms.check(hours(3))
    assert Alert.objects.get().detail.startswith("Table orders differs after the restore.")
    Restore.objects.filter(pk=drill.pk).update(equal=None, status="failed", error_message="no room")
    alarms.check(hours(3.1))
    assert Alert.objects.get().detail.startswith("no room Until a drill succeeds")
    RestoreFactory(backup=backup, started_at=hours(4))
    alarms.check(hours(5))
    assert open_kinds() == set()


def test_the_number_of_queries_does_not_grow(shop, django_assert_max_num_queries):
    for _ in range(8):
        BackupJobFactory(database=DatabaseFactory(environment="staging"), started_at=hours(1), status="failed")
    alarms.check(hours(2))
    assert Alert.objects.filter(severity="warning").count() == 8
    with django_assert_max_num_queries(4 + 4):
        alarms.check(hours(2.1))

"""What a worker records of a backup besides its bytes, and whose it is."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.backups import schedule
from apps.backups.models import BackupJob
from tests.backups.pipeline.product import back_up, queued
from tests.backups.test_restore_over import file, kept_here, shop, write  # noqa: F401  (fixtures)
from tests.factories import BackupJobFactory

pytestmark = pytest.mark.django_db


def test_an_odd_size_is_said(shop, file):  # noqa: F811
    write(file, *(f"customer {number}" * 20 for number in range(4000)))
    for _ in range(5):
        assert back_up(shop).size_anomaly == ""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("DELETE FROM customers")
        connection.commit()
        connection.execute("VACUUM")

    assert "of the median of the last 5 backups" in back_up(shop).size_anomaly


def test_a_backup_that_runs_where_it_was_asked_for_is_nobody_elses_and_not_tried_again(shop, file):  # noqa: F811
    job = queued(shop, held_by="terminal:1")

    assert job.status == "in_progress"
    assert schedule.wake_waiting(timezone.now() + timedelta(minutes=10)) == 0
    schedule.heal(timezone.now() + timedelta(minutes=10))

    job.refresh_from_db()
    assert (job.status, job.error_message) == ("failed", "Its worker died.")
    assert job.next_attempt_at is None


def test_retention_counts_by_source_when_its_database_is_gone():
    old = BackupJobFactory(started_at=timezone.now() - timedelta(days=60))
    BackupJob.objects.filter(pk=old.pk).update(database=None)

    assert schedule.clean_up(timezone.now()) == 0  # it is the newest one of what was called so
    assert BackupJob.objects.get().object_deleted_at is None

"""What a worker records of a backup besides its bytes, and whose it is."""

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from django.utils import timezone

from apps.backups import runner, schedule
from apps.backups.models import BackupJob
from tests.backups.pipeline.product import OWNER, back_up, queued, stored_in
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


def test_an_interruption_right_after_the_row_was_written_takes_nothing_away(shop, kept_here, monkeypatch):  # noqa: F811
    commit = runner._commit

    def interrupted(*words):
        commit(*words)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_commit", interrupted)
    job = queued(shop)

    with pytest.raises(KeyboardInterrupt):
        runner.back_up(job.pk, owner=OWNER)

    job.refresh_from_db()
    assert job.status == "completed"
    assert stored_in(kept_here) == sorted([job.object_path, job.sidecar_path])


def test_an_attempt_that_died_after_its_sidecar_leaves_none_that_leads_nowhere(shop, kept_here):  # noqa: F811
    job = queued(shop)
    path = "production/2026/03/02/died.sqlite3.zst.enc"
    BackupJob.objects.filter(pk=job.pk).update(object_path=path, retry_count=1)
    with runner.storage() as place:
        place.write_bytes(path, b"whole")
        place.write_bytes("production/2026/03/02/died.json", b"sidecar")

    runner.back_up(job.pk, owner=OWNER)

    job.refresh_from_db()
    assert stored_in(kept_here) == sorted([job.object_path, job.sidecar_path])


def test_one_storage_that_is_no_longer_set_up_does_not_stop_the_clean_up(shop, kept_here):  # noqa: F811
    BackupJobFactory(
        status="failed", storage_location="spaces://gone/backups", sidecar_path="", integrity_check_passed=None
    )
    old, _ = back_up(shop), back_up(shop)

    assert schedule.clean_up(old.retention_expires_at + timedelta(seconds=1)) == 1

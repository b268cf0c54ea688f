"""A clock that jumps while backups run, and between them."""

from datetime import UTC, datetime, timedelta

import pytest
import time_machine
from django.utils import timezone

from apps.backups import runner, schedule, sidecar
from apps.backups.engines.base import Engine
from apps.backups.models import BackupJob, BackupPlan
from apps.core import vault
from tests.backups.pipeline.product import back_up, once, register, restored, run, stored_in, url_of

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize("source", ["SQLite"], indirect=True)]

NOW = datetime(2026, 3, 29, 2, 0, 30, tzinfo=UTC)
BACK = timedelta(hours=3)


@pytest.fixture
def small(source: Engine) -> Engine:
    run(source, "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO customers VALUES (1, 'Ada')")
    return source


def test_a_clock_that_jumps_back_during_a_backup_and_a_drill_changes_no_outcome(small: Engine, kept_here) -> None:
    with time_machine.travel(NOW) as clock:
        job = back_up(register(url_of(small)), once(lambda: clock.move_to(NOW - BACK)))

        assert (job.status, job.duration_seconds) == ("completed", 0)
        assert job.completed_at == job.integrity_check_at >= job.started_at
        with runner.storage() as place:
            read = sidecar.read(place, job.sidecar_path, vault.keyring())
        assert read.completed_at >= read.started_at

        clock.move_to(NOW)
        row = restored(job, progress=once(lambda: clock.move_to(NOW - BACK), step="restore"))

        assert (row.status, row.equal) == ("completed", True)
        assert row.completed_at >= row.started_at
        assert 0 <= row.restore_seconds < 60


def test_a_clock_that_jumps_back_during_an_attempt_that_fails_ends_it_as_usual(small: Engine, kept_here) -> None:
    def jump_and_fail() -> None:
        clock.move_to(NOW - BACK)
        raise runner.EngineError("It failed.")

    with time_machine.travel(NOW) as clock:
        database = register(url_of(small))
        BackupJob.objects.update(retry_count=3)
        job = back_up(database, once(jump_and_fail))
        assert (job.status, job.next_attempt_at.replace(microsecond=0)) == ("queued", NOW - BACK + timedelta(minutes=5))

        clock.move_to(NOW)
        BackupJob.objects.update(retry_count=3)
        runner.back_up(job.pk, owner="again", progress=once(jump_and_fail))

    job.refresh_from_db()
    assert (job.status, job.error_message, job.duration_seconds) == ("failed", "It failed.", 0)
    assert job.completed_at >= job.started_at
    assert stored_in(kept_here) == []


def test_a_clock_that_jumped_back_opens_no_slot_again_deletes_nothing_and_takes_no_living_workers_row(
    small: Engine, kept_here
) -> None:
    with time_machine.travel(NOW - timedelta(minutes=1)) as clock:
        database = register(url_of(small))
        BackupPlan.objects.update(last_slot=NOW - timedelta(days=1))
        clock.move_to(NOW)
        assert schedule.open_due_plans(timezone.now()) == 1
        job = runner.back_up(BackupJob.objects.get().pk, owner="worker")
        before = stored_in(kept_here)
        assert runner.claim(schedule_of_another(database).pk, owner="living", now=timezone.now())

        clock.move_to(NOW - BACK)

        now = timezone.now()
        assert [schedule.open_due_plans(now), schedule.heal(now), schedule.clean_up(now)] == [0, 0, 0]
        assert stored_in(kept_here) == before
        clock.move_to(NOW + timedelta(minutes=1))
        assert schedule.open_due_plans(timezone.now()) == 0
        assert BackupJob.objects.filter(slot=NOW.replace(second=0)).get() == job


def schedule_of_another(database) -> BackupJob:
    return BackupJob.objects.open(
        database, now=timezone.now(), storage_location="", triggered_by="manual", backup_type="manual"
    )


def test_a_clock_that_jumps_forward_leaves_a_running_backup_to_one_of_two_workers(small: Engine, kept_here) -> None:
    """The tick takes a living worker for dead; that one notices, and the next attempt is the backup."""
    with time_machine.travel(NOW) as clock:
        database = register(url_of(small))

        def jump() -> None:
            clock.move_to(NOW + BACK)
            assert schedule.heal(timezone.now()) == 1

        job = schedule_of_another(database)
        assert runner.back_up(job.pk, owner="first", progress=once(jump)) is None
        job.refresh_from_db()
        assert (job.status, job.retry_count) == ("queued", 1)
        clock.move_to(job.next_attempt_at)

        assert runner.back_up(job.pk, owner="second").status == "completed"

    job.refresh_from_db()
    assert stored_in(kept_here) == sorted([job.object_path, job.sidecar_path])

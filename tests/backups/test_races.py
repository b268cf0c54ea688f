"""Several processes want one row at the same moment: one gets it. Threads with connections of their own stand in."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection

from apps.backups import runner, schedule, services
from apps.backups.models import BackupJob, BackupPlan, Restore
from apps.core.audit import Actor
from apps.core.errors import Conflict
from apps.inventory.models import Database, Service
from pulsewatch.celery import app

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.engine]

NOW = datetime(2026, 3, 2, 2, 0, 20, tzinfo=UTC)
THREADS = 6


def at_once(act: Callable[[int], object]) -> list[object]:
    """What the act answers, or the conflict it raises, in each of several threads that begin together."""
    together, answers = threading.Barrier(THREADS), []

    def run(number: int) -> None:
        together.wait()
        try:
            answers.append(act(number))
        except Conflict as conflict:
            answers.append(conflict)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == THREADS
    return answers


def test_beats_workers_and_people_who_come_together_get_one_backup_one_worker_and_one_restore(settings, tmp_path):
    app.set_default()  # it sends to the broker of the tests
    settings.BACKUP_STORAGE = str(tmp_path)
    database = Database.objects.create(
        name="shop",
        service=Service.objects.get_or_create(slug="app")[0],
        environment="production",
        engine="mysql",
        host="db",
        port=3306,
        database_name="shop",
        url_sealed=b"sealed",
    )
    day_before = NOW - timedelta(days=1)
    BackupPlan.objects.create(database=database, last_slot=day_before, last_drill_slot=day_before)

    opened = at_once(lambda number: schedule.open_due_plans(NOW))
    assert sorted(opened) == [0] * (THREADS - 1) + [1]
    job = BackupJob.objects.get()

    claimed = at_once(lambda number: runner.claim(job.pk, owner=f"worker-{number}", now=NOW))
    [winner] = [row for row in claimed if row]
    job.refresh_from_db()
    assert job.lease_owner == winner.lease_owner

    later = NOW + timedelta(hours=1)
    assert sorted(at_once(lambda number: schedule.heal(later))) == [0] * (THREADS - 1) + [1]
    job.refresh_from_db()
    assert (job.status, job.retry_count) == ("queued", 1)

    BackupJob.objects.update(status="completed", integrity_check_passed=True, completed_at=later)
    job.refresh_from_db()
    asked = at_once(
        lambda number: services.request_restore(
            backup=job, actor=Actor.automation(f"person-{number}"), kind="restore", schema="copy"
        )
    )
    assert sum(isinstance(answer, Restore) for answer in asked) == 1
    assert {str(answer) for answer in asked if isinstance(answer, Conflict)} == {
        "Another restore into this target is under way; wait for its end or cancel it."
    }
    assert Restore.objects.count() == 1

"""The tick: due plans, dead workers, lost messages, retention."""

from datetime import UTC, datetime, timedelta

import pytest

from apps.backups import restorer, runner, schedule
from apps.backups.models import BackupJob, BackupPlan, Restore
from apps.core.audit import Actor
from apps.core.errors import Conflict
from apps.core.services import set_stop_switch
from apps.inventory.models import Database
from tests.factories import ServiceFactory

pytestmark = [pytest.mark.django_db, pytest.mark.engine]

TWO = datetime(2026, 3, 2, 2, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def kept_here(settings, tmp_path):
    settings.BACKUP_STORAGE = str(tmp_path / "backups")


def make_plan(**options) -> BackupPlan:
    database = Database.objects.create(
        name=f"shop-{Database.objects.count()}",
        service=ServiceFactory(),
        environment="production",
        engine="mysql",
        host="db",
        port=3306,
        database_name="shop",
        url_sealed=b"sealed",
    )
    start = TWO - timedelta(days=1)
    return BackupPlan.objects.create(database=database, last_slot=start, last_drill_slot=start, **options)


def make_backup(plan: BackupPlan, at: datetime, **options) -> BackupJob:
    facts = {
        "status": "completed",
        "completed_at": at,
        "integrity_check_passed": True,
        "object_path": f"production/{at:%Y%m%d%H%M}.sql.zst.enc",
        "sidecar_path": f"production/{at:%Y%m%d%H%M}.json",
        "retention_expires_at": at + timedelta(days=30),
    }
    job = BackupJob.objects.open(
        plan.database, now=at, storage_location="", triggered_by="scheduled", backup_type="full", slot=at
    )
    BackupJob.objects.filter(pk=job.pk).update(**(facts | options))
    job.refresh_from_db()
    return job


def test_a_due_plan_opens_one_backup_with_the_time_of_its_slot():
    plan = make_plan()

    assert schedule.open_due_plans(TWO + timedelta(seconds=20)) == 1

    job = BackupJob.objects.get()
    assert (job.slot, job.status, job.triggered_by, job.backup_type) == (TWO, "queued", "scheduled", "full")
    assert (job.environment, job.database_name, job.plan) == ("production", "shop", plan)


def test_two_beats_and_a_crash_between_the_steps_open_it_once():
    plan = make_plan()
    for _ in range(3):
        schedule.open_due_plans(TWO)
        BackupPlan.objects.filter(pk=plan.pk).update(last_slot=TWO - timedelta(days=1))  # as after a crash

    assert BackupJob.objects.count() == 1


def test_of_missed_slots_the_newest_runs_and_the_others_are_recorded():
    make_plan()

    schedule.open_due_plans(TWO + timedelta(days=2, hours=5))

    rows = BackupJob.objects.order_by("slot").values_list("status", "slot")
    assert list(rows) == [
        ("missed", TWO),
        ("missed", TWO + timedelta(days=1)),
        ("queued", TWO + timedelta(days=2)),
    ]


def test_a_slot_that_comes_while_a_backup_still_runs_is_recorded_as_missed():
    plan = make_plan()
    schedule.open_due_plans(TWO)
    BackupJob.objects.update(status="in_progress", lease_until=TWO + timedelta(days=9))

    assert schedule.open_due_plans(TWO + timedelta(days=1)) == 0

    assert BackupJob.objects.filter(plan=plan, status="missed").count() == 1
    assert BackupJob.objects.filter(plan=plan, status="in_progress").count() == 1


def test_a_disabled_plan_owes_nothing_and_a_clock_that_jumped_back_neither():
    make_plan(enabled=False)
    plan = make_plan()
    schedule.open_due_plans(TWO)

    assert schedule.open_due_plans(TWO - timedelta(days=3)) == 0
    assert BackupJob.objects.count() == 1
    plan.refresh_from_db()
    assert plan.last_slot == TWO


def test_a_second_backup_of_a_database_is_refused_and_named():
    plan = make_plan()
    schedule.open_due_plans(TWO)

    with pytest.raises(Conflict, match=r"backup_20260302_020000 .* is under way"):
        BackupJob.objects.open(plan.database, now=TWO, storage_location="", triggered_by="manual", backup_type="manual")


def test_ids_of_one_second_get_a_suffix():
    one, other = make_plan(), make_plan()
    first = make_backup(one, TWO)
    second = make_backup(other, TWO)

    assert first.pk == "backup_20260302_020000"
    assert second.pk.startswith("backup_20260302_020000_")


def test_a_job_whose_worker_died_is_tried_again_five_minutes_later_and_fails_after_four_attempts():
    make_plan()
    schedule.open_due_plans(TWO)
    job = BackupJob.objects.get()
    now = TWO
    for attempt in range(1, 5):
        assert runner.claim(job.pk, owner=f"worker-{attempt}", now=now)
        assert runner.claim(job.pk, owner="another", now=now) is None, "claimed once"
        assert schedule.heal(now) == 0, "its lease runs"
        now += timedelta(minutes=2)
        assert schedule.heal(now) == 1
        assert schedule.heal(now) == 0
        job.refresh_from_db()
        if attempt < 4:
            assert (job.status, job.retry_count, job.next_attempt_at) == ("queued", attempt, now + timedelta(minutes=5))
            assert runner.claim(job.pk, owner="early", now=now) is None
            now = job.next_attempt_at

    assert (job.status, job.error_message) == ("failed", "Its worker died.")


def test_a_worker_that_wakes_up_after_its_lease_was_taken_records_nothing():
    make_plan()
    schedule.open_due_plans(TWO)
    job = runner.claim(BackupJob.objects.get().pk, owner="sleeper", now=TWO)
    mine = BackupJob.objects.filter(pk=job.pk, lease_owner="sleeper", status="in_progress")
    schedule.heal(TWO + timedelta(minutes=5))

    runner.finish(mine, "failed", "late", TWO + timedelta(minutes=6))

    job.refresh_from_db()
    assert (job.status, job.error_message) == ("queued", "Its worker died.")


def test_retention_keeps_the_newest_verified_the_held_and_the_young():
    plan = make_plan()
    old, held, newest = (make_backup(plan, TWO - timedelta(days=days)) for days in (90, 80, 40))
    BackupJob.objects.filter(pk=held.pk).update(legal_hold=True)
    with runner.storage() as place:
        for job in (old, held, newest):
            place.write_bytes(job.object_path, b"object")
            place.write_bytes(job.sidecar_path, b"sidecar")

    assert schedule.clean_up(TWO) == 1
    assert schedule.clean_up(TWO) == 0

    old.refresh_from_db()
    assert old.object_deleted_at == TWO
    with runner.storage() as place:
        assert not place.exists(old.object_path)
        assert not place.exists(old.sidecar_path)
        assert place.exists(held.object_path)
        assert place.exists(newest.object_path)


def test_the_stop_switch_stops_deletion():
    plan = make_plan()
    make_backup(plan, TWO - timedelta(days=90))
    make_backup(plan, TWO - timedelta(days=1))
    set_stop_switch(on=True, reason="looking into it", actor=Actor.automation("test"))

    assert schedule.clean_up(TWO) == 0


def test_the_monthly_drill_opens_once_on_the_newest_verified_backup():
    plan = make_plan()
    make_backup(plan, TWO - timedelta(days=2))
    newest = make_backup(plan, TWO - timedelta(days=1))
    sunday = datetime(2026, 3, 29, 4, 0, tzinfo=UTC)

    assert schedule.open_due_drills(sunday - timedelta(seconds=1)) == 0
    assert schedule.open_due_drills(sunday) == 1
    assert schedule.open_due_drills(sunday + timedelta(minutes=1)) == 0

    row = Restore.objects.get()
    assert (row.kind, row.backup, row.status) == ("drill", newest, "queued")
    assert row.schema.startswith("pulsewatch_drill_")


def test_a_lost_message_is_sent_again(monkeypatch):
    make_plan()
    schedule.open_due_plans(TWO)
    sent = []
    monkeypatch.setattr(schedule, "wake", lambda task, key: sent.append((task, key)))
    later = datetime.now(UTC) + timedelta(minutes=10)

    schedule.wake_waiting(datetime.now(UTC))
    assert sent == [], "the first message may still be on its way"
    schedule.wake_waiting(later)
    assert sent == [("backups.run", BackupJob.objects.get().pk)]


def test_a_drill_whose_worker_died_runs_once_more_and_a_restore_does_not():
    backup = make_backup(make_plan(), TWO)
    drill = Restore.objects.open(backup, now=TWO, kind="drill", host=backup.database)
    other = Restore.objects.open(backup, now=TWO, kind="restore", host=backup.database, schema="copy")
    ends = []
    now = TWO
    for _ in range(2):
        for row in (drill, other):
            restorer.claim(row.pk, owner="worker", now=now)
        now += timedelta(minutes=5)
        schedule.heal(now)
        for row in (drill, other):
            row.refresh_from_db()
        ends.append((drill.status, other.status))

    assert ends == [("queued", "failed"), ("failed", "failed")]
    assert other.error_message == "Its worker died. Nothing was changed."


def test_what_a_backup_that_failed_for_good_left_is_removed_by_the_clean_up():
    plan = make_plan()
    schedule.open_due_plans(TWO)
    job = BackupJob.objects.get()
    path = "production/2026/03/02/half.sql.zst.enc"
    BackupJob.objects.update(status="failed", completed_at=TWO, object_path=path)
    with runner.storage() as place:
        place.write_bytes(path, b"half")

        schedule.clean_up(TWO)

        assert not place.exists(path)
    job.refresh_from_db()
    assert (job.object_path, job.object_deleted_at) == ("", None)
    assert plan.database.backups.count() == 1

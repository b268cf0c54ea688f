"""What dies, hangs or comes late while versions go out and back."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from django.db import DatabaseError, connection
from django.utils import timezone

from apps.backups.models import BackupJob
from apps.core import wake
from apps.core.errors import Conflict
from apps.deployments import records, runner, services, tasks
from apps.deployments.models import Deployment, FailedVersion, Gate
from apps.inventory.models import Workload
from apps.inventory.platforms.transport import Limits
from apps.inventory.platforms.webhook import Webhook
from apps.inventory.runner import platform_of
from tests.deployments.conftest import CI, started
from tests.factories import BackupJobFactory, BuildFactory, DatabaseFactory, WorkloadFactory
from tests.receiver import Trouble

pytestmark = pytest.mark.django_db


def out(workload: Workload, version: str) -> Deployment:
    """One that was completed, without a gate."""
    row = started(workload, version)
    records.end(row, status="completed", now=timezone.now(), text="told by the test")
    row.refresh_from_db()
    return row


@pytest.fixture
def rollback(watched: Workload) -> Deployment:
    """A rollback that waits for a worker."""
    out(watched, "v1.0.0")
    return services.rollback(deployment=out(watched, "v1.1.0"), reason="slow", actor=CI)


def test_an_end_before_the_start_is_refused_with_what_is_legal_and_changes_nothing(workload, sent):
    row = started(workload, status="queued")

    for end in (services.finish, services.fail):
        with pytest.raises(Conflict, match="is queued cannot become") as refused:
            end(deployment=row, actor=CI)
        assert refused.value.facts["legal"] == ["in_progress", "cancelled"]

    row.refresh_from_db()
    assert (row.status, row.completed_at, Gate.objects.count(), FailedVersion.objects.count()) == ("queued", None, 0, 0)
    assert sent == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine
def test_two_ends_at_once_begin_one_gate_and_a_third_after_the_verdict_is_refused(workload, sent):
    row, together = started(workload), threading.Barrier(2)

    def finish(_: int) -> str:
        together.wait()
        try:
            return services.finish(deployment=row, actor=CI).status
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(finish, range(2))) == ["in_progress", "in_progress"]

    assert row.steps.filter(kind="gate_started").count() == len(sent) == 1
    runner.look(row.pk, now=timezone.now() + timedelta(hours=1))
    row.refresh_from_db()
    ended = row.completed_at
    with pytest.raises(Conflict, match=f"has ended as {row.status}; nothing follows"):
        services.finish(deployment=row, actor=CI)
    row.refresh_from_db()
    assert (row.completed_at, row.steps.filter(kind="ended").count()) == (ended, 1)


@pytest.fixture
def sent(monkeypatch) -> list[tuple[str, str, float]]:
    found: list[tuple[str, str, float]] = []
    monkeypatch.setattr(wake, "_send", lambda task, key, seconds: found.append((task, key, seconds)))
    return found


def test_a_platform_that_never_answers_fails_the_rollback_and_frees_the_lock(watched, rollback, platform, monkeypatch):
    hurried = Limits(attempts=2, attempt_seconds=0.2, total_seconds=0.5)
    monkeypatch.setattr(runner, "platform_of", lambda workload: replace(platform_of(workload), limits=hurried))
    platform.plan[:] = [Trouble.NEVER]

    row = runner.roll_back(rollback.pk, now=timezone.now())

    assert row.status == "failed"
    assert row.error_message.endswith(".")
    watched.refresh_from_db()
    assert watched.change_lock is None
    row.undoes.refresh_from_db()
    assert row.undoes.rolled_back_by is None
    # It may be tried again: a new record.
    assert services.rollback(deployment=row.undoes, reason="once more", actor=CI).pk != row.pk


def dies(*_: object, **__: object) -> None:
    raise SystemExit


def test_a_worker_that_dies_while_it_asks_a_webhook_is_followed_by_one_that_asks_again_with_the_same_id(
    rollback, platform, monkeypatch, sent, django_capture_on_commit_callbacks
):
    now = timezone.now()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_record_rollback", dies)  # the platform has accepted, and nobody has written it down
        with pytest.raises(SystemExit):
            runner.roll_back(rollback.pk, now=now)
    assert runner.roll_back(rollback.pk, now=now + timedelta(seconds=80)) is None, "it may still be at work"

    later = now + timedelta(seconds=91)
    with django_capture_on_commit_callbacks(execute=True):
        runner.tick(later)
    assert ("deployments.roll_back", rollback.pk, 0) in sent
    row = runner.roll_back(rollback.pk, now=later)

    assert row.status == "rolled_back"
    assert runner.roll_back(rollback.pk, now=later + timedelta(hours=1)) is None
    assert len({request.headers["webhook-id"] for request in platform.requests}) == 1
    assert len(platform.requests) == 2
    assert row.steps.filter(text__startswith="The worker has died before it said how it ended").count() == 1


def test_a_platform_that_would_begin_anew_is_not_asked_again_when_a_worker_has_died_over_it(
    watched, rollback, platform, monkeypatch
):
    now = timezone.now()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_record_rollback", dies)
        with pytest.raises(SystemExit):
            runner.roll_back(rollback.pk, now=now)

    monkeypatch.setattr(Webhook, "repeatable", False)
    row = runner.roll_back(rollback.pk, now=now + timedelta(seconds=91))

    watched.refresh_from_db()
    assert (row.status, watched.change_lock, len(platform.requests)) == ("failed", None, 1)
    assert row.error_message.startswith("A worker died while it asked platform webhook, which may have begun")


def test_workers_that_die_again_and_again_over_a_rollback_end_it(watched, rollback, platform, monkeypatch):
    now = timezone.now()
    with monkeypatch.context() as patch:
        patch.setattr(runner, "_record_rollback", dies)
        for _ in range(runner.ASKED_AT_MOST):
            with pytest.raises(SystemExit):
                runner.roll_back(rollback.pk, now=now)
            now += timedelta(seconds=91)

    row = runner.roll_back(rollback.pk, now=now)

    watched.refresh_from_db()
    assert (row.status, watched.change_lock, len(platform.requests)) == ("failed", None, runner.ASKED_AT_MOST)
    assert row.error_message.startswith("3 workers died while they asked platform webhook")


def test_a_gate_whose_looks_break_off_each_time_ends_inconclusive_and_frees_the_lock(watched, platform, monkeypatch):
    row = services.finish(deployment=started(watched), actor=CI)
    began = Gate.objects.get(pk=row.pk).started_at
    monkeypatch.setattr(runner, "_faults", lambda *_: 1 / 0)

    minutes = 0
    while Gate.objects.running().exists():
        minutes += 1
        now = began + timedelta(minutes=minutes)
        assert minutes <= 5, "a window of a minute is over long ago"
        runner.tick(now)
        with suppress(ZeroDivisionError):
            runner.look(row.pk, now=now + timedelta(seconds=1))

    row.refresh_from_db()
    watched.refresh_from_db()
    gate = Gate.objects.get(pk=row.pk)
    assert minutes == 3
    assert (gate.verdict, row.status, row.health_check_passed) == ("inconclusive", "completed", False)
    assert gate.reasons == ["2 looks were begun, and the last ones came to no end: the log of the workers says why."]
    assert (watched.change_lock, platform.requests) == (None, [])


def test_one_gate_that_cannot_be_ended_keeps_no_other_one(watched, monkeypatch, caplog):
    other = WorkloadFactory(base_url="http://127.0.0.1:9")
    for workload in (watched, other):
        services.finish(deployment=started(workload), actor=CI)
    past = timezone.now() - timedelta(minutes=30)
    Gate.objects.update(started_at=past, next_look_at=past + timedelta(minutes=10))
    first = Gate.objects.due(timezone.now()).first()

    def refuse(gate: Gate, now: datetime) -> None:
        if gate == first:
            raise DatabaseError("no")
        give_up(gate, now)

    give_up = runner._give_up
    monkeypatch.setattr(runner, "_give_up", refuse)

    runner.tick(timezone.now())

    assert list(Gate.objects.running()) == [first]
    assert "could not be ended" in caplog.text


def test_a_rollback_nobody_was_woken_for_is_found_by_the_tick(
    rollback, sent, django_capture_on_commit_callbacks, platform
):
    with django_capture_on_commit_callbacks(execute=True):
        runner.tick(timezone.now())
    assert ("deployments.roll_back", rollback.pk, 0) in sent

    tasks.roll_back(rollback.pk)

    rollback.refresh_from_db()
    assert rollback.status == "rolled_back"


def test_a_version_that_was_rolled_back_needs_an_override(watched, rollback):
    tasks.roll_back(rollback.pk)

    assert {row.version for row in FailedVersion.objects.all()} == {"v1.1.0", "1.1.0"}
    with pytest.raises(Conflict, match=r"v1\.1\.0 failed on .*: slow Deploy another version, or give override_reason"):
        started(watched, "v1.1.0")
    started(watched, "v1.1.1")


def test_each_look_wakes_the_next_one_until_the_verdict(watched, sent, django_capture_on_commit_callbacks):
    row = started(watched)
    with django_capture_on_commit_callbacks(execute=True):
        services.finish(deployment=row, actor=CI)
    assert sent.pop() == ("deployments.gate", row.pk, 0)
    with django_capture_on_commit_callbacks(execute=True):
        tasks.gate(row.pk)
    task, key, seconds = sent.pop()
    assert (task, key) == ("deployments.gate", row.pk)
    assert 5 < seconds <= 10
    Gate.objects.filter(pk=row.pk).update(next_look_at=timezone.now())
    with django_capture_on_commit_callbacks(execute=True):
        tasks.gate(row.pk)
        tasks.gate(row.pk)  # twice
    assert [task for task, *_ in sent] == ["deployments.alarms"]
    row.refresh_from_db()
    assert row.status == "completed"


def test_a_gate_whose_workers_were_gone_for_hours_is_inconclusive_and_rolls_nothing_back(watched, platform):
    row = services.finish(deployment=started(watched), actor=CI)

    gate = runner.look(row.pk, now=timezone.now() + timedelta(hours=3))

    row.refresh_from_db()
    assert (gate.verdict, row.status, row.health_check_passed) == ("inconclusive", "completed", False)
    assert platform.requests == []


def test_a_queued_deployment_may_have_a_backup_taken_and_begins_once_one_is_verified(workload):
    Workload.objects.filter(pk=workload.pk).update(require_backup=True)
    workload.refresh_from_db()
    database = DatabaseFactory(service=workload.service, environment=workload.environment)

    row = started(workload, status="queued", backup=True)

    job = BackupJob.objects.get(database=database)
    assert job.triggered_by == "pre_deployment"
    with pytest.raises(Conflict, match="no verified backup"):
        services.begin(deployment=row, actor=CI)
    BackupJobFactory(database=database)
    assert services.begin(deployment=row, actor=CI).status == "in_progress"


def test_a_linked_build_settles_that_the_images_were_built(workload):
    build = BuildFactory(service=workload.service, build_status="success")

    row = started(workload, build=build)

    item = row.checklist_items.get(key="images_tested")
    assert (item.state, item.detail) == ("passed", f"{build.pk} succeeded")
    services.fail(deployment=row, actor=CI)
    told = started(workload, "v2.0.0", build=build, reported={"images_tested": "failed"})
    assert told.checklist_items.get(key="images_tested").state == "failed"  # CI knows better

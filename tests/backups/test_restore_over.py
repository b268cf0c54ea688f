"""Restoring over what is there: confirmed, saved first, and never by accident."""

import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.backups import restorer, runner, schedule, services
from apps.backups.choices import RestoreKind
from apps.backups.engines.sqlite import SQLiteEngine
from apps.backups.models import BackupJob, Restore
from apps.core import lease
from apps.core.errors import Conflict, Invalid
from apps.core.keys import new_keyset
from apps.core.models import AuditEntry
from apps.inventory.models import Database
from tests.backups.pipeline.product import ACTOR, OWNER, back_up, queued, register

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def kept_here(settings, tmp_path) -> Path:
    settings.BACKUP_STORAGE = str(tmp_path / "backups")
    settings.BACKUP_KEYSET = new_keyset()
    return tmp_path / "backups"


def write(file: Path, *rows: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS customers (name TEXT)")
        connection.execute("DELETE FROM customers")
        connection.executemany("INSERT INTO customers VALUES (?)", [(row,) for row in rows])


def read(file: Path) -> list[str]:
    with closing(sqlite3.connect(file)) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM customers ORDER BY 1")]


@pytest.fixture
def file(tmp_path) -> Path:
    write(tmp_path / "shop.sqlite3", "ada", "grace")
    return tmp_path / "shop.sqlite3"


@pytest.fixture
def shop(file: Path) -> Database:
    return register(f"sqlite:///{file}")


def asked(job: BackupJob, schema: object, **options: object) -> Restore:
    return services.request_restore(
        backup=job, actor=ACTOR, kind=RestoreKind.RESTORE, schema=str(schema), overwrite=True, **options
    )


def run(*words: str) -> None:
    call_command("backup", *words)


def test_what_is_there_is_backed_up_verified_and_only_then_replaced(shop, file):
    job = back_up(shop)
    write(file, "what was there")
    row = asked(job, file)

    done = restorer.restore(row.pk, owner=OWNER)

    assert (done.status, read(file)) == ("completed", ["ada", "grace"])
    safety = done.safety_backup
    assert (safety.triggered_by, safety.status, safety.integrity_check_passed) == ("pre_restore", "completed", True)
    # What was there is not lost: it comes back the same way.
    restorer.restore(asked(safety, file).pk, owner=OWNER)
    assert read(file) == ["what was there"]
    assert AuditEntry.objects.filter(action="backup.restore").first().after["overwrite"] is True


def test_when_what_is_there_cannot_be_backed_up_nothing_is_changed(shop, file, monkeypatch):
    job = back_up(shop)
    write(file, "what was there")
    row = asked(job, file)
    monkeypatch.setattr(runner, "prove", refuse)

    done = restorer.restore(row.pk, owner=OWNER)

    assert done.status == "failed"
    assert "could not be backed up first, so nothing was changed" in done.error_message
    assert done.error_message.endswith("Nothing was changed.")
    assert read(file) == ["what was there"]
    assert BackupJob.objects.filter(triggered_by="pre_restore").get().status == "failed"


def refuse(*_: object) -> None:
    raise runner.Unproven("The dump ended without its end marker.")


def test_a_restore_that_fails_halfway_names_the_backup_of_what_was_there(shop, file, monkeypatch):
    job = back_up(shop)
    row = asked(job, file)
    monkeypatch.setattr(restorer, "_load", lambda *_, **__: refuse())

    done = restorer.restore(row.pk, owner=OWNER)

    assert f"is not complete. What was there before is in {done.safety_backup_id}." in done.error_message


def test_a_worker_that_dies_before_the_target_was_touched_says_that_nothing_was_changed(shop, file):
    row = asked(back_up(shop), file)
    restorer.claim(row.pk, owner="gone", now=row.started_at)

    schedule.heal(row.started_at + 2 * lease.LENGTH)

    row.refresh_from_db()
    assert (row.status, row.error_message) == ("failed", "Its worker died. Nothing was changed.")


def test_a_cancelled_restore_stops_before_the_target_is_touched(shop, file, monkeypatch):
    job = back_up(shop)
    write(file, "what was there")
    row = asked(job, file)
    run_safety = restorer.back_up

    def cancelled_meanwhile(*words, **options):
        services.cancel(row, actor=ACTOR)
        return run_safety(*words, **options)

    monkeypatch.setattr(restorer, "back_up", cancelled_meanwhile)
    restorer.restore(row.pk, owner=OWNER)

    row.refresh_from_db()
    assert (row.status, row.error_message) == ("cancelled", "Cancelled. Nothing was changed.")
    assert read(file) == ["what was there"]


def test_without_confirmation_nothing_is_replaced_whatever_the_target_is_called(shop, file, tmp_path):
    job = back_up(shop)
    write(file, "what was there")
    link = tmp_path / "other-name.sqlite3"
    link.symlink_to(file)

    for name in ("shop", str(file), str(link)):
        with pytest.raises(CommandError, match="not empty"):
            run("restore", job.pk, "--to", name)
        with pytest.raises(CommandError, match="type its name when asked, or give --confirm shop"):
            run("restore", job.pk, "--to", name, "--overwrite", "--confirm", "production")
    assert read(file) == ["what was there"]
    assert not BackupJob.objects.filter(triggered_by="pre_restore").exists()

    run("restore", job.pk, "--to", str(link), "--overwrite", "--confirm", "shop")
    assert read(file) == ["ada", "grace"]


def test_only_a_registered_database_is_replaced(shop, tmp_path):
    job = back_up(shop)
    write(tmp_path / "stranger.sqlite3", "somebody else's")

    with pytest.raises(CommandError, match=r"no registered database, .* Register it first"):
        run("restore", job.pk, "--to", "stranger.sqlite3", "--overwrite", "--confirm", "stranger.sqlite3")
    assert read(tmp_path / "stranger.sqlite3") == ["somebody else's"]


def test_a_table_that_is_there_is_not_replaced(shop, file):
    job = back_up(shop)
    write(file, "what was there")

    with pytest.raises(CommandError, match="has a table customers, and it is not replaced"):
        run("restore", job.pk, "--to", "shop", "--table", "customers")
    assert read(file) == ["what was there"]
    run("restore", job.pk, "--to", "beside.sqlite3", "--table", "customers")
    assert read(file.with_name("beside.sqlite3")) == ["ada", "grace"]


def test_two_restores_into_one_target_and_a_backup_meanwhile_are_refused(shop, file, tmp_path):
    job = back_up(shop)
    asked(job, file)
    (tmp_path / "link.sqlite3").symlink_to(file)

    with pytest.raises(Conflict, match="Another restore into this target is under way"):
        asked(job, tmp_path / "link.sqlite3")
    with pytest.raises(Conflict, match="is writing to shop"):
        queued(shop)


def test_a_scheduled_backup_does_not_run_while_a_restore_writes(shop, file):
    done = back_up(shop)
    waiting = queued(shop)
    asked(done, file)

    runner.back_up(waiting.pk, owner=OWNER)

    waiting.refresh_from_db()
    assert (waiting.status, waiting.retry_count) == ("queued", 1)
    assert "a backup taken meanwhile would be of half of it" in waiting.error_message


def test_bad_requests_are_one_sentence(shop, file):
    job = back_up(shop)

    with pytest.raises(Invalid, match="The backup holds no table orders"):
        services.request_restore(backup=job, actor=ACTOR, kind=RestoreKind.TABLE, schema="x", table="orders")
    with pytest.raises(Invalid, match="Name the schema"):
        services.request_restore(backup=job, actor=ACTOR, kind=RestoreKind.RESTORE)
    with pytest.raises(CommandError, match="There is no backup backup_2"):
        run("restore", "backup_2", "--to", "x")
    assert not Restore.objects.exists()


def test_a_worker_that_lost_its_lease_while_it_saved_what_is_there_changes_nothing(shop, file, monkeypatch):
    job = back_up(shop)
    write(file, "what was there")
    row = asked(job, file)
    save = restorer.back_up

    def held_up(*words, **options):
        done = save(*words, **options)
        schedule.heal(Restore.objects.get(pk=row.pk).lease_until + lease.LENGTH)  # the machine slept meanwhile
        return done

    monkeypatch.setattr(restorer, "back_up", held_up)

    assert restorer.restore(row.pk, owner=OWNER) is None
    row.refresh_from_db()
    assert (row.status, row.error_message) == ("failed", "Its worker died. Nothing was changed.")
    assert read(file) == ["what was there"]


def test_a_server_that_cannot_take_the_backup_is_left_as_it_is(shop, file, monkeypatch):
    job = back_up(shop)
    write(file, "what was there")
    monkeypatch.setattr(SQLiteEngine, "refuses", lambda self, server: f"{server} is not for this server.")

    done = restorer.restore(asked(job, file).pk, owner=OWNER)

    assert done.error_message.startswith("SQLite ")
    assert done.error_message.endswith("is not for this server. Nothing was changed.")
    assert (done.safety_backup, read(file)) == (None, ["what was there"])


def test_a_database_that_moved_since_a_restore_was_asked_for_is_left_alone(shop, file, tmp_path):
    job = back_up(shop)
    write(tmp_path / "moved.sqlite3", "elsewhere")
    row = asked(job, file)
    services.change_database(database=shop, actor=ACTOR, url=f"sqlite:///{tmp_path}/moved.sqlite3")

    done = restorer.restore(row.pk, owner=OWNER)

    assert "shop was moved after this restore" in done.error_message
    assert (read(file), read(tmp_path / "moved.sqlite3")) == (["ada", "grace"], ["elsewhere"])


def test_an_expired_backup_stays_while_a_restore_needs_it(shop, file, kept_here):
    old, _ = back_up(shop), back_up(shop)
    row = asked(old, file)
    later = old.retention_expires_at + timedelta(seconds=1)

    assert schedule.clean_up(later) == 0
    assert restorer.restore(row.pk, owner=OWNER).status == "completed"
    schedule.clean_up(later)
    assert not (kept_here / old.object_path).exists()

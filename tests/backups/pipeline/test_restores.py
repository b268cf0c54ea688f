"""A database of each kind is restored over itself, and what was there comes back the same way."""

import pytest

from apps.backups import restorer, services
from apps.backups.choices import RestoreKind
from apps.backups.engines.base import Engine
from apps.backups.models import BackupJob, Restore
from tests.backups.pipeline.product import ACTOR, OWNER, back_up, register, run, url_of

pytestmark = pytest.mark.django_db


def restored_over(job: BackupJob, schema: str) -> Restore:
    row = services.request_restore(backup=job, actor=ACTOR, kind=RestoreKind.RESTORE, schema=schema, overwrite=True)
    done = restorer.restore(row.pk, owner=OWNER)
    assert done is not None
    assert done.status == "completed", done.error_message
    return done


def test_a_database_is_restored_over_itself_and_what_was_there_comes_back(source: Engine) -> None:
    run(source, "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(20))")
    run(source, "INSERT INTO customers VALUES (1, 'ada')")
    database = register(url_of(source))
    job = back_up(database)
    run(source, "INSERT INTO customers VALUES (2, 'grace')", "CREATE TABLE newer (id INT)")

    done = restored_over(job, database.database_name)

    assert [row[0] for row in run(source, "SELECT name FROM customers")] == ["ada"]
    assert not source.has_table("newer")
    safety = done.safety_backup
    assert safety is not None
    assert (safety.triggered_by, safety.integrity_check_passed, len(safety.tables)) == ("pre_restore", True, 2)
    restored_over(safety, database.database_name)
    assert sorted(row[0] for row in run(source, "SELECT name FROM customers")) == ["ada", "grace"]
    assert source.has_table("newer")

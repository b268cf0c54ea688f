"""A rich schema of every kind goes the whole way and comes back digest for digest."""

import secrets
from collections.abc import Iterator

import pytest

from apps.backups import runner, s3
from apps.backups.engines.base import Engine
from apps.backups.models import BackupJob, Restore
from tests.backups import todo
from tests.backups.engines.postgresql import databases
from tests.backups.engines.sqlite import files
from tests.backups.mysql_schemas import event_states
from tests.backups.pipeline.product import back_up, before_the_second_dump, register, restored, run, stored_in, url_of
from tests.servers import SeaweedFS

pytestmark = pytest.mark.django_db

# Runs wherever it is enabled, and tells in which schema it did.
EVENT = "CREATE EVENT ticking ON SCHEDULE EVERY 1 SECOND DO INSERT INTO {log}.ticks VALUES (DATABASE())"


def build(engine: Engine) -> None:
    """The todo application's tables, and one of everything else that the engine knows."""
    match engine.address.engine:
        case "mysql":
            todo.build(url_of(engine), seed=11, size=0.3)
        case "postgresql":
            databases.execute(engine, databases.TODO)
        case "sqlite":
            engine.drop()
            files.built(files.Path(engine.address.database))


@pytest.fixture
def rich(source: Engine) -> Engine:
    build(source)
    return source


@pytest.fixture
def ticks(source: Engine) -> Iterator[Engine | None]:
    """A second schema, which an event of the first writes to once a second."""
    if source.address.engine != "mysql":
        yield None
        return
    log = source.at(f"log_{secrets.token_hex(4)}")
    log.create()
    run(log, "CREATE TABLE ticks (place VARCHAR(100))")
    run(source, EVENT.format(log=log.address.database))
    yield log
    log.drop()


def test_everything_comes_back_and_the_scratch_schema_goes(rich: Engine, ticks: Engine | None, monkeypatch) -> None:
    database = register(url_of(rich))
    job = back_up(database)
    assert (job.status, job.integrity_check_passed, job.error_message) == ("completed", True, None)
    assert len(job.tables) == rich.objects().tables
    seen: list[object] = []

    def look(scratch: Engine) -> None:
        seen.append(scratch.objects())
        if ticks:
            seen.append(set(event_states(scratch)))

    with before_the_second_dump(look, monkeypatch):
        row = restored(job)

    assert (row.status, row.equal, row.first_difference, row.error_message) == ("completed", True, "", None)
    assert row.tables == job.tables
    assert row.restore_seconds is not None
    assert seen == [rich.objects(), {"DISABLED"}] if ticks else seen == [rich.objects()]
    assert not rich.at(row.schema).exists()
    job.refresh_from_db()
    assert job.restore_tested
    if ticks:
        assert {place for (place,) in run(ticks, "SELECT place FROM ticks")} <= {rich.address.database}


ALTERED = {
    "mysql": ("UPDATE tasks SET title = CONCAT(title, '!') WHERE id = 3", "tasks"),
    "postgresql": ("UPDATE tasks SET title = title || '!' WHERE id = (SELECT max(id) FROM tasks)", "tasks"),
    "sqlite": ("UPDATE tasks SET title = title || '!' WHERE id = 3", "tasks"),
}


def test_a_row_altered_in_the_scratch_schema_fails_the_drill_which_names_the_table(rich: Engine, monkeypatch) -> None:
    job = back_up(register(url_of(rich)))
    change, table = ALTERED[rich.address.engine]
    # A trigger would write to another table as well, and the first by name would be named.
    if rich.address.engine != "postgresql":
        change = f"DROP TRIGGER {'tasks_after_update' if rich.address.engine == 'mysql' else 'tasks_done'}; {change}"

    with before_the_second_dump(lambda scratch: run(scratch, *change.split("; ")), monkeypatch):
        row = restored(job)

    assert (row.status, row.equal) == ("failed", False)
    assert row.first_difference.endswith(table)
    assert row.error_message == f"{row.first_difference} differs from the backup."
    assert not rich.at(row.schema).exists()
    job.refresh_from_db()
    assert not job.restore_tested


@pytest.mark.parametrize("source", ["MariaDB"], indirect=True)
def test_a_table_of_equal_rows_and_a_lost_view_are_told_apart(rich: Engine, monkeypatch) -> None:
    job = back_up(register(url_of(rich)))

    with before_the_second_dump(lambda scratch: run(scratch, "DROP VIEW a_busy_users"), monkeypatch):
        row = restored(job)

    assert (row.status, row.equal) == ("failed", False)
    assert row.first_difference.startswith("(views, routines")


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[SeaweedFS]:
    with SeaweedFS() as server:
        yield server


@pytest.mark.parametrize("days", [0, 2], ids=["plain", "locked"])
@pytest.mark.parametrize("source", ["MariaDB"], indirect=True)
def test_a_backup_in_s3_goes_round_and_a_locked_one_cannot_be_destroyed(
    rich: Engine, seaweedfs: SeaweedFS, settings, days: int
) -> None:
    keys = {"endpoint": seaweedfs.url, "access_key": seaweedfs.access_key, "secret_key": seaweedfs.secret_key}
    settings.BACKUP_STORAGE = f"s3://{'locked' if days else seaweedfs.bucket}/pulsewatch"
    settings.BACKUP_STORAGE_OPTIONS = {**keys, "object_lock_days": days}
    backend = s3.S3(bucket="locked", prefix="pulsewatch/", region="", object_lock_days=days, **keys)
    if days:
        backend.call("create_bucket", ObjectLockEnabledForBucket=True)

    job = back_up(register(url_of(rich)))
    row = restored(job)

    assert (job.status, row.status, row.equal) == ("completed", "completed", True)
    with runner.storage() as place:
        assert sorted(place.list()) == sorted([job.object_path, job.sidecar_path])
    if days:
        for path in (job.object_path, job.sidecar_path):
            head = backend.call("head_object", Key=f"pulsewatch/{path}")
            with pytest.raises(runner.PulsewatchError, match="refuses these S3 keys"):
                backend.call("delete_object", Key=f"pulsewatch/{path}", VersionId=head["VersionId"])
    backend.close()


@pytest.mark.parametrize("source", ["MariaDB"], indirect=True)
def test_a_restore_to_a_new_schema_brings_its_events_back_awake(rich: Engine, kept_here) -> None:
    job = back_up(register(url_of(rich)))
    copy = rich.at(f"copy_{secrets.token_hex(4)}")

    row = restored(job, copy.address.database, kind="restore")

    try:
        assert row.status == "completed"
        assert copy.objects() == rich.objects()
        assert sorted(event_states(copy)) == sorted(event_states(rich)) == ["DISABLED", "ENABLED"]
    finally:
        copy.drop()
    assert stored_in(kept_here) == sorted([job.object_path, job.sidecar_path])
    assert (BackupJob.objects.count(), Restore.objects.count()) == (1, 1)

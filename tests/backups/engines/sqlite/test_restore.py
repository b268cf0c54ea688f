"""Restoring SQLite over files that programs use, damaged ones, and one table only."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from apps.backups.engines import sqlite_reader, sqlite_restore
from apps.backups.engines.base import EngineError
from apps.backups.engines.sqlite import SQLiteEngine
from tests.backups.engines.sqlite.files import content, dumped, engine_at, execute, names_in, restore

# --- Restoring --------------------------------------------------------------------------------------------------------


def test_a_restore_over_a_database_keeps_its_rights_and_leaves_nothing_beside_it(
    database: SQLiteEngine, sample: bytes, tmp_path: Path
) -> None:
    path = Path(database.address.database)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 12345, 12345)
    execute(database, "DELETE FROM users")
    restore(database, sample)
    assert content(dumped(database)) == content(sample)
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o640, 12345 if os.geteuid() == 0 else os.geteuid())
    assert names_in(tmp_path) == {path.name} | {name for name in names_in(tmp_path) if name.endswith(("-wal", "-shm"))}


def test_a_new_database_is_only_its_owners(sample: bytes, tmp_path: Path) -> None:
    target = engine_at(tmp_path / "new")
    restore(target, sample)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600


def test_a_damaged_dump_leaves_the_target_as_it_was(database: SQLiteEngine, sample: bytes, tmp_path: Path) -> None:
    before = content(dumped(database))
    bad = bytearray(sample)
    bad[8192:12288] = bytes(4096)
    for data in (sample[:-1], sample[:5000], bytes(bad), b"no database", sample + b"x"):
        with pytest.raises(EngineError, match=r"The dump is damaged \(.*\); nothing was restored"):
            restore(database, data)
        with pytest.raises(EngineError, match="The dump is damaged"):
            restore(database, data, table="users")
    assert content(dumped(database)) == before
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_leaving_a_restore_early_leaves_the_target_as_it_was(
    database: SQLiteEngine, sample: bytes, tmp_path: Path
) -> None:
    before = content(dumped(database))
    with database.restore() as restoring:
        restoring.write(memoryview(sample))
    assert content(dumped(database)) == before
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_what_a_killed_restore_left_is_overwritten_by_the_next(sample: bytes, tmp_path: Path) -> None:
    (tmp_path / ".target.restoring").write_bytes(b"x" * (len(sample) + 5000))
    target = engine_at(tmp_path / "target")
    restore(target, sample)
    assert content(dumped(target)) == content(sample)
    assert ".target.restoring" not in names_in(tmp_path)


def test_two_restores_to_one_target_do_not_mix(database: SQLiteEngine, sample: bytes) -> None:
    with database.restore() as first:
        first.write(memoryview(sample))
        with pytest.raises(EngineError, match=r"Another restore to .* is running"):
            database.restore()
        first.finish()
    restore(database, sample)


@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_target_that_a_program_uses_is_not_replaced(
    database: SQLiteEngine, sample: bytes, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(sqlite_restore, "TARGET_SECONDS", 0.1)
    execute(database, f"PRAGMA journal_mode = {mode}", "INSERT INTO empty_table VALUES (7)")
    with closing(sqlite3.connect(database.address.database, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM users").fetchone()
        with pytest.raises(EngineError, match=r"is in use \(database is locked\); stop the programs"):
            restore(database, sample)
        other.execute("COMMIT")
        assert other.execute("SELECT * FROM empty_table").fetchall() == [(7,)]
    assert execute(database, "PRAGMA journal_mode") == [(mode.lower(),)]
    restore(database, sample)
    assert execute(database, "SELECT * FROM empty_table") == []


def test_a_log_left_beside_the_target_is_never_added_to_the_restored_file(
    database: SQLiteEngine, sample: bytes, tmp_path: Path
) -> None:
    path = Path(database.address.database)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("INSERT INTO empty_table VALUES (7)")
        log = Path(f"{path}-wal").read_bytes()
    Path(f"{path}-wal").write_bytes(log)  # as a killed program leaves it
    restore(database, sample)
    assert content(dumped(database)) == content(sample)

    path.unlink()
    Path(f"{path}-wal").write_bytes(log)
    with pytest.raises(EngineError, match=r"-wal lies beside a database that is not there; move it away"):
        restore(database, sample)


def test_a_target_that_is_damaged_itself_is_left_for_a_person_to_move(sample: bytes, tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"damaged" * 5000)
    with pytest.raises(EngineError, match=r"damaged itself \(file is not a database\); move it away"):
        restore(engine_at(tmp_path / "target"), sample)
    assert (tmp_path / "target").read_bytes() == b"damaged" * 5000


def test_a_missing_folder_is_said(database: SQLiteEngine) -> None:
    with pytest.raises(EngineError, match=r"The folder of .* does not exist; make it first"):
        database.at("nowhere/x").restore()


# --- One table --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "table", ["tasks", "subtasks", "task_tags", 'Größe " ☃; -- x', "anything", "no_key", "empty_table"]
)
def test_one_table_comes_back_as_it_was_and_the_others_stay(database: SQLiteEngine, sample: bytes, table: str) -> None:
    data = dumped(database)
    name = sqlite_reader.quoted(table)
    execute(database, f"DELETE FROM {name}", f"ALTER TABLE {name} ADD COLUMN more", "DELETE FROM users")
    execute(database, "DROP TRIGGER IF EXISTS tasks_done", "DROP INDEX IF EXISTS tasks_open")
    restore(database, data, table=table)
    now, before = content(dumped(database)), content(data)
    assert now.tables[table] == before.tables[table]
    assert now.tables["users"] != before.tables["users"]
    assert now.complete
    empty = database.at("fresh")
    empty.create()
    restore(empty, data, table=table)
    assert content(dumped(empty)).tables[table] == before.tables[table]


def test_a_table_is_there_whatever_the_case_of_its_name(database: SQLiteEngine) -> None:
    assert database.has_table("TASKS")
    assert not database.has_table("task")


def test_the_counter_of_a_table_comes_back_with_it(database: SQLiteEngine) -> None:
    data = dumped(database)
    execute(database, "DROP TABLE tasks")
    restore(database, data, table="tasks")
    assert execute(database, "SELECT max(id), (SELECT seq FROM sqlite_sequence WHERE name = 'tasks') FROM tasks") == [
        (190, 200)
    ]


def test_a_table_that_is_virtual_or_not_there_is_refused_and_nothing_is_changed(database: SQLiteEngine) -> None:
    data = dumped(database)
    for table, said in (
        ("nowhere", "holds no table nowhere"),
        ("open_tasks", "holds no table"),
        ("notes", "is virtual"),
    ):
        with pytest.raises(EngineError, match=said):
            restore(database, data, table=table)
    assert content(dumped(database)) == content(data)


def test_a_table_is_not_restored_into_a_file_that_a_program_writes_to(
    database: SQLiteEngine, sample: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_restore, "TARGET_SECONDS", 0.1)
    with closing(sqlite3.connect(database.address.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(EngineError, match=r"Table users could not be restored into .*: database is locked"):
            restore(database, sample, table="users")


# --- Files ------------------------------------------------------------------------------------------------------------


def test_a_file_is_made_seen_and_dropped_with_those_beside_it(database: SQLiteEngine, tmp_path: Path) -> None:
    other = database.at("other")
    assert other.address.database == str(tmp_path / "other")
    assert not other.exists()
    assert not other.is_empty()
    other.create()
    assert other.exists()
    assert other.is_empty()
    assert (tmp_path / "other").stat().st_mode & 0o777 == 0o600
    with pytest.raises(EngineError, match="exists already"):
        other.create()
    execute(other, "CREATE TABLE t (a)")
    assert not other.is_empty()
    for suffix in ("-wal", "-shm", "-journal"):
        Path(f"{tmp_path}/other{suffix}").touch()
    other.drop()
    assert not [name for name in names_in(tmp_path) if name.startswith("other")]
    other.drop()
    with pytest.raises(EngineError, match="cannot be made"):
        database.at("nowhere/x").create()

"""The SQLite engine on real files, while programs write to them and after programs died."""

import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.backups.engines import parse_url, sqlite, sqlite_reader, sqlite_restore
from apps.backups.engines.base import Content, EngineError, Objects
from apps.backups.engines.sqlite import SQLiteEngine

BLOCK = 1 << 20
TODO = """
CREATE TABLE users (id TEXT PRIMARY KEY, email VARCHAR(255) NOT NULL UNIQUE);
CREATE TABLE tasks (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT NOT NULL REFERENCES users(id),
    title VARCHAR(255) NOT NULL, is_completed BOOLEAN DEFAULT FALSE, due_date TIMESTAMP);
CREATE TABLE subtasks (id INTEGER PRIMARY KEY, parent_task_id INTEGER NOT NULL REFERENCES tasks(id) ON DELETE CASCADE,
    "order" INTEGER, doubled INTEGER GENERATED ALWAYS AS ("order" * 2) VIRTUAL,
    tripled INTEGER GENERATED ALWAYS AS ("order" * 3) STORED);
CREATE TABLE task_tags (task_id INTEGER, tag_id INTEGER, PRIMARY KEY (tag_id, task_id)) WITHOUT ROWID;
CREATE TABLE "Größe "" ☃; -- x" (a, "b ""c", rowid, _rowid_);
CREATE TABLE anything (value);
CREATE TABLE empty_table (a INTEGER);
CREATE TABLE no_key (a INTEGER, b TEXT);
CREATE VIRTUAL TABLE notes USING fts5(title, body);
CREATE VIRTUAL TABLE places USING rtree(id, x0, x1);
CREATE INDEX tasks_open ON tasks (user_id, due_date) WHERE NOT is_completed;
CREATE INDEX tasks_lower ON tasks (lower(title));
CREATE VIEW open_tasks AS SELECT * FROM tasks WHERE NOT is_completed;
CREATE TRIGGER tasks_done AFTER UPDATE ON tasks BEGIN
    DELETE FROM subtasks WHERE parent_task_id = NEW.id; SELECT 1; END;
CREATE TRIGGER view_insert INSTEAD OF INSERT ON open_tasks BEGIN SELECT 1; END;
INSERT INTO users SELECT 'user-' || value, value || '@example.com' FROM generate;
INSERT INTO tasks (user_id, title) SELECT 'user-' || value, 'Task 漢字 😀 '' " ' || value FROM generate;
DELETE FROM tasks WHERE id > 190;
INSERT INTO subtasks (id, parent_task_id, "order") SELECT value * 3, value % 190 + 1, -value FROM generate;
INSERT INTO task_tags SELECT value, 200 - value FROM generate;
INSERT INTO "Größe "" ☃; -- x" VALUES (1, 2, 3, 4), (1, 2, 3, 4);
INSERT INTO no_key SELECT value % 3, 'same' FROM generate;
DELETE FROM no_key WHERE _rowid_ % 7 = 0;
INSERT INTO notes SELECT 'note ' || value, 'full text of ' || value FROM generate;
INSERT INTO places SELECT value, value, value + 0.5 FROM generate;
INSERT INTO anything VALUES (NULL), (1), (1.0), ('1'), (x'31'), (9e999), (-9e999), (0.1), (-0.0), (''), (x''),
    (9223372036854775807), ('a' || char(0) || 'b'), (CAST(x'ff00fe' AS TEXT)), (zeroblob(100000)), (randomblob(200000));
ANALYZE;
PRAGMA user_version = 4711;
PRAGMA application_id = 123456;
"""


@pytest.fixture
def database(tmp_path: Path) -> SQLiteEngine:
    """A database with the todo application's data and one of everything else, in WAL mode."""
    return built(tmp_path / "app ?#%.sqlite3")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return dumped(built(tmp_path_factory.mktemp("sample") / "sample.sqlite3"))


def built(path: Path) -> SQLiteEngine:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TEMP TABLE generate (value INTEGER)")
        connection.executemany("INSERT INTO generate VALUES (?)", [(number,) for number in range(1, 201)])
        connection.executescript(TODO)
    return engine_at(path)


def engine_at(path: Path) -> SQLiteEngine:
    return SQLiteEngine(parse_url("sqlite:////x")).at(str(path))


def execute(engine: SQLiteEngine, *statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement, on a new connection."""
    with closing(sqlite3.connect(engine.address.database, isolation_level=None)) as connection:
        for statement in statements:
            found = connection.execute(statement).fetchall()
    return found


def dumped(engine: SQLiteEngine) -> bytes:
    with engine.dump() as dump:
        with os.fdopen(os.dup(dump.fileno()), "rb") as file:
            data = file.read()
        dump.finish()
    return data


def content(data: bytes, size: int = BLOCK) -> Content:
    reader = engine_at(Path(tempfile.gettempdir(), "x")).reader()
    for start in range(0, len(data), size):
        reader.feed(memoryview(data)[start : start + size])
    return reader.close()


def restore(engine: SQLiteEngine, data: bytes, table: str | None = None) -> None:
    with engine.restore(table=table) as restoring:
        for start in range(0, len(data), BLOCK):
            restoring.write(memoryview(data)[start : start + BLOCK])
        restoring.finish()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- Round trip -------------------------------------------------------------------------------------------------------


def test_a_restored_database_dumps_to_the_same_content(database: SQLiteEngine) -> None:
    first = dumped(database)
    scratch = database.at("scratch.sqlite3")
    restore(scratch, first)
    assert content(dumped(scratch)) == content(first)
    assert execute(scratch, "PRAGMA user_version", "PRAGMA application_id") == [(123456,)]
    assert execute(scratch, "SELECT title FROM notes WHERE notes MATCH 'of AND 77'") == [("note 77",)]
    assert execute(scratch, "SELECT count(*) FROM anything WHERE value IN (9e999, -9e999)") == [(2,)]


def test_the_dump_holds_as_many_objects_as_the_schema(database: SQLiteEngine) -> None:
    seen = content(dumped(database))
    assert seen.complete
    assert seen.objects == database.objects() == Objects(tables=18, views=1, triggers=2)
    assert {"tasks", "task_tags", 'Größe " ☃; -- x', "notes", "notes_data", "empty_table"} <= seen.tables.keys()


@pytest.mark.parametrize(
    ("change", "tables"),
    [
        ('UPDATE subtasks SET "order" = 8 WHERE id = 30', {"subtasks"}),
        ("UPDATE anything SET value = 1.0 WHERE typeof(value) = 'integer' AND value = 1", {"anything"}),
        ("UPDATE anything SET value = x'61' WHERE value = ''", {"anything"}),
        ("UPDATE anything SET value = '' WHERE value = x''", {"anything"}),
        ("UPDATE anything SET value = 'a' || char(0) || 'c' WHERE value = 'a' || char(0) || 'b'", {"anything"}),
        ("UPDATE anything SET value = zeroblob(99999) || x'01' WHERE value = zeroblob(100000)", {"anything"}),
        ("UPDATE anything SET value = CAST(value AS TEXT) WHERE value = zeroblob(100000)", {"anything"}),
        ("UPDATE anything SET value = 0.30000000000000004 - 0.2 WHERE value = 0.1", {"anything"}),
        ("UPDATE no_key SET _rowid_ = 1000 WHERE _rowid_ = 1", {"no_key"}),
        ("INSERT INTO task_tags VALUES (0, 0)", {"task_tags"}),
        ("INSERT INTO empty_table VALUES (NULL)", {"empty_table"}),
        ("DROP INDEX tasks_open", {"tasks"}),
        ("DROP TRIGGER tasks_done", {"tasks"}),
        ("ALTER TABLE tasks ADD COLUMN more", {"tasks"}),
        ("PRAGMA user_version = 1", set()),
        ("PRAGMA application_id = 1", set()),
        ("UPDATE sqlite_sequence SET seq = 1", set()),
        ("DROP VIEW open_tasks", set()),
    ],
)
def test_what_is_altered_is_named(database: SQLiteEngine, change: str, tables: set[str]) -> None:
    before = content(dumped(database))
    execute(database, change)
    after = content(dumped(database))
    assert {name for name in before.tables if before.tables[name] != after.tables[name]} == tables
    assert tables or before.other != after.other


def test_how_the_pages_lie_does_not_count(database: SQLiteEngine) -> None:
    before = dumped(database)
    execute(database, "PRAGMA journal_mode = DELETE", "PRAGMA page_size = 8192", "DROP TABLE IF EXISTS x", "VACUUM")
    after = dumped(database)
    assert before != after
    # VACUUM may number rows anew where no column is the row's number; those tables are altered indeed.
    one, other = content(before), content(after)
    assert {name for name in one.tables if one.tables[name] != other.tables[name]} <= {"no_key"}
    assert one.other == other.other


@settings(deadline=None, max_examples=15)
@given(st.integers(1, 300_000), st.randoms())
def test_the_content_does_not_depend_on_the_blocks(sample: bytes, size: int, chance: random.Random) -> None:
    size = chance.randint(1000, size + 1000)
    assert content(sample, size) == content(sample)


def test_a_file_cut_short_lengthened_or_damaged_is_incomplete(sample: bytes) -> None:
    assert content(sample).complete
    for cut in (1, 50, 99, 100, 1000, 4096, len(sample) // 2, len(sample) - 4096, len(sample) - 1):
        assert not content(sample[:cut]).complete, cut
    assert not content(sample + b"\0").complete
    assert not content(b"x" * len(sample)).complete
    assert not content(sample[:8192] + bytes(4096) + sample[12288:]).complete


def test_an_empty_database_goes_round(tmp_path: Path) -> None:
    empty = engine_at(tmp_path / "empty.sqlite3")
    empty.create()
    data = dumped(empty)
    seen = content(data)
    assert (seen.complete, seen.objects, seen.tables) == (True, Objects(), {})
    scratch = empty.at("scratch")
    restore(scratch, data)
    assert scratch.is_empty()


def test_an_utf_16_database_goes_round(tmp_path: Path) -> None:
    source = engine_at(tmp_path / "wide.sqlite3")
    execute(source, "PRAGMA encoding = 'UTF-16'", "CREATE TABLE t (a)", "INSERT INTO t VALUES ('漢字 😀')")
    scratch = source.at("scratch")
    restore(scratch, dumped(source))
    assert content(dumped(scratch)) == content(dumped(source))
    assert execute(scratch, "PRAGMA encoding") == [("UTF-16le",)]


def test_a_database_that_needs_functions_of_its_application_is_no_damaged_one(tmp_path: Path) -> None:
    source = engine_at(tmp_path / "app.sqlite3")
    with closing(sqlite3.connect(tmp_path / "app.sqlite3", isolation_level=None)) as connection:
        connection.create_function("regexp", 2, lambda pattern, text: True, deterministic=True)
        connection.create_collation("phone", lambda a, b: (a > b) - (a < b))
        connection.executescript(
            """CREATE TABLE plain (a);
            CREATE TABLE checked (a CHECK (a REGEXP 'x'));
            CREATE TABLE collated (a COLLATE phone PRIMARY KEY);
            CREATE INDEX by_match ON checked (a REGEXP 'y');
            INSERT INTO plain VALUES (1); INSERT INTO checked VALUES ('x'); INSERT INTO collated VALUES ('b'), ('a')"""
        )
    data = dumped(source)
    restore(source.at("copy"), data)
    assert content(dumped(source.at("copy"))) == content(data)
    assert content(data).complete
    (page,) = execute(source, "SELECT rootpage FROM sqlite_schema WHERE name = 'plain'")[0]
    assert isinstance(page, int)
    damaged = data[: 4096 * (page - 1)] + b"\xff" * 4096 + data[4096 * page :]
    assert not content(damaged).complete


def test_rows_that_break_a_constraint_are_backed_up_as_they_are(tmp_path: Path) -> None:
    source = engine_at(tmp_path / "app.sqlite3")
    with closing(sqlite3.connect(tmp_path / "app.sqlite3", isolation_level=None)) as connection:
        connection.executescript(
            """CREATE TABLE t (a INTEGER, b INTEGER); INSERT INTO t VALUES (NULL, 5); PRAGMA writable_schema = ON;
            UPDATE sqlite_schema SET sql = 'CREATE TABLE t (a INTEGER NOT NULL, b INTEGER CHECK (b < 3))'"""
        )
    data = dumped(source)
    assert content(data).complete
    restore(source.at("copy"), data)
    assert execute(source.at("copy"), "SELECT * FROM t") == [(None, 5)]


# --- Dumping ----------------------------------------------------------------------------------------------------------


def test_a_dump_under_concurrent_writes_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "busy.sqlite3"
    source = engine_at(path)
    execute(source, "PRAGMA journal_mode = WAL", "CREATE TABLE a (n)", "CREATE TABLE b (n)")
    writing = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
print("ready", flush=True)
number = 0
while True:
    number += 1
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO a VALUES (?)", [number])
    connection.execute("INSERT INTO b VALUES (?)", [number])
    connection.execute("COMMIT")
"""
    with subprocess.Popen([sys.executable, "-c", writing, path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"
            dumps = [dumped(source) for _ in range(20)]
            assert writer.poll() is None
        finally:
            writer.kill()
    counts = []
    for data in dumps:
        assert content(data).complete
        copy = engine_at(tmp_path / "copy")
        restore(copy, data)
        a, b = execute(copy, "SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)")[0]
        assert a == b
        counts.append(a)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_the_copy_has_no_name_and_is_only_its_owners(database: SQLiteEngine, tmp_path: Path) -> None:
    before = names_in(tmp_path)
    with database.dump() as dump:
        assert names_in(tmp_path) == before
        found = os.fstat(dump.fileno())
        assert (found.st_nlink, found.st_mode & 0o777) == (0, 0o600)
        assert found.st_dev == tmp_path.stat().st_dev
        dump.finish()


def test_a_source_folder_that_takes_no_file_sends_the_copy_to_the_temporary_folder(
    database: SQLiteEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert database._spool_folder() == tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert database._spool_folder() == temporary
    assert content(dumped(database)).complete


def test_what_a_program_wrote_before_it_died_is_in_the_dump_and_what_it_had_not_committed_is_not(
    tmp_path: Path,
) -> None:
    dying = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = " + sys.argv[2])
connection.execute("PRAGMA cache_size = 10")
connection.execute("CREATE TABLE t (a)")
connection.executemany("INSERT INTO t VALUES (?)", [(b"x" * 500,)] * 300)
connection.execute("BEGIN")
connection.execute("UPDATE t SET a = zeroblob(500)")
os.kill(os.getpid(), 9)
"""
    for mode in ("DELETE", "WAL"):
        source = engine_at(tmp_path / mode)
        done = subprocess.run([sys.executable, "-c", dying, source.address.database, mode], check=False)
        assert done.returncode == -signal.SIGKILL
        copy = source.at("copy")
        restore(copy, dumped(source))
        assert execute(copy, "SELECT DISTINCT a FROM t") == [(b"x" * 500,)]


def test_a_missing_locked_foreign_or_damaged_source_is_one_sentence(
    database: SQLiteEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.2)
    missing = database.at("missing")
    with pytest.raises(EngineError, match=r"There is no file .*missing; check the path"):
        missing.dump()
    assert not missing.exists()  # and none was made

    foreign = database.at("foreign")
    Path(foreign.address.database).write_bytes(b"no database at all" * 1000)
    with pytest.raises(EngineError, match=r"file is not a database\. The file is no SQLite database, or is encrypted"):
        foreign.dump()

    locked = database.at("locked")
    execute(locked, "CREATE TABLE t (a)")
    with closing(sqlite3.connect(locked.address.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EngineError, match=r"database is locked\. A program has locked it"):
            locked.dump()

    damaged = database.at("damaged")
    data = bytearray(dumped(database))
    data[8192:12288] = bytes(4096)
    Path(damaged.address.database).write_bytes(data)
    with pytest.raises(EngineError, match=r"damaged.*\.recover") as caught:
        damaged.dump()
    assert "\n" not in str(caught.value)
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_a_lock_taken_while_the_copy_waits_is_not_waited_for_forever(
    database: SQLiteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(database, "PRAGMA journal_mode = DELETE")
    with database._source() as source, closing(sqlite3.connect(database.address.database)) as other:
        source.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.05)
        spool = sqlite_reader.Spool(Path(tempfile.gettempdir()))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database._copy(source, spool)
        spool.close()


def test_a_full_disk_under_the_copy_is_said(database: SQLiteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    (finding,) = database.preflight().findings
    assert finding.level == "error"
    assert re.search(r"The copy needs 0\.\d MiB in .*, where 0\.0 MiB are free", finding.text)
    assert "TMPDIR" in finding.remedy


def test_preflight_tells_version_size_and_objects_and_warns_where_writers_wait(database: SQLiteEngine) -> None:
    seen = database.preflight()
    assert seen.findings == ()
    assert seen.server == seen.client == f"SQLite {sqlite3.sqlite_version}"
    assert seen.size_bytes >= Path(database.address.database).stat().st_size
    assert seen.objects == database.objects()
    execute(database, "PRAGMA journal_mode = DELETE")
    (warning,) = database.preflight().findings
    assert (warning.level, warning.remedy) == ("warning", "PRAGMA journal_mode = WAL;")
    assert database.notes()


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

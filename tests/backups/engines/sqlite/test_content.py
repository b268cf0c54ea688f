"""What a dump of SQLite carries, and what a restore brings back."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.backups.engines.base import Objects
from apps.backups.engines.sqlite import SQLiteEngine
from tests.backups.engines.sqlite.files import content, dumped, engine_at, execute, restore

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


@settings(max_examples=15)
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

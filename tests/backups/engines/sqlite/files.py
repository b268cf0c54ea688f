"""SQLite databases as files, and what the tests do with them: statements, dumps, restores."""

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from apps.backups.engines import parse_url
from apps.backups.engines.base import Content
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

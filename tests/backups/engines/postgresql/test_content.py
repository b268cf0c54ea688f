"""What a dump of PostgreSQL carries, and what a restore brings back."""

import pytest

from apps.backups.engines.base import Objects
from apps.backups.engines.postgresql import PostgreSQLEngine
from tests.backups.engines.postgresql.databases import content, dumped, execute, restore

# --- Round trip -------------------------------------------------------------------------------------------------------


def test_a_restored_database_dumps_to_the_same_content(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    first = dumped(todo)
    restore(scratch, first)
    assert content(dumped(scratch)) == content(first)


def test_the_dump_holds_as_many_objects_as_the_catalogue(todo: PostgreSQLEngine) -> None:
    seen = content(dumped(todo))
    assert seen.complete
    assert seen.objects == todo.objects() == Objects(tables=20, views=3, routines=4, triggers=4)


def test_every_table_with_rows_is_in_the_content_under_the_name_people_use(todo: PostgreSQLEngine) -> None:
    tables = content(dumped(todo)).tables
    assert {"tasks", "crm.clients", "Größe ☃; -- x", "no columns", "measured_2020", "unlogged"} <= tables.keys()
    assert all(tables[name].bytes > 0 for name in ("tasks", "unlogged", "measured_2020"))
    assert tables["empty_table"].bytes == 0
    assert not any(table.ordered for table in tables.values())


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ('UPDATE subtasks SET "order" = 8 WHERE id = 77', "subtasks"),
        ("DELETE FROM no_key WHERE ctid = (SELECT min(ctid) FROM no_key)", "no_key"),
        ("INSERT INTO empty_table VALUES (NULL)", "empty_table"),
        ("UPDATE crm.clients SET r = 16777218 WHERE name = 'nan'", "crm.clients"),
        ("ALTER TABLE tags ALTER name SET DEFAULT 'x'", "tags"),
        ("DROP INDEX tasks_open", "tasks"),
        ("DROP TRIGGER tasks_touch ON tasks", "tasks"),
        ("ALTER TABLE attachments DROP CONSTRAINT attachments_task_id_fkey", "attachments"),
        ("COMMENT ON COLUMN crm.clients.name IS 'altered'", "crm.clients"),
    ],
)
def test_what_is_altered_after_a_restore_is_named(
    todo: PostgreSQLEngine, scratch: PostgreSQLEngine, change: str, table: str
) -> None:
    first = dumped(todo)
    restore(scratch, first)
    execute(scratch, change)
    before, after = content(first), content(dumped(scratch))
    assert [name for name in before.tables if before.tables[name] != after.tables[name]] == [table]
    assert before.other == after.other


@pytest.mark.parametrize(
    "change",
    [
        "SELECT nextval('free')",
        "CREATE OR REPLACE VIEW writable AS SELECT a FROM empty_table WHERE a > 0",
        "CREATE OR REPLACE PROCEDURE quiet() LANGUAGE sql AS 'SELECT 2'",
        "ALTER TYPE mood ADD VALUE 'new'",
        "SELECT lo_put((SELECT min(oid) FROM pg_largeobject_metadata), 70000, 'x')",
        """CREATE OR REPLACE FUNCTION sql_standard(a integer) RETURNS integer LANGUAGE sql
        BEGIN ATOMIC SELECT a + 1; SELECT a; END""",
    ],
)
def test_a_change_outside_tables_shows_in_what_is_not_of_tables(todo: PostgreSQLEngine, change: str) -> None:
    before = content(dumped(todo))
    execute(todo, change)
    after = content(dumped(todo))
    assert before.tables == after.tables
    assert before.other != after.other


def test_rows_in_another_order_are_the_same_content(todo: PostgreSQLEngine) -> None:
    first = dumped(todo)
    execute(todo, "UPDATE messages SET content = content WHERE id % 2 = 0")
    execute(todo, "VACUUM FULL messages")
    second = dumped(todo)
    rows = [data.split(b"COPY public.messages ")[1].split(b"\n\\.\n")[0] for data in (first, second)]
    assert rows[0] != rows[1]
    assert sorted(rows[0].splitlines()) == sorted(rows[1].splitlines())
    assert content(first) == content(second)


def test_large_objects_keep_their_numbers_and_bytes(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    restore(scratch, dumped(todo))
    query = "SELECT oid, md5(lo_get(oid)) FROM pg_largeobject_metadata ORDER BY oid"
    assert execute(scratch, query) == execute(todo, query) != []


def test_warnings_that_a_restore_sets_off_do_not_fail_it(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    execute(
        todo,
        """CREATE FUNCTION loud(a integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
        $$ BEGIN RAISE WARNING 'error: could not do it, it failed'; RETURN true; END $$;
        CREATE TABLE checked (a integer CHECK (public.loud(a)));
        INSERT INTO checked VALUES (1)""",
    )
    data = dumped(todo)
    restore(scratch, data)
    assert content(dumped(scratch)) == content(data)

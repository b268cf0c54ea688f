"""Dump and restore on a real MariaDB and a real MySQL, each through its own vendor's clients."""

import re
import secrets
from dataclasses import replace

import pytest

from apps.backups.engines import parse_url
from apps.backups.engines.base import Content, EngineError, Objects
from apps.backups.engines.mysql import MySQLEngine
from tests.backups import todo
from tests.backups.mysql_schemas import dump, event_states, restore, run, wait_until
from tests.servers import MariaDB, MySQL

Server = MariaDB | MySQL


# ---- The round trip --------------------------------------------------------------------------------------------------


def test_a_restored_schema_dumps_to_the_same_content(todo_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    data, content = dump(todo_schema)
    restore(scratch, data)
    _, again = dump(scratch)

    assert content.complete
    assert content.objects == todo_schema.objects() == scratch.objects()
    assert set(todo.TODO_TABLES) < set(content.tables)
    assert again == content


def test_what_the_todo_schema_holds_is_all_counted(todo_schema: MySQLEngine, server: Server) -> None:
    ours = Objects(len(todo.TODO_TABLES) + todo.EXTRA_TABLES, todo.VIEWS, todo.ROUTINES, todo.TRIGGERS, todo.EVENTS)
    if isinstance(server, MariaDB):  # a sequence, a package and its body
        ours = replace(ours, tables=ours.tables + 1, routines=ours.routines + 2)

    assert dump(todo_schema)[1].objects == ours


def test_restored_rows_are_the_same_bytes(todo_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    restore(scratch, dump(todo_schema)[0])

    for table in (*todo.TODO_TABLES, "binary_values", "lookalikes", "many_types", "имя ☃ 表", "tick`ed -- /* name"):
        query = "SELECT * FROM `" + table.replace("`", "``") + "` ORDER BY 1, 2"
        assert run(scratch, query) == run(todo_schema, query), table
    assert run(scratch, "SELECT LENGTH(medium) FROM binary_values WHERE id = 1") == [(10_240,)]


def test_binary_values_are_written_in_hexadecimal(todo_schema: MySQLEngine) -> None:
    """As text they would pass through the character sets of every client on the way."""
    assert b"0x000102030405060708" in dump(todo_schema)[0]


def test_a_row_longer_than_the_clients_own_limit_is_dumped_and_restored(servers: dict[str, Server]) -> None:
    if "MySQL" not in servers:  # MariaDB's own limit is in the way of such a row by default
        pytest.skip(MySQL.unavailable_reason() or "")
    engine = MySQLEngine(parse_url(servers["MySQL"].url)).at(f"row_{secrets.token_hex(4)}")
    engine.create()
    try:
        run(engine, "CREATE TABLE b (a LONGBLOB)", "INSERT INTO b VALUES (REPEAT('x', 27000000))")
        data, content = dump(engine)
        restore(engine, data)
        assert dump(engine)[1] == content
    finally:
        engine.drop()


def test_two_dumps_of_the_same_data_are_equal_bytes(todo_schema: MySQLEngine) -> None:
    assert dump(todo_schema)[0] == dump(todo_schema)[0]


@pytest.mark.parametrize(
    ("change", "table"),
    [
        ("UPDATE messages SET content = CONCAT(content, ' ') WHERE id = 3", "messages"),
        ("DELETE FROM `no primary key` WHERE a = 2", "no primary key"),
        ("UPDATE binary_values SET bytes_300 = 0x00 WHERE id = 2", "binary_values"),
        ("ALTER TABLE subtasks ALTER `order` SET DEFAULT 5", "subtasks"),
        ("DROP TRIGGER subtasks_before_insert", "subtasks"),
        ("INSERT INTO empty_table VALUES (1, NULL)", "empty_table"),
    ],
)
def test_a_change_in_the_copy_is_seen_in_its_table_alone(
    todo_schema: MySQLEngine, scratch: MySQLEngine, change: str, table: str
) -> None:
    data, content = dump(todo_schema)
    restore(scratch, data)
    run(scratch, change)
    _, again = dump(scratch)

    assert [name for name in content.tables if content.tables[name] != again.tables[name]] == [table]
    assert again.other == content.other


@pytest.mark.parametrize(
    "change",
    [
        "CREATE OR REPLACE VIEW open_tasks AS SELECT id, user_id, title FROM tasks",
        "ALTER EVENT forget_old_messages ON SCHEDULE EVERY 2 DAY",
        "DROP FUNCTION shout",
    ],
)
def test_a_change_outside_the_tables_is_seen_too(todo_schema: MySQLEngine, scratch: MySQLEngine, change: str) -> None:
    data, content = dump(todo_schema)
    restore(scratch, data)
    run(scratch, change)
    _, again = dump(scratch)

    assert again.tables == content.tables
    assert again.other != content.other


def test_one_table_is_restored_with_its_triggers_and_the_others_are_left_alone(
    todo_schema: MySQLEngine, scratch: MySQLEngine
) -> None:
    data, content = dump(todo_schema)
    restore(scratch, data)
    run(scratch, "SET FOREIGN_KEY_CHECKS = 0", "DROP TABLE subtasks", "DELETE FROM tags")
    restore(scratch, data, table="subtasks")
    _, again = dump(scratch)

    assert [name for name in content.tables if content.tables[name] != again.tables[name]] == ["tags"]
    assert again.objects == content.objects


def test_a_table_with_a_difficult_name_is_restored_alone(todo_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    data, content = dump(todo_schema)
    for table in ("tick`ed -- /* name", "имя ☃ 表"):
        restore(scratch, data, table=table)

    assert dump(scratch)[1].tables == {table: content.tables[table] for table in ("tick`ed -- /* name", "имя ☃ 表")}


def test_a_table_that_the_dump_does_not_hold_is_refused(todo_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    data, _ = dump(todo_schema)

    with pytest.raises(EngineError, match="holds no table of that name"):
        restore(scratch, data, table="fake")
    assert scratch.is_empty()


def test_objects_made_under_another_collation_touch_no_other_schema(schema: MySQLEngine, scratch: MySQLEngine) -> None:
    """The dump surrounds them with ALTER DATABASE, which names the schema dumped."""
    run(
        schema,
        "CREATE TABLE t (a INT)",
        "CREATE PROCEDURE p() SELECT 1",
        "CREATE TRIGGER r BEFORE INSERT ON t FOR EACH ROW SET @a = 1",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO SELECT 1",
        "ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_swedish_ci",
    )
    data, content = dump(schema)
    run(schema, "ALTER DATABASE CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")
    restore(scratch, data)

    assert len(re.findall(rb"\nALTER DATABASE `", data)) == 6
    assert collation(schema) == "utf8mb4_bin"
    assert collation(scratch) == "latin1_swedish_ci"
    assert dump(scratch)[1] == content


def test_a_copy_is_made_with_the_collation_of_its_source(schema: MySQLEngine) -> None:
    run(schema, "ALTER DATABASE CHARACTER SET latin1 COLLATE latin1_german2_ci")
    copy = schema.at(schema.address.database + "_copy")
    copy.create()
    try:
        assert collation(copy) == "latin1_german2_ci"
    finally:
        copy.drop()


def collation(engine: MySQLEngine) -> object:
    return run(engine, "SELECT @@collation_database")[0][0]


def test_bodies_of_every_sql_mode_are_read_to_their_end(schema: MySQLEngine, scratch: MySQLEngine) -> None:
    run(
        schema,
        "CREATE TABLE t (a INT PRIMARY KEY, b INT) PARTITION BY RANGE (a) "
        "(PARTITION p0 VALUES LESS THAN (10) COMMENT = '\n--\n-- Table structure for table `fake`\n--\n')",
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
        r"CREATE PROCEDURE a() BEGIN SELECT '\', '--', 'x\'; /* ' */ -- it's" "\nSELECT 1; END",
        r"CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW BEGIN SET @x = '\'; SET @y = 'a\'; END",
        r"CREATE EVENT c ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01' DO BEGIN SET @x = '\'; SET @y = 'a\'; END",
        "SET sql_mode = 'ANSI_QUOTES'",
        'CREATE PROCEDURE d() BEGIN SELECT a AS "x", b AS "y;;" FROM t; END',
        "CREATE EVENT \"e\" ON SCHEDULE EVERY '1:30' HOUR_MINUTE STARTS '2037-01-01' ENDS '2037-02-01' DO SELECT \"a\"",
        "SET sql_mode = ''",
        "CREATE EVENT f ON SCHEDULE AT '2037-05-05 05:05:05' ON COMPLETION PRESERVE DISABLE ON SLAVE COMMENT 'it''s' "
        "DO SELECT 1",
        "CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW BEGIN /* it's */ SET @z = 'b'; -- it's\n SET @q = 1; END",
    )
    data, content = dump(schema)
    restore(scratch, data)

    assert content.objects == schema.objects() == Objects(tables=1, routines=2, triggers=2, events=3)
    assert content.complete
    assert dump(scratch)[1] == content


# ---- Events ----------------------------------------------------------------------------------------------------------


def test_restored_events_stay_asleep_and_woken_ones_run(schema: MySQLEngine, scratch: MySQLEngine) -> None:
    run(
        schema,
        "CREATE TABLE ticks (id INT AUTO_INCREMENT PRIMARY KEY)",
        "CREATE EVENT tick ON SCHEDULE EVERY 1 SECOND DO INSERT INTO ticks () VALUES ()",
    )
    data, content = dump(schema)
    awake = schema.at(scratch.address.database + "_awake")
    awake.create()
    try:
        restore(scratch, data, events=False)
        restore(awake, data, events=True)
        before = ticks(awake)
        wait_until(lambda: ticks(awake) >= before + 3)  # three seconds of a scheduler that works

        assert ticks(scratch) == rows_in(content, data)
        assert event_states(scratch) == ["DISABLED"]
        assert event_states(awake) == ["ENABLED"]
        assert dump(scratch)[1] == content
    finally:
        awake.drop()


def rows_in(content: Content, data: bytes) -> int:
    assert content.objects.events == 1
    rows = re.search(rb"INSERT INTO `ticks` VALUES([^;]*);", data)
    return rows[1].count(b"(") if rows else 0


def ticks(engine: MySQLEngine) -> int:
    return int(str(run(engine, "SELECT COUNT(*) FROM ticks")[0][0]))


# ---- Schemas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "back`tick``s", "☃ имя", "-rf", "a'b\"c", "semi;colon", "100%_"])
def test_a_schema_of_any_name_is_made_filled_dumped_and_dropped(schema: MySQLEngine, name: str) -> None:
    engine = schema.at(f"{name}{secrets.token_hex(3)}")
    assert not engine.exists()
    assert not engine.is_empty()
    engine.create()
    try:
        assert engine.is_empty()
        run(schema, "CREATE TABLE t (a INT)", "INSERT INTO t VALUES (1)")
        data, content = dump(schema)
        restore(engine, data)
        assert dump(engine)[1] == content
        assert not engine.is_empty()
        with pytest.raises(EngineError, match="1007"):
            engine.create()
    finally:
        engine.drop()
    assert not engine.exists()
    engine.drop()


def test_a_name_no_server_accepts_is_explained(schema: MySQLEngine) -> None:
    with pytest.raises(EngineError, match=r"The server refused .*1102.*Choose a schema name"):
        schema.at("trailing space ").create()
    for change in (schema.at("😀").create, schema.at("😀").drop):  # MySQL would take it for `?`
        with pytest.raises(EngineError, match="turns into"):
            change()


def test_a_restore_to_a_schema_that_does_not_exist_is_refused(schema: MySQLEngine) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        schema.at("nowhere_to_be_found").restore()

"""Restoring to other servers, as other users, one table only; making and dropping databases."""

from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from apps.backups.engines import parse_url, postgresql
from apps.backups.engines.base import EngineError, Objects
from apps.backups.engines.postgresql import PostgreSQLEngine
from tests.backups.engines.postgresql.databases import as_role, content, dumped, execute, restore
from tests.servers import PostgreSQL

# --- Restoring elsewhere ----------------------------------------------------------------------------------------------


def test_owners_and_privileges_come_back_where_the_roles_exist(
    todo: PostgreSQLEngine, scratch: PostgreSQLEngine, role: str
) -> None:
    execute(todo, f"ALTER TABLE tags OWNER TO {role}; GRANT SELECT ON users TO {role} WITH GRANT OPTION")
    execute(todo, f"SET ROLE {role}; GRANT SELECT ON users TO PUBLIC")
    execute(todo, f"ALTER DEFAULT PRIVILEGES IN SCHEMA crm GRANT SELECT ON TABLES TO {role}")
    restore(scratch, dumped(todo))
    query = (
        "SELECT relname, pg_get_userbyid(relowner), relacl::text FROM pg_class WHERE relname IN ('tags', 'users')"
        " UNION ALL SELECT 'default', pg_get_userbyid(defaclrole), defaclacl::text FROM pg_default_acl ORDER BY 1"
    )
    assert execute(scratch, query) == execute(todo, query)
    assert len(execute(todo, query)) == 3


def test_a_server_without_the_roles_and_tablespaces_takes_the_backup_all_the_same(
    todo: PostgreSQLEngine, role: str, tmp_path: Path
) -> None:
    execute(todo, "CREATE TABLESPACE fast LOCATION ''")
    execute(todo, f"CREATE SCHEMA theirs AUTHORIZATION {role}; ALTER TABLE tags OWNER TO {role}")
    execute(todo, f"GRANT SELECT ON users TO {role} WITH GRANT OPTION; ALTER TABLE tasks SET TABLESPACE fast")
    execute(todo, f"SET ROLE {role}; GRANT SELECT ON users TO PUBLIC")
    execute(todo, f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT SELECT ON TABLES TO PUBLIC")
    data = dumped(todo)
    assert b"SET default_tablespace = fast;" in data
    assert b"SET SESSION AUTHORIZATION" in data
    with PostgreSQL() as other:
        engine = PostgreSQLEngine(parse_url(other.url))
        restore(engine, data)
        assert content(dumped(engine)) == content(data)
    execute(todo, "ALTER TABLE tasks SET TABLESPACE pg_default")
    execute(todo, "DROP TABLESPACE fast")


def test_a_user_who_owns_the_database_restores_without_being_superuser(
    todo: PostgreSQLEngine, scratch: PostgreSQLEngine, role: str
) -> None:
    execute(todo, f"DROP SCHEMA crm CASCADE; CREATE TABLE theirs (a integer); ALTER TABLE theirs OWNER TO {role}")
    execute(todo, "SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    execute(scratch, f"ALTER DATABASE {scratch.address.database} OWNER TO {role}")
    data = dumped(todo)
    restore(as_role(scratch, role), data)
    assert content(dumped(scratch)) == content(data)


def test_settings_that_a_server_does_not_know_are_left_out(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    data = dumped(todo)
    newer = data.replace(b"SET lock_timeout = 0;", b"SET lock_timeout = 0;\nSET from_the_future = 0;")
    assert newer != data
    restore(scratch, newer)
    assert content(dumped(scratch)) == content(data)


@pytest.mark.parametrize("restricts", [True, False])
def test_a_dump_that_commands_psql_itself_is_refused(
    todo: PostgreSQLEngine, scratch: PostgreSQLEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restricts: bool
) -> None:
    monkeypatch.setattr(postgresql, "_restricts", lambda program: restricts)  # older ones do as they are told
    harm = tmp_path / "harm"
    data = dumped(todo)
    at = data.index(b"\n--\n-- Name: crm; Type: SCHEMA")
    with pytest.raises(EngineError, match="a command for psql itself"):
        restore(scratch, data[:at] + f"\n\\! touch {harm}\n".encode() + data[at:])
    assert scratch.is_empty()
    assert not harm.exists()
    restore(scratch, data)
    assert content(dumped(scratch)) == content(data)


def test_psql_itself_keeps_to_the_restriction_that_the_dump_asks_for(
    todo: PostgreSQLEngine, scratch: PostgreSQLEngine
) -> None:
    data = dumped(todo)
    at = data.index(b"\n--\n-- Name: crm; Type: SCHEMA")
    with pytest.raises(EngineError, match="psql ended with status 3"):
        restore(scratch, data[:at] + b"\n\\unrestrict guess\n" + data[at:])
    assert scratch.is_empty()


# --- One table --------------------------------------------------------------------------------------------------------


def test_one_table_comes_back_as_it_was_and_the_others_stay(todo: PostgreSQLEngine) -> None:
    data = dumped(todo)
    execute(
        todo, "UPDATE crm.clients SET name = name || '!'; DELETE FROM tags WHERE id = 20; INSERT INTO no_key VALUES (9)"
    )
    execute(todo, "SELECT setval('crm.clients_id_seq', 1)")
    after = content(dumped(todo))
    restore(todo, data, table="crm.clients")
    now = content(dumped(todo))
    assert now.tables["crm.clients"] == content(data).tables["crm.clients"] != after.tables["crm.clients"]
    assert {name: now.tables[name] for name in now.tables if name != "crm.clients"} == {
        name: after.tables[name] for name in after.tables if name != "crm.clients"
    }
    assert execute(todo, "SELECT nextval('crm.clients_id_seq')") == [(203,)]


@pytest.mark.parametrize("table", ["public.subtasks", "subtasks", "Größe ☃; -- x", 'public."Größe ☃; -- x"', "no_key"])
def test_one_table_of_any_name_is_restored_where_nothing_else_is(
    todo: PostgreSQLEngine, scratch: PostgreSQLEngine, table: str
) -> None:
    execute(scratch, "CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s'); CREATE DOMAIN positive AS integer")
    restore(scratch, dumped(todo), table=table)
    assert scratch.objects() == Objects(tables=1)
    (name,) = content(dumped(scratch)).tables
    assert name in table or table.endswith(f'"{name}"')
    if name == "subtasks":  # its foreign key, without the table it refers to, is the only thing that it lost
        assert execute(scratch, 'SELECT count(*), sum("order") FROM subtasks') == [(300, -45150)]
        assert execute(scratch, "SELECT nextval('subtasks_id_seq')") == [(301,)]
        assert execute(scratch, "SELECT conname FROM pg_constraint WHERE conrelid = 'subtasks'::regclass") == [
            ("subtasks_pkey",)
        ]


def test_every_table_is_found_under_the_name_its_dump_gives_it(scratch: PostgreSQLEngine) -> None:
    execute(scratch, 'CREATE SCHEMA "my.own"; CREATE SCHEMA sales; CREATE TABLE "my.own".t (a int)')
    execute(scratch, 'CREATE TABLE "a.b" (a int); CREATE TABLE "we""ird" (a int); CREATE TABLE sales."Orders" (a int)')
    names = content(dumped(scratch)).tables

    assert set(names) == {'"my.own".t', 'public."a.b"', 'we"ird', "sales.Orders"}
    assert [name for name in names if not scratch.has_table(name)] == []
    assert not scratch.has_table("weird")


def test_foreign_keys_and_triggers_come_with_a_table_where_they_can(todo: PostgreSQLEngine) -> None:
    before = content(dumped(todo))
    data = dumped(todo)
    execute(todo, "TRUNCATE task_activity; ALTER TABLE task_activity DROP CONSTRAINT task_activity_task_id_fkey")
    restore(todo, data, table="task_activity")
    execute(todo, "TRUNCATE empty_table; DROP TABLE heir; DROP VIEW writable")
    restore(todo, data, table="empty_table")
    after = content(dumped(todo))
    for name in ("task_activity", "empty_table"):
        assert after.tables[name] == before.tables[name]


def test_a_table_that_others_depend_on_is_not_replaced(todo: PostgreSQLEngine) -> None:
    before = content(dumped(todo))
    with pytest.raises(EngineError, match=r"other objects depend on it.*Restore the whole backup into a new database"):
        restore(todo, dumped(todo), table="users")
    assert content(dumped(todo)) == before


def test_a_table_that_is_not_in_the_dump_or_only_a_frame_is_refused(
    todo: PostgreSQLEngine, scratch: PostgreSQLEngine
) -> None:
    data = dumped(todo)
    with pytest.raises(EngineError, match="holds no table nowhere; nothing was restored"):
        restore(scratch, data, table="nowhere")
    with pytest.raises(EngineError, match="Table measured is partitioned"):
        restore(scratch, data, table="measured")
    assert scratch.is_empty()
    restore(scratch, data, table="measured_2020")
    assert execute(scratch, "SELECT count(*) FROM measured_2020") == [(30,)]


# --- Databases --------------------------------------------------------------------------------------------------------


def test_a_database_is_made_seen_and_dropped_with_its_connections(database: PostgreSQLEngine) -> None:
    other = database.at('odd "name"; DROP')
    assert not other.exists()
    assert not other.is_empty()
    other.create()
    assert other.exists()
    assert other.is_empty()
    with pytest.raises(EngineError, match="already exists"):
        other.create()
    for statement, undo in (
        ("CREATE SEQUENCE s", "DROP SEQUENCE s"),
        ("CREATE TYPE t AS ENUM ('a')", "DROP TYPE t"),
        ("CREATE SCHEMA s", "DROP SCHEMA s"),
        ("SELECT lo_create(4711)", "SELECT lo_unlink(4711)"),
    ):
        execute(other, statement)
        assert not other.is_empty()
        execute(other, undo)
    assert other.is_empty()
    address = other.address
    with psycopg.connect(
        host=address.host, port=address.port, user=address.user, password=address.password, dbname=address.database
    ):
        other.drop()
    assert not other.exists()
    other.drop()


def test_a_database_that_is_cleared_stays_closed_to_whom_it_was(database: PostgreSQLEngine, role: str) -> None:
    name = sql.Identifier(database.address.database).as_string()
    look = "SELECT datacl::text, pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    database.clear()
    assert execute(database, look)[0][0] is None  # nobody changed them
    execute(database, f"ALTER DATABASE {name} OWNER TO {role}; REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    execute(database, f"GRANT CONNECT ON DATABASE {name} TO pg_monitor WITH GRANT OPTION; CREATE TABLE t (a int)")
    before = execute(database, look)

    database.clear()

    assert execute(database, look) == before
    assert database.is_empty()


def test_a_new_database_has_the_encoding_and_collation_of_its_model(server: PostgreSQL) -> None:
    first = PostgreSQLEngine(parse_url(server.url))
    execute(first, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'")
    execute(first, "CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'")
    for name in ("latin", "icu"):
        model = first.at(name)
        execute(model, "CREATE TABLE words (w text); INSERT INTO words VALUES ('größer')")
        copy = PostgreSQLEngine(model.address).at(f"{name}_copy")
        copy.create()
        restore(copy, dumped(model))
        assert content(dumped(copy)) == content(dumped(model))
        query = (
            "SELECT encoding, datcollate, datctype, datlocprovider, daticulocale FROM pg_database"
            " WHERE datname = current_database()"
        )
        assert execute(copy, query) == execute(model, query)


def test_a_user_who_may_make_no_database_is_told_how(database: PostgreSQLEngine, role: str) -> None:
    with pytest.raises(EngineError, match=r"permission denied to create database\. ALTER ROLE … CREATEDB"):
        as_role(database, role).at("theirs").create()

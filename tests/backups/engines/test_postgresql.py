"""The PostgreSQL engine on a real server, through the real pg_dump and psql."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from apps.backups.engines import parse_url, postgresql
from apps.backups.engines.base import Content, EngineError, Objects
from apps.backups.engines.clients import DumpClient
from apps.backups.engines.postgresql import PostgreSQLEngine
from tests.servers import PostgreSQL, free_port

WAIT_SECONDS = 30  # for what takes well below a second on an idle machine
BLOCK = 1 << 20
TODO = Path(__file__).with_name("postgresql_todo.sql").read_text(encoding="utf-8")
LARGE = "CREATE TABLE large AS SELECT i, repeat(md5(i::text), 8) AS words FROM generate_series(1, 20000) i"  # 5 MB


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL("-c", "allow_in_place_tablespaces=on") as server:
        yield server


@pytest.fixture
def database(server: PostgreSQL) -> Iterator[PostgreSQLEngine]:
    """An empty database of the test's own, with a name that must be quoted."""
    engine = PostgreSQLEngine(parse_url(server.url)).at(f'Test "{secrets.token_hex(4)}" ☃')
    engine.create()
    yield engine
    engine.drop()


@pytest.fixture
def todo(database: PostgreSQLEngine) -> PostgreSQLEngine:
    """A database with the todo application's data and one of everything else."""
    execute(database, TODO)
    return database


@pytest.fixture
def scratch(database: PostgreSQLEngine) -> Iterator[PostgreSQLEngine]:
    """A second empty database."""
    engine = database.at(f"scratch_{secrets.token_hex(4)}")
    engine.create()
    yield engine
    engine.drop()


@pytest.fixture
def role(server: PostgreSQL) -> Iterator[str]:
    """A role without any privilege, which may sign in with its own name as password."""
    name = f"role_{secrets.token_hex(4)}"
    execute(PostgreSQLEngine(parse_url(server.url)), f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    return name  # stays until the server goes: other databases may still know it


def execute(engine: PostgreSQLEngine, statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement, on a new connection."""
    address = engine.address
    with psycopg.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        password=address.password,
        dbname=address.database,
        autocommit=True,
    ) as connection:
        cursor = connection.execute(statements.encode())
        while cursor.nextset():
            pass
        return cursor.fetchall() if cursor.description else []


def as_role(engine: PostgreSQLEngine, role: str) -> PostgreSQLEngine:
    return PostgreSQLEngine(replace(engine.address, user=role, password=role))


def read_all(dump: DumpClient) -> bytes:
    with os.fdopen(os.dup(dump.fileno()), "rb") as pipe:
        return pipe.read()


def dumped(engine: PostgreSQLEngine) -> bytes:
    with engine.dump() as dump:
        data = read_all(dump)
        dump.finish()
    return data


def content(data: bytes) -> Content:
    reader = PostgreSQLEngine(parse_url("postgresql://u:p@h/d")).reader()
    for start in range(0, len(data), BLOCK):
        reader.feed(memoryview(data)[start : start + BLOCK])
    return reader.close()


def restore(engine: PostgreSQLEngine, data: bytes, table: str | None = None) -> None:
    with engine.restore(table=table) as restoring:
        for start in range(0, len(data), BLOCK):
            restoring.write(memoryview(data)[start : start + BLOCK])
        restoring.finish()


def assert_dump_fails(engine: PostgreSQLEngine, said: str) -> None:
    with engine.dump() as dump:
        read_all(dump)
        with pytest.raises(EngineError, match=said):
            dump.finish()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


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


# --- Signing in -------------------------------------------------------------------------------------------------------


def test_no_process_shows_the_password_while_a_dump_runs(todo: PostgreSQLEngine) -> None:
    execute(todo, LARGE)
    with todo.dump() as dump:
        assert os.read(dump.fileno(), 1)  # it is signed in, and will wait for us: the table is larger than the pipe
        shown = b"".join(
            path.read_bytes()
            for name in ("cmdline", "environ")
            for path in (Path("/proc", str(dump.pid), name), *Path("/proc").glob(f"[0-9]*/{name}"))
            if path.exists() and is_readable(path)
        )
        assert b"pg_dump" in shown
        assert todo.address.password.encode() not in shown
        read_all(dump)
        dump.finish()


def is_readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:  # it has ended, or belongs to another user
        return False
    return True


def test_a_password_of_odd_characters_signs_in(server: PostgreSQL, database: PostgreSQLEngine, role: str) -> None:
    password = " a'b\"c\\d:e=f#g%h&i;j[k]é☃$"
    execute(database, f"ALTER ROLE {role} PASSWORD '{password.replace(chr(39), chr(39) * 2)}'")
    url = f"postgresql://{role}:{quote(password, safe='')}@127.0.0.1:{server.port}/{quote(database.address.database)}"
    engine = PostgreSQLEngine(parse_url(url))
    assert content(dumped(engine)).complete


def test_a_password_that_the_clients_cannot_be_given_is_refused_in_a_sentence(database: PostgreSQLEngine) -> None:
    for password in ("ends with a space ", "x" * 2000):
        engine = PostgreSQLEngine(replace(database.address, password=password))
        with pytest.raises(EngineError, match="The password in the database URL cannot be handed") as caught:
            engine._sign_in()
        assert password not in str(caught.value)


def test_a_wrong_password_is_one_sentence_without_it(database: PostgreSQLEngine) -> None:
    engine = PostgreSQLEngine(replace(database.address, password="wrong-and-secret"))
    with pytest.raises(EngineError, match=r"password authentication failed.*Check user and password") as caught:
        engine.preflight()
    assert "wrong-and-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_unknown_database_and_a_closed_port_are_said(database: PostgreSQLEngine) -> None:
    with pytest.raises(EngineError, match=r'database "nowhere" does not exist.*Check the database name'):
        database.at("nowhere").preflight()
    with pytest.raises(EngineError, match=r"onnection refused.*Check host and port"):
        PostgreSQLEngine(replace(database.address, port=free_port())).preflight()


def test_a_frozen_server_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "CONNECT_SECONDS", 2)  # libpq waits no shorter
    with PostgreSQL() as server:
        engine = PostgreSQLEngine(parse_url(server.url))
        server.freeze()
        with pytest.raises(EngineError, match=r"timeout expired.*Check host and port"):
            engine.preflight()
        server.thaw()
        assert engine.preflight().findings == ()


def test_a_server_without_tls_is_refused_where_the_url_demands_it(server: PostgreSQL) -> None:
    engine = PostgreSQLEngine(parse_url(f"{server.url}?sslmode=require"))
    with pytest.raises(EngineError, match=r"does not support SSL.*Check sslmode"):
        engine.preflight()
    program, _ = postgresql._client("pg_dump", 1)
    with DumpClient([str(program), "--no-password"], explain=postgresql._remedy, **engine._sign_in()) as dump:
        read_all(dump)
        with pytest.raises(EngineError, match=r"does not support SSL.*Check sslmode"):
            dump.finish()


def test_somebodys_own_password_file_and_variables_sign_nobody_in(
    server: PostgreSQL, database: PostgreSQLEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:*:{database.address.password}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    engine = PostgreSQLEngine(replace(database.address, password=""))
    with pytest.raises(EngineError, match=r"no password supplied.*Check user and password"):
        engine.preflight()


# --- Preflight --------------------------------------------------------------------------------------------------------


def test_preflight_tells_server_client_size_and_objects(todo: PostgreSQLEngine) -> None:
    seen = todo.preflight()
    assert seen.findings == ()
    assert seen.server.startswith("PostgreSQL 1")
    assert seen.client.startswith("pg_dump 1")
    assert seen.size_bytes > 5_000_000
    assert seen.objects == todo.objects()


def test_each_missing_privilege_comes_with_the_statement_that_grants_it(todo: PostgreSQLEngine, role: str) -> None:
    engine = as_role(todo, role)
    execute(todo, 'CREATE SCHEMA "My Schema"; CREATE TABLE "My Schema".t (a serial)')
    execute(todo, f"GRANT SELECT ON no_key TO {role}")
    findings = engine.preflight().findings
    said = [finding.text for finding in findings]
    assert "The user may not use schema crm." in said
    assert "The user may not use schema My Schema." in said
    assert any("may not read 1 tables of schema crm: clients." in text for text in said)
    assert any("tables of schema public:" in text and ", …" in text for text in said)
    assert any("sequences of schema public:" in text for text in said)
    assert any("1 of the large objects" in text for text in said)
    assert {finding.level for finding in findings} == {"error"}
    assert_dump_fails(engine, "permission denied")
    (policy,) = [finding for finding in findings if "BYPASSRLS" in finding.remedy]
    assert "Row-level security may hide rows of 1 tables of schema crm from the user: clients." in policy.text
    for finding in findings:
        if finding is not policy:
            execute(todo, finding.remedy)
    assert engine.preflight().findings == (policy,)
    assert_dump_fails(engine, r"row-level security.*BYPASSRLS")
    execute(todo, policy.remedy)
    assert engine.preflight().findings == ()
    assert content(dumped(engine)) == content(dumped(todo))


def test_an_older_pg_dump_is_refused_with_the_package_to_install(
    database: PostgreSQLEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 11.22 (Debian 11.22-1)'\n")
    old.chmod(0o755)
    monkeypatch.setattr(postgresql, "_FOLDERS", ())
    monkeypatch.setenv("PATH", f"{tmp_path}")
    major = execute(database, "SELECT current_setting('server_version_num')::integer / 10000")[0][0]
    expected = (
        rf"pg_dump 11\.22 is older than the server, PostgreSQL {major};.*apt-get install postgresql-client-{major}"
    )
    for act in (database.preflight, database.dump):
        with pytest.raises(EngineError, match=expected):
            act()
    old.unlink()
    with pytest.raises(EngineError, match=f"pg_dump is not installed here; .*postgresql-client-{major}"):
        database.dump()


def test_of_several_clients_the_one_nearest_to_the_server_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for version in ("14.9", "17.2", "16.4"):
        program = tmp_path / version / "bin" / "pg_dump"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'pg_dump (PostgreSQL) {version}'\n")
        program.chmod(0o755)
    monkeypatch.setattr(postgresql, "_FOLDERS", ((str(tmp_path), "*/bin"),))
    monkeypatch.setenv("PATH", "/nonexistent")
    assert [postgresql._client("pg_dump", major)[1] for major in (13, 14, 15, 17)] == ["14.9", "14.9", "16.4", "17.2"]


def test_notes_say_what_a_dump_leaves_out(todo: PostgreSQLEngine) -> None:
    execute(
        todo,
        "CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw;"
        "CREATE FOREIGN TABLE elsewhere (a integer) SERVER far",
    )
    name = todo.address.database.replace('"', '""')
    execute(todo, f'ALTER DATABASE "{name}" SET work_mem = 4096')
    execute(
        todo,
        "CREATE SUBSCRIPTION copy CONNECTION 'host=127.0.0.1' PUBLICATION p WITH (connect = false, slot_name = NONE)",
    )
    try:
        said = " ".join(todo.notes())
        assert content(dumped(todo)).objects == todo.objects()
        assert b"CREATE SUBSCRIPTION" not in dumped(todo)
    finally:
        execute(todo, "DROP SUBSCRIPTION copy")
    for words in (
        "Roles",
        "1 subscriptions",
        "1 foreign tables",
        "1 materialized",
        "2 extensions",
        "1 sets",
    ):
        assert words in said


# --- Interrupted ------------------------------------------------------------------------------------------------------


def test_a_killed_pg_dump_fails_the_dump(todo: PostgreSQLEngine) -> None:
    execute(todo, LARGE)
    with todo.dump() as dump:
        assert os.read(dump.fileno(), 1)
        os.kill(dump.pid, signal.SIGKILL)
        data = read_all(dump)
        with pytest.raises(EngineError, match="ended by signal 9"):
            dump.finish()
    assert not content(data).complete


def test_a_server_killed_in_the_middle_fails_the_dump_in_a_sentence() -> None:
    with PostgreSQL() as server:
        engine = PostgreSQLEngine(parse_url(server.url))
        execute(engine, LARGE)
        with engine.dump() as dump:
            assert os.read(dump.fileno(), 1)
            server.kill()
            data = read_all(dump)
            with pytest.raises(
                EngineError, match=r"pg_dump ended with status 1.*server closed the connection"
            ) as caught:
                dump.finish()
        assert server.url.split(":")[2].split("@")[0] not in str(caught.value)
        assert not content(b"-" + data).complete


def test_leaving_a_dump_early_ends_its_client(todo: PostgreSQLEngine) -> None:
    execute(todo, LARGE)
    with todo.dump() as dump:
        assert os.read(dump.fileno(), 1)
    assert not Path("/proc", str(dump.pid)).exists()


def test_a_dump_that_ends_early_restores_nothing(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    data = dumped(todo)
    for cut in (
        data.index(b"COPY public.tasks ") + 5000,
        data.index(b"ALTER TABLE ONLY"),
        data.rindex(b"-- PostgreSQL"),
    ):
        with pytest.raises(EngineError, match="ends before its end marker"):
            restore(scratch, data[:cut])
        assert scratch.is_empty()


def test_leaving_a_restore_early_undoes_it(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    data = dumped(todo)
    with scratch.restore() as restoring:
        restoring.write(memoryview(data))
    assert scratch.is_empty()


def test_a_killed_psql_fails_the_restore_and_undoes_it(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    execute(todo, LARGE)
    data = dumped(todo)
    with scratch.restore() as restoring:
        restoring.write(memoryview(data)[:BLOCK])
        os.kill(restoring._client.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="ended by signal 9"):
            restoring.write(memoryview(data)[BLOCK:])
    wait_until(scratch.is_empty)


def test_a_restore_that_fails_late_leaves_nothing_behind(todo: PostgreSQLEngine, scratch: PostgreSQLEngine) -> None:
    data = dumped(todo).replace(b"CREATE PUBLICATION changes", b"CREATE PUBLICATION changes changes")
    with pytest.raises(EngineError, match=r"psql ended with status 3.*syntax error"):
        restore(scratch, data)
    assert scratch.is_empty()


def test_a_database_that_holds_something_is_not_restored_over(todo: PostgreSQLEngine) -> None:
    before = content(dumped(todo))
    with pytest.raises(EngineError, match=r"already exists.*Restore into an empty database"):
        restore(todo, dumped(todo))
    assert content(dumped(todo)) == before


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

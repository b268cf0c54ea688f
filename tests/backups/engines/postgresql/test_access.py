"""Signing in to PostgreSQL, and what a user must be allowed."""

import os
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from apps.backups.engines import parse_url, postgresql
from apps.backups.engines.base import EngineError
from apps.backups.engines.clients import DumpClient
from apps.backups.engines.postgresql import PostgreSQLEngine
from tests.backups.engines.postgresql.databases import (
    LARGE,
    as_role,
    assert_dump_fails,
    content,
    dumped,
    execute,
    read_all,
)
from tests.servers import PostgreSQL, free_port

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

"""What is known before the first dump: privileges, clients, and what a dump cannot carry."""

import re
import secrets
import time
from pathlib import Path

import pytest

from apps.backups.engines import mysql, parse_url
from apps.backups.engines.base import EngineError
from apps.backups.engines.clients import CREDENTIALS, DumpClient, RestoreClient
from apps.backups.engines.mysql import MySQLEngine
from apps.backups.engines.mysql_clients import (
    CONNECT_SECONDS,
    Program,
    Version,
    client_for,
    client_version,
    defaults_file,
    dump_command,
    explain,
    restore_command,
    server_version,
)
from apps.backups.engines.mysql_grants import Grants, missing
from tests.backups.mysql_schemas import blocks_of, dump, read, restore, run, user_with
from tests.servers import MariaDB, MySQL, free_port

Server = MariaDB | MySQL


# ---- Preflight -------------------------------------------------------------------------------------------------------


def test_a_user_who_may_do_all_is_told_of_nothing_but_the_packet_size(todo_schema: MySQLEngine) -> None:
    found = todo_schema.preflight()

    assert [finding.level for finding in found.findings] == ["warning"]
    assert "max_allowed_packet is" in found.findings[0].text
    assert re.fullmatch(r"(MariaDB|MySQL) \d+\.\d+\.\d+", found.server)
    assert re.fullmatch(r"(mariadb-dump|mysqldump) \d+\.\d+\.\d+", found.client)
    assert found.size_bytes > 500_000
    assert found.objects == todo_schema.objects()


def test_a_user_with_exactly_what_a_dump_needs_dumps_all(todo_schema: MySQLEngine, server: Server) -> None:
    routines = "SELECT ON mysql.proc" if isinstance(server, MariaDB) else "SHOW_ROUTINE ON *.*"
    user = user_with(todo_schema, "SELECT, SHOW VIEW, TRIGGER, EVENT ON `{schema}`.*", routines)

    assert [finding for finding in user.preflight().findings if finding.level == "error"] == []
    assert dump(user)[1] == dump(todo_schema)[1]


@pytest.mark.parametrize("lacking", ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"])
def test_each_missing_privilege_is_named_with_the_statement_that_grants_it(
    todo_schema: MySQLEngine, server: Server, lacking: str
) -> None:
    rest = ", ".join({"SELECT", "SHOW VIEW", "TRIGGER", "EVENT", "INSERT"} - {lacking})
    routines = "SELECT ON mysql.proc" if isinstance(server, MariaDB) else "SHOW_ROUTINE ON *.*"
    user = user_with(todo_schema, f"{rest} ON `{{schema}}`.*", routines)
    (error,) = [finding for finding in user.preflight().findings if finding.level == "error"]

    assert error.text.startswith(f"{lacking} is missing")
    run(todo_schema, error.remedy)
    assert [finding for finding in user.preflight().findings if finding.level == "error"] == []


def test_routines_that_would_vanish_without_a_word_are_found_before(todo_schema: MySQLEngine) -> None:
    user = user_with(todo_schema, "SELECT, SHOW VIEW, TRIGGER, EVENT ON `{schema}`.*")
    _, content = dump(user)
    (error,) = [finding for finding in user.preflight().findings if finding.level == "error"]

    assert content.complete  # and status 0: nothing else tells
    assert content.objects.routines == 0
    assert content.objects != todo_schema.objects()
    assert "routines" in error.text
    run(todo_schema, error.remedy)
    assert dump(user)[1].objects == todo_schema.objects()


def test_a_user_who_sees_routines_but_not_their_text_fails_to_dump(todo_schema: MySQLEngine) -> None:
    user = user_with(todo_schema, "SELECT, SHOW VIEW, TRIGGER, EVENT, EXECUTE ON `{schema}`.*")

    with pytest.raises(EngineError):
        dump(user)


def test_an_unknown_schema_is_one_sentence(schema: MySQLEngine) -> None:
    with pytest.raises(EngineError, match="does not exist, or the user has no privilege on it"):
        schema.at("nowhere_to_be_found").preflight()


def test_a_server_that_does_not_answer_is_one_sentence() -> None:
    nobody = MySQLEngine(parse_url(f"mysql://me:secret-password@127.0.0.1:{free_port()}/shop"))

    with pytest.raises(
        EngineError, match=r"Cannot sign in to MySQL at 127\.0\.0\.1:\d+ \(2.*Check that the server runs"
    ):
        nobody.preflight()


def test_a_frozen_server_is_given_up_soon(mariadb: MariaDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mysql, "CONNECT_SECONDS", 1)
    engine = MySQLEngine(parse_url(mariadb.url))
    mariadb.freeze()
    start = time.monotonic()

    with pytest.raises(EngineError, match="Check that the server runs"):
        engine.preflight()
    assert time.monotonic() - start < CONNECT_SECONDS
    mariadb.thaw()


@pytest.mark.parametrize("mode", ["DISABLED", "PREFERRED", "REQUIRED"])
def test_a_server_with_tls_is_reached_in_every_mode(servers: dict[str, Server], mode: str) -> None:
    if "MySQL" not in servers:
        pytest.skip(MySQL.unavailable_reason() or "")
    engine = MySQLEngine(parse_url(f"{servers['MySQL'].url}?ssl_mode={mode}"))

    assert dump(engine)[1].complete


def test_a_server_without_tls_is_refused_where_tls_is_required(servers: dict[str, Server]) -> None:
    url = servers["MariaDB"].url

    assert dump(MySQLEngine(parse_url(f"{url}?ssl_mode=PREFERRED")))[1].complete
    with pytest.raises(EngineError, match="ssl_mode is REQUIRED and the server offers no TLS"):
        MySQLEngine(parse_url(f"{url}?ssl_mode=REQUIRED")).dump()
    with pytest.raises(EngineError, match="2026"):
        MySQLEngine(parse_url(f"{url}?ssl_ca=/etc/ssl/certs/ca-certificates.crt")).dump()
    with pytest.raises(EngineError, match="ssl_mode is none of"):
        MySQLEngine(parse_url(f"{url}?ssl_mode=maybe")).dump()


def test_an_unknown_authority_is_refused(servers: dict[str, Server]) -> None:
    if "MySQL" not in servers:
        pytest.skip(MySQL.unavailable_reason() or "")
    url = f"{servers['MySQL'].url}?ssl_mode=VERIFY_CA&ssl_ca=/etc/ssl/certs/ca-certificates.crt"

    with pytest.raises(EngineError, match=r"2026.*check ssl_mode and ssl_ca"):
        MySQLEngine(parse_url(url)).exists()


def test_what_a_dump_cannot_carry_is_said(schema: MySQLEngine, server: Server) -> None:
    run(
        schema,
        "CREATE TABLE rounded (a FLOAT)",
        "CREATE TABLE old_engine (a INT) ENGINE=MyISAM",
        "CREATE TABLE spotless (a DOUBLE)",
        "CREATE EVENT once ON SCHEDULE AT '2037-05-05 05:05:05' DO SELECT 1",
        f"CREATE PROCEDURE own() SELECT a FROM `{schema.address.database}`.spotless",
    )
    if isinstance(server, MariaDB):
        run(schema, "CREATE TABLE history (a INT) WITH SYSTEM VERSIONING")
    told = {
        words: [text for text in schema.notes() if words in text]
        for words in ("FLOAT", "history", "InnoDB", "NOT PRESERVE", "name this")
    }

    assert "rounded" in told["FLOAT"][0]
    assert "spotless" not in told["FLOAT"][0]
    assert told["InnoDB"][0].startswith("old_engine (not InnoDB)")
    assert "once" in told["NOT PRESERVE"][0]
    assert "own" in told["name this"][0]
    assert bool(told["history"]) == isinstance(server, MariaDB)
    assert dump(schema)[1].objects == schema.objects()


def test_a_float_is_rounded_by_the_dump_with_equal_digests(schema: MySQLEngine, scratch: MySQLEngine) -> None:
    """Why it must be said: nothing shows it."""
    run(schema, "CREATE TABLE f (a FLOAT)", "INSERT INTO f VALUES (16777216)")
    data, content = dump(schema)
    restore(scratch, data)

    assert dump(scratch)[1] == content
    assert run(scratch, "SELECT a = 16777216 FROM f") == [(0,)]


def test_a_name_with_a_line_break_is_refused(schema: MySQLEngine) -> None:
    run(schema, "CREATE TABLE `a\nb` (a INT)")

    assert schema.preflight().findings[0].level == "error"
    with pytest.raises(EngineError, match="holds a line break"):
        schema.dump()


def test_a_row_too_long_for_the_server_is_told_before_and_explained_after(
    servers: dict[str, Server], tmp_path: Path
) -> None:
    engine = MySQLEngine(parse_url(servers["MariaDB"].url)).at(f"packet_{secrets.token_hex(4)}")
    engine.create()
    try:
        run(engine, "CREATE TABLE b (a LONGBLOB)", "INSERT INTO b VALUES (REPEAT('x', 12000000))")
        data, _ = dump(engine)
        assert "a row of b" in engine.preflight().findings[0].text
        with pytest.raises(EngineError, match="max_allowed_packet"):
            restore(engine, data)
    finally:
        engine.drop()


# ---- Clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)",
            Version("MariaDB", "10.11.19"),
        ),
        ("mysqldump from 11.4.2-MariaDB, client 10.19 for debian-linux-gnu (x86_64)", Version("MariaDB", "11.4.2")),
        ("mysqldump  Ver 9.7.4-2 for Linux on x86_64 ((Debian))", Version("MySQL", "9.7.4")),
        (
            "/usr/bin/mysqldump  Ver 8.0.36 for Linux on x86_64 (MySQL Community Server - GPL)",
            Version("MySQL", "8.0.36"),
        ),
        ("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", Version("MySQL", "5.7.44")),
        ("busybox", None),
    ],
)
def test_a_client_is_known_by_its_version_not_by_its_name(text: str, version: Version | None) -> None:
    assert client_version(text) == version


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("10.11.19-MariaDB-0+deb12u1", "MariaDB 10.11.19"),
        ("5.5.5-10.6.5-MariaDB", "MariaDB 10.6.5"),
        ("8.4.3", "MySQL 8.4.3"),
        ("8.0.35-27", "MySQL 8.0.35"),
    ],
)
def test_a_server_is_known_by_its_version(text: str, version: str) -> None:
    assert str(server_version(text)) == version


def test_a_server_without_a_version_is_refused() -> None:
    with pytest.raises(EngineError, match="no other kind is supported"):
        server_version("TiDB")


def test_a_client_reads_our_option_file_and_no_other() -> None:
    program = Program(Path("mariadb"), Version("MariaDB", "10.11.19"))

    for command in (dump_command(program, "shop"), restore_command(program, "shop")):
        assert command[1] == f"--defaults-file={CREDENTIALS}"  # it counts as the first option only


def test_each_server_gets_its_own_vendors_client(server: Server) -> None:
    version = Version(server.name, "99.0.0")

    assert client_for(version, "dump").version.vendor == server.name
    assert client_for(version, "restore").version.vendor == server.name


def test_a_server_whose_vendors_client_is_missing_is_refused_with_the_remedy(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "MySQL" if isinstance(server, MariaDB) else "MariaDB"
    try:
        there = client_for(Version(other, "1.0.0"), "dump")
    except EngineError:
        pytest.skip(MySQL.unavailable_reason() or "")
    (tmp_path / "mysqldump").symlink_to(there.path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if not Path("/bin/mysqldump").exists() else str(tmp_path))
    engine = MySQLEngine(parse_url(server.url))

    with pytest.raises(EngineError, match=rf"The server is {server.name} .* needs {server.name}'s .*Install") as raised:
        engine.preflight()
    assert there.version.number in str(raised.value) or "no such program" in str(raised.value)


def test_mariadbs_client_would_write_dumps_that_mysql_cannot_restore(servers: dict[str, Server]) -> None:
    """Why the pair is refused: the dump ends well, marker and all."""
    if "MySQL" not in servers:
        pytest.skip(MySQL.unavailable_reason() or "")
    engine = MySQLEngine(parse_url(servers["MySQL"].url)).at(f"pair_{secrets.token_hex(4)}")
    engine.create()
    try:
        run(engine, "CREATE TABLE g (a INT, b INT AS (a + 1) STORED)", "INSERT INTO g (a) VALUES (1)")
        client = client_for(Version("MariaDB", "10.11.0"), "dump")
        with DumpClient(
            dump_command(client, engine.address.database), credentials=defaults_file(engine.address, client)
        ) as running:
            data = b"".join(blocks_of(running.fileno()))
            running.finish()
        assert read(engine, data).complete
        restoring = client_for(Version("MySQL", "9.0.0"), "restore")
        with RestoreClient(
            restore_command(restoring, engine.address.database),
            credentials=defaults_file(engine.address, restoring),
            explain=explain,
        ) as feeding:
            feeding.write(memoryview(data[data.index(b"-- M") :]))
            with pytest.raises(EngineError, match=r"3105.*made by MariaDB's client"):
                feeding.finish()
    finally:
        engine.drop()


# ---- Grants ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        (["GRANT ALL PRIVILEGES ON *.* TO `u`@`%` WITH GRANT OPTION"], True),
        (["GRANT SELECT, INSERT ON `shop`.* TO `u`@`%`"], True),
        (["GRANT SELECT ON `sh%`.* TO `u`@`%`"], True),
        (["GRANT SELECT ON `sho_`.* TO `u`@`%`"], True),
        ([r"GRANT SELECT ON `sho\_`.* TO `u`@`%`"], False),
        (["GRANT SELECT ON `shop`.`t` TO `u`@`%`"], False),
        (["GRANT SELECT (a, b) ON `shop`.* TO `u`@`%`"], False),
        (["GRANT USAGE ON *.* TO `u`@`%`"], False),
        (["GRANT `SELECT`@`%` TO `u`@`%`"], False),
        (["GRANT SELECT ON *.* TO `u`@`%`", "REVOKE SELECT ON `shop`.* FROM `u`@`%`"], False),
        (["GRANT SELECT ON *.* TO `u`@`%`", "REVOKE SELECT ON `mysql`.* FROM `u`@`%`"], True),
        ([], False),
    ],
)
def test_what_show_grants_says_is_understood(lines: list[str], allowed: bool) -> None:
    assert Grants(lines).allows("SELECT", "shop") is allowed


@pytest.mark.parametrize(
    ("version", "lines", "remedy"),
    [
        (Version("MySQL", "9.7.4"), ["GRANT SHOW_ROUTINE ON *.* TO `u`@`%`"], None),
        (Version("MySQL", "9.7.4"), ["GRANT SELECT ON `mysql`.* TO `u`@`%`"], "GRANT SHOW_ROUTINE ON *.* TO `u`@`%`;"),
        (Version("MySQL", "8.0.11"), ["GRANT SHOW_ROUTINE ON *.* TO `u`@`%`"], "GRANT SELECT ON *.* TO `u`@`%`;"),
        (Version("MySQL", "5.7.44"), ["GRANT SELECT ON `mysql`.`proc` TO `u`@`%`"], None),
        (Version("MariaDB", "10.11.19"), ["GRANT SELECT ON `mysql`.* TO `u`@`%`"], None),
        (Version("MariaDB", "11.4.2"), ["GRANT SHOW CREATE ROUTINE ON `shop`.* TO `u`@`%`"], None),
        (
            Version("MariaDB", "10.11.19"),
            ["GRANT USAGE ON *.* TO `u`@`%`"],
            "GRANT SELECT ON `mysql`.`proc` TO `u`@`%`;",
        ),
    ],
)
def test_what_reads_routines_depends_on_vendor_and_version(
    version: Version, lines: list[str], remedy: str | None
) -> None:
    everything = ["GRANT SELECT, SHOW VIEW, TRIGGER, EVENT ON `shop`.* TO `u`@`%`"]

    assert [finding.remedy for finding in missing(Grants([*everything, *lines]), version, "shop")] == (
        [] if remedy is None else [remedy]
    )

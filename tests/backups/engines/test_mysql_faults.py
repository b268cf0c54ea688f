"""Dumps and restores that fail, and what others may see of those that run."""

import fcntl
import os
import secrets
import signal
import struct
import termios
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from apps.backups.engines import mysql
from apps.backups.engines.base import EngineError
from apps.backups.engines.clients import DumpClient
from apps.backups.engines.mysql import MySQLEngine
from apps.backups.engines.mysql_clients import (
    client_for,
    defaults_file,
    dump_command,
    explain,
    server_version,
)
from tests.backups.mysql_schemas import (
    BLOCK,
    blocks_of,
    dump,
    event_states,
    read,
    restore,
    run,
    user_with,
    wait_until,
)
from tests.servers import MariaDB, MySQL

Server = MariaDB | MySQL


# ---- Dumps that fail -------------------------------------------------------------------------------------------------


def test_a_killed_dump_client_is_a_failed_dump(large_schema: MySQLEngine) -> None:
    with large_schema.dump() as running:
        os.read(running.fileno(), BLOCK)
        os.kill(running.pid, signal.SIGKILL)
        for _ in blocks_of(running.fileno()):
            pass
        with pytest.raises(EngineError, match="ended by signal 9"):
            running.finish()


def test_a_connection_lost_in_the_midst_is_a_failed_dump(large_schema: MySQLEngine) -> None:
    reader = large_schema.reader()
    with large_schema.dump() as running:
        reader.feed(memoryview(os.read(running.fileno(), BLOCK)))
        reading = (
            "SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT%large%' AND id <> CONNECTION_ID()"
        )
        wait_until(lambda: len(run(large_schema, reading)) == 1)
        run(large_schema, f"KILL {run(large_schema, reading)[0][0]}")
        for block in blocks_of(running.fileno()):
            reader.feed(memoryview(block))
        with pytest.raises(EngineError, match=r"ended with status 3.*The connection was lost"):
            running.finish()

    assert not reader.close().complete


def test_leaving_a_dump_ends_its_client(large_schema: MySQLEngine) -> None:
    with large_schema.dump() as running:
        os.read(running.fileno(), BLOCK)
        assert Path(f"/proc/{running.pid}").exists()

    assert not Path(f"/proc/{running.pid}").exists()


def test_a_broken_view_is_a_failed_dump_that_names_the_remedy(schema: MySQLEngine) -> None:
    run(schema, "CREATE TABLE t (a INT)", "CREATE VIEW v AS SELECT a FROM t", "DROP TABLE t")

    with pytest.raises(EngineError, match=r"(?s)ended with status.*1356.*repair or drop the view"):
        dump(schema)


def test_a_dump_cut_between_statements_restores_well_and_is_seen_to_be_cut(
    todo_schema: MySQLEngine, scratch: MySQLEngine
) -> None:
    data, content = dump(todo_schema)
    cut = data[: data.index(b"\n--\n-- Table structure for table `empty_table`") + 1]
    restore(scratch, cut)  # the client is content

    seen = read(todo_schema, cut)
    assert not seen.complete
    assert seen.objects != content.objects
    assert scratch.objects() != todo_schema.objects()


def test_a_dump_reaches_us_through_a_pipe_of_one_mebibyte(large_schema: MySQLEngine) -> None:
    with large_schema.dump() as running:
        first = os.read(running.fileno(), 1)
        held = [0]
        wait_until(lambda: held.append(waiting(running.fileno())) or held[-1] >= 900_000)

    assert first in b"-/"


def waiting(descriptor: int) -> int:
    """Bytes in a pipe."""
    return struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4))[0]


# ---- Secrets ---------------------------------------------------------------------------------------------------------


def test_no_credential_is_seen_in_any_process_while_a_dump_runs(large_schema: MySQLEngine) -> None:
    user = user_with(large_schema, "ALL ON *.*")
    secret = user.address.password.encode()
    with user.dump() as running:
        os.read(running.fileno(), BLOCK)
        seen = processes()
        assert running.pid in seen
        children = [pid for pid, text in seen.items() if secret in text or user.address.user.encode() in text]

    assert children == []


def processes() -> dict[int, bytes]:
    """What anybody may read of every process: its command line, and its environment where we may."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                found[int(folder.name)] = (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
    return found


def test_settings_of_this_user_and_its_environment_reach_no_client(
    todo_schema: MySQLEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, _ = dump(todo_schema)
    (tmp_path / ".my.cnf").write_text("[client]\nuser=nobody\n[mysqldump]\nno-data\n[mariadb-dump]\nno-data\n")
    for name, value in {
        "HOME": str(tmp_path),
        "MYSQL_PWD": "wrong",
        "LC_ALL": "tr_TR.UTF-8",
        "MYSQL_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)

    assert dump(todo_schema)[0] == data


@pytest.mark.parametrize(
    "password", ["p'\"w #\\;x", " lead", "trail ", "100%#!", "ümlaut😀", "\\n\\", "a=b", "'q'", '"q"']
)
def test_any_password_signs_in(schema: MySQLEngine, password: str) -> None:
    name = f"u_{secrets.token_hex(4)}"
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    run(schema, f"CREATE USER '{name}'@'%' IDENTIFIED BY '{escaped}'", f"GRANT ALL ON *.* TO '{name}'@'%'")
    engine = MySQLEngine(replace(schema.address, user=name, password=password))

    assert dump(engine)[1].complete


def test_a_wrong_password_is_one_sentence_without_it(schema: MySQLEngine) -> None:
    wrong = MySQLEngine(replace(schema.address, password="wrong-password-1"))

    with pytest.raises(EngineError, match=r"Cannot sign in.*1045.*Correct the user name or password") as raised:
        wrong.preflight()
    assert "wrong-password-1" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_a_password_changed_before_the_dump_starts_is_the_clients_own_complaint(schema: MySQLEngine) -> None:
    client = client_for(server_version(str(run(schema, "SELECT VERSION()")[0][0])), "dump")
    with DumpClient(
        dump_command(client, schema.address.database),
        credentials=defaults_file(replace(schema.address, password="wrong-password-2"), client),
        password="wrong-password-2",
        explain=explain,
    ) as running:
        assert os.read(running.fileno(), BLOCK) == b""
        with pytest.raises(EngineError, match=r"1045.*Correct the user name or password") as raised:
            running.finish()
    assert "wrong-password-2" not in str(raised.value)


# ---- Restores that fail ----------------------------------------------------------------------------------------------


def test_another_definer_is_explained(todo_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    data, _ = dump(todo_schema)
    user = user_with(scratch, "ALL ON `{schema}`.*")

    with pytest.raises(EngineError, match=r"1227.*objects of another DEFINER: restore as a user with") as raised:
        restore(user, data)
    assert user.address.password not in str(raised.value)


def test_an_error_in_the_midst_is_told_without_any_row(todo_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    data, _ = dump(todo_schema)
    broken = data.replace(b"INSERT INTO `tasks` VALUES", b"INSERT INTO `tasks` VALUESS", 1)

    with pytest.raises(EngineError, match="1064") as raised:
        restore(scratch, broken)
    assert len(str(raised.value)) < 500


def test_a_killed_restore_client_is_a_failed_restore(large_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    data, _ = dump(large_schema)
    with scratch.restore(events=False) as running:
        running.write(memoryview(data)[:BLOCK])
        os.kill(running.pid, signal.SIGKILL)
        with pytest.raises(EngineError, match="ended by signal 9"):
            running.write(memoryview(data)[BLOCK:])


def test_a_restore_that_is_left_does_not_look_finished(large_schema: MySQLEngine, scratch: MySQLEngine) -> None:
    data, _ = dump(large_schema)
    with scratch.restore() as running:
        running.write(memoryview(data)[: 4 * BLOCK])

    assert not Path(f"/proc/{running.pid}").exists()


@pytest.mark.parametrize(
    "line", [b"/*!999999\\- enable the sandbox mode */ \n", b"/*M!999999\\- enable the sandbox mode */ \n", b""]
)
def test_both_spellings_of_the_sandbox_line_are_kept_from_the_client(
    todo_schema: MySQLEngine, scratch: MySQLEngine, line: bytes
) -> None:
    data, content = dump(todo_schema)
    plain = data[data.index(b"-- M") :]
    restore(scratch, line + plain)

    assert dump(scratch)[1] == content == read(scratch, line + plain)


def test_a_dump_of_the_other_vendor_is_refused_before_anything_is_changed(
    todo_schema: MySQLEngine, scratch: MySQLEngine, server: Server
) -> None:
    data, _ = dump(todo_schema)
    vendors = {
        "MariaDB": b"-- MySQL dump 10.13  Distrib 9.7.4, for Linux (x86_64)\n",
        "MySQL": b"-- MariaDB dump 10.19  Distrib 10.11.19-MariaDB\n",
    }
    other = vendors[server.name] + data[data.index(b"--\n-- Host") :]

    with pytest.raises(EngineError, match="each writes what the other does not accept"):
        restore(scratch, other)
    assert scratch.is_empty()


def test_a_server_says_whose_dumps_it_refuses(todo_schema: MySQLEngine, server: Server) -> None:
    missing = todo_schema.at("not_there")  # asked before a schema is made, and when somebody has dropped it
    other = {"MariaDB": "MySQL 9.7.4", "MySQL": "MariaDB 10.11.19"}[server.name]

    assert missing.refuses(f"{server.name} 1.2.3") == ""
    assert missing.refuses(other).startswith(f"This is a backup of {other} and the server is {server.name}")


def test_a_schema_that_a_session_still_uses_is_not_waited_for_without_end(
    scratch: MySQLEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "LOCK_SECONDS", 1)
    run(scratch, "CREATE TABLE first (a INT PRIMARY KEY)", "CREATE TABLE used (a INT PRIMARY KEY)")
    with scratch._connection() as session:
        session.rows("BEGIN")
        session.rows(f"SELECT * FROM {mysql.quoted(scratch.address.database)}.used")

        with pytest.raises(EngineError, match=r"1205: .*Stop the programs that use"):
            scratch.clear()
    assert scratch.objects().tables == 2
    scratch.clear()
    assert scratch.is_empty()


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04" * 1000, b"DROP DATABASE mysql;\n" * 100])
def test_what_is_no_dump_is_refused(scratch: MySQLEngine, data: bytes) -> None:
    with pytest.raises(EngineError, match="This is no dump"):
        restore(scratch, data)


def test_an_event_written_in_an_unknown_way_is_not_restored_where_none_may_run(
    todo_schema: MySQLEngine, scratch: MySQLEngine
) -> None:
    data, _ = dump(todo_schema)

    with pytest.raises(EngineError, match="cannot be kept from running"):
        restore(scratch, data.replace(b"ON SCHEDULE EVERY 1 DAY", b"ON SCHEDULE EVERY ONE DAY"))
    assert event_states(scratch) == []

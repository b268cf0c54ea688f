"""pg_dump and psql while they or their server die."""

import os
import signal
from pathlib import Path

import pytest

from apps.backups.engines import parse_url
from apps.backups.engines.base import EngineError
from apps.backups.engines.postgresql import PostgreSQLEngine
from tests.backups.engines.postgresql.databases import (
    BLOCK,
    LARGE,
    content,
    dumped,
    execute,
    read_all,
    restore,
    wait_until,
)
from tests.servers import PostgreSQL

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

"""Databases on a private PostgreSQL, and what the tests do with them: statements, dumps, restores."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from apps.backups.engines import parse_url
from apps.backups.engines.base import Content, EngineError
from apps.backups.engines.clients import DumpClient
from apps.backups.engines.postgresql import PostgreSQLEngine

WAIT_SECONDS = 30  # for what takes well below a second on an idle machine
BLOCK = 1 << 20
TODO = Path(__file__).with_name("todo.sql").read_text(encoding="utf-8")
# 20 MB: more than sockets and pipes hold.
LARGE = "CREATE TABLE large AS SELECT i, repeat(md5(i::text), 8) AS words FROM generate_series(1, 80000) i"


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

"""Schemas on a real server, and what the tests do with them: statements, dumps, restores, users."""

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from urllib.parse import quote

from apps.backups.engines.base import Content
from apps.backups.engines.mysql import MySQLEngine
from tests.backups import todo

WAIT_SECONDS = 30  # for what takes well below a second on an idle machine
BLOCK = 1 << 20


def url_of(engine: MySQLEngine) -> str:
    at = engine.address
    return f"mysql://{at.user}:{quote(at.password, safe='')}@{at.host}:{at.port}/{quote(at.database, safe='')}"


def run(engine: MySQLEngine, *statements: str) -> list[tuple[object, ...]]:
    """Run statements in the schema; the rows of the last one."""
    rows: list[tuple[object, ...]] = []
    with closing(todo.connect(url_of(engine))) as connection:
        for statement in statements:
            rows = todo.execute(connection, statement)
    return rows


def blocks_of(descriptor: int) -> Iterator[bytes]:
    while block := os.read(descriptor, BLOCK):
        yield block


def dump(engine: MySQLEngine) -> tuple[bytes, Content]:
    reader = engine.reader()
    blocks = []
    with engine.dump() as running:
        for block in blocks_of(running.fileno()):
            reader.feed(memoryview(block))
            blocks.append(block)
        running.finish()
    return b"".join(blocks), reader.close()


def restore(engine: MySQLEngine, data: bytes, *, events: bool = False, table: str | None = None) -> None:
    with engine.restore(events=events, table=table) as running:
        for start in range(0, len(data), 100_000):
            running.write(memoryview(data)[start : start + 100_000])
        running.finish()


def read(engine: MySQLEngine, data: bytes) -> Content:
    reader = engine.reader()
    reader.feed(memoryview(data))
    return reader.close()


def user_with(engine: MySQLEngine, *grants: str) -> MySQLEngine:
    """The engine as a new user who has these privileges alone; `{schema}` stands for the schema."""
    name = f"u_{secrets.token_hex(4)}"
    password = "p'\"w #\\;" + secrets.token_hex(6)
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    run(engine, f"CREATE USER '{name}'@'%' IDENTIFIED BY '{escaped}'")
    for grant in grants:
        run(engine, f"GRANT {grant.format(schema=engine.address.database.replace('`', '``'))} TO '{name}'@'%'")
    return MySQLEngine(replace(engine.address, user=name, password=password))


def event_states(engine: MySQLEngine) -> list[object]:
    rows = run(engine, "SELECT status FROM information_schema.events WHERE event_schema = DATABASE()")
    return [state for (state,) in rows]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)

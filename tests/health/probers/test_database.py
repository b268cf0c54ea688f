"""Looks at real servers: well, frozen, gone, and with the wrong password."""

import asyncio
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from apps.health.probers import database
from apps.health.probers.database import Looker, Target
from apps.health.rules.checks import Look
from apps.inventory.addresses import Address, parse_url
from tests.servers import MariaDB, PostgreSQL, Redis, free_port


def look(address: Address, *, timeout: float = 5.0, times: int = 1) -> list[Look]:
    async def run() -> list[Look]:
        looker = Looker()
        try:
            return list(await asyncio.gather(*(looker.look(Target(address, timeout)) for _ in range(times))))
        finally:
            looker.close()

    return asyncio.run(run())


@pytest.fixture(scope="module", params=["mysql", "postgresql", "redis"])
def server(request):
    with {"mysql": MariaDB, "postgresql": PostgreSQL, "redis": Redis}[request.param]() as server:
        yield server


def test_a_server_that_is_well_tells_times_and_connections(server):
    (seen,) = look(parse_url(server.url))
    assert (seen.connection, seen.query, seen.failure) == ("connected", "success", "")
    assert seen.connect_ms is not None
    assert seen.connect_ms > 0
    assert seen.query_ms is not None
    assert seen.query_ms > 0
    assert seen.used is not None
    assert seen.limit is not None
    assert 0 < seen.used < seen.limit


def test_a_frozen_server_holds_up_neither_the_others_nor_the_loop(server):
    server.freeze()
    try:
        started = time.monotonic()
        seen = look(parse_url(server.url), timeout=1, times=3)
        assert time.monotonic() - started < 4
    finally:
        server.thaw()
    assert {one.connection for one in seen} == {"timeout"}
    assert {one.failure for one in seen} <= {
        "did not answer within 1 s",
        "did not answer in time, or broke the connection",
    }


def test_a_wrong_password_is_an_error_that_quotes_nothing(server):
    right = parse_url(server.url)
    (seen,) = look(replace(right, user=right.user or "nobody", password="hunter2hunter2"))
    assert (seen.connection, seen.query) == ("error", "not_tested")
    assert "hunter2" not in repr(seen)
    assert seen.failure in ("refuses user or password", "refused with MySQL's error 1698")


def test_a_server_that_is_gone_refuses(server):
    (seen,) = look(replace(parse_url(server.url), port=free_port()))
    assert (seen.connection, seen.failure) == ("disconnected", "refused or broke the connection")


def test_a_server_that_says_something_else_is_an_error_or_gone(server):
    with socket.create_server(("127.0.0.1", 0)) as strange:
        strange.settimeout(5)

        async def run() -> Look:
            looker = Looker()
            address = replace(parse_url(server.url), port=strange.getsockname()[1])
            looking = asyncio.create_task(looker.look(Target(address, 2)))
            connection, _ = await asyncio.get_running_loop().run_in_executor(None, strange.accept)
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            seen = await looking
            looker.close()
            return seen

        seen = asyncio.run(run())
    assert seen.connection in ("error", "disconnected", "timeout")
    assert seen.failure


def test_a_sqlite_file_is_read_and_never_made(tmp_path):
    import sqlite3

    path = tmp_path / "a b?.sqlite3"
    missing = Address("sqlite", "", 0, "", "", str(path))
    assert look(missing)[0].connection == "error"
    assert not path.exists()
    sqlite3.connect(path).close()
    assert look(missing)[0].query == "success"
    path.write_bytes(b"no database" * 1000)
    (seen,) = look(missing)
    assert (seen.connection, seen.query) == ("connected", "failed")


@pytest.mark.parametrize("host", ["169.254.169.254", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"])
def test_no_database_is_looked_for_at_a_metadata_address(host):
    for scheme in ("mysql://u:p@", "postgresql://u:p@", "redis://"):
        (seen,) = look(parse_url(f"{scheme}{host}/0"))
        assert "metadata address" in seen.failure


def test_a_host_that_has_no_address_is_an_error():
    (seen,) = look(parse_url("mysql://u:p@no-such-host.invalid/shop"))
    assert (seen.connection, seen.failure) == ("error", "its host name cannot be resolved")


@contextmanager
def silent() -> Iterator[int]:
    """Takes connections, as many as come, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("known", [True, False], ids=["known to hang", "for the first time"])
def test_a_hundred_databases_that_hang_leave_a_healthy_one_its_turn(known):
    with MariaDB() as mariadb, silent() as port:
        well, hanging = parse_url(mariadb.url), parse_url(f"mysql://u:p@127.0.0.1:{port}/x?ssl_mode=DISABLED")

        async def run() -> tuple[Look, list[Look]]:
            looker = Looker()
            hung = [
                asyncio.create_task(looker.look(Target(replace(hanging, database=f"x{number}"), 1), suspect=known))
                for number in range(100)
            ]
            await asyncio.sleep(0)
            seen = await looker.look(Target(well))
            others = await asyncio.gather(*hung)
            looker.close()
            return seen, others

        seen, others = asyncio.run(run())
    assert (seen.query, seen.ours) == ("success", False)
    assert {(one.connection, one.ours) for one in others} == {("timeout", False)}


def test_who_waits_for_a_thread_in_vain_is_unknown_and_not_failed(monkeypatch):
    monkeypatch.setattr(database, "THREADS", 1)
    monkeypatch.setattr(database, "PLACE_SECONDS", 0.1)
    with silent() as port:
        hanging = parse_url(f"mysql://u:p@127.0.0.1:{port}/x?ssl_mode=DISABLED")
        seen = look(hanging, timeout=1, times=2)
    assert [(one.ours, one.connection) for one in seen] == [(False, "timeout"), (True, None)]


def test_a_pipe_instead_of_a_sqlite_file_is_refused_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (seen,) = look(Address("sqlite", "", 0, "", "", str(tmp_path / "pipe")), timeout=2)
    assert (seen.connection, seen.failure) == ("error", "is no file")


def test_a_file_that_hangs_costs_one_thread_and_not_one_a_minute(monkeypatch, tmp_path):
    """As a network drive does whose server is gone: the look-up of the file itself comes back late or never."""
    gone, calls = threading.Event(), []
    real = Path.stat

    def stat(path, **named):
        if path.name == "gone.db":
            calls.append(path)
            gone.wait(30)
        return real(path, **named)

    monkeypatch.setattr(Path, "stat", stat)
    path = tmp_path / "gone.db"
    path.touch()
    address = Address("sqlite", "", 0, "", "", str(path))
    texts = [look(address, timeout=0.2)[0].failure for _ in range(3)]
    assert texts == [
        "did not answer within 0.2 s",
        *["an earlier look at it still hangs, so no other one was begun"] * 2,
    ]
    assert len(calls) == 1
    gone.set()
    ends = time.monotonic() + 5
    while time.monotonic() < ends and look(address)[0].query != "success":
        pass
    assert look(address)[0].query == "success"

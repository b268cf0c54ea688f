"""Looks at real servers: well, frozen, gone, and with the wrong password."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest

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

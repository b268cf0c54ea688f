"""A MariaDB and a MySQL, with schemas of a test's own."""

import os
import secrets
from collections.abc import Iterator

import pytest

from apps.backups.engines import parse_url
from apps.backups.engines.mysql import MySQLEngine
from tests.backups import todo
from tests.backups.conftest import Server, server_of
from tests.backups.mysql_schemas import run, url_of
from tests.backups.oracle_clients import oracle_clients
from tests.servers import MySQL


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MySQL's own clients behind the system's on PATH, where MySQL can be had."""
    with pytest.MonkeyPatch.context() as patch:
        if MySQL.unavailable_reason() is None:
            folder = oracle_clients(tmp_path_factory.mktemp("oracle"))
            patch.setenv("PATH", f"{os.environ['PATH']}:{folder}")
        yield


@pytest.fixture
def servers(clients: None, started: dict[str, Server]) -> dict[str, Server]:
    """Those that can be had here, with the clients of both on PATH."""
    kinds = ["MariaDB"] if MySQL.unavailable_reason() else ["MariaDB", "MySQL"]
    return {kind: server_of(kind, started) for kind in kinds}


@pytest.fixture(params=["MariaDB", "MySQL"])
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    if request.param not in servers:
        pytest.skip(MySQL.unavailable_reason() or "")
    return servers[request.param]


@pytest.fixture
def schema(server: Server) -> Iterator[MySQLEngine]:
    """An empty schema of the test's own."""
    engine = MySQLEngine(parse_url(server.url)).at(f"test_{secrets.token_hex(4)}")
    engine.create()
    yield engine
    engine.drop()


@pytest.fixture
def todo_schema(schema: MySQLEngine) -> MySQLEngine:
    """A schema with the todo application's data and one of everything else."""
    todo.build(url_of(schema), seed=7, size=0.5)
    return schema


@pytest.fixture
def scratch(schema: MySQLEngine) -> Iterator[MySQLEngine]:
    """A second empty schema."""
    engine = schema.at(f"scratch `☃ {secrets.token_hex(4)}")
    engine.create()
    yield engine
    engine.drop()


@pytest.fixture
def large_schema(schema: MySQLEngine) -> MySQLEngine:
    """More than pipes and sockets hold: its dump is under way until somebody reads it."""
    run(schema, "CREATE TABLE large (id INT PRIMARY KEY, t LONGTEXT)")
    for number in range(40):
        run(schema, f"INSERT INTO large VALUES ({number}, REPEAT('x', 1000000))")
    return schema

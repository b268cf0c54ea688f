"""A PostgreSQL for the tests of a module, with databases of a test's own."""

import secrets
from collections.abc import Iterator

import pytest

from apps.backups.engines import parse_url
from apps.backups.engines.postgresql import PostgreSQLEngine
from tests.backups.engines.postgresql.databases import TODO, execute
from tests.servers import PostgreSQL


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

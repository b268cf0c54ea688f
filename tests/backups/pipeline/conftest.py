"""Databases of every kind, and a storage of a test's own."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.backups import runner
from apps.backups.engines import engine_for, parse_url
from apps.backups.engines.base import Engine
from apps.core.keys import new_keyset
from tests.backups.conftest import Server, server_of
from tests.backups.engines.conftest import clients

__all__ = ["clients"]


@pytest.fixture(autouse=True)
def kept_here(settings, tmp_path) -> Path:
    """Backups go into this folder, under a keyset of the test's own."""
    settings.BACKUP_STORAGE = str(tmp_path / "backups")
    settings.BACKUP_KEYSET = new_keyset()
    return tmp_path / "backups"


@pytest.fixture(autouse=True)
def at_every_block(monkeypatch) -> None:
    """Progress is told after every block, so that a test can interfere at once."""
    monkeypatch.setattr(runner.Watch, "EVERY", runner.Watch.EVERY * 0)


@pytest.fixture(scope="module")
def servers(clients: None, started: dict[str, Server]) -> dict[str, Server]:
    """For `server_of`, with the clients of every server on PATH."""
    return started


@pytest.fixture(params=["MariaDB", "MySQL", "PostgreSQL", "SQLite"])
def source(request: pytest.FixtureRequest, servers: dict[str, Server], tmp_path: Path) -> Iterator[Engine]:
    """An empty schema of the test's own, of every kind there is unless the test chooses by indirect parameters."""
    if request.param == "SQLite":
        engine = engine_for(parse_url(f"sqlite:///{tmp_path}/shop.sqlite3"))
    else:
        engine = engine_for(parse_url(server_of(request.param, servers).url)).at(f"shop_{secrets.token_hex(4)}")
    engine.create()
    yield engine
    engine.drop()

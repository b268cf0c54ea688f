"""A rich SQLite database and a dump of it."""

from pathlib import Path

import pytest

from apps.backups.engines.sqlite import SQLiteEngine
from tests.backups.engines.sqlite.files import built, dumped


@pytest.fixture
def database(tmp_path: Path) -> SQLiteEngine:
    """A database with the todo application's data and one of everything else, in WAL mode."""
    return built(tmp_path / "app ?#%.sqlite3")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return dumped(built(tmp_path_factory.mktemp("sample") / "sample.sqlite3"))

"""One adapter a database engine: how it is dumped, read and restored."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from apps.backups.engines.address import parse_url
from apps.backups.engines.base import Engine, Reader
from apps.backups.engines.mysql import MySQLEngine
from apps.backups.engines.postgresql import PostgreSQLEngine
from apps.backups.engines.sqlite import SQLiteEngine
from apps.inventory.addresses import Address

__all__ = ["ENGINES", "engine_for", "parse_url", "reader_for"]

ENGINES: dict[str, Callable[[Address], Engine]] = {
    "mysql": MySQLEngine,
    "postgresql": PostgreSQLEngine,
    "sqlite": SQLiteEngine,
}


def reader_for(engine: str) -> Reader:
    """A reader for an engine's dumps when no such database is at hand."""
    nowhere = Path(tempfile.gettempdir()) / "none"
    return ENGINES[engine](Address(engine, host="", port=0, user="", password="", database=str(nowhere))).reader()


def engine_for(address: Address) -> Engine:
    """The engine of an address that `parse_url` made."""
    return ENGINES[address.engine](address)

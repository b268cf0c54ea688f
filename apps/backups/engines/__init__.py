"""One adapter a database engine: how it is dumped, read and restored."""

from collections.abc import Callable

from apps.backups.engines.address import parse_url
from apps.backups.engines.base import Address, Engine
from apps.backups.engines.mysql import MySQLEngine
from apps.backups.engines.postgresql import PostgreSQLEngine
from apps.backups.engines.sqlite import SQLiteEngine

__all__ = ["ENGINES", "engine_for", "parse_url"]

ENGINES: dict[str, Callable[[Address], Engine]] = {
    "mysql": MySQLEngine,
    "postgresql": PostgreSQLEngine,
    "sqlite": SQLiteEngine,
}


def engine_for(address: Address) -> Engine:
    """The engine of an address that `parse_url` made."""
    return ENGINES[address.engine](address)

"""What a database engine does for backups: plain values in and out, no rows, no Django.

An engine speaks through the vendor's own client programs. Credentials reach them over an anonymous pipe, never in argv,
in the environment or in a file others can read.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from apps.core.errors import PulsewatchError
from apps.inventory.addresses import Address


class EngineError(PulsewatchError):
    """The engine or its client failed. The text names cause and remedy and carries no credential."""


@dataclass(frozen=True, slots=True)
class Objects:
    """How many of each kind a schema holds."""

    tables: int = 0
    views: int = 0
    routines: int = 0
    triggers: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a preflight. An error stops the backup, a warning is shown. `remedy` may be an SQL statement."""

    level: str  # error, warning
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What is known before the first backup."""

    findings: tuple[Finding, ...]
    server: str  # "MariaDB 10.11.19"
    client: str  # "mariadb-dump 10.11.19"
    size_bytes: int  # data and indexes, the server's estimate
    objects: Objects


@dataclass(frozen=True, slots=True)
class TableDigest:
    """What one table's section of a dump contains. `digest` is hex SHA-256; `ordered` says whether row order counts."""

    digest: str
    bytes: int
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Content:
    """What a whole dump was seen to contain."""

    tables: Mapping[str, TableDigest]  # name → its data and definition
    other: str  # digest of everything outside tables, with names of the database and dates left out
    objects: Objects  # counted in the dump itself
    complete: bool  # the end marker was there, and nothing behind it


class Reader(Protocol):
    """Reads a dump block by block and works out its content. Never keeps more than a few MiB."""

    def feed(self, block: memoryview) -> None: ...
    def close(self) -> Content: ...


class Dump(Protocol):
    """A running dump. `fileno()` is the pipe's reading end (blocking, enlarged to 1 MiB)."""

    def fileno(self) -> int: ...
    def finish(self) -> None: ...  # waits for the client; raises EngineError unless it ended with status 0
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...  # kills a client that still runs


class Restoring(Protocol):
    """A running restore. `write` blocks as the client does; raises EngineError when the client has died.

    While the client keeps `write` or `finish` waiting, they call `on_wait` of `restore` once a second. It may raise.
    """

    def write(self, block: memoryview) -> None: ...
    def finish(self) -> None: ...  # closes its input, waits, raises EngineError unless status 0
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Engine(Protocol):
    """One database through its vendor's tools. Every call opens and closes its own connections."""

    address: Address
    extension: str  # of the plain dump: "sql" or "sqlite3"

    def preflight(self) -> Preflight: ...  # raises EngineError when the server cannot be reached or signed in to
    def objects(self) -> Objects: ...  # from the catalogue
    def notes(self) -> Sequence[str]: ...  # what a dump of this schema cannot carry, in sentences
    def dump(self) -> Dump: ...
    def reader(self) -> Reader: ...  # for this engine's dumps
    def restore(
        self, *, events: bool = True, table: str | None = None, on_wait: Callable[[], None] | None = None
    ) -> (
        Restoring
    ): ...  # into address.database; events=False: restored events stay disabled; on_wait: see RestoreClient
    def refuses(self, server: str) -> str: ...  # why a dump of that server cannot be restored to this one; or empty
    def at(self, database: str) -> "Engine": ...  # the same server, another schema
    def exists(self) -> bool: ...
    def is_empty(self) -> bool: ...  # exists and holds no object
    def has_table(self, name: str) -> bool: ...  # named as in Content.tables
    def create(self) -> None: ...
    def drop(self) -> None: ...  # no error when it does not exist
    def clear(self) -> None: ...  # makes room for a restore of all of it; what it is (collation, owner) stays

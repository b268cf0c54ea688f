"""Reads a SQLite file that arrives block by block: spools it, checks it, and digests what it holds."""

# ruff: noqa: S608  # names of tables and columns are quoted, nothing else is put into a statement

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from apps.backups.engines.base import Content, EngineError, Objects, TableDigest

HEADER_BYTES = 100  # at the start of every SQLite file
MAGIC = b"SQLite format 3\0"
_VERSIONS_AT = 18  # two bytes, the format that writers and readers must know: 1, or 2 for a file in WAL mode
_ROLLBACK = b"\1\1"
LARGE_BYTES = 64 << 10  # where a value is longer, each is hashed by itself, without the copies of its printed form
BATCH_ROWS = 64  # printed at once: less than 64 KiB a value, so a few MiB
_VIRTUAL_GENERATED, _STORED_GENERATED = 2, 3  # `hidden` of a column in PRAGMA table_xinfo
_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_ALL = 2**31 - 1  # findings, which are read one by one up to the first that counts
_TABLES = "type = 'table' AND rootpage > 0"  # without virtual ones
# Tables of SQLite's own; what the user made begins otherwise.
_USERS = "name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"


class Hash(Protocol):
    """What `hashlib` makes."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class Spool:
    """A file without a name that only its owner could ever read, and connections of SQLite to it.

    It is gone when it is closed, or with the process.
    """

    def __init__(self, folder: Path, *, connections: int = 1) -> None:
        """The folder is where plaintext may lie for a while. OSError when it takes no file."""
        with tempfile.TemporaryDirectory(dir=folder, prefix=".pulsewatch-") as private:
            path = Path(private, "spool")
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            # Opened while the file still has a name, by which alone SQLite can open it.
            self.connections = [connect(path.as_uri()) for _ in range(connections)]
            path.unlink()

    def fileno(self) -> int:
        """A descriptor, for reading and writing."""
        return self._descriptor

    def write(self, block: memoryview) -> None:
        """Append a block."""
        write_all(self._descriptor, block)

    @contextmanager
    def readable(self) -> Iterator[sqlite3.Connection]:
        """The last connection, made ready to read."""
        with rollback_format(self._descriptor):
            yield self.connections[-1]

    def close(self) -> None:
        """Give the file's space back."""
        for connection in self.connections:
            connection.close()
        with suppress(OSError):
            os.close(self._descriptor)


class SQLiteReader:
    """Works out the content of a SQLite file: rows in the order of their keys, the schema's SQL, the user's numbers.

    How the pages are laid out does not count.
    """

    def __init__(self, folder: Path) -> None:
        self._spool = Spool(folder)
        self._bytes = 0

    def feed(self, block: memoryview) -> None:
        try:
            self._spool.write(block)
        except OSError as error:
            raise EngineError(f"The temporary folder takes no more of the database: {error.strerror}.") from error
        self._bytes += len(block)

    def close(self) -> Content:
        try:
            with self._spool.readable() as connection:
                return content(connection, complete=self._is_whole())
        finally:
            self._spool.close()

    def _is_whole(self) -> bool:
        return self._bytes == file_bytes(head(self._spool.fileno()))


def connect(uri: str, seconds: float = 0) -> sqlite3.Connection:
    """A connection without implicit transactions; `seconds` to wait for another program's lock."""
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=seconds)


def write_all(descriptor: int, block: memoryview) -> None:
    """Write a block to a file, however many calls it takes."""
    while block:
        block = block[os.write(descriptor, block) :]


def head(descriptor: int) -> bytes:
    """The header of a SQLite file, or what there is of it."""
    return os.pread(descriptor, HEADER_BYTES, 0)


@contextmanager
def rollback_format(descriptor: int) -> Iterator[None]:
    """Inside, a file that was in WAL mode is not: SQLite reads it without the files beside it that the mode needs."""
    versions = head(descriptor)[_VERSIONS_AT : _VERSIONS_AT + len(_ROLLBACK)]
    wal = len(versions) == len(_ROLLBACK) and versions != _ROLLBACK
    if wal:
        os.pwrite(descriptor, _ROLLBACK, _VERSIONS_AT)
    try:
        yield
    finally:
        if wal:
            os.pwrite(descriptor, versions, _VERSIONS_AT)


def file_bytes(header: bytes) -> int:
    """How long the file is by its own header; -1 for what is no SQLite file."""
    if len(header) < HEADER_BYTES:
        return 0 if not header else -1  # a database without any table may be an empty file
    if not header.startswith(MAGIC):
        return -1
    page_size = int.from_bytes(header[16:18], "big")
    return int.from_bytes(header[28:32], "big") * (65536 if page_size == 1 else page_size)


def damage(connection: sqlite3.Connection, pragma: str = "integrity_check") -> str:
    """What SQLite finds wrong with a database first; empty when it is sound.

    Rows that break a constraint are no damage: the application put them there, and a backup keeps them.
    """
    connection.execute("PRAGMA ignore_check_constraints = ON")
    try:
        found = _first_damage(connection, f"PRAGMA {pragma}({_ALL})")
        if found is None:  # only the tables that need what we lack go unchecked
            tables = connection.execute(f"SELECT name FROM main.sqlite_schema WHERE {_TABLES}").fetchall()
            each = (_first_damage(connection, f"PRAGMA {pragma}({quoted(table)})") for (table,) in tables)
            found = next(filter(None, each), "")
    except sqlite3.DatabaseError as error:
        return str(error)
    return found


def _first_damage(connection: sqlite3.Connection, pragma: str) -> str | None:
    """None where a function or a collation of the application's would be needed for an answer."""
    try:
        for (found,) in connection.execute(pragma):
            # 3.40.0 to 3.41.0 also say so of sound rows, where a key names columns in another order than the table.
            if found != "ok" and not found.startswith("NULL value in "):
                return " ".join(found.split())
    except sqlite3.OperationalError as error:
        if not error.sqlite_errorname.startswith("SQLITE_ERROR"):
            raise
        return None
    return ""


def count_objects(connection: sqlite3.Connection) -> Objects:
    """How many of each kind; routines and events are unknown to SQLite."""
    counts = dict(
        connection.execute(f"SELECT type, count(*) FROM main.sqlite_schema WHERE {_USERS} GROUP BY type").fetchall()
    )
    return Objects(tables=counts.get("table", 0), views=counts.get("view", 0), triggers=counts.get("trigger", 0))


def content(connection: sqlite3.Connection, *, complete: bool) -> Content:
    """What a database contains. Where it is damaged, what could be read of it, marked incomplete."""
    complete = complete and not damage(connection)
    tables: dict[str, TableDigest] = {}
    other, objects = sha256(), Objects()
    try:
        objects = count_objects(connection)
        for pragma in ("user_version", "application_id", "encoding"):
            other.update(repr(connection.execute(f"PRAGMA {pragma}").fetchone()).encode())
        entries = connection.execute(
            "SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema ORDER BY type, name"
        ).fetchall()
        hashes = {name: _Counted() for kind, name, *_ in entries if kind == "table"}
        for kind, name, table, _, sql in entries:
            hashes.get(table, other).update(repr((kind, name, sql)).encode(errors="surrogatepass"))
        connection.text_factory = bytearray  # told from a blob when printed, and never decoded: text may be any bytes
        for kind, name, _, root_page, _ in entries:
            if kind == "table" and root_page:  # a virtual table has none: its rows are in others
                _add_rows(connection, name, hashes[name])
        tables = {name: counted.digest() for name, counted in hashes.items() if not name.startswith("sqlite_")}
        for name in sorted(hashes.keys() - tables.keys()):  # SQLite's own: counters, statistics
            other.update(f"{name} {hashes[name].hexdigest()}".encode())
    except sqlite3.DatabaseError:
        complete = False
    return Content(tables=tables, other=other.hexdigest(), objects=objects, complete=complete)


class _Counted:
    """A SHA-256 that counts."""

    def __init__(self) -> None:
        self._hash = sha256()
        self._bytes = 0

    def update(self, data: bytes | bytearray, /) -> None:
        self._hash.update(data)
        self._bytes += len(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def digest(self) -> TableDigest:
        return TableDigest(self.hexdigest(), self._bytes)


def stored_columns(connection: sqlite3.Connection, table: str, *, insertable: bool = False) -> list[str]:
    """The columns whose values are stored, not computed when they are read; with `insertable`, not computed at all."""
    computed = (_VIRTUAL_GENERATED, _STORED_GENERATED) if insertable else (_VIRTUAL_GENERATED,)
    rows = connection.execute(f"PRAGMA main.table_xinfo({quoted(table)})").fetchall()
    return [_text(row[1]) for row in rows if row[6] not in computed]


def rowid_name(connection: sqlite3.Connection, table: str, columns: Sequence[str]) -> list[str]:
    """How the row number can be asked for; nothing where there is none, or every name for it is a column's."""
    taken = {column.lower() for column in columns}
    for name in _ROWID_NAMES:
        if name in taken:
            continue
        try:
            connection.execute(f"SELECT {name} FROM main.{quoted(table)} LIMIT 0")
        except sqlite3.OperationalError:  # WITHOUT ROWID
            return []
        return [name]
    return []


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def _add_rows(connection: sqlite3.Connection, table: str, counted: _Counted) -> None:
    names = stored_columns(connection, table)
    columns = [quoted(name) for name in names]
    selected = ", ".join([*rowid_name(connection, table, names), *columns])
    source = f"main.{quoted(table)} NOT INDEXED"  # so rows come in the order of the table itself, which is its key's
    is_large = " OR ".join(f"length(CAST({column} AS BLOB)) > {LARGE_BYTES}" for column in columns)
    rows = connection.execute(f"SELECT {selected} FROM {source}")
    if connection.execute(f"SELECT 1 FROM {source} WHERE {is_large} LIMIT 1").fetchone():
        for row in rows:
            _add_large_row(row, counted)
        return
    while batch := rows.fetchmany(BATCH_ROWS):
        counted.update(repr(batch).encode())  # tells 1 from 1.0 and '1', keeps every bit of a float, and infinity


def _add_large_row(row: Sequence[object], counted: _Counted) -> None:
    for value in row:
        if isinstance(value, bytes | bytearray):
            counted.update(f"{type(value).__name__} of {len(value)}:".encode())
            counted.update(value)
        else:
            counted.update(f"{value!r},".encode())


def _text(value: str | bytearray) -> str:
    return value if isinstance(value, str) else value.decode(errors="surrogateescape")

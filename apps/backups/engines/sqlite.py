"""SQLite through its own backup interface: a dump is the database file itself, copied while programs write to it."""

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from apps.backups.engines.base import (
    Dump,
    EngineError,
    Finding,
    Objects,
    Preflight,
    Reader,
    Restoring,
)
from apps.backups.engines.sqlite_reader import (
    Spool,
    SQLiteReader,
    connect,
    count_objects,
    damage,
)
from apps.backups.engines.sqlite_restore import BESIDE, FileRestoring, TableRestoring
from apps.inventory.addresses import Address

LOCK_SECONDS = 30  # a writer may hold the source so long before the backup gives up
PAUSE_SECONDS = 0.1  # between two tries on a locked source
_REMEDIES = {
    "SQLITE_BUSY": "A program has locked it; end its transaction, then try again.",
    "SQLITE_NOTADB": "The file is no SQLite database, or is encrypted; check the path in the database URL.",
    "SQLITE_CORRUPT": "It is damaged; save what can be saved with: sqlite3 FILE .recover",
    "SQLITE_CANTOPEN": "Let this user read the file and enter its folder; in WAL mode, write to the folder too.",
    "SQLITE_READONLY": "Let this user write to the file and its folder, to undo what a program left that died.",
    "SQLITE_FULL": "Make room on the disk that the copy is made on.",
    "SQLITE_IOERR": "Look at the disk, and at the room that is left on it.",
}


class SQLiteEngine:
    """One SQLite file; `address.database` is its path."""

    extension = "sqlite3"

    def __init__(self, address: Address) -> None:
        self.address = address
        self._path = Path(address.database)

    def at(self, database: str) -> "SQLiteEngine":
        """Another file: an absolute path, or a name beside this file."""
        return SQLiteEngine(replace(self.address, database=str(self._path.parent / database)))

    def preflight(self) -> Preflight:
        """EngineError when the file is missing, unreadable, locked or no database."""
        with self._source() as source:
            objects = count_objects(source)
            journal = source.execute("PRAGMA journal_mode").fetchone()[0]
        version = f"SQLite {sqlite3.sqlite_version}"
        return Preflight(
            findings=tuple(self._findings(journal)),
            server=version,
            client=version,
            size_bytes=self._size(),
            objects=objects,
        )

    def objects(self) -> Objects:
        """How many of each kind the schema shows."""
        with self._source() as source:
            return count_objects(source)

    def notes(self) -> Sequence[str]:
        """What a dump of this file cannot carry, in sentences."""
        return (
            "Files whose paths the rows name, and databases that the application attaches, are not in the dump.",
            "While it is backed up, a second copy lies on a disk here, without a name, for Pulsewatch's user only.",
        )

    def dump(self) -> Dump:
        """Copy the database as it is at one moment, then hand out the copy. Returns when the copy is made.

        EngineError when the source is missing, locked for longer than LOCK_SECONDS, or damaged.
        """
        with self._source() as source:
            try:
                spool = Spool(self._spool_folder(), connections=2)
            except OSError as error:
                raise EngineError(f"No temporary file can be made for the copy: {error.strerror}.") from error
            try:
                self._copy(source, spool)
                with spool.readable() as copy:
                    wrong = damage(copy, "quick_check")
                if wrong:
                    raise EngineError(
                        f"{self._path} is damaged ({wrong}); save what can be saved with: sqlite3 FILE .recover"
                    )
                os.lseek(spool.fileno(), 0, os.SEEK_SET)
            except BaseException:
                spool.close()
                raise
        return _FileDump(spool)

    def reader(self) -> Reader:
        """Works out what a dump contains; it keeps a copy without a name beside this database, or in TMPDIR."""
        return SQLiteReader(self._spool_folder())

    def restore(
        self, *, events: bool = True, table: str | None = None, on_wait: Callable[[], None] | None = None
    ) -> Restoring:
        """Put the dump in the place of this file at once, or one of its tables in the place of this file's.

        `events` and `on_wait` change nothing: SQLite has no events, and no client. EngineError when another program has
        the file open.
        """
        if not self._path.parent.is_dir():
            raise EngineError(f"The folder of {self._path} does not exist; make it first.")
        return TableRestoring(self._path, table) if table is not None else FileRestoring(self._path)

    def refuses(self, server: str) -> str:
        """Nothing: a restore looks at the whole file before it takes the place of another."""
        return ""

    def exists(self) -> bool:
        """Whether there is such a file."""
        return self._path.is_file()

    def is_empty(self) -> bool:
        """Whether there is such a file, and nothing in it."""
        if not self.exists():
            return False
        with self._source() as source:
            return source.execute("SELECT 1 FROM sqlite_schema").fetchone() is None

    def has_table(self, name: str) -> bool:
        """Whether there is such a file with such a table."""
        if not self.exists():
            return False
        with self._source() as source:
            found = source.execute(
                "SELECT 1 FROM sqlite_schema WHERE type IN ('table', 'view') AND name = ? COLLATE NOCASE", [name]
            )
            return found.fetchone() is not None

    def create(self) -> None:
        """Make an empty database that only its owner can read. EngineError when there is a file already."""
        try:
            os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError as error:
            raise EngineError(f"{self._path} exists already; choose another path.") from error
        except OSError as error:
            raise EngineError(f"{self._path} cannot be made: {error.strerror}.") from error

    def drop(self) -> None:
        """Remove the file and those that belong to it; no error when there is none."""
        for path in (self._path, *(Path(f"{self._path}{suffix}") for suffix in BESIDE)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise EngineError(f"{path} cannot be removed: {error.strerror}.") from error

    def clear(self) -> None:
        """Nothing: a restore takes the file's place at once, and until then the file stays as it is."""

    def _copy(self, source: sqlite3.Connection, spool: Spool) -> None:
        copy = spool.connections[0]
        copy.execute("PRAGMA journal_mode = OFF")  # a copy that fails is thrown away
        copy.execute("PRAGMA synchronous = OFF")
        give_up = time.monotonic() + LOCK_SECONDS

        def watch(status: int, remaining: int, total: int) -> None:
            if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) and time.monotonic() > give_up:
                raise sqlite3.OperationalError("database is locked")  # Python itself would try for ever

        source.backup(copy, pages=-1, progress=watch, sleep=PAUSE_SECONDS)

    @contextmanager
    def _source(self) -> Iterator[sqlite3.Connection]:
        """The file, for reading. What SQLite says about it is turned into a sentence."""
        if not self.exists():
            raise EngineError(f"There is no file {self._path}; check the path in the database URL.")
        try:
            with closing(self._opened()) as connection:
                yield connection
        except sqlite3.Error as error:
            raise EngineError(f"{self._path} cannot be read: {error}.{_remedy(error)}") from error

    def _opened(self) -> sqlite3.Connection:
        """Opened for writing where we may, though we write nothing: only so does SQLite undo what a program left that
        died, and remove the files beside a database in WAL mode that it made for us.
        """
        mode = "rw" if os.access(self._path, os.W_OK) else "ro"
        connection = connect(f"{self._path.absolute().as_uri()}?mode={mode}", LOCK_SECONDS)
        try:
            connection.execute("PRAGMA query_only = ON")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection

    def _findings(self, journal: str) -> Iterator[Finding]:
        size, folder = self._size(), self._spool_folder()
        free = shutil.disk_usage(folder).free
        if free < size:
            yield Finding(
                "error",
                f"The copy needs {_mib(size)} in {folder}, where {_mib(free)} are free.",
                "Make room there, or set TMPDIR to a folder on a larger disk that holds no file of others.",
            )
        if journal != "wal":
            yield Finding(
                "warning",
                "While it is copied, programs that write to this database wait.",
                "PRAGMA journal_mode = WAL;",
            )

    def _size(self) -> int:
        """With what lies in the log of a file in WAL mode."""
        paths = (self._path, Path(f"{self._path}-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    def _spool_folder(self) -> Path:
        """Beside the database, where its plaintext lies anyway; where that takes no file, the temporary folder."""
        folder = self._path.parent
        return folder if os.access(folder, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


class _FileDump:
    """The finished copy, read like a pipe."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    def fileno(self) -> int:
        return self._spool.fileno()

    def finish(self) -> None:
        """Nothing to wait for: the copy was complete before the first byte was read."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()


def _mib(size: int) -> str:
    return f"{size / (1 << 20):,.1f} MiB"


def _remedy(error: sqlite3.Error) -> str:
    """What to do about a complaint of SQLite's."""
    name = getattr(error, "sqlite_errorname", "SQLITE_BUSY" if "locked" in str(error) else "")
    return next((f" {remedy}" for start, remedy in _REMEDIES.items() if name.startswith(start)), "")

"""Puts a SQLite file, or one table of it, in the place of what is there: wholly or not at all."""

# ruff: noqa: S608  # names of tables and columns are quoted, nothing else is put into a statement

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from apps.backups.engines.base import EngineError
from apps.backups.engines.sqlite_reader import (
    connect,
    damage,
    file_bytes,
    head,
    quoted,
    rollback_format,
    rowid_name,
    stored_columns,
    write_all,
)

TARGET_SECONDS = 5  # for a running statement of another program to end, before it counts as using the target
BESIDE = ("-wal", "-shm", "-journal")  # files that belong to a database while it is open, or since its program died


class _Draft:
    """The dump as a file beside the target that only its owner can read; gone when the `with` block is left."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._path = target.with_name(f".{target.name}.restoring")
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self._path, flags, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(self._descriptor, 0)  # what a restore left that was killed
        except BlockingIOError as error:
            os.close(self._descriptor)
            raise EngineError(f"Another restore to {target} is running; wait for it to end.") from error
        except OSError as error:
            raise EngineError(f"{self._path} cannot be made: {error.strerror}.") from error

    def write(self, block: memoryview) -> None:
        """Append a block. EngineError when the disk takes no more."""
        try:
            write_all(self._descriptor, block)
        except OSError as error:
            raise EngineError(f"{self._path} cannot be written: {error.strerror}.") from error

    def _check(self) -> None:
        """EngineError unless the file is whole and sound."""
        whole = os.fstat(self._descriptor).st_size == file_bytes(head(self._descriptor))
        wrong = "" if whole else "it is cut short, or no SQLite file"
        if not wrong:
            with rollback_format(self._descriptor), closing(connect(self._path.as_uri())) as draft:
                wrong = damage(draft)
        if wrong:
            raise EngineError(f"The dump is damaged ({wrong}); nothing was restored, choose another backup.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FileNotFoundError):  # it is the target now
            self._path.unlink()
        os.close(self._descriptor)


class FileRestoring(_Draft):
    """Takes the place of the whole file."""

    def finish(self) -> None:
        """EngineError when the dump is damaged or a program uses the target; the target is then as it was."""
        self._check()
        with _unused(self._target):
            self._take_rights()
            os.fsync(self._descriptor)
            self._path.replace(self._target)
        folder = os.open(self._target.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)  # without it the new name may be lost with the machine
        finally:
            os.close(folder)

    def _take_rights(self) -> None:
        with suppress(FileNotFoundError):
            old = self._target.stat()
            os.fchmod(self._descriptor, old.st_mode & 0o777)
            with suppress(PermissionError):  # only root may give a file to another user
                os.fchown(self._descriptor, old.st_uid, old.st_gid)


class TableRestoring(_Draft):
    """Takes the place of one table, with its rows, indexes and triggers, in one transaction."""

    def __init__(self, target: Path, table: str) -> None:
        super().__init__(target)
        self._table = table

    def finish(self) -> None:
        """EngineError when the dump is damaged or lacks the table, or a program locks the target."""
        self._check()
        try:
            with (
                rollback_format(self._descriptor),
                closing(connect(f"{self._target.absolute().as_uri()}?mode=rw", TARGET_SECONDS)) as target,
            ):
                target.execute("PRAGMA foreign_keys = OFF")
                target.execute("ATTACH ? AS backup", [f"{self._path.absolute().as_uri()}?mode=ro"])
                with _transaction(target):
                    self._restore(target)
        except sqlite3.Error as error:
            raise EngineError(f"Table {self._table} could not be restored into {self._target}: {error}.") from error

    def _restore(self, target: sqlite3.Connection) -> None:
        entries = target.execute(
            "SELECT type, rootpage, sql FROM backup.sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL"
            " ORDER BY type = 'table' DESC, type",  # the table, its indexes, its triggers
            [self._table],
        ).fetchall()
        if not entries or entries[0][0] != "table":
            raise EngineError(f"The dump holds no table {self._table}; nothing was restored.")
        _, root_page, definition = entries.pop(0)
        if not root_page:
            raise EngineError(
                f"Table {self._table} is virtual and keeps its rows in other tables; restore the whole file instead."
            )
        target.execute(f"DROP TABLE IF EXISTS main.{quoted(self._table)}")
        target.execute(definition)
        columns = stored_columns(target, self._table, insertable=True)
        names = ", ".join([*rowid_name(target, self._table, columns), *map(quoted, columns)])
        table = quoted(self._table)
        target.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM backup.{table}")
        self._restore_counter(target)
        for _, _, sql in entries:
            target.execute(sql)

    def _restore_counter(self, target: sqlite3.Connection) -> None:
        """AUTOINCREMENT's, which may be ahead of the rows."""
        if not target.execute("SELECT 1 FROM backup.sqlite_schema WHERE name = 'sqlite_sequence'").fetchone():
            return
        found = target.execute("SELECT seq FROM backup.sqlite_sequence WHERE name = ?", [self._table]).fetchone()
        if found:
            target.execute("DELETE FROM main.sqlite_sequence WHERE name = ?", [self._table])
            target.execute("INSERT INTO main.sqlite_sequence VALUES (?, ?)", [self._table, found[0]])


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextmanager
def _unused(target: Path) -> Iterator[None]:
    """Inside, no other program has the target open, and no file lies beside it that SQLite would add to the new one."""
    stray = [path for suffix in BESIDE if (path := Path(f"{target}{suffix}")).exists()]
    if not target.exists() or not target.stat().st_size:
        if stray:
            raise EngineError(f"{stray[0]} lies beside a database that is not there; move it away, then restore.")
        yield
        return
    try:
        with closing(connect(f"{target.absolute().as_uri()}?mode=rw", TARGET_SECONDS)) as connection:
            journal = connection.execute("PRAGMA journal_mode").fetchone()[0]
            # Fails while another program has a file in WAL mode open; writes the log into the file and removes it.
            connection.execute("PRAGMA journal_mode = DELETE")
            connection.execute("BEGIN EXCLUSIVE")
            try:
                yield
            except BaseException:
                connection.execute("ROLLBACK")
                connection.execute(f"PRAGMA journal_mode = {journal}")
                raise
    except sqlite3.OperationalError as error:
        raise EngineError(f"{target} is in use ({error}); stop the programs that use it, then restore.") from error
    except sqlite3.DatabaseError as error:
        raise EngineError(
            f"{target} is damaged itself ({error}); move it away, with the files {', '.join(BESIDE)} beside it,"
            " then restore."
        ) from error

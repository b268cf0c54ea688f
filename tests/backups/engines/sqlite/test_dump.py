"""Dumping SQLite while programs write to it and after programs died."""

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from apps.backups.engines import sqlite, sqlite_reader
from apps.backups.engines.base import EngineError
from apps.backups.engines.sqlite import SQLiteEngine
from tests.backups.engines.sqlite.files import content, dumped, engine_at, execute, names_in, restore

# --- Dumping ----------------------------------------------------------------------------------------------------------


def test_a_dump_under_concurrent_writes_is_of_one_moment(tmp_path: Path) -> None:
    path = tmp_path / "busy.sqlite3"
    source = engine_at(path)
    execute(source, "PRAGMA journal_mode = WAL", "CREATE TABLE a (n)", "CREATE TABLE b (n)")
    writing = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=30)
print("ready", flush=True)
number = 0
while True:
    number += 1
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO a VALUES (?)", [number])
    connection.execute("INSERT INTO b VALUES (?)", [number])
    connection.execute("COMMIT")
"""
    with subprocess.Popen([sys.executable, "-c", writing, path], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"
            dumps = [dumped(source) for _ in range(20)]
            assert writer.poll() is None
        finally:
            writer.kill()
    counts = []
    for data in dumps:
        assert content(data).complete
        copy = engine_at(tmp_path / "copy")
        restore(copy, data)
        a, b = execute(copy, "SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)")[0]
        assert a == b
        counts.append(a)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_the_copy_has_no_name_and_is_only_its_owners(database: SQLiteEngine, tmp_path: Path) -> None:
    before = names_in(tmp_path)
    with database.dump() as dump:
        assert names_in(tmp_path) == before
        found = os.fstat(dump.fileno())
        assert (found.st_nlink, found.st_mode & 0o777) == (0, 0o600)
        assert found.st_dev == tmp_path.stat().st_dev
        dump.finish()


def test_a_source_folder_that_takes_no_file_sends_the_copy_to_the_temporary_folder(
    database: SQLiteEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    assert database._spool_folder() == tmp_path
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert database._spool_folder() == temporary
    assert content(dumped(database)).complete


def test_what_a_program_wrote_before_it_died_is_in_the_dump_and_what_it_had_not_committed_is_not(
    tmp_path: Path,
) -> None:
    dying = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = " + sys.argv[2])
connection.execute("PRAGMA cache_size = 10")
connection.execute("CREATE TABLE t (a)")
connection.executemany("INSERT INTO t VALUES (?)", [(b"x" * 500,)] * 300)
connection.execute("BEGIN")
connection.execute("UPDATE t SET a = zeroblob(500)")
os.kill(os.getpid(), 9)
"""
    for mode in ("DELETE", "WAL"):
        source = engine_at(tmp_path / mode)
        done = subprocess.run([sys.executable, "-c", dying, source.address.database, mode], check=False)
        assert done.returncode == -signal.SIGKILL
        copy = source.at("copy")
        restore(copy, dumped(source))
        assert execute(copy, "SELECT DISTINCT a FROM t") == [(b"x" * 500,)]


def test_a_missing_locked_foreign_or_damaged_source_is_one_sentence(
    database: SQLiteEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.2)
    missing = database.at("missing")
    with pytest.raises(EngineError, match=r"There is no file .*missing; check the path"):
        missing.dump()
    assert not missing.exists()  # and none was made

    foreign = database.at("foreign")
    Path(foreign.address.database).write_bytes(b"no database at all" * 1000)
    with pytest.raises(EngineError, match=r"file is not a database\. The file is no SQLite database, or is encrypted"):
        foreign.dump()

    locked = database.at("locked")
    execute(locked, "CREATE TABLE t (a)")
    with closing(sqlite3.connect(locked.address.database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(EngineError, match=r"database is locked\. A program has locked it"):
            locked.dump()

    damaged = database.at("damaged")
    data = bytearray(dumped(database))
    data[8192:12288] = bytes(4096)
    Path(damaged.address.database).write_bytes(data)
    with pytest.raises(EngineError, match=r"damaged.*\.recover") as caught:
        damaged.dump()
    assert "\n" not in str(caught.value)
    assert not [name for name in names_in(tmp_path) if name.startswith(".")]


def test_a_lock_taken_while_the_copy_waits_is_not_waited_for_forever(
    database: SQLiteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(database, "PRAGMA journal_mode = DELETE")
    with database._source() as source, closing(sqlite3.connect(database.address.database)) as other:
        source.execute("PRAGMA busy_timeout = 0")
        other.execute("BEGIN EXCLUSIVE")
        monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.05)
        spool = sqlite_reader.Spool(Path(tempfile.gettempdir()))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database._copy(source, spool)
        spool.close()


def test_a_full_disk_under_the_copy_is_said(database: SQLiteEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    (finding,) = database.preflight().findings
    assert finding.level == "error"
    assert re.search(r"The copy needs 0\.\d MiB in .*, where 0\.0 MiB are free", finding.text)
    assert "TMPDIR" in finding.remedy


def test_preflight_tells_version_size_and_objects_and_warns_where_writers_wait(database: SQLiteEngine) -> None:
    seen = database.preflight()
    assert seen.findings == ()
    assert seen.server == seen.client == f"SQLite {sqlite3.sqlite_version}"
    assert seen.size_bytes >= Path(database.address.database).stat().st_size
    assert seen.objects == database.objects()
    execute(database, "PRAGMA journal_mode = DELETE")
    (warning,) = database.preflight().findings
    assert (warning.level, warning.remedy) == ("warning", "PRAGMA journal_mode = WAL;")
    assert database.notes()

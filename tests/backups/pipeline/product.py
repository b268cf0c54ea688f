"""The whole way of a backup on real databases: registered, backed up, drilled, restored, and disturbed meanwhile."""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from apps.backups import restorer, runner, services
from apps.backups.choices import RestoreKind
from apps.backups.engines import engine_for, parse_url
from apps.backups.engines.base import Dump, Engine
from apps.backups.models import DRILL_SCHEMA, BackupJob, Restore
from apps.backups.runner import Progress
from apps.core.audit import Actor
from apps.inventory.models import Database
from tests.backups import mysql_schemas
from tests.backups.engines.postgresql import databases

ACTOR = Actor.automation("test")
OWNER = "this-process"
CLIENTS = ("mariadb-dump", "mysqldump", "mariadb", "mysql", "pg_dump", "psql")


def register(url: str, name: str = "shop", **options: int) -> Database:
    return services.add_database(name=name, url=url, environment="production", actor=ACTOR, **options)[0]


def queued(database: Database, held_by: str = "") -> BackupJob:
    return services.request_backup(database=database, actor=ACTOR, storage_location="", held_by=held_by)


def back_up(database: Database, progress: Progress | None = None) -> BackupJob:
    """A backup that has run; `progress` is called after every block."""
    job = runner.back_up(queued(database).pk, owner=OWNER, progress=progress)
    assert job is not None
    return job


def restored(
    job: BackupJob, schema: str = "", kind: str = RestoreKind.DRILL, progress: Progress | None = None
) -> Restore:
    """A drill that has run, or a restore into `schema`."""
    row = services.request_restore(backup=job, actor=ACTOR, kind=kind, schema=schema)
    done = restorer.restore(row.pk, owner=OWNER, progress=progress)
    assert done is not None
    return done


def stored_in(folder: Path) -> list[str]:
    """Every file below a folder, halves too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def client() -> psutil.Process:
    """The database's client program that works for this process."""
    children = psutil.Process().children(recursive=True)
    # MySQL's own are started through a loader.
    [found] = [child for child in children if program_of(child) in CLIENTS]
    return found


def program_of(process: psutil.Process) -> str:
    words = [Path(word).name for word in process.cmdline() if not word.startswith("-")]
    return next((word for word in words if word in CLIENTS), "")


def once(act: Callable[[], object], *, step: str = "dump") -> Progress:
    """A progress that does something at the first sign of this step."""
    left = [act]

    def progress(now: str, done: int) -> None:
        if now == step and done and left:
            left.pop()()

    return progress


def run(engine: Engine, *statements: str) -> list[tuple[object, ...]]:
    """Run statements in a schema, past Pulsewatch; the rows of the last one."""
    rows: list[tuple[object, ...]] = []
    if engine.address.engine == "sqlite":
        with closing(sqlite3.connect(engine.address.database, isolation_level=None)) as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
    elif engine.address.engine == "postgresql":
        for statement in statements:
            rows = databases.execute(engine, statement)
    else:
        rows = mysql_schemas.run(engine, *statements)
    return rows


def fill(engine: Engine, megabytes: int) -> None:
    """A table of so many megabytes, which a dump reaches before a small one called `zz_last`."""
    text = "MEDIUMTEXT" if engine.address.engine == "mysql" else "TEXT"
    run(engine, *(f"CREATE TABLE {name} (id INT PRIMARY KEY, t {text})" for name in ("large", "zz_last")))
    run(engine, "INSERT INTO zz_last VALUES (1, 'one')")
    # Hard to compress, so that what is stored grows with it.
    run(engine, *(f"INSERT INTO large VALUES ({number}, '{os.urandom(500_000).hex()}')" for number in range(megabytes)))


def url_of(engine: Engine) -> str:
    """The URL that leads to an engine's schema."""
    at = engine.address
    if at.engine == "sqlite":
        return f"sqlite:///{quote(at.database)}"
    where = f"{quote(at.user, safe='')}:{quote(at.password, safe='')}@{at.host}:{at.port}"
    return f"{at.engine}://{where}/{quote(at.database, safe='')}"


@contextmanager
def before_the_second_dump(act: Callable[[Engine], object], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Do something to the scratch schema of a drill, after the restore and before it is dumped again."""

    def interfering(engine_class: type[Engine]) -> None:
        dump = engine_class.dump

        def interfered(engine: Engine) -> Dump:
            if DRILL_SCHEMA in engine.address.database:
                act(engine)
            return dump(engine)

        patch.setattr(engine_class, "dump", interfered)

    with monkeypatch.context() as patch:
        for kind in ("mysql://u:p@h/x", "postgresql://u:p@h/x", "sqlite:////x"):
            interfering(type(engine_for(parse_url(kind))))
        yield

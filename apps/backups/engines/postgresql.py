"""PostgreSQL through pg_dump and psql: a plain SQL dump, restored in one transaction."""

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from apps.backups.engines import postgresql_catalogue as catalogue
from apps.backups.engines.base import Dump, EngineError, Objects, Preflight, Reader, Restoring
from apps.backups.engines.clients import (
    CREDENTIALS,
    VERSION_SECONDS,
    DumpClient,
    RestoreClient,
    neutral_environment,
    programs,
    version_text,
)
from apps.backups.engines.postgresql_reader import NAME, PostgreSQLReader, unquoted
from apps.backups.engines.postgresql_script import Script, TableScript
from apps.inventory.addresses import Address

APPLICATION = "pulsewatch"  # how our connections are called in pg_stat_activity
CONNECT_SECONDS = 10
QUERY_SECONDS = 60  # for one look at the catalogue, which another session's DDL may lock
LOCK_SECONDS = 300  # pg_dump waits so long for a table that another session has locked
SERVICE_LINE_BYTES = 1022  # of libpq's service file; it refuses longer ones
MAINTENANCE = ("postgres", "template1")  # databases every server has, to make others from
NO_FILE = "/dev/null"  # in place of a password file that somebody may have at home
FIRST_STATISTICS = 18  # the major version whose pg_dump knows statistics, and an option to leave them out

# Where packages put the programs of each major version, off PATH: Debian, Red Hat, Homebrew.
_FOLDERS = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql@*/bin"),
)
# What the server or a client says, and what to do about it; the first that fits.
_REMEDIES = (
    ("password authentication failed|no password supplied", "Check user and password in the database URL."),
    ("pg_hba.conf", "Let this user and address in with a line in the server's pg_hba.conf, then reload the server."),
    ("could not translate host name|Name or service not known", "Check the host in the database URL."),
    ("connection refused|timeout expired|timed out|no route", "Check host and port, and that the server runs."),
    ("SSL|certificate", "Check sslmode and the certificate files in the database URL."),
    ("starting up|shutting down|recovery", "Try again when the server is up."),
    ('database ".*" does not exist', "Check the database name in the URL."),
    ('tablespace ".*" does not exist', "Create the tablespace on this server first."),
    ('role ".*" does not exist', "Create the role on this server first: CREATE ROLE … NOLOGIN."),
    ("already exists", "Restore into an empty database."),
    ("is not available|could not open extension control file", "Install the extension's package on the server."),
    ("permission denied to create database", "ALTER ROLE … CREATEDB lets the user."),
    (
        "permission denied to create extension",
        "Let a superuser create the extension in the database, or restore as one.",
    ),
    ("row-level security", "ALTER ROLE … BYPASSRLS lets the user see every row."),
    ("permission denied for schema", "GRANT USAGE ON SCHEMA … lets the user."),
    ("permission denied for sequence", "GRANT SELECT ON ALL SEQUENCES IN SCHEMA … lets the user."),
    ("permission denied for table", "GRANT SELECT ON ALL TABLES IN SCHEMA … lets the user."),
    ("lock timeout", "Another session holds a lock; find it in pg_locks, or choose a quieter time."),
    ("being accessed by other users", "Close their connections first."),
    ("other objects depend on it", "Restore the whole backup into a new database and copy the rows from there."),
    ("server closed the connection|terminating connection", "See the server's log, and try again when it is up."),
    ("No space left", "Make room on the server's disk."),
)
_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")


class PostgreSQLEngine:
    """One database of a PostgreSQL server."""

    extension = "sql"

    def __init__(self, address: Address, *, like: str = "") -> None:
        """`like` names a database of the same server whose encoding and collation `create` gives to the new one."""
        self.address = address
        self._like = like

    def at(self, database: str) -> "PostgreSQLEngine":
        """The same server, another database, which `create` makes like this one."""
        return PostgreSQLEngine(replace(self.address, database=database), like=self._like or self.address.database)

    def preflight(self) -> Preflight:
        """EngineError when the server cannot be reached, signed in to, or dumped by any pg_dump here."""
        with self._connected() as connection:
            program, version = _client("pg_dump", _major(connection))
            size = connection.execute("SELECT pg_catalog.pg_database_size(current_database())").fetchone()
            return Preflight(
                findings=tuple(catalogue.obstacles(connection)),
                server=f"PostgreSQL {_server_version(connection)}",
                client=f"{program.name} {version}",
                size_bytes=int(size[0]) if size else 0,
                objects=catalogue.objects(connection),
            )

    def objects(self) -> Objects:
        """How many of each kind the catalogue shows."""
        with self._connected() as connection:
            return catalogue.objects(connection)

    def notes(self) -> Sequence[str]:
        """What a dump of this database cannot carry, in sentences."""
        with self._connected() as connection:
            return catalogue.notes(connection)

    def dump(self) -> Dump:
        """Start pg_dump. EngineError when the one we have is older than the server."""
        with self._connected() as connection:
            major = _major(connection)
        program, version = _client("pg_dump", major)
        command = [
            str(program),
            "--format=plain",
            "--no-password",
            f"--lock-wait-timeout={LOCK_SECONDS}s",
            "--no-subscriptions",  # a restored copy would take over the running one's slot on the publisher
        ]
        if int(version.partition(".")[0]) >= FIRST_STATISTICS:
            command.append("--no-statistics")
        # No --restrict-key: with a key that others know, a dump could free itself from psql's restriction.
        return DumpClient(command, explain=_remedy, **self._sign_in())

    def reader(self) -> Reader:
        """Works out what a dump contains."""
        return PostgreSQLReader()

    def restore(
        self, *, events: bool = True, table: str | None = None, on_wait: Callable[[], None] | None = None
    ) -> Restoring:
        """Start psql; nothing stays when anything fails. With `table` (`name` or `schema.name`), that one is replaced.

        `events` changes nothing: PostgreSQL has none.
        """
        with self._connected() as connection:
            program, _ = _client("psql", _major(connection))
            target = catalogue.target(connection, restricts=_restricts(program))
        command = [
            str(program),
            "--no-psqlrc",
            "--no-password",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
        ]
        client = RestoreClient(
            command, explain=_remedy, on_wait=on_wait, **self._sign_in(PGOPTIONS="-c client_min_messages=error")
        )
        return _Restoring(client, TableScript(target, table) if table is not None else Script(target))

    def refuses(self, server: str) -> str:
        """Nothing: what a server lacks is left out, and a restore that fails is undone."""
        return ""

    def exists(self) -> bool:
        """Whether the server has the database."""
        with self._maintaining() as connection:
            query = "SELECT FROM pg_catalog.pg_database WHERE datname = %s"
            return connection.execute(query, [self.address.database]).fetchone() is not None

    def is_empty(self) -> bool:
        """Whether the database exists and nobody has made anything in it."""
        if not self.exists():
            return False
        with self._connected() as connection:
            return catalogue.is_empty(connection)

    def has_table(self, name: str) -> bool:
        """Whether the database exists and holds a relation of that name (`name` or `schema.name`)."""
        if not self.exists():
            return False
        if re.fullmatch(NAME, name.encode()):  # also `public."a.b"`, where only quotes tell which is which
            schema, table = unquoted(name.encode())
        else:
            schema, _, table = name.rpartition(".")
        with self._connected() as connection:
            query = "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
            found = connection.execute(
                f"{query} WHERE c.relname = %s AND n.nspname = %s",  # our own words
                [table, schema or "public"],
            )
            return found.fetchone() is not None

    def create(self) -> None:
        """Make the database. EngineError when it exists or the user may not."""
        with self._maintaining() as connection:
            connection.execute(self._creation(connection, self._like))

    def drop(self) -> None:
        """Drop the database and end whatever is connected to it; no error when it does not exist."""
        with self._maintaining() as connection:
            self._drop(connection)

    def clear(self) -> None:
        """Drop the database with all connections to it, and make it again with the same encoding, locale, owner and
        privileges on it: who may not connect now may not afterwards.
        """
        with self._maintaining() as connection:
            creation = self._creation(connection, self.address.database)
            query = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
            owner = connection.execute(query, [self.address.database]).fetchone()
            privileges = self._privileges(connection)
            self._drop(connection)
            connection.execute(creation)
            for statement in privileges:
                connection.execute(statement)
            if owner and owner[0] != connection.info.user:
                connection.execute(
                    sql.SQL("ALTER DATABASE {} OWNER TO {}").format(
                        sql.Identifier(self.address.database), sql.Identifier(owner[0])
                    )
                )

    def _privileges(self, connection: Connection[Any]) -> list[sql.Composed]:
        """Statements that give a new database the privileges of this one; none where nobody ever changed them."""
        name = sql.Identifier(self.address.database)
        query = (
            "SELECT CASE grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(grantee) END, privilege_type, is_grantable"
            " FROM pg_database, aclexplode(datacl) WHERE datname = %s"
        )
        granted = connection.execute(query, [self.address.database]).fetchall()
        found = [sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name)] if granted else []
        for grantee, privilege, grantable in granted:
            role = sql.SQL("PUBLIC") if grantee is None else sql.Identifier(grantee)
            further = sql.SQL(" WITH GRANT OPTION" if grantable else "")
            found.append(sql.SQL("GRANT {} ON DATABASE {} TO {}").format(sql.SQL(privilege), name, role) + further)
        return found

    def _drop(self, connection: Connection[Any]) -> None:
        name = sql.Identifier(self.address.database)
        if connection.info.server_version >= 130000:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))
            return
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [self.address.database]
        )
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))

    def _creation(self, connection: Connection[Any], like_name: str) -> sql.Composed:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(self.address.database))
        query = "SELECT pg_encoding_to_char(encoding), to_jsonb(d) FROM pg_database d WHERE datname = %s"
        like = connection.execute(query, [like_name]).fetchone()
        if like is None:
            return statement
        encoding, facts = like
        given = {"ENCODING": encoding, "LC_COLLATE": facts["datcollate"], "LC_CTYPE": facts["datctype"]}
        locale = facts.get("datlocale") or facts.get("daticulocale")  # as it is called since 17, and before
        if facts.get("datlocprovider") == "i":
            given |= {"LOCALE_PROVIDER": "icu", "ICU_LOCALE": locale}
        elif facts.get("datlocprovider") == "b":
            given |= {"LOCALE_PROVIDER": "builtin", "BUILTIN_LOCALE": locale}
        return statement + sql.Composed(
            [sql.SQL(" {} {}").format(sql.SQL(name), sql.Literal(value)) for name, value in given.items()]
        )

    @contextmanager
    def _maintaining(self) -> Iterator[Connection[Any]]:
        """A connection to another database of the server than the one that is to be made or dropped."""
        others = [name for name in (self._like, *MAINTENANCE) if name and name != self.address.database]
        for name in others[:-1]:
            try:
                connection = self._connect(name)
            except EngineError:
                continue  # it may be missing, or closed to this user; the last one says what is wrong
            break
        else:
            connection = self._connect(others[-1])
        with self._explained(connection):
            yield connection

    @contextmanager
    def _connected(self) -> Iterator[Connection[Any]]:
        with self._explained(self._connect(self.address.database, QUERY_SECONDS)) as connection:
            yield connection

    @contextmanager
    def _explained(self, connection: Connection[Any]) -> Iterator[Connection[Any]]:
        try:
            with connection:
                yield connection
        except psycopg.Error as error:
            # Without its chain here and below: a traceback of the driver's may show what it was given.
            raise _refused(f"PostgreSQL at {self._place} refused", error, self.address.password) from None

    def _connect(self, database: str, seconds: int = 0) -> Connection[Any]:
        """`seconds` limits each statement; 0 does not."""
        settings = self._settings() | {"dbname": database, "options": f"-c statement_timeout={seconds}s"}
        try:
            return psycopg.connect(make_conninfo("", **settings, passfile=NO_FILE), autocommit=True)
        except psycopg.Error as error:
            raise _refused(f"PostgreSQL at {self._place} cannot be used", error, self.address.password) from None

    @property
    def _place(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    def _sign_in(self, **environment: str) -> dict[str, Any]:
        """How a client finds the server: libpq's password file must be a plain one, its service file may be a pipe."""
        settings = self._settings()
        lines = [f"{name}={value}" for name, value in settings.items() if value]
        for name, value in settings.items():
            too_long = len(f"{name}={value}".encode()) > SERVICE_LINE_BYTES
            if too_long or value != value.rstrip() or "\n" in value:
                raise EngineError(
                    f"The {name} in the database URL cannot be handed to PostgreSQL's programs: it ends with white"
                    f" space, holds a line break, or is longer than about {SERVICE_LINE_BYTES} bytes; choose another."
                )
        return {
            "credentials": "\n".join(["[pulsewatch]", *lines, ""]),
            "password": self.address.password,
            "environment": environment
            | {"PGSERVICEFILE": CREDENTIALS, "PGSERVICE": "pulsewatch", "PGPASSFILE": NO_FILE},
        }

    def _settings(self) -> dict[str, str]:
        """As libpq calls them."""
        address = self.address
        return {
            "host": address.host,
            "port": str(address.port),
            "user": address.user,
            "password": address.password,
            "dbname": address.database,
            "connect_timeout": str(CONNECT_SECONDS),
            "application_name": APPLICATION,
            **address.options,
        }


class _Restoring:
    """psql, fed with what a script makes of the dump, in one transaction that only `finish` commits."""

    def __init__(self, client: RestoreClient, script: Script) -> None:
        self._client = client
        self._script = script
        self._next = b"BEGIN;\n"

    def write(self, block: memoryview) -> None:
        if text := b"".join((self._next, *self._script.feed(block))):
            self._client.write(memoryview(text))
        self._next = b""

    def finish(self) -> None:
        self._script.close()
        self._client.write(memoryview(b"COMMIT;\n"))
        self._client.finish()

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)


def _major(connection: Connection[Any]) -> int:
    return connection.info.server_version // 10000


def _server_version(connection: Connection[Any]) -> str:
    return (connection.info.parameter_status("server_version") or "").split(" ")[0]


def _client(name: str, major: int) -> tuple[Path, str]:
    """The program and its version that fits the server best: of its own major version, else the next newer one.

    EngineError when all are older: they would not know what the server has.
    """
    off_path = [path for top, pattern in _FOLDERS for path in Path(top).glob(f"{pattern}/{name}")]
    found = [
        (int(match[2]), match[1], program)
        for program in (*off_path, *programs(name))
        if (match := _VERSION.search(version_text(program)))
    ]
    package = f"apt-get install postgresql-client-{major}"
    if not found:
        raise EngineError(f"{name} is not installed here; install it with: {package}")
    fitting = [client for client in found if client[0] >= major]
    if not fitting:
        newest = max(found)[1]
        raise EngineError(
            f"{name} {newest} is older than the server, PostgreSQL {major}; install one that fits with: {package}"
        )
    _, version, program = min(fitting, key=lambda client: client[0])
    return program, version


def _restricts(psql: Path) -> bool:
    """Whether this psql knows \\restrict, which came with the minor releases of August 2025."""
    said = subprocess.run(
        [psql, "--help=commands"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=VERSION_SECONDS,
        env=neutral_environment(),
        check=False,
    )
    return b"\\restrict" in said.stdout


def _remedy(said: str) -> str:
    """What to do about a complaint of the server or its clients; empty where its own words are all there is."""
    return next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, said, re.IGNORECASE)), "")


def _refused(what: str, error: psycopg.Error, password: str) -> EngineError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[0].removesuffix(".")
    if password:
        said = said.replace(password, "[redacted]")
    remedy = _remedy(said)
    return EngineError(f"{what}: {said}.{' ' if remedy else ''}{remedy}")

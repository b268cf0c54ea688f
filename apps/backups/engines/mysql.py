"""MySQL and MariaDB, through the client programs of the server's own vendor."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

from apps.backups.engines.base import EngineError, Finding, Objects, Preflight
from apps.backups.engines.clients import DumpClient, RestoreClient
from apps.backups.engines.mysql_clients import (
    CONNECT_SECONDS,
    UNREACHABLE,
    client_for,
    defaults_file,
    dump_command,
    explain,
    remedy,
    restore_command,
    server_version,
    ssl_mode,
)
from apps.backups.engines.mysql_grants import Grants, missing
from apps.backups.engines.mysql_reader import MySQLReader
from apps.backups.engines.mysql_restore import MySQLRestoring
from apps.core.redaction import redact
from apps.inventory.addresses import Address

ANSWER_SECONDS = 60  # for one answer from the catalogue, which is slow where there are many tables
LOCK_SECONDS = 60  # that DROP DATABASE waits for sessions of others; the server itself would wait for a day or a year
DROP_SECONDS = 3600  # for DROP DATABASE, which deletes the files of every table
ROOMY_PACKET = 1 << 30  # bytes: the most that max_allowed_packet can be
LOST = (2006, 2013)  # the client library's codes for a connection that ended
TLS_ERROR = 2026  # the client library's code for no TLS, or none it trusts
NAMED = 5  # tables named in one sentence; the rest is counted

# MariaDB calls a table with history SYSTEM VERSIONED and lists sequences as tables; all have a section in a dump.
_TABLE_TYPES = ("BASE TABLE", "SYSTEM VERSIONED", "SEQUENCE")
_ROUTINE_TYPES = ("PROCEDURE", "FUNCTION", "PACKAGE", "PACKAGE BODY")
_LARGE_TYPES = ("mediumblob", "longblob", "mediumtext", "longtext", "json", "geometry")


class MySQLEngine:
    """One schema of a MySQL or MariaDB server."""

    extension = "sql"

    def __init__(self, address: Address, *, like: str = "") -> None:
        """`like` names a schema of the server whose default collation `create()` takes over."""
        self.address = address
        self._like = like

    # ---- What is there -----------------------------------------------------------------------------------------------

    def preflight(self) -> Preflight:
        """What stands in the way of a whole backup. EngineError when the server cannot be asked."""
        with self._connection() as connection:
            server = connection.version
            if not self._exists(connection):
                raise EngineError(
                    "The schema does not exist, or the user has no privilege on it: create it, grant SELECT on it, or "
                    "correct the schema name at the end of the URL."
                )
            client = client_for(server, "dump")
            client_for(server, "restore")
            grants = Grants(str(row[0]) for row in connection.rows("SHOW GRANTS"))
            findings = missing(grants, server, self.address.database)
            if client.version.key[:2] < server.key[:2]:
                findings.append(
                    Finding(
                        "warning",
                        f"The client {client} is older than the server {server}: what is new in the server it may not "
                        "know how to dump.",
                        f"Install {server.vendor}'s client {server.number} or newer.",
                    )
                )
            findings += self._names_with_breaks(connection)
            findings += self._packet(connection)
            return Preflight(
                findings=tuple(findings),
                server=str(server),
                client=str(client),
                size_bytes=self._size(connection),
                objects=self._objects(connection),
            )

    def objects(self) -> Objects:
        """What the catalogue lists, as far as this user may see it."""
        with self._connection() as connection:
            return self._objects(connection)

    def notes(self) -> Sequence[str]:
        """What a dump of this schema rounds, leaves out or cannot hold still, in sentences."""
        with self._connection() as connection:
            return [text for text in self._notes(connection) if text]

    def exists(self) -> bool:
        """Whether the schema exists and this user may see it."""
        with self._connection() as connection:
            return self._exists(connection)

    def is_empty(self) -> bool:
        """Whether the schema exists and holds no table, view, routine or event."""
        with self._connection() as connection:
            return self._exists(connection) and self._objects(connection) == Objects()

    def has_table(self, name: str) -> bool:
        """Whether the schema exists and holds a table or view of that name."""
        with self._connection() as connection:
            found = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
            return bool(connection.rows(found, self.address.database, name))

    # ---- Dump and restore --------------------------------------------------------------------------------------------

    def dump(self) -> DumpClient:
        """Start a dump of the whole schema."""
        with self._connection() as connection:
            if findings := self._names_with_breaks(connection):
                raise EngineError(f"{findings[0].text} {findings[0].remedy}")
            client = client_for(connection.version, "dump")
        return DumpClient(
            dump_command(client, self.address.database),
            credentials=defaults_file(self.address, client),
            password=self.address.password,
            explain=explain,
        )

    def reader(self) -> MySQLReader:
        """A reader for the dumps of this engine."""
        return MySQLReader()

    def restore(
        self, *, events: bool = True, table: str | None = None, on_wait: Callable[[], None] | None = None
    ) -> MySQLRestoring:
        """Start a restore into the schema, which exists; see `MySQLRestoring`."""
        with self._connection() as connection:
            server = connection.version
            if not self._exists(connection):
                raise EngineError("The schema to restore to does not exist, or the user may not see it.")
        client = client_for(server, "restore")
        running = RestoreClient(
            restore_command(client, self.address.database),
            credentials=defaults_file(self.address, client),
            password=self.address.password,
            explain=explain,
            on_wait=on_wait,
        )
        return MySQLRestoring(running, server, events=events, table=table)

    def refuses(self, server: str) -> str:
        """Why a dump of that server ("MariaDB 10.11.19") cannot be restored to this one; empty when it can."""
        vendor = server.partition(" ")[0]
        with self._connection() as connection:
            here = connection.version
        if vendor == here.vendor:
            return ""
        return (
            f"This is a backup of {server} and the server is {here}: each writes what the other does not accept. "
            f"Restore it to a {vendor} server."
        )

    # ---- Schemas -----------------------------------------------------------------------------------------------------

    def at(self, database: str) -> "MySQLEngine":
        """Another schema of the same server; when made, it has the default collation of this one."""
        return MySQLEngine(replace(self.address, database=database), like=self.address.database)

    def create(self) -> None:
        """Make the schema; EngineError when it exists."""
        with self._connection() as connection:
            connection.rows(self._creation(connection, self._like))

    def drop(self) -> None:
        """Delete the schema and all it holds; nothing happens when it does not exist."""
        with self._connection(DROP_SECONDS) as connection:
            self._drop(connection)

    def clear(self) -> None:
        """Delete all the schema holds; its default collation and the grants on it stay.

        EngineError, with all as it was, when a session keeps a table of it locked for LOCK_SECONDS.
        """
        with self._connection(DROP_SECONDS) as connection:
            creation = self._creation(connection, self.address.database)
            self._drop(connection)
            connection.rows(creation)

    def _drop(self, connection: "_Connection") -> None:
        connection.rows(f"SET SESSION lock_wait_timeout = {LOCK_SECONDS}")
        connection.rows(f"DROP DATABASE IF EXISTS {quoted(self.address.database)}")

    def _creation(self, connection: "_Connection", like: str) -> str:
        rows = connection.rows(
            "SELECT default_character_set_name, default_collation_name FROM information_schema.schemata "
            "WHERE schema_name = %s",
            like,
        )
        charset, collation = rows[0] if rows else ("utf8mb4", "")
        collate = f" COLLATE {collation}" if collation else ""
        return f"CREATE DATABASE {quoted(self.address.database)} CHARACTER SET {charset}{collate}"

    # ---- The catalogue -----------------------------------------------------------------------------------------------

    @contextmanager
    def _connection(self, seconds: int = ANSWER_SECONDS) -> "Iterator[_Connection]":
        connection = _Connection(self.address, seconds)
        with closing(connection):
            yield connection

    def _exists(self, connection: "_Connection") -> bool:
        found = "SELECT 1 FROM information_schema.schemata WHERE schema_name = %s"
        return bool(connection.rows(found, self.address.database))

    def _objects(self, connection: "_Connection") -> Objects:
        schema = self.address.database

        def count(what: str, kind: str, *types: str) -> int:
            among = f" AND {kind}_type IN ({', '.join(['%s'] * len(types))})" if types else ""
            name = "table_schema" if kind == "table" else f"{kind}_schema"
            query = f"SELECT COUNT({what}) FROM information_schema.{kind}s WHERE {name} = %s{among}"  # noqa: S608  # our own words
            return int(connection.rows(query, schema, *types)[0][0])

        return Objects(
            tables=count("*", "table", *_TABLE_TYPES),
            views=count("*", "table", "VIEW"),
            routines=count("*", "routine", *_ROUTINE_TYPES),
            triggers=count(
                "DISTINCT trigger_name", "trigger"
            ),  # one that fires on several occasions is listed for each
            events=count("*", "event"),
        )

    def _size(self, connection: "_Connection") -> int:
        if connection.version.vendor == "MySQL" and connection.version.key >= (8,):
            connection.rows("SET SESSION information_schema_stats_expiry = 0")  # else up to a day old
        query = "SELECT SUM(data_length + index_length) FROM information_schema.tables WHERE table_schema = %s"
        return int(connection.rows(query, self.address.database)[0][0] or 0)

    def _names_with_breaks(self, connection: "_Connection") -> list[Finding]:
        rows = connection.rows(
            "SELECT COUNT(*) FROM information_schema.columns WHERE table_schema = %s "
            "AND CONCAT(table_name, column_name) REGEXP %s",
            self.address.database,
            "[\r\n]",
        )
        if not rows[0][0]:
            return []
        text = "The name of a table or column holds a line break, which no dump can carry safely."
        return [Finding("error", text, "Rename it.")]

    def _packet(self, connection: "_Connection") -> list[Finding]:
        allowed = int(connection.rows("SELECT @@GLOBAL.max_allowed_packet")[0][0])
        marks = ", ".join(["%s"] * len(_LARGE_TYPES))
        rows = connection.rows(
            "SELECT DISTINCT c.table_name FROM information_schema.columns c "  # noqa: S608  # marks only
            "JOIN information_schema.tables t USING (table_schema, table_name) "
            f"WHERE c.table_schema = %s AND t.table_type <> 'VIEW' AND c.data_type IN ({marks}) ORDER BY 1",
            self.address.database,
            *_LARGE_TYPES,
        )
        if allowed >= ROOMY_PACKET or not rows:
            return []
        return [
            Finding(
                "warning",
                f"The server's max_allowed_packet is {allowed >> 20} MiB: a row of {_named(rows)} whose text in the "
                "dump is longer, in which binary values take twice their size, can be dumped but not restored.",
                f"SET GLOBAL max_allowed_packet = {ROOMY_PACKET};",
            )
        ]

    def _notes(self, connection: "_Connection") -> Iterator[str]:
        schema = self.address.database
        if rows := connection.rows(
            "SELECT DISTINCT c.table_name FROM information_schema.columns c "
            "JOIN information_schema.tables t USING (table_schema, table_name) "
            "WHERE c.table_schema = %s AND t.table_type <> 'VIEW' AND c.data_type = 'float' ORDER BY 1",
            schema,
        ):
            yield (
                f"FLOAT columns of {_named(rows)} are rounded to six digits by the dump, and equal digests do not "
                "show it; DOUBLE or DECIMAL is exact."
            )
        if rows := connection.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s "
            "AND table_type = 'SYSTEM VERSIONED' ORDER BY 1",
            schema,
        ):
            yield f"The history of {_named(rows)} (system-versioned) is not in the dump, only the present rows."
        if rows := connection.rows(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s "
            "AND table_type IN ('BASE TABLE', 'SYSTEM VERSIONED') AND engine NOT IN "
            "(SELECT engine FROM information_schema.engines WHERE transactions = 'YES') ORDER BY 1",
            schema,
        ):
            yield (
                f"{_named(rows)} (not InnoDB) may change while the dump runs: rows written meanwhile can be missing or "
                "half there. ALTER TABLE … ENGINE=InnoDB avoids it."
            )
        if rows := connection.rows(
            "SELECT event_name FROM information_schema.events WHERE event_schema = %s AND "
            "on_completion = 'NOT PRESERVE' AND (execute_at IS NOT NULL OR ends IS NOT NULL) ORDER BY 1",
            schema,
        ):
            yield f"A restore later than the end of {_named(rows)} (event, NOT PRESERVE) leaves it out."
        own = "%" + quoted(schema).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + ".%"
        bodies = (
            ("routine_name", "routines", "routine_schema", "routine_definition"),
            ("trigger_name", "triggers", "trigger_schema", "action_statement"),
            ("event_name", "events", "event_schema", "event_definition"),
        )
        named: list[tuple[Any, ...]] = []
        for name, catalogue, of, text in bodies:
            query = f"SELECT {name} FROM information_schema.{catalogue} WHERE {of} = %s AND {text} LIKE %s"  # noqa: S608  # our own words
            named += connection.rows(query, schema, own)
        if named:
            yield f"{_named(named)} name this schema in their text: restored under another name they still use it."


class _Connection:
    """A signed-in connection that turns the driver's errors into sentences."""

    def __init__(self, address: Address, seconds: int) -> None:
        try:
            import MySQLdb
        except ImportError as error:
            raise EngineError("MySQL needs mysqlclient: pip install -r requirements/mysql.txt") from error
        self._driver = MySQLdb
        self._address = address
        mode = ssl_mode(address)
        # MariaDB's connector takes REQUIRED for "if the server can" and PREFERRED for "no"; Oracle's takes both as
        # they are meant.
        for attempt in ("REQUIRED", "DISABLED") if mode == "PREFERRED" else (mode,):
            try:
                self._connection = self._connect(attempt, seconds)
                break
            except MySQLdb.Error as error:
                if mode == "PREFERRED" and attempt == "REQUIRED" and error.args[:1] == (TLS_ERROR,):
                    continue
                where = address.options.get("unix_socket") or f"{address.host}:{address.port}"
                raise self._explained(error, f"Cannot sign in to MySQL at {where}") from None
        if mode == "REQUIRED" and not self.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'")[0][1]:
            self.close()
            raise EngineError("ssl_mode is REQUIRED and the server offers no TLS: set it up there, or lower ssl_mode.")
        self.version = server_version(str(self.rows("SELECT VERSION()")[0][0]))

    def _connect(self, mode: str, seconds: int) -> Any:
        options = self._address.options
        files = {name: options[f"ssl_{name}"] for name in ("ca", "cert", "key") if f"ssl_{name}" in options}
        where: dict[str, Any] = {"host": self._address.host, "port": self._address.port}
        if socket := options.get("unix_socket"):
            where = {"unix_socket": socket}
        return self._driver.connect(
            user=self._address.user,
            password=self._address.password,
            charset="utf8mb4",
            connect_timeout=CONNECT_SECONDS,
            read_timeout=seconds,
            write_timeout=seconds,
            ssl_mode=mode,
            **({"ssl": files} if files and mode != "DISABLED" else {}),
            **where,
        )

    def rows(self, query: str, *values: str) -> list[tuple[Any, ...]]:
        """The answer to a query."""
        try:
            with closing(self._connection.cursor()) as cursor:
                cursor.execute(query, values or None)
                return list(cursor.fetchall())
        except self._driver.Error as error:
            raise self._explained(error, "The server refused") from None

    def close(self) -> None:
        """Sign out."""
        self._connection.close()

    def _explained(self, error: Exception, what: str) -> EngineError:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        if self._address.password:
            text = text.replace(self._address.password, "[redacted]")
        lost = code in LOST and not hasattr(self, "version")  # before it has said anything: nothing was asked of it yet
        return EngineError(f"{what} ({code}: {redact(text)}). {UNREACHABLE if lost else remedy(code)}".rstrip())


def quoted(name: str) -> str:
    """A name as SQL writes it. EngineError for one that MySQL would silently change into another."""
    if any(ord(letter) > 0xFFFF for letter in name):
        raise EngineError(
            "The schema name holds an emoji or another character that MySQL turns into ?: choose another."
        )
    return "`" + name.replace("`", "``") + "`"


def _named(rows: Sequence[tuple[Any, ...]]) -> str:
    names = [str(row[0]) for row in rows]
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")

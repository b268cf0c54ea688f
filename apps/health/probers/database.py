"""Looks at databases: connects, asks something small, reads how many connections there are. Never raises for one.

MySQL's and SQLite's drivers block, so their looks have threads of their own; PostgreSQL and Redis are spoken to from
the event loop. Either way the time limit holds whatever the server does, and no text of a driver is passed on: it may
quote the user, the host or the statement.
"""

import asyncio
import socket
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from apps.core.reach import address_fault
from apps.health.rules.checks import CONNECTED, DISCONNECTED, ERROR, QUERY_FAILED, SUCCESS, TIMEOUT, Look
from apps.inventory.addresses import Address, AddressInvalid, mysql_ssl_mode

THREADS = 32  # looks at MySQL, MariaDB and SQLite at the same time; a server that hangs holds one until its time-out
TLS_ERROR = 2026  # of MySQL's clients: no encryption could be agreed on


@dataclass(frozen=True, slots=True)
class Target:
    """Which database, and how long a look may take, in seconds."""

    address: Address
    timeout: float = 5.0


class _Failed(Exception):
    """The look ended early: how, and why in words for people."""

    def __init__(self, connection: str, text: str) -> None:
        super().__init__(text)
        self.connection = connection


class Looker:
    """Looks at databases from one event loop; `close` when the loop ends."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="look")
        self._places = asyncio.Semaphore(THREADS)

    def close(self) -> None:
        """Wait for nobody: a driver that hangs past its own time limit keeps its thread, not us."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def look(self, target: Target) -> Look:
        """One look."""
        progress = _Progress()
        try:
            async with asyncio.timeout(target.timeout):
                await self._dispatch(target, progress)
        except TimeoutError:
            progress.timed_out(target.timeout)
        except _Failed as failed:
            progress.failed(failed.connection, str(failed))
        return progress.look()

    async def _dispatch(self, target: Target, progress: "_Progress") -> None:
        address = target.address
        if address.engine != "sqlite" and "unix_socket" not in address.options:
            await _check_place(address)
        if address.engine == "postgresql":
            await _postgresql(address, progress)
        elif address.engine == "redis":
            await _redis(address, progress)
        else:
            blocking = {"mysql": _mysql, "sqlite": _sqlite}[address.engine]
            await self._in_thread(blocking, target, progress)

    async def _in_thread(
        self, look: Callable[[Address, float, "_Progress"], None], target: Target, progress: "_Progress"
    ) -> None:
        if self._places.locked():
            progress.ours("could not be looked at: too many databases hang at the same time")
            return
        await self._places.acquire()
        work = asyncio.get_running_loop().run_in_executor(self._threads, look, target.address, target.timeout, progress)
        work.add_done_callback(self._free)
        await asyncio.shield(work)

    def _free(self, work: asyncio.Future[None]) -> None:
        """The place belongs to the thread: after we have stopped waiting, it may still be taken for a while."""
        self._places.release()
        if not work.cancelled():
            work.exception()  # nobody waits for it any more


class _Progress:
    """How far a look has come, so that a time-out can say where it happened."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._started = time.perf_counter()

    def connected(self) -> None:
        """Signed in; from now on it is the query's time."""
        now = time.perf_counter()
        self._values |= {"connection": CONNECTED, "connect_ms": _ms(self._started, now)}
        self._started = now

    def answered(self) -> None:
        """The query was answered."""
        self._values |= {"query": SUCCESS, "query_ms": _ms(self._started, time.perf_counter())}

    def counted(self, used: object, limit: object) -> None:
        """Connections of the server; what is no number was not measured."""
        for name, value in (("used", used), ("limit", limit)):
            text = str(value)
            if text.isdecimal() and int(text) < 2**31:
                self._values[name] = int(text)

    def ours(self, text: str) -> None:
        """It could not be looked at, through no fault of its own."""
        self._values |= {"failure": text, "ours": True}

    def failed(self, connection: str, text: str) -> None:
        """It ended early."""
        if "query_ms" in self._values:  # the count of connections alone is missing
            return
        if "connect_ms" in self._values:
            self._values |= {"query": QUERY_FAILED, "failure": text}
        else:
            self._values |= {"connection": connection, "failure": text}

    def timed_out(self, seconds: float) -> None:
        """Nothing more came in time."""
        self.failed(TIMEOUT, f"did not answer within {seconds:g} s")

    def look(self) -> Look:
        """What is known now. A thread that comes later changes nothing of it."""
        return Look(**self._values)


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 3)


async def _check_place(address: Address) -> None:
    """Refuse link-local and metadata addresses. Databases on this machine are fine: many teams have theirs there."""
    loop = asyncio.get_running_loop()
    try:
        places = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _Failed(ERROR, "its host name cannot be resolved") from None
    for *_, place in places:
        if fault := address_fault(str(place[0]), allow_loopback=True):
            raise _Failed(ERROR, f"leads to an address that {fault}")


def _mysql(address: Address, timeout: float, progress: _Progress) -> None:
    try:
        import MySQLdb
    except ImportError:
        progress.ours("could not be looked at: mysqlclient is missing here (pip install -r requirements/mysql.txt)")
        return
    seconds = max(1, round(timeout))  # the driver counts in whole ones
    try:
        with closing(_mysql_connection(MySQLdb, address, seconds)) as connection:
            progress.connected()
            _ask(connection, "SELECT 1")
            progress.answered()
            # Both need no privilege; one statement, for MySQL and MariaDB have the tables of it in different places.
            used = _ask(connection, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
            limit = _ask(connection, "SHOW GLOBAL VARIABLES LIKE 'max_connections'")
            progress.counted(used and used[1], limit and limit[1])
    except MySQLdb.Error as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        progress.failed(*_MYSQL_ERRORS.get(number, (ERROR, f"refused with MySQL's error {number}")))
    except AddressInvalid as error:
        progress.failed(ERROR, str(error))


_GONE = (DISCONNECTED, "refused or broke the connection")
_MYSQL_ERRORS = {
    2002: _GONE,
    2003: _GONE,
    2006: _GONE,
    2013: (TIMEOUT, "did not answer in time, or broke the connection"),
    2005: (ERROR, "its host name cannot be resolved"),
    TLS_ERROR: (ERROR, "no encrypted connection could be agreed on: check ssl_mode and ssl_ca in its URL"),
    1040: (DISCONNECTED, "takes no more connections: all of max_connections are in use"),
    1044: (ERROR, "refuses the user its schema"),
    1045: (ERROR, "refuses user or password"),
    1049: (ERROR, "has no such schema"),
    1129: (ERROR, "has blocked this host after too many errors: FLUSH HOSTS unblocks it"),
    1130: (ERROR, "does not let this host connect"),
}


def _mysql_connection(driver: Any, address: Address, seconds: int) -> Any:
    options = address.options
    mode = mysql_ssl_mode(options)
    files = {name: options[f"ssl_{name}"] for name in ("ca", "cert", "key") if f"ssl_{name}" in options}
    place = {"host": address.host, "port": address.port}
    if "unix_socket" in options:
        place = {"unix_socket": options["unix_socket"]}
    # MariaDB's connector takes REQUIRED for "if the server can" and PREFERRED for "no"; Oracle's as they are meant.
    attempts = ("REQUIRED", "DISABLED") if mode == "PREFERRED" else (mode,)
    for attempt in attempts:
        try:
            return driver.connect(
                user=address.user,
                password=address.password,
                database=address.database,
                connect_timeout=seconds,
                read_timeout=seconds,
                write_timeout=seconds,
                ssl_mode=attempt,
                **({"ssl": files} if files and attempt != "DISABLED" else {}),
                **place,
            )
        except driver.Error as error:
            if attempt == attempts[-1] or error.args[:1] != (TLS_ERROR,):
                raise
    raise AssertionError("the last attempt returns or raises")


def _ask(connection: Any, statement: str) -> Any:
    with closing(connection.cursor()) as cursor:
        cursor.execute(statement)
        return cursor.fetchone()


def _sqlite(address: Address, timeout: float, progress: _Progress) -> None:
    try:
        # Read-only, so that a file that is gone is not made anew.
        uri = f"file:{quote(address.database)}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=timeout)) as connection:
            progress.connected()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # "SELECT 1" would not open the file
            progress.answered()
    except sqlite3.Error:
        progress.failed(ERROR, "the file cannot be opened or read as a SQLite database")


async def _postgresql(address: Address, progress: _Progress) -> None:
    import psycopg

    try:
        connection = await psycopg.AsyncConnection.connect(
            host=address.host,
            port=address.port,
            user=address.user,
            password=address.password,
            dbname=address.database,
            application_name="pulsewatch",
            autocommit=True,
            **dict(address.options),  # type: ignore[arg-type]  # texts, as libpq takes them
        )
        async with connection:
            progress.connected()
            await connection.execute("SELECT 1")
            progress.answered()
            row = await (
                await connection.execute(
                    "SELECT (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),"
                    " current_setting('max_connections')"
                )
            ).fetchone()
            progress.counted(*(row or (None, None)))
    except psycopg.errors.InvalidPassword:
        raise _Failed(ERROR, "refuses user or password") from None
    except psycopg.errors.InvalidCatalogName:
        raise _Failed(ERROR, "has no such database") from None
    except psycopg.OperationalError as error:
        raise _Failed(*_postgresql_said(str(error))) from None
    except (psycopg.Error, OSError):
        raise _Failed(ERROR, "refused, or broke the connection") from None


def _postgresql_said(text: str) -> tuple[str, str]:
    """libpq's own failures have no code: known words of its text, in the language it has without a locale."""
    known = (
        ("password authentication failed", ERROR, "refuses user or password"),
        ("does not exist", ERROR, "has no such database or user"),
        ("too many", DISCONNECTED, "takes no more connections"),
        ("remaining connection slots", DISCONNECTED, "takes no more connections: all of max_connections are in use"),
        ("no pg_hba.conf entry", ERROR, "does not let this host or user connect (pg_hba.conf)"),
        ("SSL", ERROR, "no encrypted connection could be agreed on: check sslmode in its URL"),
        ("certificate", ERROR, "its certificate is refused: check sslrootcert in its URL"),
    )
    for words, connection, said in known:
        if words in text:
            return connection, said
    return _GONE


async def _redis(address: Address, progress: _Progress) -> None:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import AuthenticationError, RedisError, ResponseError

    client = redis.asyncio.Redis(
        host=address.host,
        port=address.port,
        db=int(address.database),
        username=address.user or None,
        password=address.password or None,
        ssl="tls" in address.options,
        ssl_ca_certs=address.options.get("ssl_ca"),
        retry=Retry(NoBackoff(), 0),
        single_connection_client=True,
    )
    try:
        async with client as connection:  # connects and signs in
            progress.connected()
            await connection.ping()
            progress.answered()
            facts = await connection.info("clients")
            progress.counted(facts.get("connected_clients"), facts.get("maxclients"))
    except AuthenticationError:
        raise _Failed(ERROR, "refuses user or password") from None
    except ResponseError:
        raise _Failed(ERROR, "refused: it asks for a password, has no such number, or forbids the command") from None
    except (RedisError, OSError):
        raise _Failed(*_GONE) from None

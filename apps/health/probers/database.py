"""Looks at databases: connects, asks something small, reads how many connections there are. Never raises for one.

MySQL's and SQLite's drivers block, so their looks have threads of their own; PostgreSQL and Redis are spoken to from
the event loop. Either way the time limit holds whatever the server does, and no text of a driver is passed on: it may
quote the user, the host or the statement.

A host name is resolved once, here; what it leads to is judged, and the driver is given those addresses and no name to
ask for again.
"""

import asyncio
import os
import socket
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from apps.core.reach import address_fault
from apps.core.threads import LeftBehind
from apps.health.rules.checks import CONNECTED, DISCONNECTED, ERROR, QUERY_FAILED, SUCCESS, TIMEOUT, Look
from apps.inventory.addresses import Address, AddressInvalid, mysql_ssl_mode

# Looks that need a thread, at the same time: so many at databases that were well the last time, and as many at those
# that were not, which may hang. A hundred that hang for half of each minute have room, and leave the others theirs.
THREADS = 64
PLACE_SECONDS = 30.0  # how long a look waits for its thread; with the longest look still within a slice's time limit
TLS_ERROR = 2026  # of MySQL's clients: no encryption could be agreed on
FILE_LIMIT = 1024 * 1024  # bytes of a certificate or key; all authorities of a system together have some 200 KiB
REDIS_LIMIT = 256 * 1024  # bytes a Redis may answer; what is asked takes some hundred
NO_FILE = "/dev/null/none"  # can never exist: no password file is read, not even the account's own
_FILES = ("ssl_ca", "ssl_cert", "ssl_key", "sslrootcert", "sslcert", "sslkey")  # options that name one


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


class _Left:
    """Places whose thread was left behind and has not come back: nobody starts another one for them.

    Of the process and not of one slice: else a file on a network that is gone would cost a thread a minute.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places: set[object] = set()

    def add(self, place: object) -> None:
        with self._lock:
            self._places.add(place)

    def discard(self, place: object) -> None:
        with self._lock:
            self._places.discard(place)

    def __contains__(self, place: object) -> bool:
        return place in self._places


_left = _Left()


class Looker:
    """Looks at databases from one event loop; `close` when the loop ends."""

    def __init__(self) -> None:
        self._threads = LeftBehind(2 * THREADS, "look")
        self._places = {suspect: asyncio.Semaphore(THREADS) for suspect in (False, True)}

    def close(self) -> None:
        """Wait for nobody: a driver that hangs past its own time limit keeps its thread, not us."""
        self._threads.shutdown(cancel_futures=True)

    async def look(self, target: Target, *, suspect: bool = False) -> Look:
        """One look. `suspect`: the last one failed, so this one may hang and shall not be in the way of the others.

        Waiting for a thread is no part of the time that is measured and limited.
        """
        address = target.address
        if address.engine not in ("mysql", "sqlite") and not _files(address.options):
            return await self._look(target, None)
        places = self._places[suspect]
        try:
            async with asyncio.timeout(PLACE_SECONDS):
                await places.acquire()
        except TimeoutError:
            return Look(failure="could not be looked at: too many databases hang at the same time", ours=True)
        work = _Work(self._threads, places)
        try:
            return await self._look(target, work)
        finally:
            work.end()

    async def _look(self, target: Target, work: "_Work | None") -> Look:
        progress = _Progress()
        try:
            async with asyncio.timeout(target.timeout):
                await _dispatch(target, progress, work)
        except TimeoutError:
            progress.timed_out(target.timeout)
        except _Failed as failed:
            progress.failed(failed.connection, str(failed))
        finally:
            progress.abandon()
        return progress.look()


class _Work:
    """The place of one look among the threads. It is free again when its thread is, not when we stop waiting for it."""

    def __init__(self, threads: LeftBehind, places: asyncio.Semaphore) -> None:
        self._threads, self._places = threads, places
        self._running: asyncio.Future[Any] | None = None

    async def run(self, look: Callable[..., None], key: object, *arguments: Any) -> None:
        """Have a thread do a part of the look; `key` says what may hang."""
        if key in _left:
            raise _Failed(TIMEOUT, "an earlier look at it still hangs, so no other one was begun")
        over = threading.Event()

        def call() -> None:
            try:
                look(*arguments)
            finally:
                over.set()
                _left.discard(key)

        self._running = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            await asyncio.shield(self._running)
        except asyncio.CancelledError:
            _left.add(key)
            if over.is_set():  # it came back in this moment
                _left.discard(key)
            raise

    def end(self) -> None:
        """Give the place back, as soon as that is right."""
        if self._running is None or self._running.done():
            self._places.release()
        else:
            self._running.add_done_callback(self._free)

    def _free(self, running: asyncio.Future[Any]) -> None:
        self._places.release()
        if not running.cancelled():
            running.exception()  # nobody waits for it any more


async def _dispatch(target: Target, progress: "_Progress", work: _Work | None) -> None:
    address = target.address
    if work and (files := _files(address.options)):
        await work.run(_check_files, ("files", *files), files)
    places: tuple[str, ...] = ()
    if address.engine != "sqlite" and "unix_socket" not in address.options:
        places = await _judged(address)
    if address.engine == "postgresql":
        await _postgresql(address, places, progress)
    elif address.engine == "redis":
        await _redis(address, places, progress)
    elif work:
        key = (address.engine, address.host, address.port, address.database, address.options.get("unix_socket"))
        if address.engine == "mysql":
            await work.run(_mysql, key, address, places, target.timeout, progress)
        else:
            await work.run(_sqlite, key, address, target.timeout, progress)


class _Progress:
    """How far a look has come, so that a time-out can say where it happened."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._started = time.perf_counter()
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._over = False

    def holds(self, descriptor: int) -> None:
        """A thread speaks over this connection; it is cut when nobody waits for the look any more."""
        with self._lock:
            self._line = socket.socket(fileno=os.dup(descriptor))
        if self._over:
            self.abandon()

    def abandon(self) -> None:
        """Nobody waits any more: cut the connection, so that a server that drips and drips holds no thread."""
        self._over = True
        with self._lock:
            if self._line is not None:
                with suppress(OSError):
                    self._line.shutdown(socket.SHUT_RDWR)
                self._line.close()
                self._line = None

    def connected(self) -> None:
        """Signed in; from now on it is the query's time."""
        now = time.perf_counter()
        self._values |= {"connection": CONNECTED, "connect_ms": _ms(self._started, now)}
        self._started = now

    @property
    def begun(self) -> bool:
        """Whether a server has let us in."""
        return "connection" in self._values

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


def _files(options: Mapping[str, str]) -> tuple[str, ...]:
    """The files that a driver would read. `system` is PostgreSQL's word for the authorities of the machine."""
    named = (options[name] for name in _FILES if name in options)
    return tuple(path for path in named if path and path != "system")


def _check_files(files: tuple[str, ...]) -> None:
    """Drivers read certificates in the event loop: a pipe, or a file without end, would hold up every check."""
    for path in files:
        try:
            seen = Path(path).stat()
        except OSError:
            raise _Failed(ERROR, "a certificate or key its URL names cannot be found here") from None
        if not stat.S_ISREG(seen.st_mode) or seen.st_size > FILE_LIMIT:
            raise _Failed(ERROR, "a certificate or key its URL names is no file, or larger than any certificate")


async def _judged(address: Address) -> tuple[str, ...]:
    """Where its host name leads. Refuses link-local and metadata addresses.

    Databases on this machine are fine: many teams have theirs there.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise _Failed(ERROR, "its host name cannot be resolved") from None
    places = tuple(dict.fromkeys(str(place[0]) for *_, place in found))
    for place in places:
        if fault := address_fault(place, allow_loopback=True):
            raise _Failed(ERROR, f"leads to an address that {fault}")
    return places


def _mysql(address: Address, places: tuple[str, ...], timeout: float, progress: _Progress) -> None:
    try:
        import MySQLdb
    except ImportError:
        progress.ours("could not be looked at: mysqlclient is missing here (pip install -r requirements/mysql.txt)")
        return
    try:
        with closing(_mysql_connection(MySQLdb, address, places, timeout)) as connection:
            progress.holds(connection.fileno())
            _check_peer(connection.fileno(), places)
            progress.connected()
            try:
                _mysql_ask(connection, "SELECT 1")
                progress.answered()
                # Both need no privilege; MySQL and MariaDB have the tables of it in different places.
                used = _mysql_ask(connection, "SHOW GLOBAL STATUS LIKE 'Threads_connected'")
                limit = _mysql_ask(connection, "SHOW GLOBAL VARIABLES LIKE 'max_connections'")
                progress.counted(used, limit)
            finally:
                progress.abandon()  # before the driver closes it, which reads the rest of an answer to its end
    except MySQLdb.Error as error:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
        progress.failed(*_MYSQL_ERRORS.get(number, (ERROR, f"refused with MySQL's error {number}")))
    except AddressInvalid as error:
        progress.failed(ERROR, str(error))


def _check_peer(descriptor: int, places: tuple[str, ...]) -> None:
    """Where the driver has looked the name up itself: is it connected to a place that was judged?"""
    with socket.socket(fileno=os.dup(descriptor)) as line:
        if line.family != socket.AF_UNIX and str(line.getpeername()[0]) not in places:
            raise _Failed(ERROR, "its host name led elsewhere the second time it was asked for")


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


def _mysql_connection(driver: Any, address: Address, places: tuple[str, ...], timeout: float) -> Any:
    """A connection to the first place that takes one, of the driver's bare kind: no statement of its own is sent."""
    options = address.options
    mode = mysql_ssl_mode(options)
    files = {name: options[f"ssl_{name}"] for name in ("ca", "cert", "key") if f"ssl_{name}" in options}
    # MariaDB's connector takes REQUIRED for "if the server can" and PREFERRED for "no"; Oracle's as they are meant.
    modes = ("REQUIRED", "DISABLED") if mode == "PREFERRED" else (mode,)
    attempts = [(place, attempt) for place in _mysql_places(address, places, mode) for attempt in modes]
    ends = time.monotonic() + timeout
    for number, (place, attempt) in enumerate(attempts, start=1):
        seconds = max(1, round(ends - time.monotonic()))  # the driver counts in whole ones
        try:
            return driver._mysql.connect(
                user=address.user,
                password=address.password,
                database=address.database,
                connect_timeout=seconds,
                read_timeout=seconds,
                write_timeout=seconds,
                local_infile=0,  # else a server may ask for any file of ours
                ssl_mode=attempt,
                **({"ssl": files} if files and attempt != "DISABLED" else {}),
                **place,
            )
        except driver.Error as error:
            known = error.args[:1]
            again = known == (TLS_ERROR,) and attempt != modes[-1]
            elsewhere = known in ((2002,), (2003,)) and time.monotonic() < ends
            if number == len(attempts) or not (again or elsewhere):
                raise
    raise AssertionError("the last attempt returns or raises")


def _mysql_places(address: Address, places: tuple[str, ...], mode: str) -> list[dict[str, Any]]:
    """What the driver is to connect to.

    `localhost` is its word for the socket file and asked of no name server. Where the certificate is verified it must
    be given the name, for it compares no other one; a server that has not proved that name is sent no credentials.
    """
    if "unix_socket" in address.options:
        return [{"unix_socket": address.options["unix_socket"]}]
    by_name = address.host == "localhost" or mode.startswith("VERIFY_")
    return [{"host": host, "port": address.port} for host in ((address.host,) if by_name else places)]


def _mysql_ask(connection: Any, statement: str) -> str | None:
    """The last column of the one row, read row by row: an answer without end fills no memory."""
    connection.query(statement.encode())
    result = connection.use_result()
    row = result.fetch_row(1) if result else ()
    if not row or result.fetch_row(1):
        raise _Failed(ERROR, "answers something else than was asked")
    return str(row[0][-1], "ascii", "replace") if row[0] and isinstance(row[0][-1], bytes) else None


def _sqlite(address: Address, timeout: float, progress: _Progress) -> None:
    try:
        if not stat.S_ISREG(Path(address.database).stat().st_mode):  # a pipe would hold us, and for ever
            progress.failed(ERROR, "is no file")
            return
        # Read-only, so that a file that is gone is not made anew.
        uri = f"file:{quote(address.database)}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=timeout)) as connection:
            progress.connected()
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # "SELECT 1" would not open the file
            progress.answered()
    except (sqlite3.Error, OSError):
        progress.failed(ERROR, "the file cannot be opened or read as a SQLite database")


async def _postgresql(address: Address, places: tuple[str, ...], progress: _Progress) -> None:
    import psycopg

    try:
        connection = await psycopg.AsyncConnection.connect(
            host=",".join([address.host] * len(places)),  # for the certificate's name
            hostaddr=",".join(places),
            port=address.port,
            user=address.user,
            password=address.password,
            passfile=NO_FILE,
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


async def _redis(address: Address, places: tuple[str, ...], progress: _Progress) -> None:
    from redis.exceptions import AuthenticationError, RedisError, ResponseError

    from apps.health.probers.redis_connection import client_of

    for number, place in enumerate(places, start=1):
        client = client_of(address, place, most=REDIS_LIMIT)
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
            raise _Failed(
                ERROR, "refused: it asks for a password, has no such number, or forbids the command"
            ) from None
        except (RedisError, OSError, ValueError):
            if progress.begun or number == len(places):
                raise _Failed(*_GONE) from None
        else:
            return

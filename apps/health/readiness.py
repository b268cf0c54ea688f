"""Whether this process can serve traffic: the checks behind `/ready` and `/health`.

The checks run at the same time, all under a time limit, in one thread for each server that lives as long as the
process. A check that hangs holds that one thread, and no second one is started for it, so probing leaks neither
threads nor connections.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.loader import MigrationLoader

from apps.core import metrics
from apps.core.connection import DRIVER_TIMEOUT, bounded
from apps.core.redaction import redact
from apps.health.rules import DATABASE_SLOW_MS, REDIS_SLOW_MS

logger = logging.getLogger(__name__)

REUSE_SECONDS = 1.0  # an answer is given again for this long: a probe storm costs one check a second
STALE_SECONDS = 2.0  # never older than this, also while a new check is under way
CHECK_NAMES = ("database", "redis", "migrations")
_DURATION = {name: metrics.health_check_duration.labels(check_name=name) for name in CHECK_NAMES}
_STATUS = {name: metrics.health_check_status.labels(check_name=name) for name in CHECK_NAMES}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One dependency. `error` is for holders of METRICS_TOKEN only."""

    status: str  # healthy, degraded, unhealthy
    latency_ms: float
    message: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """All dependencies at one moment."""

    at: datetime
    started: float  # time.monotonic() when its checks began
    checks: Mapping[str, CheckResult] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        return all(check.status != "unhealthy" for check in self.checks.values())


class DatabaseProbe:
    """A connection of its own with short driver time limits: a frozen server never holds its thread for long."""

    def __init__(self) -> None:
        self._connection: BaseDatabaseWrapper | None = None

    def fetch(self, query: str) -> list[Any]:
        """The rows of a query; a connection that broke since the last call is replaced once."""
        fresh = self._connection is None
        try:
            return self._fetch(query)
        except DatabaseError:
            self.close()
            if fresh:
                raise
        return self._fetch(query)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except DatabaseError:
                logger.debug("the probe's broken connection did not close cleanly")

    def _fetch(self, query: str) -> list[Any]:
        if self._connection is None:
            opened = bounded()
            opened.ensure_connection()
            self._connection = opened
        # The driver's own cursor: a probe is no query of the console's, and is not counted among them.
        with self._connection.wrap_database_errors, closing(self._connection.connection.cursor()) as cursor:
            cursor.execute(query)
            return list(cursor.fetchall())


class Readiness:
    """Runs the checks and shares one answer among everyone who asks within a second."""

    def __init__(self, *, timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._clock = clock
        self._database = DatabaseProbe()
        self._redis: redis.Redis | None = None
        self._lock = threading.Lock()
        self._report: Report | None = None
        # Database and migrations share a thread and a round trip: what the one asks answers the other.
        self._probes: dict[tuple[str, ...], Callable[[], dict[str, CheckResult]]] = {
            ("database", "migrations"): self._probe_database,
            ("redis",): self._probe_redis,
        }
        self._threads = {names: ThreadPoolExecutor(1, thread_name_prefix=f"ready-{names[0]}") for names in self._probes}
        self._running: dict[tuple[str, ...], Future[dict[str, CheckResult]]] = {}
        self._migrations = Migrations(self._database)

    def report(self) -> Report:
        """The state of all dependencies, at most two seconds old."""
        report = self._report
        if report is not None and self._clock() - report.started < REUSE_SECONDS:
            return report
        if not self._lock.acquire(blocking=False):
            # Somebody is checking already. The last answer will do while it is fresh enough, so that a storm of probes
            # on a frozen server holds one request thread, not all of them.
            if report is not None and self._clock() - report.started < STALE_SECONDS:
                return report
            self._lock.acquire()
        try:
            report = self._report
            if report is None or self._clock() - report.started >= REUSE_SECONDS:
                report = self._report = self.check()
            return report
        finally:
            self._lock.release()

    def check(self) -> Report:
        """Run every check now. Not for two threads at once: `report` sees to that."""
        started, at = self._clock(), datetime.now(UTC)
        for names, probe in self._probes.items():
            if names not in self._running:
                self._running[names] = self._threads[names].submit(probe)
        checks: dict[str, CheckResult] = {}
        for names in self._probes:
            checks |= self._outcome(names, started)
        for name, result in checks.items():
            _DURATION[name].observe(result.latency_ms / 1000)
            _STATUS[name].set(result.status != "unhealthy")
        return Report(at, started, {name: checks[name] for name in CHECK_NAMES})

    def close(self) -> None:
        """End the threads and connections."""
        for thread in self._threads.values():
            thread.shutdown(wait=True, cancel_futures=True)
        self._database.close()
        if self._redis is not None:
            self._redis.close()

    def _outcome(self, names: tuple[str, ...], started: float) -> dict[str, CheckResult]:
        try:
            outcome = self._running[names].result(timeout=max(0.0, started + self._timeout - self._clock()))
        except TimeoutError:
            # It goes on in its thread until the driver gives up; the next check takes it up again or starts anew.
            message = f"No answer within {self._timeout:g} s"
            return dict.fromkeys(names, CheckResult("unhealthy", self._timeout * 1000, message))
        del self._running[names]
        return outcome

    def _probe_database(self) -> dict[str, CheckResult]:
        started = time.perf_counter()
        try:
            missing = self._migrations.missing()
        except Exception as error:  # whatever a driver raises, the probe has to answer
            failure = _failure("Database", started, error)
            return {"database": failure, "migrations": replace(failure, message="Not known without the database")}
        database = _success("Database", started, DATABASE_SLOW_MS)
        migrations = replace(database, status="healthy", message="All migrations are applied")
        if missing:
            noun = "migration is" if missing == 1 else "migrations are"
            message = f"{missing} {noun} not applied; run: python manage.py prepare"
            migrations = replace(migrations, status="unhealthy", message=message)
        return {"database": database, "migrations": migrations}

    def _probe_redis(self) -> dict[str, CheckResult]:
        started = time.perf_counter()
        try:
            if self._redis is None:
                self._redis = redis.Redis.from_url(
                    settings.REDIS_URL,
                    socket_timeout=DRIVER_TIMEOUT,
                    socket_connect_timeout=DRIVER_TIMEOUT,
                    max_connections=1,
                )
            self._redis.ping()
        except Exception as error:  # as above
            return {"redis": _failure("Redis", started, error)}
        return {"redis": _success("Redis", started, REDIS_SLOW_MS)}


class Migrations:
    """Whether the migrations this version brings are applied."""

    # Codes and words of "there is no such table": MySQL's ER_NO_SUCH_TABLE, SQLite's sentence.
    NO_TABLE = (1146, "no such table: django_migrations")

    def __init__(self, database: DatabaseProbe) -> None:
        self._database = database
        self._wanted: frozenset[tuple[str, str]] | None = None
        self._verified: object = None

    def missing(self) -> int:
        """How many are not applied. Raises the driver's error when the database does not answer.

        The names are compared only when the table's size or newest row has changed since they last matched.
        """
        try:
            state = self._database.fetch("SELECT COUNT(*), MAX(id) FROM django_migrations")
        except DatabaseError as error:
            if error.args and error.args[0] in self.NO_TABLE:
                return len(self._on_disk())
            raise
        if state == self._verified:
            return 0
        applied = {(app, name) for app, name in self._database.fetch("SELECT app, name FROM django_migrations")}
        missing = len(self._on_disk() - applied)
        self._verified = None if missing else state
        return missing

    def _on_disk(self) -> frozenset[tuple[str, str]]:
        """Read from the files once: a process runs one version."""
        if self._wanted is None:
            self._wanted = frozenset(MigrationLoader(None).disk_migrations)
        return self._wanted


def _success(name: str, started: float, slow_ms: int) -> CheckResult:
    elapsed_ms = round((time.perf_counter() - started) * 1000, 2)
    if elapsed_ms > slow_ms:
        return CheckResult("degraded", elapsed_ms, f"{name} answers slowly")
    return CheckResult("healthy", elapsed_ms, f"{name} connection successful")


def _failure(name: str, started: float, error: Exception) -> CheckResult:
    logger.warning(
        "%s health check failed",
        name,
        exc_info=error,
        extra={"event": "health_check_failure", "event_type": "health"},
    )
    elapsed_ms = round((time.perf_counter() - started) * 1000, 2)
    return CheckResult("unhealthy", elapsed_ms, f"{name} connection failed", redact(str(error)))


_readiness: Readiness | None = None
_making = threading.Lock()


def readiness() -> Readiness:
    """This process' checks, made when first asked: threads do not survive a fork."""
    global _readiness
    with _making:
        if _readiness is None:
            _readiness = Readiness(timeout=settings.READY_TIMEOUT_SECONDS)
        return _readiness

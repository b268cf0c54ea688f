"""Metrics made from rows of Pulsewatch's own database, such as the age of the newest backup.

Work is done by other processes than the web server, so counters in its memory would know nothing of it; rows are true
for all of them. The database is asked at most every few seconds, in one thread with short time limits, so that the
metrics page answers also while the database is frozen: then these figures are left out, and a gauge says so.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from django.db import Error as DatabaseFault
from django.db import close_old_connections, connections
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.core.connection import bounded

logger = logging.getLogger(__name__)

REUSE_SECONDS = 5.0  # figures are given again for this long: below every usual scrape interval
PATIENCE_SECONDS = 0.8  # how long a scrape waits for them

# Gives the families to export. Called in a thread of its own, where Django's connection is a bounded one.
Reader = Callable[[], Iterable[Metric]]
_readers: dict[str, Reader] = {}


def register(source: str, reader: Reader) -> None:
    """Put a reader's figures on the metrics page, under the name of what it reads. For `AppConfig.ready`."""
    _readers[source] = reader


class StoredMetrics(Collector):
    """What the readers read, shared by everyone who asks within five seconds."""

    def __init__(self, readers: dict[str, Reader], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._readers = readers
        self._clock = clock
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stored-metrics", initializer=_take_bounded_connection)
        self._running: Future[dict[str, list[Metric] | None]] | None = None
        self._read: dict[str, list[Metric] | None] = {}
        self._read_at: float | None = None

    def collect(self) -> Iterator[Metric]:
        """All families; `pulsewatch_stored_metrics_up` says of each source whether its figures are among them."""
        up = GaugeMetricFamily(
            "pulsewatch_stored_metrics_up",
            "1 when the figures of this source were read from Pulsewatch's database in time, 0 when they are left out",
            labels=["source"],
        )
        for source, families in self._current().items():
            up.add_metric([source], families is not None)
            yield from families or ()
        yield up

    def close(self) -> None:
        """End the thread and its connection."""
        self._thread.submit(connections.close_all)
        self._thread.shutdown(wait=True)

    def _current(self) -> dict[str, list[Metric] | None]:
        with self._lock:  # one asks, all others get its answer
            if self._read_at is None or self._clock() - self._read_at >= REUSE_SECONDS:
                self._read = self._fresh()
                self._read_at = self._clock()
            return self._read

    def _fresh(self) -> dict[str, list[Metric] | None]:
        if self._running is None:
            self._running = self._thread.submit(self._ask)
        try:
            found = self._running.result(timeout=PATIENCE_SECONDS)
        except TimeoutError:
            # It goes on in its thread until the driver gives up; what it brings is too old by the next scrape.
            self._running.add_done_callback(self._forget)
            return dict.fromkeys(self._readers)
        self._running = None
        return found

    def _forget(self, done: Future[dict[str, list[Metric] | None]]) -> None:
        self._running = None

    def _ask(self) -> dict[str, list[Metric] | None]:
        """In the thread: every reader's families; None for all from the first failure on, for the others fail too."""
        found: dict[str, list[Metric] | None] = dict.fromkeys(self._readers)
        close_old_connections()  # a connection that broke since the last time is replaced
        try:
            for source, reader in self._readers.items():
                found[source] = list(reader())
        except DatabaseFault as error:
            logger.warning(
                "The metrics page leaves stored figures out: the database did not answer",
                exc_info=error,
                extra={"event": "stored_metrics_missing", "event_type": "health"},
            )
            connections["default"].close()
        return found


def _take_bounded_connection() -> None:
    connections["default"] = bounded()  # in this thread alone


_stored: StoredMetrics | None = None
_making = threading.Lock()


def stored_metrics() -> StoredMetrics:
    """This process' collector, made when first asked: threads do not survive a fork."""
    global _stored
    with _making:
        if _stored is None:
            _stored = StoredMetrics(_readers)
        return _stored

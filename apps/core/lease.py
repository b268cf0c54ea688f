"""A lease on a row: renewed while its worker lives, so that everybody else can tell when it has died."""

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from types import TracebackType
from typing import Self

from django.db import DatabaseError, connection
from django.utils import timezone

from apps.core import heartbeats

logger = logging.getLogger(__name__)

LENGTH = timedelta(seconds=90)  # without renewal the worker counts as dead after this long
RENEWAL_SECONDS = 15.0  # six renewals in a lease: a slow database loses none


class Lease:
    """Renews in a thread of its own until the block ends, also while the work itself waits for somebody.

    `renew` answers whether the row is still ours. Once it is not, `lost` is true, and the work has to stop without
    recording anything.
    """

    def __init__(self, renew: Callable[[], bool], *, every: float = RENEWAL_SECONDS) -> None:
        self._renew = renew
        self._every = every
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._queue: str | None = None
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def lost(self) -> bool:
        return self._lost.is_set()

    def __enter__(self) -> Self:
        self._queue = heartbeats.queue_of_this_task()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ended.wait(self._every):
                try:
                    held = self._renew()
                    if self._queue:
                        # The worker's own sign of life waits in the queue behind this work.
                        heartbeats.beat(self._queue, timezone.now())
                except DatabaseError:
                    # The database may be away for a moment; if for longer, the lease runs out and says so later.
                    logger.warning("A lease could not be renewed", exc_info=True)
                    connection.close()
                    continue
                if not held:
                    self._lost.set()
                    return
        finally:
            connection.close()

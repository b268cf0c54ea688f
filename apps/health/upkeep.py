"""What becomes of raw checks: summed up by the hour, then deleted."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.core import heartbeats
from apps.core.choices import HeartbeatSource
from apps.core.models import Heartbeat
from apps.health.raw import SOURCES
from apps.health.retention import delete_old
from apps.health.rollups import roll_up

logger = logging.getLogger(__name__)

BUDGET_SECONDS = 60.0  # of one run; what is left goes on with the next one
STEADY = timedelta(hours=2)  # between two runs; after more than that the first one deletes nothing


@dataclass(slots=True)
class Done:
    """What a run did; `finished` is false when its time was up before its work."""

    hours: int = 0
    deleted: int = 0
    finished: bool = True


def run(now: datetime, *, seconds: float = BUDGET_SECONDS, clock: Callable[[], float] = time.monotonic) -> Done:
    """Sum up every hour that needs it, oldest first, then delete what is old, for about so many seconds.

    A clock that is years ahead for a moment must not cost 90 days of history: the first run after a gap or a jump only
    sums up, and the next one deletes if time went on as it should.
    """
    end, done = clock() + seconds, Done()

    def in_time() -> bool:
        done.finished = clock() < end
        return done.finished

    last = Heartbeat.objects.filter(source=HeartbeatSource.ROLLUPS).values_list("at", flat=True).first()
    for source in SOURCES:
        done.hours += roll_up(source, now, in_time=in_time)
    if last is not None and timedelta(0) <= now - last <= STEADY:
        done.deleted = delete_old(now, in_time=in_time)
    heartbeats.beat(HeartbeatSource.ROLLUPS, now)
    if done.hours or done.deleted or not done.finished:
        logger.info(
            "Summed up %d hours of checks, deleted %d old rows%s",
            done.hours,
            done.deleted,
            "" if done.finished else "; the next run goes on",
            extra={"event": "health_rolled_up", "event_type": "health", "finished": done.finished},
        )
    return done

"""When a target is checked, and by which shard. Pure.

A target's times follow from its key and its interval alone: a restart keeps them, and all targets together are spread
evenly, so that neither the prober nor a host with many of them meets a crowd.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b

from apps.health.rules import EPOCH

MINUTE = timedelta(minutes=1)
# A slice covers a minute that begins a little after the message for it is sent: so it starts before its first check.
LEAD = timedelta(seconds=5)
LATE = timedelta(seconds=60)  # a check that could not be made within this time is given up: nobody knows how it was
MISSED_KEPT = timedelta(minutes=15)  # how far back checks that were not made are recorded after a longer absence


def _digest(key: str) -> int:
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest())


def shard_of(key: str, shards: int) -> int:
    """Which of so many shards has the target."""
    return (_digest(key) >> 32) % shards


def phase_of(key: str, interval: int) -> timedelta:
    """How long after a multiple of its interval (seconds) the target is checked; whole milliseconds."""
    return timedelta(milliseconds=(_digest(key) & 0xFFFFFFFF) % (interval * 1000))


def slots(key: str, interval: int, start: datetime, end: datetime) -> list[datetime]:
    """The times from `start` to before `end` at which the target is to be checked."""
    step, first = timedelta(seconds=interval), EPOCH + phase_of(key, interval)
    number = -((first - start) // step)  # the smallest for which `first + number * step >= start`
    found = []
    while (slot := first + number * step) < end:
        found.append(slot)
        number += 1
    return found


def window(minute: datetime) -> tuple[datetime, datetime]:
    """What the slice of a minute covers."""
    return minute + LEAD, minute + LEAD + MINUTE


@dataclass(frozen=True, slots=True)
class Due:
    """What becomes of slots that were not taken at their time."""

    take: datetime | None  # still worth a check now
    missed: tuple[datetime, ...]  # recorded as unknown


def overdue(missing: Sequence[datetime], now: datetime) -> Due:
    """Of a target's slots that have passed, only the newest is worth a check, and only if it is not long ago."""
    ordered = sorted(missing)
    if not ordered or now - ordered[-1] > LATE:
        return Due(None, tuple(ordered))
    return Due(ordered[-1], tuple(ordered[:-1]))


def neglected(last: datetime | None, interval: int, upcoming: Iterable[datetime], now: datetime) -> bool:
    """Whether a target has waited longer than its interval (or was never checked) and would wait for another slice."""
    if any(True for _ in upcoming):
        return False
    return last is None or now - last > timedelta(seconds=interval) + LATE


def follows(at: datetime, last: datetime | None) -> bool:
    """Whether a check of the time `at` is newer than what is known.

    An older one by more than some minutes is no straggler: the clock was set back.
    """
    return last is None or at > last or last - at > LATE + 2 * MINUTE

"""When messages go out: at once for one, gathered for many, again while nobody answers, later when a route fails."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from apps.alerts.rules.levels import RANKS

DELAY = timedelta(seconds=5)  # what comes within it may be part of the same trouble
GROUP_FROM = 5  # alerts of one route within a minute that go out as one message
MINUTE = timedelta(minutes=1)
QUIET = timedelta(seconds=10)  # without another one: no more are expected

# A message is sent within 25 seconds; whoever has not recorded its end after this long is gone.
LEASE = timedelta(seconds=60)
FIRST_RETRY = timedelta(seconds=10)
LONGEST_RETRY = timedelta(minutes=30)
ATTEMPTS = 54  # with the waits above a little more than a day


@dataclass(frozen=True, slots=True)
class Filter:
    """What a route wants. Empty: all of them. What names no environment or service concerns every one."""

    environments: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()
    severity: str = "info"  # and what is worse


def wanted(chosen: Filter, *, kind: str, severity: str, environment: str, service: str) -> bool:
    """Whether an alert is for a route."""
    return (
        (not chosen.kinds or kind in chosen.kinds)
        and RANKS[severity] >= RANKS[chosen.severity]
        and (not chosen.environments or not environment or environment in chosen.environments)
        and (not chosen.services or not service or service in chosen.services)
    )


def gather_at(waiting: Sequence[datetime], told: int) -> datetime:
    """When what waits for a route, by the time of each, goes out; `told`: how many it was told of in the last minute.

    One alone goes out after five seconds. When there are many, the message waits until no more come for ten seconds,
    and at most a minute.
    """
    oldest = min(waiting)
    if len(waiting) + told < GROUP_FROM:
        return oldest + DELAY
    return min(max(waiting) + QUIET, oldest + MINUTE)


def retry_at(attempts: int, now: datetime) -> datetime | None:
    """When a delivery that has failed so many times is tried again; None: given up."""
    if attempts >= ATTEMPTS:
        return None
    doubled: timedelta = FIRST_RETRY * 2 ** min(attempts - 1, 20)
    return now + min(doubled, LONGEST_RETRY)


def reminder_due(told_at: datetime, minutes: int, now: datetime) -> bool:
    """Whether a route is told again of an alert that nobody has acknowledged; 0 minutes: never."""
    return minutes > 0 and told_at + timedelta(minutes=minutes) <= now

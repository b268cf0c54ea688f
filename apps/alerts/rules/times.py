"""When a maintenance window is open. The times are a clock's on a wall, in a zone; what comes out is UTC.

A start that daylight saving skips is the next minute there is; one that it repeats is the first of the two, once. From
there a window is as long as it says, by a stop watch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from apps.core.zones import zone

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
MAX_MINUTES = 31 * 24 * 60  # of one window
SPARE = 2 * DAY  # how far a zone's date may be from UTC's, and a day that a zone skipped


@dataclass(frozen=True, slots=True)
class Plan:
    """What a window says of its times."""

    time_zone: str
    first_day: date  # of a window that happens once: its day
    start: time
    minutes: int
    weekdays: frozenset[int] = frozenset()  # Monday is 0; none: once
    last_day: date | None = None  # None: for ever


@dataclass(frozen=True, slots=True)
class Span:
    """One occurrence, from its first moment to just before its last."""

    starts_at: datetime
    ends_at: datetime


def moment(day: date, at: time, where: ZoneInfo) -> datetime:
    """When the clocks of a zone show this time for the first time, in UTC; for a time they skip, the next minute."""
    wall = datetime.combine(day, at)
    while (found := wall.replace(tzinfo=where).astimezone(UTC)).astimezone(where).replace(tzinfo=None) != wall:
        wall += MINUTE
    return found


def spans(plan: Plan, since: datetime, until: datetime) -> Iterator[Span]:
    """The occurrences that touch the time from `since` to just before `until`, the earliest first."""
    length = timedelta(minutes=plan.minutes)
    where = zone(plan.time_zone)
    for day in _days(plan, (since - length - SPARE).date(), (until + SPARE).date()):
        starts_at = moment(day, plan.start, where)
        if starts_at < until and starts_at + length > since:
            yield Span(starts_at, starts_at + length)


def current(plan: Plan, now: datetime) -> Span | None:
    """The occurrence that is on now; of several that overlap the one that ends last."""
    return max(spans(plan, now, now + timedelta(microseconds=1)), key=lambda span: span.ends_at, default=None)


def upcoming(plan: Plan, now: datetime, count: int) -> list[Span]:
    """The next occurrences, beginning with one that is on."""
    # A week has at least one, and one more week is enough for what lies before the first.
    until = max(now, datetime.combine(plan.first_day, time(), UTC)) + (count + 2) * 7 * DAY
    return list(islice(spans(plan, now, until), count))


def _days(plan: Plan, first: date, last: date) -> Iterator[date]:
    first = max(first, plan.first_day)
    end = plan.first_day if not plan.weekdays else plan.last_day
    last = last if end is None else min(last, end)
    for number in range((last - first).days + 1):
        day = first + number * DAY
        if not plan.weekdays or day.weekday() in plan.weekdays:
            yield day

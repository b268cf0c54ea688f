"""When a backup runs, how often it is tried, how long it is kept, and whether its size is odd. Pure: the clock is an
argument, and no row is read.
"""

from calendar import monthrange
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import takewhile
from statistics import median
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from apps.core import zones

ATTEMPTS = 4  # the first one and three retries
RETRY_DELAY = timedelta(minutes=5)
LOOK_BACK = timedelta(days=7)  # slots older than this are not even recorded as missed
SLOTS_AT_ONCE = 2000  # the newest ones that are recorded: a minute-by-minute plan after a day away has 1,440

DRILL_TIME = time(4, 0)  # on the last Sunday of a month, in the plan's zone
SUNDAY = 6

# A slot's backup has this long to be there and verified: three retries five minutes apart, and time to dump.
OVERDUE_AFTER = timedelta(hours=1)

BYTES_A_SECOND = 50e6  # of data and indexes, dump and check together

ANOMALY_SAMPLES = 5  # sizes needed before one of them can be odd
ANOMALY_FACTOR = 2.0  # twice the median or half of it


class BadSchedule(ValueError):
    """A cron expression or time zone that does not exist. The text says which and gives an example."""


@dataclass(frozen=True, slots=True)
class Slots:
    """What a plan owes: the slot to run now, and older ones that were missed."""

    run: datetime | None = None
    missed: tuple[datetime, ...] = ()


class Standing(StrEnum):
    """How safe a database is, in the words a person reads; the worst comes first."""

    NEVER = "never backed up"
    FAILED = "last backup failed"
    OVERDUE = "overdue"
    DRILL_FAILED = "drill failed"
    PAUSED = "plan is off"
    UNDRILLED = "not drilled yet"
    PROVEN = "proven"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a database's backups."""

    verified_at: datetime | None  # start of the newest verified backup that is stored: the data are as old as this
    failed_at: datetime | None  # start of the newest backup when that one failed or was missed
    drill_equal: bool | None  # how the newest drill ended; None: there was none
    registered_at: datetime
    cron: str | None  # None: no plan, or one that is off
    time_zone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Kept:
    """What decides whether a backup's object may go."""

    expires_at: datetime
    verified: bool
    newest_verified: bool  # of its database
    legal_hold: bool
    deleted: bool


def zone(name: str) -> ZoneInfo:
    """A time zone by its IANA name. Raises BadSchedule."""
    try:
        return zones.zone(name)
    except zones.UnknownZone as error:
        raise BadSchedule(str(error)) from error


def check_cron(expression: str) -> None:
    """Raises BadSchedule unless the expression has five fields cron understands and a moment that exists."""
    try:
        CronSim(expression, datetime(2026, 1, 1, tzinfo=UTC))  # refuses a day that no month has, such as 31 April
    except CronSimError as error:
        raise BadSchedule(f"Not a cron expression ({error}); an example: 0 2 * * * is every day at 02:00.") from error


def next_slot(expression: str, zone_name: str, after: datetime) -> datetime:
    """The first slot later than `after`, in UTC. A time that daylight saving skips runs at the next minute there is;
    one that it repeats runs once.
    """
    check_cron(expression)
    return next(CronSim(expression, after.astimezone(zone(zone_name)))).astimezone(UTC)


def due(expression: str, zone_name: str, *, last: datetime, now: datetime) -> Slots:
    """What is owed since the slot `last`: the newest slot runs and keeps its time, older ones are missed.

    A clock that jumped back owes nothing until it has passed `last` again.
    """
    check_cron(expression)
    start = max(last, now - LOOK_BACK).astimezone(zone(zone_name))
    gone_by = takewhile(lambda slot: slot <= now, CronSim(expression, start))
    passed = [slot.astimezone(UTC) for slot in deque(gone_by, maxlen=SLOTS_AT_ONCE)]
    return Slots(passed[-1], tuple(passed[:-1])) if passed else Slots()


def drill_slot(month: date, zone_name: str) -> datetime:
    """When the drill of a month is: its last Sunday at 04:00 in the plan's zone, in UTC."""
    last = date(month.year, month.month, monthrange(month.year, month.month)[1])
    sunday = last - timedelta(days=(last.weekday() - SUNDAY) % 7)
    return datetime.combine(sunday, DRILL_TIME, zone(zone_name)).astimezone(UTC)


def drill_due(zone_name: str, *, last: datetime, now: datetime) -> datetime | None:
    """The newest drill slot in (last, now], or None."""
    here = now.astimezone(zone(zone_name)).date()
    previous = here.replace(day=1) - timedelta(days=1)
    slots = (drill_slot(here, zone_name), drill_slot(previous, zone_name))
    return next((slot for slot in slots if max(last, now - LOOK_BACK) < slot <= now), None)


def next_attempt(retry_count: int, now: datetime) -> datetime | None:
    """When a failed backup is tried again; None after the last attempt."""
    return now + RETRY_DELAY if retry_count < ATTEMPTS - 1 else None


def expires_at(started: datetime, *, archive: bool, days: int, months: int) -> datetime:
    """Until when a backup is kept: calendar months for an archive, days for the others."""
    return add_months(started, months) if archive else started + timedelta(days=days)


def add_months(moment: datetime, months: int) -> datetime:
    """The same day and time some months later; the last day of a month that is too short."""
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)


def may_delete(backup: Kept, now: datetime) -> bool:
    """Whether retention may remove the object: never the newest verified one, never one on legal hold."""
    return not (backup.deleted or backup.legal_hold or backup.newest_verified) and backup.expires_at <= now


def standing(facts: Facts, now: datetime) -> Standing:
    """The worst that is true of a database."""
    if facts.verified_at is None:
        return Standing.NEVER
    if facts.failed_at is not None and facts.failed_at > facts.verified_at:
        return Standing.FAILED
    if owed_since(facts, now):
        return Standing.OVERDUE
    if facts.drill_equal is False:
        return Standing.DRILL_FAILED
    if facts.cron is None:
        return Standing.PAUSED
    return Standing.PROVEN if facts.drill_equal else Standing.UNDRILLED


def owed_since(facts: Facts, now: datetime) -> datetime | None:
    """The first slot whose verified backup should be there by now and is not; None when nothing is owed."""
    if facts.cron is None:
        return None
    slot = next_slot(facts.cron, facts.time_zone, facts.verified_at or facts.registered_at)
    return slot if slot + OVERDUE_AFTER <= now else None


def odd_size(size: int, recent: Sequence[int]) -> str:
    """Why a backup's size is odd against the median of recent ones, or an empty text."""
    if len(recent) < ANOMALY_SAMPLES:
        return ""
    usual = median(recent)
    if usual and size > usual * ANOMALY_FACTOR:
        return f"{size / usual:.1f} times the median of the last {len(recent)} backups"
    if usual and size < usual / ANOMALY_FACTOR:
        return f"only {100 * size / usual:.0f} % of the median of the last {len(recent)} backups"
    return ""


def first_difference(before: dict[str, str], after: dict[str, str]) -> str:
    """The first table, by name, whose digests differ or that only one side has; empty when all are equal."""
    return next((name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)), "")


def expected_seconds(size: int) -> int:
    """Roughly how long a first backup with its check takes: what two small cores were measured to do, at least 1 s."""
    return max(1, round(size / BYTES_A_SECOND))


def megabytes(size: int | None) -> int | None:
    """Whole megabytes (10^6 bytes), rounded up: a backup is never said to be smaller than it is."""
    return None if size is None else -(-size // 1_000_000)

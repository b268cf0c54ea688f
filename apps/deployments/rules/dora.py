"""DORA's four figures, from deployments alone.

Change failure rate = failed deployments ÷ deployments. Not incidents: six incidents on four of 23 deployments are
17.4 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

WINDOWS = (30, 90)  # days
WEEK = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One deployment of a workload that has ended. `failed_at`: when it turned out bad, or was undone."""

    ended_at: datetime
    failed_at: datetime | None = None
    rollback: bool = False
    committed_at: datetime | None = None

    @property
    def told_at(self) -> datetime:
        return self.failed_at or self.ended_at


@dataclass(frozen=True, slots=True)
class Figures:
    """None = there is nothing to measure it on."""

    days: int
    deployments: int
    failed: int
    per_day: float
    lead_time_seconds: float | None  # median, commit to completed
    change_failure_rate: float | None  # 0 to 1
    time_to_restore_seconds: float | None  # median, failure to the next success


@dataclass(frozen=True, slots=True)
class Week:
    """How many deployments ended in the seven days from `since` on, and how many of them turned out bad."""

    since: datetime
    deployments: int
    failed: int


def measure(outcomes: Sequence[Outcome], *, days: int, now: datetime) -> Figures:
    """The figures of one workload over the last `days` days. A failure that is not restored yet has no time."""
    since = now - timedelta(days=days)
    inside = sorted((row for row in outcomes if since < row.ended_at <= now), key=lambda row: row.told_at)
    changes = [row for row in inside if not row.rollback]
    failed = [row for row in changes if row.failed_at is not None]
    leads = [
        max(0.0, (row.ended_at - row.committed_at).total_seconds())
        for row in changes
        if row.failed_at is None and row.committed_at is not None
    ]
    restores = _restores(inside)
    return Figures(
        days=days,
        deployments=len(changes),
        failed=len(failed),
        per_day=(len(changes) - len(failed)) / days,
        lead_time_seconds=median(leads) if leads else None,
        change_failure_rate=len(failed) / len(changes) if changes else None,
        time_to_restore_seconds=median(restores) if restores else None,
    )


def by_week(outcomes: Sequence[Outcome], *, weeks: int, now: datetime) -> tuple[Week, ...]:
    """Deployments of the last weeks, the oldest first; the newest week ends now. Rollbacks are no deployments."""
    found = []
    for number in range(weeks, 0, -1):
        since = now - number * WEEK
        inside = [row for row in outcomes if since < row.ended_at <= since + WEEK and not row.rollback]
        failed = sum(row.failed_at is not None for row in inside)
        found.append(Week(since, len(inside), failed))
    return tuple(found)


def _restores(inside: Sequence[Outcome]) -> list[float]:
    """Seconds from each first failure to the success that ended it; failures in between belong to the same outage."""
    broken_at: datetime | None = None
    found = []
    for row in inside:
        if row.failed_at is not None:
            # A rollback that failed repairs nothing and breaks nothing new.
            broken_at = broken_at or (None if row.rollback else row.failed_at)
        elif broken_at is not None:
            found.append((row.ended_at - broken_at).total_seconds())
            broken_at = None
    return found

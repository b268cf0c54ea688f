"""Sums the raw checks of each hour up.

What is left to do is read from the tables, not remembered: an hour counts as done while its `RolledHour` names as many
rows as there are. So a run that died, ran twice or ran late leaves nothing wrong behind, and rows that came late have
their hour summed up again.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connection, models, transaction

from apps.alerts import windows
from apps.core.inserts import Inserter, sliced
from apps.health import raw, rules, utilisation
from apps.health.choices import SubjectKind
from apps.health.models import HealthHourly, RolledHour
from apps.health.raw import Source

SETTLING = timedelta(minutes=2)  # after an hour's end until its last checks are stored
ROWS_AT_ONCE = 100_000  # raw rows that are in memory as they are, some 25 MB; of the others 8 bytes each
COLUMNS = (
    *("kind", "subject", "hour", "checks", "healthy", "degraded", "down", "unknown", "maintenance", "uptime"),
    *("measured", "response_mean_ms", "response_p95_ms", "response_max_ms"),
    *("cpu_mean", "cpu_max", "memory_mean", "memory_max"),
)


def roll_up(source: Source, now: datetime, *, in_time: Callable[[], bool] = lambda: True) -> int:
    """Sum up the hours of one kind that were not yet, or have other rows now, oldest first; gives how many."""
    rolled, oldest_whole = 0, rules.hour_of(now - rules.RAW_KEPT)
    seen = dict(RolledHour.objects.filter(kind=source.kind).values_list("hour", "checks"))
    for hour in source.hours(before=now - SETTLING):
        if not in_time():
            break
        if hour in seen and hour < oldest_whole:
            continue  # some of its rows may be deleted already
        rows = source.rows(hour, hour + rules.HOUR).count()
        if rows != seen.get(hour):
            if source.kind == SubjectKind.INSTANCE:
                utilisation.correct(hour, rows)  # first: until the hour is sealed, a run that dies is made good
            roll_hour(source, hour, rows, now=now)
            rolled += 1
    return rolled


def roll_hour(source: Source, hour: datetime, rows: int, *, now: datetime) -> None:
    """Sum up one hour, which had so many rows just now, and put the result in the place of what was there."""
    found = _tallies(source, hour, rows)
    # A row that came since they were counted was noticed by nobody before: it is left to the next run.
    seen = min(rows, sum(tally.rows for tally in found.values()))
    lines = [_line(source, subject, hour, tally) for subject, tally in found.items() if tally.checks]
    inserter = Inserter(HealthHourly, COLUMNS)
    with transaction.atomic():
        RolledHour.objects.get_or_create(kind=source.kind, hour=hour, defaults={"checks": 0, "rolled_at": now})
        # One worker at a time, whatever each has read before.
        seal = RolledHour.objects.select_for_update().get(kind=source.kind, hour=hour)
        if hour < rules.hour_of(now - rules.RAW_KEPT) and seal.checks >= seen:
            return  # another one was faster, and its raw rows are being deleted: these here were too few
        for subjects in sliced([str(subject) for subject in found]):
            # By name: what was summed up of a subject that is gone meanwhile stays.
            HealthHourly.objects.filter(kind=source.kind, hour=hour, subject__in=subjects).delete()
        if lines:
            inserter.insert(lines)
        seal.checks, seal.rolled_at = seen, now
        seal.save(update_fields=["checks", "rolled_at"])


@dataclass(slots=True)
class _Load:
    """CPU or memory."""

    count: int = 0
    total: float = 0.0
    highest: float | None = None

    def add(self, values: Sequence[float]) -> None:
        if values:
            self.count += len(values)
            self.total += sum(values)
            self.highest = max(values) if self.highest is None else max(self.highest, *values)

    @property
    def mean(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass(slots=True)
class _Tally:
    """What the rows of one subject have come to so far."""

    rows: int = 0  # those that count for nothing too
    words: Counter[str] = field(default_factory=Counter)  # of its statuses
    times: "array[float]" = field(default_factory=lambda: array("d"))
    loads: tuple[_Load, ...] = field(default_factory=lambda: (_Load(), _Load()))
    excused: int = 0  # failed in a maintenance window

    @property
    def checks(self) -> int:
        return self.words.total()

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of subject, status, response and loads; of one that does not count the status is missing."""
        self.rows += len(rows)
        rows = [row for row in rows if row[1]]
        if rows:
            _, words, times, *loads = zip(*rows, strict=True)
            self.words.update(words)
            self.times.extend(_measured(times))
            for load, values in zip(self.loads, loads, strict=False):
                load.add(_measured(values))


def _measured(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _tallies(source: Source, hour: datetime, rows: int) -> dict[Any, _Tally]:
    """The hour by subject, read once from beginning to end.

    Every row is read, for the 95th percentile needs them: databases find it more slowly than they hand the rows over,
    and then the sums cost next to nothing here.
    """
    found: defaultdict[Any, _Tally] = defaultdict(_Tally)
    for start, end in raw.parts(hour, rows, at_once=ROWS_AT_ONCE):
        part = source.rows(start, end)
        by_subject = defaultdict(list)
        for row in source.figures(part).iterator():
            by_subject[row[0]].append(row)
        for subject, its_rows in by_subject.items():
            found[subject].add(its_rows)
        for subject, checks in _excused(source, start, end, part).items():
            found[subject].excused += len(checks)
    return found


def _line(source: Source, subject: Any, hour: datetime, tally: _Tally) -> tuple[Any, ...]:
    """The hour of one subject as it is stored."""
    healthy, degraded, down = (
        sum(tally.words[word] for word in words) for words in (source.healthy, source.degraded, source.down)
    )
    maintenance = min(tally.excused, down)  # of those counted, should more have come meanwhile
    failed = down - maintenance
    times = tally.times
    return (
        *(source.kind.value, str(subject), connection.ops.adapt_datetimefield_value(hour)),
        *(tally.checks, healthy, degraded, failed, tally.checks - healthy - degraded - down, maintenance),
        *(rules.uptime(healthy + degraded, failed), len(times)),
        *(sum(times) / len(times) if times else None, rules.nearest_rank(times, 95), max(times, default=None)),
        *(figure for load in tally.loads for figure in (load.mean, load.highest)),
    )


def _excused(source: Source, start: datetime, end: datetime, rows: models.QuerySet[Any]) -> dict[Any, set[Any]]:
    """The failed checks of each subject that were made while it was in a maintenance window."""
    found: dict[Any, set[Any]] = {}
    for one in windows.during(start, end):
        span = {f"{source.at}__gte": one.starts_at, f"{source.at}__lt": one.ends_at}
        failed = source.counted(rows).filter(**span, **{f"{source.status}__in": source.down})
        checks: dict[Any, list[Any]] = {}
        for subject, check in failed.values_list(source.subject, "pk"):
            checks.setdefault(subject, []).append(check)
        for subject, place in source.places(checks).items():
            if one.window.covers(**place):
                found.setdefault(subject, set()).update(checks[subject])
    return found

"""Drawings over time: a curve, strips of states, periods behind them and moments across them. Pure geometry.

Everything is measured in a drawing of WIDTH by HEIGHT, stretched over whatever room the page has; words are laid over
it by the page, so that they stay readable on a telephone. Where nothing was measured nothing is drawn.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import floor, log10

WIDTH, HEIGHT = 720, 120  # columns of the drawing: no screen shows more detail in the room a chart has

# A column that saw several states shows the one that matters most.
GOOD, UNKNOWN, WARNING, BAD = "good", "unknown", "warning", "bad"
_WORST = {state: rank for rank, state in enumerate((GOOD, UNKNOWN, WARNING, BAD))}
_WORDS = {GOOD: "healthy", UNKNOWN: "unknown", WARNING: "degraded", BAD: "failed"}


@dataclass(frozen=True, slots=True)
class Sample:
    """What was found at a time, and for how long it speaks."""

    at: datetime
    until: datetime
    state: str
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Period:
    """A time that is shaded over the whole height."""

    start: datetime
    end: datetime
    text: str


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that happened: a line over the whole height. `kind` chooses its colour."""

    at: datetime
    kind: str
    text: str
    url: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a strip, or a shaded period."""

    x: float
    width: float
    state: str
    text: str


@dataclass(frozen=True, slots=True)
class Lane:
    """A strip of states with its name."""

    name: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    x: float
    kind: str
    text: str
    url: str

    @property
    def percent(self) -> float:
        return 100 * self.x / WIDTH


@dataclass(frozen=True, slots=True)
class Tick:
    """A word beside or below the drawing, so many percent from the left, or from the bottom."""

    percent: float
    text: str


@dataclass(frozen=True, slots=True)
class Curve:
    """`path` is what an SVG path takes."""

    path: str
    ticks: tuple[Tick, ...]
    name: str = ""


@dataclass(frozen=True, slots=True)
class Chart:
    """All of a drawing. `empty` says that there is nothing to see but the axis."""

    start: datetime
    end: datetime
    curve: Curve | None
    lanes: tuple[Lane, ...]
    shades: tuple[Run, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    empty: bool
    label: str = ""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which kinds of moments are drawn, for a legend."""
        return tuple(dict.fromkeys(mark.kind for mark in self.marks))


@dataclass(frozen=True, slots=True)
class Axis:
    """From a time to another."""

    start: datetime
    end: datetime

    def x(self, at: datetime) -> float:
        """Where a time lies; at an edge when it lies outside."""
        share = (at - self.start) / (self.end - self.start)
        return round(WIDTH * min(max(share, 0.0), 1.0), 1)

    def holds(self, at: datetime) -> bool:
        return self.start <= at <= self.end

    def time(self, column: int) -> datetime:
        return self.start + (self.end - self.start) * column / WIDTH

    def ticks(self) -> tuple[Tick, ...]:
        """Full hours, or days, of UTC; about six."""
        length = self.end - self.start
        days = length > timedelta(days=3)
        step = timedelta(days=max(1, round(length.days / 6))) if days else timedelta(hours=4)
        at = self.start.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        at = at.replace(hour=0) + timedelta(days=1) if days else at + timedelta(hours=1)
        while not days and at.hour % 4:
            at += timedelta(hours=1)
        found = []
        while at <= self.end:
            share = 100 * (at - self.start) / (self.end - self.start)
            if 3 <= share <= 97:  # further out a word would be cut
                found.append(Tick(round(share, 2), f"{at:%d %b}" if days else f"{at:%H:%M}"))
            at += step
        return tuple(found)


def draw(
    axis: Axis,
    *,
    lanes: Sequence[tuple[str, Iterable[Sample]]],
    curve: Iterable[Sample] = (),
    unit: str = "ms",
    periods: Iterable[Period] = (),
    moments: Iterable[Moment] = (),
    label: str = "",
) -> Chart:
    """A chart of these. A curve shows the highest value of each column, for it is the peaks one looks for."""
    strips = tuple(Lane(name, _runs(axis, samples)) for name, samples in lanes)
    drawn = curve_of(axis, curve, unit)
    marks = tuple(
        Mark(axis.x(moment.at), moment.kind, moment.text, moment.url) for moment in moments if axis.holds(moment.at)
    )
    return Chart(
        start=axis.start,
        end=axis.end,
        curve=drawn,
        lanes=strips,
        shades=tuple(
            Run(axis.x(period.start), axis.x(period.end) - axis.x(period.start), "shade", period.text)
            for period in periods
            if period.end > axis.start and period.start < axis.end
        ),
        marks=marks,
        ticks=axis.ticks(),
        empty=drawn is None and not any(lane.runs for lane in strips),
        label=label,
    )


def lasting(times: Sequence[datetime], *, every: timedelta) -> list[datetime]:
    """Until when each of these observations speaks: to the next one, or, where one or more are missing, not so long."""
    patience = 2.5 * every  # a single check may come late; two that are missing are a gap
    ends = [later if later - at <= patience else at + every for at, later in itertools.pairwise(times)]
    return [*ends, times[-1] + every] if times else []


def _columns(axis: Axis, sample: Sample) -> range:
    first, last = axis.x(sample.at), axis.x(sample.until)
    return range(min(floor(first), WIDTH - 1), min(max(floor(first) + 1, floor(last)), WIDTH))


def _runs(axis: Axis, samples: Iterable[Sample]) -> tuple[Run, ...]:
    """States, the worst of each column, joined where neighbours are alike."""
    columns: list[str] = [""] * WIDTH
    for sample in samples:
        if sample.until <= axis.start or sample.at >= axis.end:
            continue
        for column in _columns(axis, sample):
            if not columns[column] or _WORST[sample.state] > _WORST[columns[column]]:
                columns[column] = sample.state
    runs: list[Run] = []
    begun = 0
    for column in range(1, WIDTH + 1):
        if column < WIDTH and columns[column] == columns[begun]:
            continue
        if state := columns[begun]:
            text = f"{_WORDS[state]} {_clock(axis.time(begun))} to {_clock(axis.time(column))}"
            runs.append(Run(begun, column - begun, state, text))
        begun = column
    return tuple(runs)


def curve_of(axis: Axis, samples: Iterable[Sample], unit: str, *, top: float | None = None) -> Curve | None:
    """The highest value of each column up to `top`, or to a round value above all; None when nothing was measured."""
    peaks: list[float | None] = [None] * WIDTH
    for sample in samples:
        if sample.value is None or sample.until <= axis.start or sample.at >= axis.end:
            continue
        for column in _columns(axis, sample):
            peaks[column] = max(sample.value, peaks[column] or 0)
    known = [peak for peak in peaks if peak is not None]
    if not known:
        return None
    top = top or round_up(max(known))
    path: list[str] = []
    before: float | None = None
    for column, peak in enumerate(peaks):
        if peak is not None:
            y = round(HEIGHT * (1 - peak / top), 1)
            path.append(f"{'L' if before is not None else 'M'}{column} {y}H{column + 1}")
        before = peak
    ticks = tuple(Tick(50 * half, _amount(top * half / 2, unit)) for half in (0, 1, 2))
    return Curve("".join(path), ticks)


def round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, …"""
    if value <= 1:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)


def _amount(value: float, unit: str) -> str:
    if unit == "ms" and value >= 1000:
        return f"{value / 1000:g} s"
    return f"{value:g} {unit}" if value else "0"


def _clock(at: datetime) -> str:
    return f"{at.astimezone(UTC):%d %b %H:%M}"

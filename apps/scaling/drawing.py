"""Drawings of scaling: how busy the instances were and how many there were, on one axis."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apps.core.charts import GOOD, HEIGHT, Axis, Mark, Sample, Tick, curve_of, round_up
from apps.core.display import moment, page_of
from apps.inventory.models import Workload
from apps.scaling import history
from apps.scaling.choices import EventAction, Trigger
from apps.scaling.models import ScalingEvent, ScalingPolicy
from apps.scaling.rules.policy import CPU, MEMORY, MINUTE, NAMES, percent
from apps.scaling.rules.replay import Replay
from apps.scaling.rules.usage import FULL, Minute, running

DAY = timedelta(hours=24)
MARKS = 300  # a change in each window of five minutes, all day long


@dataclass(frozen=True, slots=True)
class Line:
    """A curve; `kind` chooses its colour."""

    kind: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Level:
    """A value that holds all the time, such as a threshold, and where it lies in the drawing."""

    kind: str
    text: str
    y: float


@dataclass(frozen=True, slots=True)
class Plot:
    """Curves over one scale."""

    name: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Plots above each other, with the changes marked in all of them."""

    plots: tuple[Plot, ...]
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]
    kinds: tuple[tuple[str, str], ...] = ()  # of the marks, for the legend


def of_policy(policy: ScalingPolicy, workload: Workload | None, now: datetime) -> Drawing | None:
    """The last 24 hours of a policy's workload; None when no minute of them is known. Two queries."""
    if workload is None:
        return None
    axis = Axis(now - DAY, now)
    span = (int(axis.start.timestamp()), int(now.timestamp()) + MINUTE)
    minutes = history.minutes_of({workload.pk: span}).get(workload.pk, [])
    if not minutes:
        return None
    events = ScalingEvent.objects.filter(workload=workload, timestamp__gte=axis.start).newest_first()[:MARKS]
    marks = [_mark(axis, event) for event in events]
    kinds = dict(_kind(event) for event in events)
    return Drawing(
        plots=(_utilisation(axis, policy, minutes), _counts(axis, policy, minutes)),
        marks=tuple(marks),
        ticks=axis.ticks(),
        kinds=tuple(kinds.items()),
    )


def of_backtest(tried: Replay, present: Replay, *, start: datetime, end: datetime) -> Drawing:
    """How many instances would have run, with the settings tried and with those in force."""
    axis = Axis(start, end)
    most = max((count for _, count in (*tried.counts, *present.counts)), default=1)
    top = round_up(most)
    lines = [
        _line(axis, kind, name, _steps(replay.counts, end), top)
        for kind, name, replay in (("present", "in force", present), ("tried", "tried", tried))
    ]
    return Drawing((Plot("Instances", tuple(filter(None, lines)), (), _scale(top)),), (), axis.ticks())


def _utilisation(axis: Axis, policy: ScalingPolicy, minutes: Sequence[Minute]) -> Plot:
    metrics = policy.rule().metrics
    lines = [
        _line(axis, metric, NAMES[metric] if metric == CPU else "Memory", _measured(minutes, metric), FULL)
        for metric in (MEMORY, CPU)
    ]
    targets = {CPU: policy.target_cpu_percent, MEMORY: policy.target_memory_percent}
    up, down = policy.scale_up_threshold, policy.scale_down_threshold
    return Plot(
        "Use of what is available, mean of the instances that reported",
        tuple(filter(None, lines)),
        (
            _level("limit", f"up above {percent(up)}", up * FULL, FULL),
            *(_level("target", f"target {NAMES[one]} {targets[one]:g} %", targets[one], FULL) for one in metrics),
            _level("limit", f"down below {percent(down)}", down * FULL, FULL),
        ),
        tuple(Tick(part, f"{part} %" if part else "0") for part in (0, 100)),
    )


def _counts(axis: Axis, policy: ScalingPolicy, minutes: Sequence[Minute]) -> Plot:
    ran = running(minutes)
    most = max(ran.values())
    # A maximum far above what ever ran would press the curve to the ground.
    top = round_up(max(most, policy.max_instances if policy.max_instances <= 3 * most else 2 * most, 2))
    samples = ((minute.at, minute.at + MINUTE, float(ran[minute.at])) for minute in minutes)
    line = _line(axis, "count", "Instances", map(_sample, samples), top)
    bounds = [("minimum", policy.min_instances), ("maximum", policy.max_instances)]
    return Plot(
        "Instances",
        (line,) if line else (),
        tuple(_level("limit", f"{name} {value}", value, top) for name, value in bounds if value <= top),
        _scale(top),
    )


def _scale(top: float) -> tuple[Tick, ...]:
    return tuple(Tick(50 * half, f"{top * half / 2:g}") for half in (0, 2) if half or top)


def _line(axis: Axis, kind: str, name: str, samples: Iterable[Sample], top: float) -> Line | None:
    drawn = curve_of(axis, samples, "", top=top)
    return Line(kind, name, drawn.path) if drawn else None


def _level(kind: str, text: str, value: float, top: float) -> Level:
    return Level(kind, text, round(HEIGHT * (1 - value / top), 1))


def _measured(minutes: Iterable[Minute], metric: str) -> Iterator[Sample]:
    for minute in minutes:
        load = minute.load(metric)
        if load.instances:
            yield _sample((minute.at, minute.at + MINUTE, min(FULL, load.total / load.instances)))


def _steps(counts: Sequence[tuple[int, int]], end: datetime) -> Iterator[Sample]:
    ends = [*(at for at, _ in counts[1:]), int(end.timestamp())]
    for (at, count), until in zip(counts, ends, strict=True):
        yield _sample((at, until, float(count)))


def _sample(given: tuple[int, int, float]) -> Sample:
    at, until, value = given
    return Sample(datetime.fromtimestamp(at, UTC), datetime.fromtimestamp(until, UTC), GOOD, value)


def _mark(axis: Axis, event: ScalingEvent) -> Mark:
    kind, name = _kind(event)
    text = f"{name}: {event.instances_before} → {event.instances_after}, {moment(event.timestamp)}"
    return Mark(axis.x(event.timestamp), kind, f"{text}: {event.trigger_reason}", page_of(event))


def _kind(event: ScalingEvent) -> tuple[str, str]:
    """Colour and name of a change."""
    if event.success is False:
        return "failed", "failed"
    if event.triggered_by in (Trigger.DEPLOYMENT, Trigger.OTHER):
        return "foreign", "by somebody else"
    if event.action == EventAction.MANUAL_SCALE:
        return "hand", "by hand"
    return ("up", "scaled up") if event.action == EventAction.SCALE_UP else ("down", "scaled down")

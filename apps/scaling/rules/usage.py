"""How the minutes of a workload become the windows a policy looks at.

What is missing never speaks for a change: an instance that did not report counts as idle on the way up and as fully
loaded on the way down; one that is still warming up counts as idle on the way up.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from apps.scaling.rules.policy import CPU, MINUTE, Policy

_start = attrgetter("at")
FULL = 100.0  # percent
NOTED_FOR = 3600  # seconds before and after it for which a platform's count is taken to hold: the longest window
DELAY = 15  # seconds from a window's end to its evaluation: the samples of its last minute arrive meanwhile


class Load(NamedTuple):  # tuples, as Minute: ninety days have 400,000 of them
    """One metric of one minute: the sum of the instances' percentages (each 0 to 100), and of how many instances.

    `warming` is the part of the sum that comes from instances which are still warming up.
    """

    total: float = 0.0
    instances: int = 0
    warming: float = 0.0


IDLE = Load()


class Minute(NamedTuple):
    """What the instances of a workload used within one minute; times are whole seconds since 1970 in UTC.

    `units` is how many instances the platform ran, where it is known; `expected` is how many should have reported.
    They differ where one instance reports for several units, as one web server does for its worker processes.
    Never more instances reported than were expected.
    """

    at: int  # start
    expected: int
    reported: int = 0
    cpu: Load = IDLE
    memory: Load = IDLE
    units: int | None = None
    samples: int = 0  # that it was made from

    @property
    def ran(self) -> int:
        """How many units ran, as far as anybody knows."""
        return self.expected if self.units is None else self.units

    def load(self, metric: str) -> Load:
        return self.cpu if metric == CPU else self.memory


def running(minutes: Iterable[Minute]) -> dict[int, int]:
    """By minute, how many units ran.

    The platform's count is noted in the last minute of each window. It holds for the minutes before it, as a change is
    made right after a window's end, and for those since the last one; at most an hour, else the instances are counted.
    """
    ordered = sorted(minutes, key=_start)
    found = {minute.at: minute.expected for minute in ordered}
    for way in (ordered, reversed(ordered)):  # what is noted next comes last, and wins
        noted, units = 0, None
        for minute in way:
            at = minute.at
            if minute.units is not None:
                noted, units = at, minute.units
            if units is not None and -NOTED_FOR <= at - noted <= NOTED_FOR:
                found[at] = units
    return found


@dataclass(frozen=True, slots=True)
class Usage:
    """Mean use of one metric in one window, in percent of all that should have reported."""

    load: float  # of those that reported
    warming: float  # the part of it that comes from warming instances
    missing: float  # what those that did not report would add if they were fully loaded
    measured: float | None  # the mean of those that did report, for people

    def shared_by(self, factor: float) -> "Usage":
        """The same load on `factor` times as many instances."""
        if factor == 1:
            return self
        measured = None if self.measured is None else self.measured / factor
        return Usage(self.load / factor, self.warming / factor, self.missing, measured)

    @property
    def up(self) -> float:
        """What counts on the way up."""
        return self.load - self.warming

    @property
    def down(self) -> float:
        """What counts on the way down."""
        return self.load + self.missing


@dataclass(frozen=True, slots=True)
class Window:
    """One window: its start, how much of what should have reported did, and each metric's usage.

    `hottest` is the metric that counts most on the way up, `busiest` the one that counts most on the way down, both as
    a share of 1.
    """

    start: int
    reporting: float  # 0 to 1
    reported: float  # mean instances
    expected: float  # mean instances
    usage: Mapping[str, Usage]  # as it was recorded
    hottest: float
    busiest: float
    factor: float = 1.0  # how many times the instances that ran share the load

    def used(self, metric: str) -> Usage:
        """A metric's usage on as many instances as share the load here."""
        return self.usage[metric].shared_by(self.factor)

    def shared_by(self, factor: float) -> "Window":
        """The same total load on `factor` times as many instances as were recorded."""
        if factor == 1:
            return self
        busiest = max([usage.load / factor + usage.missing for usage in self.usage.values()]) / FULL
        return Window(
            self.start,
            self.reporting,
            self.reported,
            self.expected,
            self.usage,
            self.hottest / factor,
            busiest,
            factor,
        )


def boundary(period: int, now: int) -> int:
    """The end of the newest window that may be evaluated now; windows are multiples of `period` seconds."""
    return (now - DELAY) // period * period


def windows(policy: Policy, minutes: Iterable[Minute], end: int) -> tuple[Window, ...]:
    """The windows that the evaluation at `end` looks at, oldest first."""
    by_start = {minute.at: minute for minute in minutes}
    starts = range(end - policy.lookback, end, policy.evaluation_period_seconds)
    return tuple(window(policy, by_start, start) for start in starts)


def window(policy: Policy, minutes: Mapping[int, Minute], start: int) -> Window:
    """The mean of a window's minutes. One that nobody recorded is one in which nobody reported."""
    places = policy.evaluation_period_seconds // MINUTE
    found = [
        minute
        for at in range(start, start + policy.evaluation_period_seconds, MINUTE)
        if (minute := minutes.get(at)) is not None and minute.expected > 0
    ]
    reporting, reported, expected = 0.0, 0, 0
    for minute in found:
        reporting += minute.reported / minute.expected
        reported += minute.reported
        expected += minute.expected
    usage = {metric: _usage(metric, found, places) for metric in policy.metrics}
    return Window(
        start,
        reporting / places,
        reported / places,
        expected / len(found) if found else 0.0,
        usage,
        max(one.load - one.warming for one in usage.values()) / FULL,
        max(one.load + one.missing for one in usage.values()) / FULL,
    )


def _usage(metric: str, found: Sequence[Minute], places: int) -> Usage:
    load = warming = total = 0.0
    absent, measured = float(places - len(found)), 0
    for minute in found:
        seen, expected = minute.cpu if metric == CPU else minute.memory, minute.expected
        load += seen.total / expected
        warming += seen.warming / expected
        absent += (expected - seen.instances) / expected
        total += seen.total
        measured += seen.instances
    return Usage(load / places, warming / places, FULL * absent / places, total / measured if measured else None)

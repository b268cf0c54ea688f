"""A policy tried on recorded minutes: what it would have done, and what that would have cost.

The load model: the total load is what was recorded, whatever the number of instances. With half as many of them each
would have been twice as busy. Where the recorded instances were at their limit the true load was higher than anybody
measured, and a replay with more instances looks better than it would have been.

As long as a policy decides what was decided, the recorded minutes are used as they are: the replay of the policy that
ran gives the very decisions that were made.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from apps.scaling.rules.evaluation import HOLD, NOTHING_YET, Decision, Past, evaluate
from apps.scaling.rules.policy import MINUTE, Policy
from apps.scaling.rules.usage import FULL, Minute, Window, running, window

_Shape = tuple[int, tuple[str, ...]]  # of windows: their length and the metrics in them
# How many ran in its last known minute, until when that minute lasted (0: nobody knows), and how many ran as a mean.
_Seen = tuple[Window, int, int, float]
THRASH = 1800  # seconds: an action that undoes the one before it within this time was for nothing


@dataclass(frozen=True, slots=True)
class Recorded:
    """One change that really happened: its boundary or moment, by how much, whether it went well and who did it."""

    at: int
    delta: int
    success: bool = True
    by_policy: bool = True


@dataclass(frozen=True, slots=True)
class History:
    """What is known of a workload's past, for one replay."""

    minutes: Sequence[Minute]
    changes: Sequence[Recorded] = ()
    held: Mapping[int, str] = field(default_factory=dict)  # by boundary, as far as it was recorded
    past: Past = NOTHING_YET  # before the first minute
    # What several replays of one history share, made by the first that needs it.
    _by_start: dict[int, Minute] = field(default_factory=dict, init=False, repr=False, compare=False)
    _ran: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)
    _windows: dict[_Shape, dict[int, _Seen]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _peaks: dict[tuple[str, ...], dict[int, float]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def by_start(self) -> Mapping[int, Minute]:
        """The minutes by their starts."""
        if not self._by_start:
            self._by_start.update((minute.at, minute) for minute in self.minutes)
        return self._by_start

    def ran(self) -> Mapping[int, int]:
        """By minute, how many ran."""
        if not self._ran:
            self._ran.update(running(self.minutes))
        return self._ran

    def recorded(self, policy: Policy, start: int) -> _Seen:
        """The window that begins then, and how many ran in it."""
        made = self._windows.setdefault((policy.evaluation_period_seconds, policy.metrics), {})
        found = made.get(start)
        if found is None:
            minutes, ran = self.by_start(), self.ran()
            counts, last = [], None
            for at in range(start, start + policy.evaluation_period_seconds, MINUTE):
                if at in minutes:
                    counts.append(ran[at])
                    last = minutes[at]
            # A count that was noted before or after is known already, or has changed since.
            told = (last.ran, last.at + MINUTE) if last is not None and last.ran == ran[last.at] else (0, 0)
            mean = sum(counts) / len(counts) if counts else 0.0
            found = made[start] = (window(policy, minutes, start), *told, mean)
        return found

    def peaks(self, metrics: tuple[str, ...]) -> Mapping[int, float]:
        """By minute, how many instances the hottest metric would fill; minutes without figures are left out."""
        if metrics not in self._peaks:
            ran, peaks = self.ran(), {}
            for minute in self.minutes:
                if minute.expected:
                    hottest = max([_up(minute, metric) for metric in metrics])  # a list: a million are made
                    peaks[minute.at] = (ran[minute.at] or 1) * hottest
            self._peaks[metrics] = peaks
        return self._peaks[metrics]


@dataclass(frozen=True, slots=True)
class Figures:
    """What a replay comes to."""

    actions: int
    instance_hours: float
    minutes_above_threshold: int  # minutes in which a metric was above the yardstick's threshold for scaling up
    minutes_above_own_threshold: int  # the same by the threshold of the policy that was replayed
    minutes_known: int  # minutes with figures
    thrash_count: int


@dataclass(frozen=True, slots=True)
class Replay:
    """Every decision, the count by minute, and the figures."""

    decisions: tuple[Decision, ...]
    counts: tuple[tuple[int, int], ...]  # (start of the minute, instances), at changes only
    figures: Figures

    @property
    def actions(self) -> tuple[Decision, ...]:
        return tuple(decision for decision in self.decisions if decision.action != HOLD)


def replay(policy: Policy, history: History, *, start: int, end: int, yardstick: Policy | None = None) -> Replay:
    """Evaluate the policy at every boundary from `start` to `end`, as a tick would have done at that time.

    `history.minutes` should begin one lookback before `start`, for the first evaluation looks at them. `yardstick` is
    the policy whose threshold says when instances are too busy, the same one for all that are compared; None: its own.
    """
    period = policy.evaluation_period_seconds
    own = {change.at: change for change in history.changes if change.by_policy}
    happened = deque(sorted((change for change in history.changes if change.success), key=lambda change: change.at))
    first = -(-start // period) * period
    seen = deque(
        (history.recorded(policy, at)[0] for at in range(first - policy.lookback, first - period, period)),
        maxlen=policy.datapoints_to_trigger,
    )
    past, extra = history.past, 0
    ran = _first_count(history.ran(), first - period)
    decisions: list[Decision] = []
    for at in range(first, end + 1, period):
        recorded, known, until, mean = history.recorded(policy, at - period)
        ran = known if until else ran
        while happened and happened[0].at < at:
            change = happened.popleft()
            if change.at >= until and at > first:
                ran += change.delta  # as far as nothing better is known
            if at == first or not change.by_policy:
                past = _after(past, change.at, change.delta)
            elif change.at > at - period:
                extra -= change.delta  # decided for a moment at which this policy decides nothing
        count = max(0, ran + extra)
        # As it was lived through, or as many shared the load as ran: where others came in its middle, their mean.
        seen.append(recorded.shared_by(count / mean if count and mean and count != ran else 1))
        decision = evaluate(policy, seen, end=at, count=count, past=past, held=history.held.get(at, ""))
        decisions.append(decision)
        really = own.get(at)
        moved = decision.after - decision.before
        if moved and (really is None or really.success):  # what the platform refused then, it refuses here too
            past = _after(past, at, moved)
            extra += moved
        if really is not None and really.success:
            extra -= really.delta
    return Replay(tuple(decisions), *_summed(policy, yardstick or policy, history, decisions, start, end))


def first_difference(one: Sequence[Decision], other: Sequence[Decision]) -> tuple[Decision, Decision] | None:
    """The first moment at which two replays decide differently; None when they never do.

    Of two evaluation periods only the common boundaries are compared.
    """
    by_time = {decision.at: decision for decision in other}
    for decision in one:
        against = by_time.get(decision.at)
        if against is not None and (decision.action, decision.after) != (against.action, against.after):
            return decision, against
    return None


def _after(past: Past, at: int, delta: int) -> Past:
    """The past once an action of this direction has gone well."""
    return Past(at if delta > 0 else past.last_up, at)


def _first_count(ran: Mapping[int, int], at: int) -> int:
    """How many ran before anything is known: as many as in the first minute that knows."""
    first = min((minute for minute in ran if minute >= at), default=None)
    return 0 if first is None else ran[first]


def _summed(
    policy: Policy, yardstick: Policy, history: History, decisions: Sequence[Decision], start: int, end: int
) -> tuple[tuple[tuple[int, int], ...], Figures]:
    """The count by time, and the figures of all minutes from `start` to `end`."""
    period = policy.evaluation_period_seconds
    peaks, their_peaks = history.peaks(policy.metrics), history.peaks(yardstick.metrics)  # of the same minutes
    counts: list[tuple[int, int]] = []
    ran_minutes, above, above_own, known = 0, 0, 0, 0
    spans = [(one.at - period, one.at, one.before) for one in decisions]
    if decisions:
        spans.append((decisions[-1].at, end, decisions[-1].after))
    for since, until, count in spans:
        if since >= end or until <= start:
            continue
        if not counts or counts[-1][1] != count:
            counts.append((max(since, start), count))
        full, their_full = policy.scale_up_threshold * (count or 1), yardstick.scale_up_threshold * (count or 1)
        for at in range(max(since, start), min(until, end), MINUTE):
            ran_minutes += count
            peak = peaks.get(at)
            if peak is not None:
                known += 1
                above_own += peak > full
                above += their_peaks[at] > their_full
    actions = [one for one in decisions if one.action != HOLD]
    thrash = sum(
        later.action != earlier.action and later.at - earlier.at <= THRASH for earlier, later in pairwise(actions)
    )
    return tuple(counts), Figures(len(actions), ran_minutes / 60, above, above_own, known, thrash)


def _up(minute: Minute, metric: str) -> float:
    """The share of 1 that counts on the way up in one minute."""
    load = minute.load(metric)
    return (load.total - load.warming) / minute.expected / FULL

"""Whether a workload gets another instance, or loses one, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from apps.scaling.rules.policy import NAMES, Policy, percent
from apps.scaling.rules.usage import FULL, Usage, Window

# The words are those of apps.scaling.choices; plain strings here keep the rules free of Django.
UP, DOWN, HOLD = "scale_up", "scale_down", "hold"
REPORTING_SHARE = 0.5  # of what should have reported; below it nothing is decided


@dataclass(frozen=True, slots=True)
class Past:
    """The newest successful actions before an evaluation: the boundaries they were decided for, None without one."""

    last_up: int | None = None
    last_action: int | None = None


NOTHING_YET = Past()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do at a window's end, by which rule, and the sentence for people."""

    at: int  # the end of the window
    action: str
    before: int
    after: int
    rule: str
    reason: str
    windows: tuple[Window, ...] = ()


def evaluate(
    policy: Policy, seen: Sequence[Window], *, end: int, count: int, past: Past = NOTHING_YET, held: str = ""
) -> Decision:
    """What to do with `count` instances at the end of the newest window.

    `held` says why nothing may be changed now (a change lock, a pause, the stop switch); empty: nothing does.
    """
    after, rule, reason = _outcome(policy, seen, end, count, past, held)
    action = UP if after > count else DOWN if after < count else HOLD
    return Decision(end, action, count, after, rule, reason, tuple(seen))


def _outcome(
    policy: Policy, seen: Sequence[Window], end: int, count: int, past: Past, held: str
) -> tuple[int, str, str]:
    """The count to come, the rule and the reason."""
    if held:
        return count, "held", f"held: {held}"
    if not policy.min_instances <= count <= policy.max_instances:
        return _brought_inside(policy, count)
    counted = [window for window in seen if past.last_action is None or window.start >= past.last_action]
    if len(counted) < policy.datapoints_to_trigger:
        passed = f"{len(counted)} of {policy.datapoints_to_trigger} windows have passed since the last action"
        return count, "waiting", f"held: {passed}"
    scarcest = min(counted, key=lambda window: window.reporting)
    if scarcest.reporting < REPORTING_SHARE:
        return count, "too_little_reported", f"held: {_reported(scarcest)}, too few to decide by"
    hottest = [_hottest(policy, window) for window in counted]
    if all(share > policy.scale_up_threshold for _, share in hottest):
        return _up(policy, counted[-1], hottest[-1], end, count, past)
    if all(_is_cool(policy, window) for window in counted):
        return _down(policy, counted[-1], end, count, past)
    return count, "within", f"held: {_why_neither(policy, counted, hottest)}"


def _brought_inside(policy: Policy, count: int) -> tuple[int, str, str]:
    if count < policy.min_instances:
        return policy.min_instances, "below_minimum", f"{_instances(count)} ran, the minimum is {policy.min_instances}"
    return policy.max_instances, "above_maximum", f"{_instances(count)} ran, the maximum is {policy.max_instances}"


def _up(
    policy: Policy, newest: Window, hottest: tuple[str, float], end: int, count: int, past: Past
) -> tuple[int, str, str]:
    metric, share = hottest
    reason = (
        f"{NAMES[metric]} {percent(share)} for {_span(policy)} (threshold {percent(policy.scale_up_threshold)})"
        f"{_missing(newest, 'idle on the way up')}"
    )
    if count == policy.max_instances:
        return count, "at_maximum", f"held: {reason}, but the maximum is {policy.max_instances}"
    if past.last_up is not None and end - past.last_up < policy.scale_up_cooldown_seconds:
        left = _left(past.last_up + policy.scale_up_cooldown_seconds - end)
        return count, "cooldown_up", f"held: {reason}, but the cooldown of the last scale-up lasts another {left}"
    return count + 1, "above_threshold", reason


def _down(policy: Policy, newest: Window, end: int, count: int, past: Past) -> tuple[int, str, str]:
    figures = " and ".join(f"{NAMES[metric]} {percent(newest.usage[metric].down / FULL)}" for metric in policy.metrics)
    reason = (
        f"{figures} for {_span(policy)} (threshold {percent(policy.scale_down_threshold)})"
        f"{_missing(newest, 'fully loaded on the way down')}"
    )
    if count == policy.min_instances:
        return count, "at_minimum", f"held: {reason}, but the minimum is {policy.min_instances}"
    if past.last_action is not None and end - past.last_action < policy.scale_down_cooldown_seconds:
        left = _left(past.last_action + policy.scale_down_cooldown_seconds - end)
        return count, "cooldown_down", f"held: {reason}, but the cooldown of the last action lasts another {left}"
    return count - 1, "below_threshold", reason


def _hottest(policy: Policy, window: Window) -> tuple[str, float]:
    """The metric that speaks loudest for another instance, and its share of 1."""
    return max(((metric, window.usage[metric].up / FULL) for metric in policy.metrics), key=lambda pair: pair[1])


def _is_cool(policy: Policy, window: Window) -> bool:
    return all(window.usage[metric].down / FULL < policy.scale_down_threshold for metric in policy.metrics)


def _why_neither(policy: Policy, counted: Sequence[Window], hottest: Sequence[tuple[str, float]]) -> str:
    """Why the load speaks for no change."""
    newest = counted[-1]
    low, high = percent(policy.scale_down_threshold), percent(policy.scale_up_threshold)
    if above := sum(share > policy.scale_up_threshold for _, share in hottest):
        metric, share = max(hottest, key=lambda pair: pair[1])
        return f"{NAMES[metric]} {percent(share)} is above {high} in {above} of {len(counted)} windows"
    for metric in policy.metrics:
        usage = newest.usage[metric]
        if usage.measured is None:
            return f"{NAMES[metric]} was not measured, which counts as 100 % on the way down"
        if usage.load / FULL < policy.scale_down_threshold <= usage.down / FULL and usage.missing:
            missing = newest.expected - newest.reported
            return (
                f"{_reported(newest)}; {missing:.3g} missing counts as 100 % on the way down → "
                f"{NAMES[metric]} {percent(usage.down / FULL)}, not below {low}"
            )
    figures = ", ".join(f"{NAMES[metric]} {_measured(newest.usage[metric])}" for metric in policy.metrics)
    if below := sum(_is_cool(policy, window) for window in counted):
        return f"{figures}: below {low} in {below} of {len(counted)} windows only"
    return f"{figures}: not above {high}, and not all below {low}"


def _measured(usage: Usage) -> str:
    return "not measured" if usage.measured is None else percent(usage.measured / FULL)


def _reported(window: Window) -> str:
    return f"{window.reported:.3g} of {window.expected:.3g} instances reported"


def _missing(window: Window, as_what: str) -> str:
    """What to add to a reason when not everybody reported."""
    return f"; {_reported(window)}, the rest counts as {as_what}" if window.reported < window.expected else ""


def _instances(count: int) -> str:
    return f"{count} instance{'s' * (count != 1)}"


def _span(policy: Policy) -> str:
    return _left(policy.lookback)


def _left(seconds: int) -> str:
    minutes, rest = divmod(seconds, 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min {rest} s" if rest else f"{minutes} minute{'s' * (minutes != 1)}"

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
    """What to do at a window's end, by which rule, and what it was decided by."""

    at: int  # the end of the window
    action: str
    before: int
    after: int
    rule: str
    policy: Policy
    windows: tuple[Window, ...] = ()
    past: Past = NOTHING_YET
    held: str = ""

    @property
    def reason(self) -> str:
        """The sentence for people. Made when it is asked for: of a replay's hundred thousand few are read."""
        return _reason(self)


def evaluate(
    policy: Policy, seen: Sequence[Window], *, end: int, count: int, past: Past = NOTHING_YET, held: str = ""
) -> Decision:
    """What to do with `count` instances at the end of the newest window.

    `held` says why nothing may be changed now (a change lock, a pause, the stop switch); empty: nothing does.
    """
    after, rule = _outcome(policy, seen, end, count, past, held)
    action = UP if after > count else DOWN if after < count else HOLD
    return Decision(end, action, count, after, rule, policy, tuple(seen), past, held)


def _outcome(policy: Policy, seen: Sequence[Window], end: int, count: int, past: Past, held: str) -> tuple[int, str]:
    """The count to come, and the rule."""
    if held:
        return count, "held"
    if count < policy.min_instances:
        return policy.min_instances, "below_minimum"
    if count > policy.max_instances:
        return policy.max_instances, "above_maximum"
    counted = _counted(seen, past)
    if len(counted) < policy.datapoints_to_trigger:
        return count, "waiting"
    hot = cool = True
    for window in counted:
        if window.reporting < REPORTING_SHARE:
            return count, "too_little_reported"
        hot = hot and window.hottest > policy.scale_up_threshold
        cool = cool and window.busiest < policy.scale_down_threshold
    if hot:
        return _up(policy, end, count, past)
    if cool:
        return _down(policy, end, count, past)
    return count, "within"


def _counted(seen: Sequence[Window], past: Past) -> Sequence[Window]:
    """The windows that began after the last action."""
    if past.last_action is None or (seen and seen[0].start >= past.last_action):
        return seen
    return [window for window in seen if window.start >= past.last_action]


def _up(policy: Policy, end: int, count: int, past: Past) -> tuple[int, str]:
    if count == policy.max_instances:
        return count, "at_maximum"
    if past.last_up is not None and end - past.last_up < policy.scale_up_cooldown_seconds:
        return count, "cooldown_up"
    return count + 1, "above_threshold"


def _down(policy: Policy, end: int, count: int, past: Past) -> tuple[int, str]:
    if count == policy.min_instances:
        return count, "at_minimum"
    if past.last_action is not None and end - past.last_action < policy.scale_down_cooldown_seconds:
        return count, "cooldown_down"
    return count - 1, "below_threshold"


# --- In words ---------------------------------------------------------------------------------------------------------


def _reason(decision: Decision) -> str:
    if decision.rule in ("above_threshold", "at_maximum", "cooldown_up"):
        why = _hot(decision.policy, decision.windows[-1]) + _but(decision)
    elif decision.rule in ("below_threshold", "at_minimum", "cooldown_down"):
        why = _cool(decision.policy, decision.windows[-1]) + _but(decision)
    else:
        why = _other(decision)
    return f"held: {why}" if decision.action == HOLD else why


def _other(decision: Decision) -> str:
    """Why, where the load had no say or speaks for no change."""
    policy, count = decision.policy, decision.before
    counted = _counted(decision.windows, decision.past)
    match decision.rule:
        case "held":
            return decision.held
        case "below_minimum":
            return f"{_instances(count)} ran, the minimum is {policy.min_instances}"
        case "above_maximum":
            return f"{_instances(count)} ran, the maximum is {policy.max_instances}"
        case "waiting":
            return f"{len(counted)} of {policy.datapoints_to_trigger} windows have passed since the last action"
        case "too_little_reported":
            return f"{_reported(min(counted, key=lambda window: window.reporting))}, too few to decide by"
    return _why_neither(policy, counted)


def _but(decision: Decision) -> str:
    """What keeps the count where the load speaks for a change; empty when nothing does."""
    policy, past = decision.policy, decision.past
    match decision.rule:
        case "at_maximum":
            return f", but the maximum is {policy.max_instances}"
        case "at_minimum":
            return f", but the minimum is {policy.min_instances}"
        case "cooldown_up":
            left = _left((past.last_up or 0) + policy.scale_up_cooldown_seconds - decision.at)
            return f", but the cooldown of the last scale-up lasts another {left}"
        case "cooldown_down":
            left = _left((past.last_action or 0) + policy.scale_down_cooldown_seconds - decision.at)
            return f", but the cooldown of the last action lasts another {left}"
    return ""


def _hot(policy: Policy, newest: Window) -> str:
    metric, share = _hottest(policy, newest)
    return (
        f"{NAMES[metric]} {percent(share)} for {_span(policy)} (threshold {percent(policy.scale_up_threshold)})"
        f"{_missing(newest, 'idle on the way up')}"
    )


def _cool(policy: Policy, newest: Window) -> str:
    figures = " and ".join(f"{NAMES[metric]} {percent(newest.used(metric).down / FULL)}" for metric in policy.metrics)
    return (
        f"{figures} for {_span(policy)} (threshold {percent(policy.scale_down_threshold)})"
        f"{_missing(newest, 'fully loaded on the way down')}"
    )


def _hottest(policy: Policy, window: Window) -> tuple[str, float]:
    """The metric that speaks loudest for another instance, and its share of 1."""
    return max(((metric, window.used(metric).up / FULL) for metric in policy.metrics), key=lambda pair: pair[1])


def _why_neither(policy: Policy, counted: Sequence[Window]) -> str:
    """Why the load speaks for no change."""
    newest = counted[-1]
    low, high = percent(policy.scale_down_threshold), percent(policy.scale_up_threshold)
    if above := sum(window.hottest > policy.scale_up_threshold for window in counted):
        metric, share = _hottest(policy, max(counted, key=lambda window: window.hottest))
        return f"{NAMES[metric]} {percent(share)} is above {high} in {above} of {len(counted)} windows"
    for metric in policy.metrics:
        usage = newest.used(metric)
        if usage.measured is None:
            return f"{NAMES[metric]} was not measured, which counts as 100 % on the way down"
        if usage.up / FULL <= policy.scale_up_threshold < usage.load / FULL:
            return (
                f"{NAMES[metric]} {percent(usage.load / FULL)}, but {percent(usage.warming / FULL)} of it comes from "
                "instances that are warming up and does not count on the way up"
            )
        if usage.load / FULL < policy.scale_down_threshold <= usage.down / FULL and usage.missing:
            missing = newest.expected - newest.reported
            return (
                f"{_reported(newest)}; {missing:.3g} missing counts as 100 % on the way down → "
                f"{NAMES[metric]} {percent(usage.down / FULL)}, not below {low}"
            )
    figures = ", ".join(f"{NAMES[metric]} {_measured(newest.used(metric))}" for metric in policy.metrics)
    if below := sum(window.busiest < policy.scale_down_threshold for window in counted):
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

"""A policy, saved or being edited, tried on the recorded minutes of its workload beside the policy that is in force."""

import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from apps.core import garbage
from apps.core.errors import Conflict, Invalid
from apps.inventory.models import Workload
from apps.scaling import history, services
from apps.scaling.choices import Trigger
from apps.scaling.models import DAY, ScalingDecision, ScalingEvent, ScalingPolicy
from apps.scaling.rules.evaluation import Decision, Past
from apps.scaling.rules.policy import Policy
from apps.scaling.rules.replay import History, Recorded, Replay, first_difference, replay

LONGEST = 90  # days: minutes are kept so long
# What a web process takes on, both replays together: a second or two of its time, in which other requests wait. It is
# 90 days of windows of five minutes, and a month of windows of one minute.
MOST_EVALUATIONS = 100_000
_running = threading.Lock()  # in a process one at a time: more at once would only take longer, and keep others waiting
LOAD_MODEL = (
    "The total load is taken as recorded, whatever the number of instances: with half as many each would have been "
    "twice as busy. Where instances were at their limit the true load was higher than anybody measured."
)
# What `--set`, the API and the form may try.
SETTABLE = (
    *("min_instances", "max_instances", "scale_up_threshold", "scale_down_threshold", "scale_up_cooldown_seconds"),
    *("scale_down_cooldown_seconds", "evaluation_period_seconds", "datapoints_to_trigger", "metrics"),
    *services.TARGETS,
)


@dataclass(frozen=True, slots=True)
class Backtest:
    """What the tried policy would have done, and what the one in force would have done on the same minutes."""

    start: datetime
    end: datetime
    minutes: int  # recorded
    tried: Replay
    present: Replay
    threshold: float  # for scaling up, of the policy in force: what both are measured by
    difference: tuple[Decision, Decision] | None  # the first one: tried, present


def backtest(*, policy: ScalingPolicy, days: int, now: datetime) -> Backtest:
    """Replay a policy as it is given, and as it is stored, over the last days.

    Raises Invalid for settings that cannot be or days outside 1 to 90, Conflict when nothing was recorded.
    """
    if not 1 <= days <= LONGEST:
        raise Invalid(f"Give 1 to {LONGEST} days: the minutes are kept so long.", field="days")
    services.check(policy, to_try=True)
    workload = Workload.objects.filter(service=policy.service_id, environment=policy.environment).first()
    if workload is None:
        raise Conflict(f"There is no workload {policy} yet, so nothing was recorded of it.")
    end = int(now.timestamp()) // 60 * 60
    start = end - days * DAY
    stored = ScalingPolicy.objects.filter(pk=policy.pk).first() or policy
    tried, present = policy.rule(), stored.rule()
    lookback = max(tried.lookback, present.lookback)
    with garbage.never():  # a replay makes a million objects and no cycle: looking took a third of its time
        return _replayed(workload, stored, tried, present, start=start, end=end, lookback=lookback)


def for_the_web(*, policy: ScalingPolicy, days: int, now: datetime) -> Backtest:
    """The same within bounds, so that nobody keeps a web process from its other requests.

    Raises as `backtest` does, Invalid for more than can be done while somebody waits, Conflict while another one runs.
    """
    services.check(policy, to_try=True)
    stored = ScalingPolicy.objects.filter(pk=policy.pk).first() or policy
    a_day = sum(DAY // one.evaluation_period_seconds for one in (policy, stored))
    if 1 <= days <= LONGEST and days * a_day > MOST_EVALUATIONS:
        raise Invalid(
            f"With windows this short, {days} days take too long for the web server: give up to "
            f"{MOST_EVALUATIONS // a_day}, or run `python manage.py scaling backtest {policy.pk} --days {days}`.",
            field="days",
        )
    if not _running.acquire(blocking=False):
        raise Conflict("Another backtest is running in this web server: try again in a few seconds.")
    try:
        return backtest(policy=policy, days=days, now=now)
    finally:
        _running.release()


def _replayed(
    workload: Workload, stored: ScalingPolicy, tried: Policy, present: Policy, *, start: int, end: int, lookback: int
) -> Backtest:
    rows = history.minutes_of({workload.pk: (start - lookback, end)}).get(workload.pk, [])
    if not rows:
        days = (end - start) // DAY
        raise Conflict(
            f"No minute of {workload} was recorded in the last {days} days: its instances have to report CPU or memory."
        )
    start = max(start, min(row.at for row in rows) + lookback)
    past = History(rows, _changes(workload, start), _held(stored, start), _before(workload, start))
    other = replay(present, past, start=start, end=end)
    # By the threshold in force, or lower settings would look worse than they are, by a stricter measure of their own.
    one = other if tried == present else replay(tried, past, start=start, end=end, yardstick=present)
    difference = first_difference(one.decisions, other.decisions)
    return Backtest(moment(start), moment(end), len(rows), one, other, present.scale_up_threshold, difference)


def changed(policy: ScalingPolicy, settings: dict[str, Any]) -> ScalingPolicy:
    """The policy with other settings, unsaved. Raises Invalid for an unknown one."""
    for name, value in settings.items():
        if name not in SETTABLE:
            raise Invalid(f"There is no setting {name[:40]!r}; known are: {', '.join(SETTABLE)}.", field=name[:40])
        setattr(policy, name, value)
    return policy


def _changes(workload: Workload, start: int) -> list[Recorded]:
    rows = ScalingEvent.objects.filter(workload=workload, timestamp__gte=moment(start)).exclude(success=None)
    return [
        Recorded(int(at.timestamp()), after - before, success, trigger == Trigger.AUTOSCALER)
        for at, before, after, success, trigger in rows.order_by("timestamp").values_list(
            "timestamp", "instances_before", "instances_after", "success", "triggered_by"
        )
    ]


def _held(policy: ScalingPolicy, start: int) -> dict[int, str]:
    """Why nothing could be changed, by boundary; known for as long as decisions are kept."""
    rows = ScalingDecision.objects.filter(policy=policy.pk, rule__in=("held", "platform"), boundary__gte=moment(start))
    return {
        int(boundary.timestamp()): reason.removeprefix("held: ")
        for boundary, reason in rows.values_list("boundary", "reason")
    }


def _before(workload: Workload, start: int) -> Past:
    """The newest successful actions before the first minute."""
    rows = ScalingEvent.objects.successful().filter(workload=workload, timestamp__lt=moment(start)).newest_first()
    newest = rows.first()
    up = next((row for row in rows[:100] if row.instances_after > row.instances_before), None)
    return Past(int(up.timestamp.timestamp()) if up else None, int(newest.timestamp.timestamp()) if newest else None)


def moment(seconds: int) -> datetime:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def as_json(found: Backtest) -> dict[str, Any]:
    """For programs: what the command prints with --json and the API answers."""
    return {
        "from": _text(found.start),
        "until": _text(found.end),
        "minutes_recorded": found.minutes,
        "load_model": LOAD_MODEL,
        "actions": [_action(one) for one in found.tried.actions],
        "figures": _figures(found.tried),
        "counts": [{"at": _text(moment(at)), "instances": count} for at, count in found.tried.counts],
        "present": {
            "actions": [_action(one) for one in found.present.actions],
            "figures": _figures(found.present),
            "counts": [{"at": _text(moment(at)), "instances": count} for at, count in found.present.counts],
        },
        "first_difference": None
        if found.difference is None
        else {"tried": _action(found.difference[0]), "present": _action(found.difference[1])},
    }


def _action(one: Decision) -> dict[str, Any]:
    return {
        "at": _text(moment(one.at)),
        "action": one.action,
        "from": one.before,
        "to": one.after,
        "reason": one.reason,
    }


def _figures(one: Replay) -> dict[str, Any]:
    figures = one.figures
    return {
        "actions": figures.actions,
        "instance_hours": round(figures.instance_hours, 2),
        "minutes_above_threshold": figures.minutes_above_threshold,
        "minutes_above_own_threshold": figures.minutes_above_own_threshold,
        "minutes_known": figures.minutes_known,
        "thrash_count": figures.thrash_count,
    }


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")

"""Policies, decisions and changes in the words of the console."""

from datetime import datetime
from typing import Any

from apps.core.display import moment
from apps.inventory.models import Workload
from apps.scaling import records
from apps.scaling.choices import DecisionAction, Trigger
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy
from apps.scaling.rules.policy import NAMES, percent

Label = tuple[str, str, str]  # text, colour, what the mouse shows


def is_paused(policy: ScalingPolicy, now: datetime) -> bool:
    return policy.paused_until is not None and policy.paused_until > now


def policy_labels(policy: ScalingPolicy, scales: bool | None, now: datetime) -> list[Label]:
    """Whether it acts. `scales`: whether its workload's platform does; None without a workload."""
    if not policy.enabled:
        return [("off", "", "It is not evaluated at all")]
    found: list[Label] = []
    if is_paused(policy, now):
        why = f"by {policy.paused_by}: {policy.paused_reason}"
        return [(f"paused until {moment(policy.paused_until)}", "warning", why)]
    if scales is None:
        found.append(("no workload", "warning", "There is nothing it could scale"))
    elif not scales:
        found.append(("advises only", "info", "The workload's platform scales nothing: a person does"))
    else:
        found.append(("scales", "success", "It changes the count itself"))
    return found


def decision_label(row: ScalingDecision) -> Label:
    """What was decided."""
    if row.action == DecisionAction.HOLD:
        return ("hold", "danger" if row.rule == "platform" else "", "")
    return (f"{row.instances_before} → {row.instances_after}", "info", "")


def event_label(row: ScalingEvent) -> Label:
    """How a change went."""
    if row.success is None:
        return ("under way", "info", "The platform has not confirmed it yet")
    return ("done", "success", "") if row.success else ("failed", "danger", row.error_message or "")


def who(row: ScalingEvent) -> str:
    """Who moved the count."""
    if row.triggered_by_user:
        return row.triggered_by_user
    return "the policy" if row.triggered_by == Trigger.AUTOSCALER else row.get_triggered_by_display()


def change(row: ScalingEvent) -> str:
    return f"{row.instances_before} → {row.instances_after}"


def windows(row: ScalingDecision) -> list[dict[str, Any]]:
    """The figures a decision was made of, a line for each window, as the list of a detail page takes them."""
    lines = []
    for one in row.figures:
        cells = [f"{one['start'][:10]} {one['start'][11:16]} UTC", f"{one['reported']:g} of {one['expected']:g}"]
        for metric in NAMES:
            usage = one.get(metric)
            cells += ["-"] * 3 if usage is None else [_percent(usage[name]) for name in ("measured", "up", "down")]
        lines.append({"cells": cells})
    return lines


WINDOW_HEADERS = (
    *("Window from", "Reported"),
    *("CPU measured", "counts up", "counts down", "Memory measured", "counts up", "counts down"),
)


def _percent(value: float | None) -> str:
    return "not measured" if value is None else percent(value / 100)


def advice(policy: ScalingPolicy, workload: Workload | None) -> str:
    """What somebody has to do before a policy can act; empty when it can."""
    if workload is None:
        return (
            f"There is no workload {policy} yet. Add it under Inventory → Workloads and register its instances, or let "
            "them push their samples: decisions begin with the first recorded minutes."
        )
    if not records.scales(workload):
        return (
            f"This policy only advises: platform {workload.get_platform_display()} scales nothing. Read a decision "
            "such as 2 → 3 as “start one more”, do it yourself, and the count follows in the next minutes. Or set a "
            "platform that scales on the workload's page."
        )
    return ""

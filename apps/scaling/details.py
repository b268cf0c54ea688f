"""What the pages of a policy, a decision and a change show, and which buttons a person has there."""

from datetime import datetime
from typing import Any

from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from apps.core.display import badge, badges, linked, moment, page_of, span, unbroken
from apps.core.pages import buttons
from apps.inventory.models import Workload
from apps.scaling import actions, display, drawing, records
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy
from apps.scaling.rules.policy import NAMES, percent

SHOWN = 12  # decisions, and changes, on the page of a policy: an hour of windows of five minutes


def of_policy(request: HttpRequest, row: ScalingPolicy) -> dict[str, Any]:
    """The page of a policy. Seven queries."""
    now = timezone.now()
    workload = actions.workload_of(row)
    decisions = list(row.decisions.order_by("-boundary")[:SHOWN])
    events = list(ScalingEvent.objects.filter(workload=workload).newest_first()[:SHOWN]) if workload else []
    paused = display.is_paused(row, now)
    scales = records.scales(workload) if workload else None
    return {
        "title": f"Scaling of {row}",
        "badges": badges(display.policy_labels(row, scales, now)),
        "lead": _lead(row, decisions, paused, now),
        "advice": display.advice(row, workload),
        "actions": buttons(
            request,
            row,
            ("Try other settings", "backtest", "scaling.view_scalingpolicy", "primary", workload is not None),
            ("Change settings", "change-settings", "scaling.change_scalingpolicy", "", True),
            ("Resume", "resume", "scaling.pause_scalingpolicy", "", paused),
            ("Pause", "pause", "scaling.pause_scalingpolicy", "", row.enabled and not paused),
            ("Scale by hand", "scale", "scaling.scale", "", bool(scales)),
        ),
        "drawing": drawing.of_policy(row, workload, now),
        "sections": (_settings(row, workload),),
        "lists": (_decisions(row, decisions, now), _events(row, workload, events)),
    }


def _lead(row: ScalingPolicy, decisions: list[ScalingDecision], paused: bool, now: datetime) -> str:
    """How it stands, in a sentence."""
    if not row.enabled:
        return "It is off: nothing is evaluated, and nobody is told when instances are overloaded."
    if paused:
        left = span(row.paused_until - now) if row.paused_until else ""
        return f"Paused by {row.paused_by} for another {left}: {row.paused_reason}"
    if not decisions:
        return ""
    newest = decisions[0]
    change = "" if newest.instances_before == newest.instances_after else (
        f"from {newest.instances_before} to {newest.instances_after}: "
    )  # fmt: skip
    return f"{span(now - newest.boundary, units=1)} ago: {change}{newest.reason}"


def _settings(row: ScalingPolicy, workload: Workload | None) -> dict[str, Any]:
    window = span(row.evaluation_period_seconds)
    metrics = row.rule().metrics
    every = " and ".join(NAMES[metric] for metric in metrics)
    some = " or ".join(NAMES[metric] for metric in metrics)
    targets = {"cpu": row.target_cpu_percent, "memory": row.target_memory_percent}
    windows = f"in {row.datapoints_to_trigger} window{'s' * (row.datapoints_to_trigger != 1)}"
    up, down = row.scale_up_cooldown_seconds, row.scale_down_cooldown_seconds
    return {
        "heading": "Settings",
        "facts": (
            ("Policy", row.pk),
            ("Workload", linked(workload, workload.get_platform_display()) if workload else ""),
            ("Instances", f"{row.min_instances} to {row.max_instances}"),
            ("One more when", f"{some} above {percent(row.scale_up_threshold)} {windows}"),
            ("One less when", f"{every} below {percent(row.scale_down_threshold)} {windows}"),
            ("A window", window),
            ("Cooldown", f"up {span(up)} since the last scale-up, down {span(down)} since the last change"),
            ("Targets", ", ".join(f"{NAMES[metric]} {targets[metric]:g} %" for metric in metrics)),
        ),
    }  # fmt: skip


def _decisions(row: ScalingPolicy, rows: list[ScalingDecision], now: datetime) -> dict[str, Any]:
    url = reverse("admin:scaling_scalingdecision_changelist")
    return {
        "heading": "Last decisions",
        "headers": ("At (UTC)", "Decided", "Why"),
        "rows": [
            {
                "url": page_of(one),
                "cells": (_at(one.boundary, now), badge(*display.decision_label(one)), _why(one.reason)),
            }
            for one in rows
        ],
        "more": (f"{url}?{urlencode({'policy': row.pk})}", "All decisions of 7 days"),
        "empty": "Nothing has been decided yet. The first decision comes 15 seconds after the end of a window.",
    }


def _events(row: ScalingPolicy, workload: Workload | None, rows: list[ScalingEvent]) -> dict[str, Any]:
    url = reverse("admin:scaling_scalingevent_changelist")
    wanted = {"service__id__exact": row.service_id, "environment__exact": row.environment}
    return {
        "heading": "Last changes",
        "headers": ("At", "Instances", "How it went", "By", "Why"),
        "rows": [
            {
                "url": page_of(one),
                "cells": (
                    unbroken(moment(one.timestamp)),
                    unbroken(display.change(one)),
                    badge(*display.event_label(one)),
                    display.who(one),
                    _why(one.trigger_reason),
                ),
            }
            for one in rows
        ],
        "more": (f"{url}?{urlencode(wanted)}", "All changes of 90 days"),
        "empty": "The number of instances has not been changed yet."
        if workload and records.scales(workload)
        else "Nobody changes the number of instances from here.",
    }


def _at(when: datetime, now: datetime) -> SafeString:
    """A time of day, with its date unless that is today's: these lists are read on telephones too."""
    return unbroken(f"{when:%H:%M}" if when.date() == now.date() else f"{when:%d %b %H:%M}")


def _why(reason: str) -> SafeString:
    """A reason in a cell that stays wide enough to be read on a telephone."""
    return format_html('<span class="why">{}</span>', reason)


def of_decision(request: HttpRequest, row: ScalingDecision) -> dict[str, Any]:
    """The page of a decision: the figures it was made of."""
    late = [("late samples", "warning", "")] if row.late_samples else []
    return {
        "title": f"{row.policy} at {moment(row.boundary)}",
        "badges": badges([display.decision_label(row), *late]),
        "lead": row.reason,
        "advice": "Samples of these windows came after the decision: a backtest, which knows them, may differ."
        if row.late_samples
        else "",
        "sections": (
            {
                "heading": "What it is",
                "facts": (
                    ("Policy", linked(row.policy)),
                    ("Window's end", moment(row.boundary)),
                    ("Evaluated", f"{row.evaluated_at:%Y-%m-%d %H:%M:%S} UTC"),
                    ("Rule", row.rule),
                    ("Instances", f"{row.instances_before} ran, {row.instances_after} decided"),
                ),
            },
        ),
        "lists": (
            {
                "heading": "What it looked at",
                "headers": display.WINDOW_HEADERS,
                "rows": display.windows(row),
                "empty": "No figures: what held it was known before any was needed.",
            },
        ),
    }


def of_event(request: HttpRequest, row: ScalingEvent) -> dict[str, Any]:
    """The page of a change."""
    policy = ScalingPolicy.objects.filter(service=row.service_id, environment=row.environment).first()
    return {
        "title": f"{row.workload}: {row.instances_before} → {row.instances_after} instances",
        "badges": badges([display.event_label(row)]),
        "lead": row.trigger_reason,
        "fault": row.error_message or "",
        "advice": "The platform has not confirmed it yet. Should its worker have died, another settles it within two "
        "minutes."
        if row.success is None
        else "",
        "sections": (
            {
                "heading": "What it is",
                "facts": (
                    ("Change", row.pk),
                    ("Workload", linked(row.workload)),
                    ("Policy", linked(policy) if policy else ""),
                    ("Action", row.get_action_display()),
                    ("By", display.who(row)),
                    ("For", moment(row.timestamp)),
                    ("Settled", f"{row.settled_at:%Y-%m-%d %H:%M:%S} UTC" if row.settled_at else ""),
                    ("CPU", "" if row.cpu_percent_avg is None else f"{row.cpu_percent_avg:.1f} %"),
                    ("Memory", "" if row.memory_percent_avg is None else f"{row.memory_percent_avg:.1f} %"),
                ),
            },
        ),
    }

"""What the page of a deployment shows, and which buttons a person has there."""

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.contrib.admin.utils import quote
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString

from apps.core.display import badge, badges, linked, moment, page_of, span
from apps.core.pages import buttons
from apps.deployments import actions, checks, preparation
from apps.deployments.choices import (
    ChecklistPhase,
    DeploymentKind,
    DeploymentStatus,
    GateVerdict,
    ItemState,
    StepKind,
    ValidationStatus,
)
from apps.deployments.display import (
    CHOSEN_BY,
    ITEM_COLOURS,
    STATUS_COLOURS,
    VARIABLE_COLOURS,
    VERDICT_COLOURS,
    gate_of,
    milliseconds,
    next_steps,
    outside,
    percent,
    progress,
    remarks,
    samples_url,
    status_label,
    verdict_label,
)
from apps.deployments.models import ChecklistItem, Deployment, DeploymentStep, Gate
from apps.deployments.rules import checklist
from apps.deployments.rules import gate as rules
from apps.health.admin import STATUS_LABELS
from apps.health.choices import HealthStatus

STEPS_SHOWN = 200  # a webhook may report as often as it likes
MANUAL = "a person ticks it"
_ICONS = {
    StepKind.CREATED: "add_circle",
    StepKind.STARTED: "play_circle",
    StepKind.REPORTED: "campaign",
    StepKind.CHECKLIST: "checklist",
    StepKind.OVERRIDDEN: "gavel",
    StepKind.GATE_STARTED: "visibility",
    StepKind.GATE_DECIDED: "balance",
    StepKind.PLATFORM: "cloud_upload",
    StepKind.ENDED: "flag",
    StepKind.ROLLBACK: "undo",
    StepKind.CONFLICT: "warning",
}
_STEP_COLOURS = {StepKind.OVERRIDDEN: "warning", StepKind.CONFLICT: "danger", StepKind.ROLLBACK: "warning"}


def of_deployment(request: HttpRequest, row: Deployment) -> dict[str, Any]:
    """The page of a deployment or a rollback."""
    now = timezone.now()
    gate = gate_of(row)
    rollbacks = list(row.rollbacks.order_by("id"))
    undoable = row.kind == DeploymentKind.DEPLOYMENT and row.status in ("completed", "failed")
    target, why_not = actions.returns_to(row) if undoable else (None, "")
    told = [(f"gate {word}", colour, why) for word, colour, why in filter(None, [verdict_label(row)])]
    name = "Rollback to" if row.kind == DeploymentKind.ROLLBACK else ""
    return {
        "title": f"{name} {row.version} on {row.workload}".strip(),
        "badges": badges([status_label(row), *told, *remarks(row)]),
        "lead": _lead(row, gate),
        "progress": progress(row, now),
        "fault": row.error_message if row.status == DeploymentStatus.FAILED else "",
        "why_not": why_not if undoable and not row.rolled_back_by_id else "",
        "returns_to": linked(target, target.version) if target else "",
        "undone_again": page_of(row.undoes) if row.undoes and row.status == DeploymentStatus.FAILED else "",
        "rollbacks": [{"row": one, "link": linked(one), "badge": badge(*status_label(one))} for one in rollbacks],
        "next_steps": next_steps(gate) if gate and gate.verdict == GateVerdict.INCONCLUSIVE else [],
        "actions": buttons(
            request,
            row,
            ("It is out: start the gate", "finish", "deployments.move_deployment", "primary", _may_start(row, gate)),
            ("Declare failed", "fail", "deployments.move_deployment", "danger", actions.may_end(row)),
            ("Cancel", "cancel", "deployments.move_deployment", "danger", actions.may_cancel(row)),
            ("Roll back", "roll-back", "deployments.rollback_deployment", "danger", target is not None),
        ),
        "gate": _gate(row, gate) if gate else None,
        "steps": _steps(row, gate),
        "phases": _phases(request, row),
        "tick_url": reverse("admin:deployments_deployment_tick", args=[quote(row.pk)]),
        "most": preparation.MAX_NOTE,
        "variables": _variables(row),
        "sections": (_what(row), _when(row), *_rollback(row)),
    }


def _may_start(row: Deployment, gate: Gate | None) -> bool:
    return actions.may_end(row) and gate is None


def _lead(row: Deployment, gate: Gate | None) -> str | SafeString:
    """What happened, in a sentence."""
    if row.kind == DeploymentKind.ROLLBACK:
        undone, target = linked(row.undoes), linked(row.returns_to)
        text = "Undoes {} ({}) and brings back {} of {}: {}"
        return format_html(text, undone, row.undoes.version, row.version, target, row.rollback_reason)
    if row.status == DeploymentStatus.CANCELLED:
        return row.error_message or ""
    if row.status != DeploymentStatus.COMPLETED:
        return ""
    if row.rolled_back_by:
        return f"Brought out, and undone since: {row.rolled_back_by.rollback_reason}"
    if gate is None:
        return "Reported as completed; Pulsewatch has not looked at its instances."
    if gate.verdict == GateVerdict.INCONCLUSIVE:
        return (
            "Brought out, but nobody knows whether it is healthy: the gate saw too little to decide. No data is "
            "neither a pass nor a fault, so nothing was rolled back."
        )
    return f"Brought out and healthy: {gate.reasons[0] if gate.reasons else ''}".rstrip(": ")


def _gate(row: Deployment, gate: Gate) -> dict[str, Any]:
    evidence = gate.evidence
    window = span(gate.window_seconds)
    return {
        "badge": badge(
            gate.get_verdict_display() if gate.verdict else "looking",
            VERDICT_COLOURS[GateVerdict(gate.verdict)] if gate.verdict else "info",
        ),
        "reasons": gate.reasons,
        "demand": f"{gate.samples} healthy samples in a row from each instance within {window}, not worse than before.",
        "looks": gate.looks,
        "chosen_by": CHOSEN_BY.get(evidence.get("chosen_by", ""), "") if evidence.get("instances") else "",
        "instances": [
            {
                "name": one["instance"],
                "url": samples_url(one["instance"]),
                "samples": one["samples"],
                "streak": f"{one['healthy_in_a_row']} of {one['needed']}",
                "badge": badge(one["last_status"], STATUS_LABELS.get(HealthStatus(one["last_status"]).label, "")),
                "why": one["last_why"],
            }
            for one in evidence.get("instances", [])
        ],
        "compared": _compared(evidence) if evidence.get("instances") else [],
        "since": moment(row.started_at - rules.BASELINE),
        "baseline": span(rules.BASELINE),
    }


def _compared(evidence: dict[str, Any]) -> list[dict[str, Any]]:
    """Error rate and response time before and after, and how far they may go."""
    before, after = evidence.get("before", {}), evidence.get("after", {})
    policy = rules.Policy()
    rate, time = before.get("error_rate"), before.get("response_ms")
    return [
        _line(
            "Error rate", percent, rate, after.get("error_rate"),
            limit=None if rate is None else rate + policy.error_rate_margin,
            change=lambda by: f"{100 * by:+.2f} points",
        ),
        _line(
            "Response time", milliseconds, time, after.get("response_ms"),
            limit=None if time is None else max(time * (1 + policy.response_margin), policy.response_floor_ms),
            change=lambda by: f"{by:+.0f} ms",
        ),
        {"what": "Samples", "before": before.get("samples", 0), "after": after.get("samples", 0)},
    ]  # fmt: skip


def _line(
    what: str,
    text: Callable[[float | None], str],
    before: float | None,
    after: float | None,
    *,
    limit: float | None,
    change: Callable[[float], str],
) -> dict[str, Any]:
    if before is None or after is None or limit is None:
        return {"what": what, "before": text(before), "after": text(after), "limit": "not compared"}
    return {
        "what": what,
        "before": text(before),
        "after": text(after),
        "change": change(after - before),
        "limit": text(limit),
        "worse": after > limit,
    }


def _steps(row: Deployment, gate: Gate | None) -> dict[str, Any]:
    """The timeline, oldest first."""
    newest = list(row.steps.order_by("-at", "-pk")[: STEPS_SHOWN + 1])
    shown = newest[:STEPS_SHOWN][::-1]
    lines, day = [], None
    for step in shown:
        lines.append(
            {
                "step": step,
                "day": f"{step.at:%Y-%m-%d}" if step.at.date() != day else "",
                "time": f"{step.at:%H:%M:%S}",
                "later": _later(step.at, row.created_at),
                "claimed": _claimed(step),
                "icon": _ICONS[StepKind(step.kind)],
                "colour": _step_colour(step, row, gate),
            }
        )
        day = step.at.date()
    return {"lines": lines, "more": len(newest) > STEPS_SHOWN}


def _later(at: datetime, first: datetime) -> str:
    gone = at - first
    return f"+{span(round(gone.total_seconds()))}" if gone >= timedelta(seconds=1) else ""


def _claimed(step: DeploymentStep) -> str:
    """When the sender says it happened, where that is another moment."""
    if step.claimed_at is None or abs(step.at - step.claimed_at) < timedelta(seconds=2):
        return ""
    return f"the sender says {step.claimed_at:%Y-%m-%d %H:%M:%S} UTC"


def _step_colour(step: DeploymentStep, row: Deployment, gate: Gate | None) -> str:
    if step.kind == StepKind.ENDED:
        return STATUS_COLOURS[DeploymentStatus(row.status)]
    if step.kind == StepKind.GATE_DECIDED and gate and gate.verdict:
        return VERDICT_COLOURS[GateVerdict(gate.verdict)]
    return _STEP_COLOURS.get(StepKind(step.kind), "")


def _phases(request: HttpRequest, row: Deployment) -> list[dict[str, Any]]:
    """The checklist, what is before a deployment and what is after it."""
    if row.kind == DeploymentKind.ROLLBACK:
        return []
    stored = {item.key: item for item in row.checklist_items.all()}
    demanded = checks.demanded(row.workload)
    may_tick = request.user.has_perm("deployments.tick_deployment")
    found = []
    for phase in ChecklistPhase:
        items = [item for item in checklist.ITEMS.values() if item.phase == phase]
        late = next(filter(None, (preparation.too_late(row, item) for item in items)), "")
        found.append(
            {
                "title": phase.label,
                "late": late if may_tick else "",
                "open": row.is_open or phase == ChecklistPhase.AFTER,
                "counts": _counts(stored.get(item.key) for item in items),
                "items": [
                    _item(item, stored.get(item.key), item.key in demanded, may_tick=may_tick and not late)
                    for item in items
                ],
            }
        )
    return found


def _counts(found: Iterable[ChecklistItem | None]) -> SafeString:
    """How many items are in which state."""
    states = Counter(item.state if item else ItemState.OPEN for item in found)
    return badges((f"{states[state]} {state.label}", ITEM_COLOURS[state], "") for state in ItemState if states[state])


def _item(item: checklist.Item, stored: ChecklistItem | None, demanded: bool, *, may_tick: bool) -> dict[str, Any]:
    state = ItemState(stored.state) if stored else ItemState.OPEN
    who = ""
    if stored and state != ItemState.OPEN:
        who = f"{stored.by}, {stored.at:%Y-%m-%d %H:%M} UTC"
    return {
        "key": item.key,
        "title": item.title,
        "blocking": item.blocking or demanded,
        "badge": badge(state.label, ITEM_COLOURS[state]),
        "detail": stored.detail if stored else "",
        "waits_for": _waits_for(item) if state == ItemState.OPEN else "",
        "who": who,
        "overridden": f"Overridden by {stored.overridden_by}: {stored.override_reason}"
        if stored and stored.overridden_by
        else "",
        "can_tick": may_tick and item.manual and state != ItemState.PASSED,
        "can_untick": may_tick and item.manual and state == ItemState.PASSED,
    }


def _waits_for(item: checklist.Item) -> str:
    """Who settles an open item."""
    if item.manual and item.reported:
        return f"CI reports it, or {MANUAL}"
    if item.manual:
        return MANUAL
    return "CI reports it" if item.reported else "Pulsewatch checks it"


def _variables(row: Deployment) -> list[dict[str, Any]]:
    """The verdicts, what is wrong first. There is no value to show: none is ever stored."""
    required = {rule.key for rule in preparation.rules(row.workload) if rule.required}
    order = (ValidationStatus.INVALID, ValidationStatus.NOT_VALIDATED, ValidationStatus.VALID)
    rows = sorted(row.environment_variables.all(), key=lambda one: (order.index(one.validation_status), one.key))
    return [
        {
            "key": one.key,
            "required": one.key in required,
            "sensitive": one.is_sensitive,
            "is_set": one.is_set,
            "badge": badge(
                one.get_validation_status_display(), VARIABLE_COLOURS[ValidationStatus(one.validation_status)]
            ),
            "why": one.reason,
        }
        for one in rows
    ]


def _what(row: Deployment) -> dict[str, Any]:
    build = row.build
    diagnostics = f"{reverse('admin:builds_diagnostic_changelist')}?" + urlencode(
        {"state": "all", "last_build__id__exact": build.pk if build else ""}
    )
    link = '<a class="text-primary-600 dark:text-primary-500" href="{}">{}</a>'
    return {
        "heading": "What it is",
        "facts": (
            ("Deployment", row.pk),
            ("Workload", linked(row.workload)),
            ("Version", row.version),
            ("Commit", row.commit_sha),
            ("Message", _kept_lines(row.commit_message)),
            ("Build", _build(row)),
            ("Diagnostics", format_html(link, diagnostics, "what that build showed") if build else ""),
            ("Started by", row.triggered_by),
            ("Platform", row.deployment_platform),
            ("Instances", str(row.instances_deployed)),
            ("Migration", row.migration_version or ("applied" if row.migration_applied else "")),
            (
                "GitHub run",
                f"{row.github_run_id}, attempt {row.github_run_attempt}"
                if row.github_run_attempt
                else row.github_run_id,
            ),
            ("Log", outside(row.deployment_log_url)),
            ("Address", outside(row.deployment_url)),
            ("Override", row.override_reason),
            ("Conflict", row.conflict),
        ),
    }


def _kept_lines(text: str) -> SafeString | str:
    return format_html('<span class="kept-lines">{}</span>', text) if text else ""


def _build(row: Deployment) -> SafeString | str:
    if row.build is not None:
        return linked(row.build, row.build.get_build_status_display())
    return "" if row.kind == DeploymentKind.ROLLBACK else "none is linked"


def _when(row: Deployment) -> dict[str, Any]:
    known = row.committed_at is not None and row.completed_at is not None
    return {
        "heading": "When",
        "facts": (
            ("Commit made", moment(row.committed_at)),
            ("Began", moment(row.started_at)),
            ("Ended", moment(row.completed_at)),
            ("Took", span(row.duration_seconds)),
            ("Lead time", span(row.completed_at - row.committed_at) if known else ""),
            ("Fails by itself", moment(row.open_until) if row.is_open else ""),
        ),
    }


def _rollback(row: Deployment) -> list[dict[str, Any]]:
    if row.kind == DeploymentKind.ROLLBACK:
        facts: tuple[tuple[str, Any], ...] = (
            ("Undoes", linked(row.undoes, row.undoes.version)),
            ("Returns to", linked(row.returns_to, row.returns_to.version)),
            ("Asked by", row.triggered_by),
            ("Because", row.rollback_reason),
        )
    elif row.rolled_back_by:
        undoing = row.rolled_back_by
        facts = (("Rolled back by", linked(undoing, f"to {undoing.version}")), ("Because", undoing.rollback_reason))
    else:
        return []
    return [{"heading": "Rollback", "facts": facts}]

"""What is reported, ticked and overridden before and after a deployment: its checklist and environment variables."""

from collections.abc import Mapping, Sequence

from django.db import transaction
from django.utils import timezone

from apps.core import audit
from apps.core.errors import Conflict, Invalid
from apps.core.redaction import redact
from apps.deployments import checks, records
from apps.deployments.choices import StepKind
from apps.deployments.models import ChecklistItem, Deployment, EnvironmentVariable, EnvironmentVariableRule
from apps.deployments.rules import checklist, variables
from apps.inventory.models import Workload

MAX_NOTE = ChecklistItem._meta.get_field("detail").max_length  # characters


def report_variables(
    *, deployment: Deployment, reports: Sequence[variables.Report], actor: audit.Actor
) -> list[EnvironmentVariable]:
    """Judge the environment variables of an open deployment; the verdicts replace those of an earlier report.

    Raises Invalid for the value of a sensitive variable; then nothing is stored.
    """
    now = timezone.now()
    with transaction.atomic():
        row = records.locked(deployment)
        records.still_open(row)
        demanded = rules(row.workload)
        found = variables.judge(demanded, reports)
        EnvironmentVariable.objects.filter(deployment=row).delete()
        store_variables(row, found)
        standings = checks.before(row.workload, found if demanded else None, now=now)
        checks.store(row, standings, by=records.AUTOMATIC, at=now)
        bad = sum(finding.status == variables.INVALID for finding in found)
        text = f"{len(found)} environment variables judged, {bad} of them invalid."
        records.step(row, StepKind.REPORTED, text, by=actor.name, at=now)
        records.audit_entry(row, "variables", actor, after={"judged": len(found), "invalid": bad})
    return list(row.environment_variables.order_by("key"))


def report_items(*, deployment: Deployment, reported: Mapping[str, str], actor: audit.Actor) -> Deployment:
    """Keep what CI says of checklist items, such as `{"migrations_run": "passed"}`."""
    now = timezone.now()
    standings = reported_items(reported)
    with transaction.atomic():
        row = records.locked(deployment)
        records.still_open(row)
        checks.store(row, standings, by=actor.name, at=now)
        said = ", ".join(f"{key} {state}" for key, state in reported.items())
        records.step(row, StepKind.CHECKLIST, f"Reported: {said}.", by=actor.name, at=now)
        records.audit_entry(row, "checklist", actor, after=dict(reported))
    return row


def tick(*, deployment: Deployment, key: str, done: bool, actor: audit.Actor, note: str = "") -> Deployment:
    """A named person says that a manual item is done, or takes that back. Raises Conflict when it is too late."""
    item = checklist.ITEMS.get(key)
    if item is None or not item.manual:
        raise Invalid("Only manual items are ticked by hand.", field="key")
    now = timezone.now()
    state = checklist.PASSED if done else checklist.OPEN
    note = redact(note.replace("\x00", "").strip())[:MAX_NOTE]
    with transaction.atomic():
        row = records.locked(deployment)
        if late := too_late(row, item):
            raise Conflict(f"Not ticked: {late}", facts={"legal": []})
        checks.store(row, [checklist.Standing(key, state, note)], by=actor.name, at=now)
        text = f"{item.title}: {'done' if done else 'open again'}{f' ({note})' if note else ''}."
        records.step(row, StepKind.CHECKLIST, text, by=actor.name, at=now)
        records.audit_entry(row, "tick", actor, reason=note, after={"item": key, "done": done})
    return row


def too_late(row: Deployment, item: checklist.Item) -> str:
    """Why an item of this deployment can be ticked no more; empty while it can."""
    undone = row.rolled_back_by_id is not None
    return checklist.too_late(item, status=row.status, undone=undone, archived=row.archived)


def override(*, deployment: Deployment, keys: Sequence[str], reason: str, actor: audit.Actor) -> Deployment:
    """Let failed blocking items of an open deployment block no more. Raises Invalid without a reason."""
    text = records.reason_text(reason)
    unknown = [key for key in keys if key not in checklist.ITEMS]
    if unknown or not keys:
        raise Invalid(f"Name items of the checklist: {', '.join(checklist.ITEMS)}.", field="items")
    if "health_passing" in keys:
        raise Invalid(
            "The gate alone decides whether the health checks pass; report the deployment as failed to end it, or "
            "deploy the version again with override_reason.",
            field="items",
        )
    now = timezone.now()
    with transaction.atomic():
        row = records.locked(deployment)
        records.still_open(row)
        for key in keys:
            row.checklist_items.get_or_create(
                key=key,
                defaults={"phase": checklist.ITEMS[key].phase, "state": checklist.OPEN, "by": actor.name, "at": now},
            )
        row.checklist_items.filter(key__in=keys).update(overridden_by=actor.name, override_reason=text)
        titles = ", ".join(checklist.ITEMS[key].title for key in keys)
        records.step(row, StepKind.OVERRIDDEN, f"Overridden: {titles}. {text}", by=actor.name, at=now)
        records.audit_entry(row, "override", actor, reason=text, after={"items": list(keys)})
    return row


@transaction.atomic
def save_rule(rule: EnvironmentVariableRule, *, actor: audit.Actor) -> EnvironmentVariableRule:
    """Add or change what a service demands of a variable. Raises Invalid for a name or pattern that cannot be."""
    variables.check_key(rule.key)
    variables.check_pattern(rule.pattern)
    names = ("key", "required", "sensitive", "pattern", "min_length")
    stored = EnvironmentVariableRule.objects.select_for_update().filter(pk=rule.pk).first()
    rule.save()
    audit.record(
        actor=actor,
        action="variable_rule.update" if stored else "variable_rule.create",
        subject=f"variable_rule:{rule.service.slug}/{rule.key}",
        before={name: getattr(stored, name) for name in names} if stored else {},
        after={name: getattr(rule, name) for name in names},
    )
    return rule


def reported_items(said: Mapping[str, str]) -> list[checklist.Standing]:
    """What CI says, as findings. Raises Invalid for an item that is not CI's to report."""
    return [
        checklist.Standing(checklist.check_reported(key, state).key, state, "reported") for key, state in said.items()
    ]


def rules(workload: Workload) -> list[variables.Rule]:
    """What the workload's service demands of its variables."""
    rows = workload.service.variable_rules.values_list("key", "required", "pattern", "min_length", "sensitive")
    return [variables.Rule(*row) for row in rows]


def store_variables(row: Deployment, found: Sequence[variables.Finding]) -> None:
    """Keep the verdicts."""
    if found:
        EnvironmentVariable.objects.bulk_create(
            EnvironmentVariable(
                deployment=row,
                key=finding.key,
                is_set=finding.is_set,
                is_sensitive=finding.is_sensitive,
                validation_status=finding.status,
                reason=finding.reason,
            )
            for finding in found
        )

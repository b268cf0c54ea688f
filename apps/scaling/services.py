"""What a person or a client may ask of scaling. Every verb validates, writes, audits, wakes, and returns the row."""

from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction
from django.forms.models import model_to_dict
from django.utils import timezone

from apps.core import audit
from apps.core.errors import Conflict, Invalid
from apps.core.models import MAX_REASON
from apps.core.redaction import redact
from apps.inventory import services as inventory
from apps.inventory.models import Workload
from apps.scaling import history, records
from apps.scaling.choices import EventAction, Trigger
from apps.scaling.models import MAX_INSTANCES, ScalingEvent, ScalingPolicy, policy_id
from apps.scaling.rules.policy import faults

LONGEST_PAUSE = timedelta(days=30)
TARGETS = ("target_cpu_percent", "target_memory_percent")


def subject(policy: ScalingPolicy) -> str:
    """The row's name in the audit trail."""
    return f"scaling_policy:{policy}"


@transaction.atomic
def save_policy(policy: ScalingPolicy, *, actor: audit.Actor) -> ScalingPolicy:
    """Add or change a policy. Raises Invalid with the first wrong field; then nothing has changed."""
    adding = policy._state.adding
    stored = None if adding else ScalingPolicy.objects.select_for_update().get(pk=policy.pk)
    if stored and (stored.service_id, stored.environment) != (policy.service_id, policy.environment):
        raise Invalid("A policy stays with its service and environment: add another one.", field="service")
    if adding and policy.service_id:
        policy.pk = policy_id(policy.service.slug, policy.environment)
    check(policy)
    before = model_to_dict(stored) if stored else {}
    if adding:
        policy.save(force_insert=True)
    else:
        fields = [one.name for one in policy._meta.concrete_fields if one.editable and not one.primary_key]
        policy.save(update_fields=[*fields, "updated_at"])
    after = model_to_dict(policy)
    changed = {name for name in after if before.get(name) != after[name]}
    if changed:
        audit.record(
            actor=actor,
            action="scaling_policy.create" if adding else "scaling_policy.update",
            subject=subject(policy),
            before={name: value for name, value in before.items() if name in changed},
            after={name: value for name, value in after.items() if name in changed},
        )
    return policy


@transaction.atomic
def change_policy(*, policy: ScalingPolicy, settings: dict[str, Any], actor: audit.Actor) -> ScalingPolicy:
    """Change these settings and no others, whatever somebody else changes meanwhile. Raises Invalid."""
    row = ScalingPolicy.objects.select_for_update().select_related("service").get(pk=policy.pk)
    for name, value in settings.items():
        setattr(row, name, value)
    return save_policy(row, actor=actor)


def check(policy: ScalingPolicy, *, to_try: bool = False) -> None:
    """Raises Invalid with the first wrong field.

    `to_try`: no decision uses the targets, so that they need not lie between thresholds that are only tried.
    """
    try:
        policy.clean_fields()
        for field, message in faults(policy.rule()).items():
            if not (to_try and field in TARGETS):
                raise Invalid(message, field=field)
        policy.validate_constraints()
    except ValidationError as error:
        field, messages = next(iter(error.message_dict.items()))
        raise Invalid(messages[0], field="" if field == "__all__" else field) from error


@transaction.atomic
def pause(*, policy: ScalingPolicy, until: datetime, reason: str, actor: audit.Actor) -> ScalingPolicy:
    """Let a policy change nothing until then. Raises Invalid for a time that is past or more than 30 days away."""
    now = timezone.now()
    reason = redact(reason.strip())
    if not now < until <= now + LONGEST_PAUSE:
        raise Invalid("Give a time within the next 30 days: a pause ends by itself, so that nobody forgets it.",
                      field="until")  # fmt: skip
    if not 1 <= len(reason) <= MAX_REASON:
        raise Invalid(f"Say why, in 1 to {MAX_REASON} characters: the next person on call will ask.", field="reason")
    return _paused(policy, until, actor.name, reason, actor, "scaling_policy.pause")


@transaction.atomic
def resume(*, policy: ScalingPolicy, actor: audit.Actor) -> ScalingPolicy:
    """End a pause now."""
    return _paused(policy, None, "", "", actor, "scaling_policy.resume")


def _paused(
    policy: ScalingPolicy, until: datetime | None, by: str, reason: str, actor: audit.Actor, action: str
) -> ScalingPolicy:
    stored = ScalingPolicy.objects.select_for_update().get(pk=policy.pk)
    before = {"paused_until": stored.paused_until and stored.paused_until.isoformat()}
    stored.paused_until, stored.paused_by, stored.paused_reason = until, by, reason
    stored.save(update_fields=["paused_until", "paused_by", "paused_reason", "updated_at"])
    after: dict[str, Any] = {"paused_until": until and until.isoformat()}
    audit.record(actor=actor, action=action, subject=subject(stored), before=before, after=after, reason=reason)
    return stored


def bounds(policy: ScalingPolicy | None) -> tuple[int, int]:
    """The fewest and the most instances that may be asked for by hand."""
    return (policy.min_instances, policy.max_instances) if policy else (1, MAX_INSTANCES)


@transaction.atomic
def scale_by_hand(*, workload: Workload, to: int, reason: str, actor: audit.Actor) -> ScalingEvent:
    """Ask for a number of instances. It is done by a worker, within the bounds of the workload's policy if it has one.

    Raises Invalid for a number outside the bounds or without a reason, Conflict while somebody else changes the
    workload or a change of its count is not settled yet, or when nothing can scale it.
    """
    reason = redact(reason.strip())
    if not 1 <= len(reason) <= MAX_REASON:
        raise Invalid(f"Say why, in 1 to {MAX_REASON} characters: it stands in the history.", field="reason")
    policy = ScalingPolicy.objects.filter(service=workload.service_id, environment=workload.environment).first()
    least, most = bounds(policy)
    if not least <= to <= most:
        whose = "the bounds are those of the scaling policy" if policy else "there is no scaling policy with bounds"
        raise Invalid(f"Give a number from {least} to {most}; {whose}.", field="to")
    if not records.scales(workload):
        raise Conflict(
            f"Nothing that Pulsewatch reaches scales {workload}: its platform is {workload.get_platform_display()}. "
            "Change the count yourself, or set a platform that scales."
        )
    now = timezone.now()
    event = records.intend(
        workload=workload,
        at=now,
        action=EventAction.MANUAL_SCALE,
        before=history.last_count(workload),
        after=to,
        reason=reason,
        trigger=Trigger.MANUAL,
        user=actor.name,
        now=now,
    )
    audit.record(
        actor=actor,
        action="workload.scale",
        subject=inventory.subject(workload),
        before={"instances": event.instances_before},
        after={"instances": to, "event": event.pk},
        reason=reason,
    )
    return event

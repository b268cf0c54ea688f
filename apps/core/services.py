"""What a person may ask of the core: the stop switch."""

from django.db import transaction
from django.utils import timezone

from apps.core import audit
from apps.core.errors import Invalid
from apps.core.models import MAX_REASON, StopSwitch
from apps.core.redaction import redact


def automation_stopped() -> bool:
    """Whether the stop switch is on."""
    return StopSwitch.objects.filter(on=True).exists()


@transaction.atomic
def set_stop_switch(*, on: bool, reason: str, actor: audit.Actor) -> StopSwitch:
    """Stop all automation that changes the world, or let it go on. Raises Invalid without a reason.

    The reason is shown to everyone on every page, so it is kept without its secrets.
    """
    reason = redact(reason.strip())
    if not 1 <= len(reason) <= MAX_REASON:
        raise Invalid(
            f"Say why, in 1 to {MAX_REASON} characters (secrets hidden): the next person on call will ask.",
            field="reason",
        )
    before = StopSwitch.objects.select_for_update().filter(pk=StopSwitch.SINGLETON).first()
    switch, _ = StopSwitch.objects.update_or_create(
        pk=StopSwitch.SINGLETON,
        defaults={"on": on, "reason": reason, "changed_at": timezone.now(), "changed_by": actor.name},
    )
    audit.record(
        actor=actor,
        action="stop_switch.on" if on else "stop_switch.off",
        subject="stop_switch",
        before={"on": bool(before and before.on)},
        after={"on": on},
        reason=reason,
    )
    return switch

"""What every page shows: the stop switch while it is on, and whether our own data is old."""

from datetime import timedelta
from typing import Any

from django import template
from django.conf import settings
from django.utils import timezone
from django.utils.timesince import timesince

from apps.core.models import StopSwitch
from apps.health.models import HealthCheck
from apps.inventory.models import Instance

register = template.Library()


@register.inclusion_tag("console/banners.html", takes_context=True)
def banners(context: dict[str, Any]) -> dict[str, Any]:
    """The banners of a page, for signed-in staff only: a stranger learns nothing."""
    request = context["request"]
    if not request.user.is_staff:
        return {}
    return {
        "stop_switch": StopSwitch.objects.filter(on=True).first(),
        "stale": stale(),
        "may_see_switch": request.user.has_perm("core.view_stopswitch"),
    }


def stale() -> str:
    """How old the newest sample is when it is too old, such as `12 minutes`; empty while samples come in."""
    newest = HealthCheck.objects.newest_first().values_list("timestamp", flat=True).first()
    if newest is None:
        newest = Instance.objects.sampled().order_by("registered_at").values_list("registered_at", flat=True).first()
    now = timezone.now()
    if newest is None or now - newest <= timedelta(seconds=settings.STALE_AFTER_SECONDS):
        return ""
    return timesince(newest, now, depth=1)

"""What every page shows: the stop switch while it is on, and which part of Pulsewatch is silent."""

from typing import Any

from django import template
from django.utils import timezone

from apps.core import heartbeats
from apps.core.models import StopSwitch

register = template.Library()


@register.inclusion_tag("console/banners.html", takes_context=True)
def banners(context: dict[str, Any]) -> dict[str, Any]:
    """The banners of a page, for signed-in staff only: a stranger learns nothing."""
    request = context["request"]
    if not request.user.is_staff:
        return {}
    return {
        "stop_switch": StopSwitch.objects.filter(on=True).first(),
        "stale": heartbeats.stale(timezone.now()),
        "may_see_switch": request.user.has_perm("core.view_stopswitch"),
    }

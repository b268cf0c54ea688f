"""The open alerts for the overview; its template is admin/alerts/open_alerts.html."""

from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from apps.alerts.display import lines
from apps.alerts.models import Alert, Route

SHOWN = 10


def open_alerts(request: HttpRequest) -> dict[str, Any] | None:
    """The worst open alerts, and whether anybody hears of them; None for who may not see alerts. Three queries."""
    if not request.user.has_perm("alerts.view_alert"):
        return None
    found = Alert.objects.open()
    count = found.count()
    routes = list(Route.objects.filter(enabled=True))
    return {
        "rows": lines(found.worst_first()[:SHOWN], timezone.now()) if count else [],
        "count": count,
        "more": max(0, count - SHOWN),
        "routes_missing": bool(count) and not routes,
        "routes_broken": [route for route in routes if route.failing_since is not None],
    }

"""The overview: every instance's newest sample, worst first."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from apps.core.choices import Environment
from apps.health.admin import STATUS_LABELS, reason_text
from apps.health.choices import HealthStatus
from apps.health.models import HealthCheck
from apps.inventory.models import Instance

_WORST_FIRST = (HealthStatus.UNHEALTHY, HealthStatus.DEGRADED, HealthStatus.UNKNOWN, HealthStatus.HEALTHY)
_MOST_PRECIOUS_FIRST = [Environment.PRODUCTION.label, Environment.STAGING.label, Environment.DEVELOPMENT.label]
SHOWN = 50  # instances on the overview; the lists have them all


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback: adds `environments`, the instances grouped by environment."""
    context["environments"] = None
    if not request.user.has_perm("health.view_healthcheck"):
        return context
    newest = HealthCheck.objects.filter(instance=OuterRef("pk")).newest_first().values("pk")[:1]
    instances = (
        Instance.objects.filter(active=True)
        .annotate(newest=Subquery(newest))
        .select_related("workload__service")
        .order_by("workload__environment", "workload__service__slug", "name")
    )
    rows = list(instances[:500])
    samples = HealthCheck.objects.in_bulk([row.newest for row in rows if row.newest])
    groups: dict[str, list[dict[str, Any]]] = {}
    for instance in rows:
        sample = samples.get(instance.newest)
        groups.setdefault(instance.workload.get_environment_display(), []).append(_row(instance, sample))
    context["headers"] = ("Status", "Service", "Instance", "Response", "CPU", "Memory", "Version", "Sampled", "Why")
    context["environments"] = [
        {
            "name": name,
            "counts": [
                (status.label, STATUS_LABELS[status.label], count)
                for status in _WORST_FIRST
                if (count := sum(row["status"] == status for row in group))
            ],
            "rows": sorted(group, key=lambda row: _WORST_FIRST.index(row["status"]))[:SHOWN],
            "more": max(0, len(group) - SHOWN),
        }
        for name, group in sorted(groups.items(), key=lambda item: _MOST_PRECIOUS_FIRST.index(item[0]))
    ]
    return context


def _row(instance: Instance, sample: HealthCheck | None) -> dict[str, Any]:
    """One line. A sample that is too old says nothing of the present."""
    old = sample is not None and timezone.now() - sample.timestamp > timedelta(seconds=settings.STALE_AFTER_SECONDS)
    status = HealthStatus(sample.overall_status) if sample and not old else HealthStatus.UNKNOWN
    if sample is None:
        why = "no sample yet; the first comes within a minute"
    elif old:
        why = f"no sample since {sample.timestamp:%Y-%m-%d %H:%M} UTC"
    else:
        why = ", ".join(map(reason_text, sample.reasons))
    return {
        "instance": instance,
        "sample": sample,
        "status": status,
        "variant": STATUS_LABELS[status.label],
        "why": why,
        "url": reverse("admin:health_healthcheck_change", args=[sample.pk]) if sample else "",
    }

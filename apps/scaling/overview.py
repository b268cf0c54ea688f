"""How many instances each workload runs, for the overview; its template is admin/scaling/counts.html."""

from datetime import datetime
from typing import Any

from django.db.models import Exists, OuterRef, QuerySet, Subquery

from apps.core.display import badges, moment, page_of
from apps.inventory import platforms
from apps.inventory.models import Workload
from apps.scaling import display, records
from apps.scaling.models import ScalingDecision, ScalingPolicy
from apps.scaling.runner import UNREACHED

READ = 500  # policies at most


def with_newest(rows: QuerySet[ScalingPolicy]) -> QuerySet[ScalingPolicy]:
    """Policies with their newest decision, from the index of (policy, boundary), and what their platform is."""
    newest = ScalingDecision.objects.filter(policy=OuterRef("pk")).order_by("-boundary")
    workload = Workload.objects.filter(service=OuterRef("service"), environment=OuterRef("environment"))
    return rows.annotate(
        platform=Subquery(workload.values("platform")[:1]),
        platform_settings=Subquery(workload.values("platform_settings")[:1]),
        newest_at=Subquery(newest.values("boundary")[:1]),
        newest_rule=Subquery(newest.values("rule")[:1]),
        newest_reason=Subquery(newest.values("reason")[:1]),
        newest_before=Subquery(newest.values("instances_before")[:1]),
        newest_after=Subquery(newest.values("instances_after")[:1]),
    )


def scales(row: ScalingPolicy) -> bool | None:
    """Whether the platform of such a policy's workload scales; None without a workload."""
    return None if row.platform is None else platforms.scales(row.platform, row.platform_settings or {})


def count_text(row: ScalingPolicy) -> str:
    """The count that the newest decision found and what it made of it."""
    if row.newest_at is None or row.newest_rule == UNREACHED:
        return "not known"
    if row.newest_before == row.newest_after:
        return str(row.newest_before)
    return f"{row.newest_before} → {row.newest_after}"


def without_policy() -> list[Workload]:
    """Workloads whose platform scales and that no policy looks after: a person may scale them. One query."""
    policies = ScalingPolicy.objects.filter(service=OuterRef("service"), environment=OuterRef("environment"))
    rows = Workload.objects.filter(~Exists(policies), platform__in=platforms.SCALERS).select_related("service")
    return [row for row in rows.order_by("service__slug", "environment")[:READ] if records.scales(row)]


def counts(now: datetime) -> dict[str, list[dict[str, Any]]]:
    """A line for each workload that has a policy, by environment; those at their maximum first. One query."""
    rows = with_newest(ScalingPolicy.objects.select_related("service")).exclude(platform=None)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows.order_by("service__slug")[:READ]:
        groups.setdefault(row.get_environment_display(), []).append(_line(row, now))
    return {name: sorted(group, key=lambda line: line["rank"]) for name, group in groups.items()}


def _line(row: ScalingPolicy, now: datetime) -> dict[str, Any]:
    paused = row.enabled and display.is_paused(row, now)
    full = row.newest_rule in ("at_maximum", UNREACHED)
    return {
        "rank": 0 if full else 1 if paused else 2,
        "badges": badges(display.policy_labels(row, scales(row), now)),
        "service": row.service,
        "url": page_of(row),
        "count": count_text(row),
        "bounds": f"{row.min_instances} to {row.max_instances}",
        "decided": moment(row.newest_at),
        "why": row.newest_reason or "nothing decided yet",
    }

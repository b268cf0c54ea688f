"""Which workloads are unhealthy, as alerts."""

from collections.abc import Sequence
from datetime import datetime

from apps.alerts.choices import AlertKind, Severity
from apps.alerts.services import Firing, settle
from apps.core import freshness, heartbeats
from apps.core.choices import Environment
from apps.core.display import page_of
from apps.health.models import HealthCheck
from apps.health.rules import standing
from apps.inventory.models import Instance, Workload

SHOWN = 5  # instances in one sentence


def check(now: datetime) -> None:
    """Settle the alerts of all workloads that have active instances. Four queries, however many there are.

    While the sampler itself is silent nothing is settled: no sample is no fault of theirs.
    """
    if any(part.source in (freshness.BEAT, freshness.FAST, freshness.SAMPLER) for part in heartbeats.stale(now)):
        return
    samples: dict[str, list[tuple[datetime, str]]] = {}
    rows = HealthCheck.objects.filter(timestamp__gt=now - standing.LOOKED_BACK, timestamp__lte=now)
    for instance_id, at, status in rows.order_by("timestamp").values_list("instance_id", "timestamp", "overall_status"):
        samples.setdefault(instance_id, []).append((at, status))
    groups: dict[Workload, list[Instance]] = {}
    for instance in Instance.objects.filter(active=True).select_related("workload__service").order_by("name"):
        groups.setdefault(instance.workload, []).append(instance)
    slots = {at for group in groups.values() for row in group if row.url for at, _ in samples.get(row.pk, ())}
    at_work = len(slots) >= standing.AT_WORK
    found = []
    for workload, instances in groups.items():
        seen = [standing.Seen(row.pk, bool(row.url), row.registered_at, samples.get(row.pk, ())) for row in instances]
        if (trouble := standing.trouble(seen, now, at_work=at_work)) is not None:
            found.append((workload, trouble))
    reasons = _reasons([name for _, trouble in found for name in trouble.unhealthy[:SHOWN]], now)
    settle(AlertKind.WORKLOAD_UNHEALTHY, [_firing(*one, reasons) for one in found], now=now)


def _reasons(instances: Sequence[str], now: datetime) -> dict[str, str]:
    """Which rules the newest sample of each instance broke."""
    if not instances:
        return {}
    rows = HealthCheck.objects.filter(instance__in=instances, timestamp__gt=now - standing.LOOKED_BACK)
    return {
        instance_id: ", ".join(str(reason.get("rule", "")).replace("_", " ") for reason in reasons)
        for instance_id, reasons in rows.order_by("timestamp").values_list("instance_id", "reasons")
    }


def _firing(workload: Workload, found: standing.Trouble, reasons: dict[str, str]) -> Firing:
    bad = len(found.unhealthy) + len(found.silent)
    grave = found.grave and workload.environment == Environment.PRODUCTION
    parts = [f"{name}: {reasons.get(name) or 'unhealthy'}" for name in found.unhealthy[:SHOWN]]
    parts += [f"{name}: no sample" for name in found.silent[: SHOWN - len(parts)]]
    more = f"; and {bad - len(parts)} more" if bad > len(parts) else ""
    return Firing(
        subject=f"workload:{workload}",
        title=f"{workload} is unhealthy: {bad} of {found.expected} instances",
        detail=f"{'; '.join(parts)}{more}. What was deployed or changed last?",
        severity=Severity.CRITICAL if grave else Severity.WARNING,
        environment=workload.environment,
        service=workload.service.slug,
        path=page_of(workload),
        runbook_url=workload.service.runbook_url,
    )

"""What Prometheus is told of deployments, read from rows. The labels are services, environments and words."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from django.core.cache import cache
from django.db.models import Count, Q
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from apps.core import ids
from apps.deployments.choices import DeploymentStatus
from apps.deployments.figures import deployed, measured
from apps.deployments.models import OPEN, Deployment

DAYS = 30
PLACE = ["service", "environment"]
GAUGES = {
    "per_day": ("pulsewatch_deployment_frequency_per_day", "Successful deployments a day over 30 days"),
    "lead_time_seconds": ("pulsewatch_deployment_lead_time_seconds", "Median time from commit to completed, 30 days"),
    "change_failure_rate": ("pulsewatch_deployment_change_failure_ratio", "Failed deployments by all, 30 days"),
    "time_to_restore_seconds": (
        "pulsewatch_deployment_time_to_restore_seconds",
        "Median time from a failure to the next success, 30 days",
    ),
}


# Deployments begun before the day that was so long ago have ended: the longest time-out is a day. Only a correction of
# one that timed out could still change them, and it is counted from the next day on.
SETTLED = timedelta(days=3)
MONTH = timedelta(days=30)


def read() -> Iterator[Metric]:
    """Outcomes, and DORA's figures of every workload that was deployed."""
    counted = CounterMetricFamily(
        "pulsewatch_deployments", "Deployments and rollbacks by how they ended", labels=[*PLACE, "outcome"]
    )
    workloads = list(deployed())
    places = {row.pk: [row.service.slug, row.environment] for row in workloads}
    for (workload_id, status), count in _ended(timezone.now()).items():
        if workload_id in places:  # the others were deployed for the first time just now
            counted.add_metric([*places[workload_id], DeploymentStatus(status).value], count)
    yield counted
    figures = measured(workloads, days=DAYS, now=timezone.now())
    for field, (name, meaning) in GAUGES.items():
        family = GaugeMetricFamily(name, meaning, labels=PLACE)
        for workload, found in figures:
            value = getattr(found, field)
            if value is not None:
                family.add_metric([workload.service.slug, workload.environment], value)
        yield family


def _ended(now: datetime) -> Counter[tuple[int, str]]:
    """How many of each workload ended how, of all time. What is settled is counted once a day and kept in the cache."""
    day = (now - SETTLED).replace(hour=0, minute=0, second=0, microsecond=0)
    edge = ids.timestamped("deploy", day)
    recent = _counted(Q(id__gte=edge))
    settled = Deployment.objects.filter(id__lt=edge)
    newest = settled.newest_first().values_list("pk", flat=True).first()
    if newest is None:
        return recent
    # By the newest of them too: a database that was put back, or another one, has settled otherwise.
    key = f"deployments:ended:{edge}:{newest}"
    known: Counter[tuple[int, str]] | None = cache.get(key)
    if known is None:
        first = settled.order_by("id").values_list("started_at", flat=True)[0]
        known = sum((_counted(month) for month in _months(first, day)), start=Counter())
        cache.set(key, known, timeout=int(timedelta(days=2).total_seconds()))
    return known + recent


def _months(first: datetime, end: datetime) -> Iterator[Q]:
    """All before `end`, in parts: a statement of this page must not take a second, however many there are."""
    edges = [ids.timestamped("deploy", end)]
    while (end := end - MONTH) > first:
        edges.append(ids.timestamped("deploy", end))
    for lower, upper in zip([*edges[1:], ""], edges, strict=True):
        yield Q(id__gte=lower, id__lt=upper)


def _counted(rows: Q) -> Counter[tuple[int, str]]:
    ended = Deployment.objects.filter(rows).exclude(status__in=OPEN).order_by().values_list("workload_id", "status")
    return Counter({(workload, status): count for workload, status, count in ended.annotate(Count("pk"))})

"""What Prometheus is told of deployments, read from rows. The labels are services, environments and words."""

from collections.abc import Iterator

from django.db.models import Count
from django.utils import timezone
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

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


def read() -> Iterator[Metric]:
    """Outcomes, and DORA's figures of every workload that was deployed. Three queries."""
    counted = CounterMetricFamily(
        "pulsewatch_deployments", "Deployments and rollbacks by how they ended", labels=[*PLACE, "outcome"]
    )
    workloads = list(deployed())
    places = {row.pk: [row.service.slug, row.environment] for row in workloads}
    # By columns that one index holds: of a million deployments no row is read. All of them count, however old.
    ended = Deployment.objects.exclude(status__in=OPEN).order_by().values_list("workload_id", "status")
    for workload_id, status, count in ended.annotate(Count("pk")):
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

"""DORA's figures of each workload, read from its deployments."""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from apps.deployments.choices import DeploymentKind, DeploymentStatus
from apps.deployments.models import OPEN, Deployment
from apps.deployments.rules import dora
from apps.inventory.models import Workload


def measured(workloads: Iterable[Workload], *, days: int, now: datetime) -> list[tuple[Workload, dora.Figures]]:
    """The figures of these workloads over the last `days` days, in two queries however many there are."""
    rows = list(workloads)
    ended = (
        Deployment.objects.filter(workload__in=rows, completed_at__gt=now - timedelta(days=days), completed_at__lte=now)
        .exclude(status__in=(*OPEN, DeploymentStatus.CANCELLED))
        .order_by()
        .values_list("workload_id", "kind", "status", "completed_at", "committed_at", "rolled_back_by__started_at")
    )
    outcomes: dict[int, list[dora.Outcome]] = defaultdict(list)
    for workload, kind, status, completed, committed, undone in ended:
        failed = completed if status == DeploymentStatus.FAILED else undone
        outcomes[workload].append(
            dora.Outcome(
                ended_at=completed,
                failed_at=failed,
                rollback=kind == DeploymentKind.ROLLBACK,
                committed_at=committed,
            )
        )
    return [(row, dora.measure(outcomes[row.pk], days=days, now=now)) for row in rows]

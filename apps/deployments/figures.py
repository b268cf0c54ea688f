"""DORA's figures of each workload, read from its deployments."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Exists, OuterRef, QuerySet

from apps.deployments.choices import DeploymentKind, DeploymentStatus
from apps.deployments.models import OPEN, Deployment
from apps.deployments.rules import dora
from apps.inventory.models import Workload

WEEKS = 13  # of a trend: 90 days and one


@dataclass(frozen=True, slots=True)
class Trend:
    """The figures of one workload over each window, and its weeks, the oldest first."""

    workload: Workload
    windows: tuple[dora.Figures, ...]
    weeks: tuple[dora.Week, ...]


def deployed() -> QuerySet[Workload]:
    """Workloads that were ever deployed."""
    rows = Workload.objects.filter(Exists(Deployment.objects.filter(workload=OuterRef("pk"))))
    return rows.select_related("service")


def measured(workloads: Iterable[Workload], *, days: int, now: datetime) -> list[tuple[Workload, dora.Figures]]:
    """The figures of these workloads over the last `days` days, in two queries however many there are."""
    rows = list(workloads)
    outcomes = _outcomes(rows, timedelta(days=days), now)
    return [(row, dora.measure(outcomes[row.pk], days=days, now=now)) for row in rows]


def trends(workloads: Iterable[Workload], *, now: datetime) -> list[Trend]:
    """The same over every window, with the weeks, in two queries."""
    rows = list(workloads)
    longest = max(timedelta(days=max(dora.WINDOWS)), WEEKS * dora.WEEK)
    outcomes = _outcomes(rows, longest, now)
    return [
        Trend(
            row,
            tuple(dora.measure(outcomes[row.pk], days=days, now=now) for days in dora.WINDOWS),
            dora.by_week(outcomes[row.pk], weeks=WEEKS, now=now),
        )
        for row in rows
    ]


def _outcomes(workloads: list[Workload], length: timedelta, now: datetime) -> dict[int, list[dora.Outcome]]:
    """How the deployments of these workloads ended in the last `length`."""
    ended = (
        Deployment.objects.filter(workload__in=workloads, completed_at__gt=now - length, completed_at__lte=now)
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
    return outcomes

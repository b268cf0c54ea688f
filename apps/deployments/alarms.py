"""How the newest deployment of each workload ended, as alerts: failed, or with a gate that could not tell."""

from collections.abc import Iterable
from datetime import datetime

from django.db.models import OuterRef, Q, Subquery

from apps.alerts.choices import AlertKind, Severity
from apps.alerts.services import Firing, settle
from apps.core.choices import Environment
from apps.core.display import page_of
from apps.deployments.choices import DeploymentStatus, GateVerdict
from apps.deployments.models import OPEN, Deployment
from apps.inventory.models import Workload

MAX_REASON = 500  # characters


def check(now: datetime, *, workload_id: int | None = None) -> None:
    """Settle the alerts of all workloads, or of one. The number of queries does not grow with them."""
    workloads = Workload.objects.select_related("service")
    if workload_id is not None:
        workloads = workloads.filter(pk=workload_id)
    names = {row.pk: str(row) for row in workloads}
    # Cancelled ones brought nothing out, and archived ones are history.
    ended = Deployment.objects.filter(workload=OuterRef("pk"), archived=False).exclude(
        status__in=(*OPEN, DeploymentStatus.CANCELLED)
    )
    newest = workloads.order_by().values(newest=Subquery(ended.order_by("-completed_at", "-pk").values("pk")[:1]))
    bad = Q(status=DeploymentStatus.FAILED) | Q(
        status=DeploymentStatus.COMPLETED, gate__verdict=GateVerdict.INCONCLUSIVE
    )
    rows = list(Deployment.objects.filter(bad, pk__in=newest).select_related("workload__service", "gate"))
    subjects = None if workload_id is None else [f"workload:{name}" for name in names.values()]
    failed = [row for row in rows if row.status == DeploymentStatus.FAILED]
    unsure = [row for row in rows if row.status != DeploymentStatus.FAILED]
    settle(AlertKind.DEPLOYMENT_FAILED, _failed(failed), now=now, subjects=subjects)
    settle(AlertKind.DEPLOYMENT_INCONCLUSIVE, _inconclusive(unsure), now=now, subjects=subjects)


def _failed(rows: Iterable[Deployment]) -> list[Firing]:
    return [
        _firing(
            row,
            f"{'Rollback' if row.undoes_id else 'Deployment'} of {row.version} to {row.workload} failed",
            f"{(row.error_message or 'It says no reason.')[:MAX_REASON]} What runs now may be either version.",
        )
        for row in rows
    ]


def _inconclusive(rows: Iterable[Deployment]) -> list[Firing]:
    return [
        _firing(
            row,
            f"Nobody knows whether {row.version} on {row.workload} is healthy",
            f"{' '.join(row.gate.reasons)[:MAX_REASON]} Look at its instances, and at why they send no samples.",
        )
        for row in rows
    ]


def _firing(row: Deployment, title: str, detail: str) -> Firing:
    lab = row.environment == Environment.DEVELOPMENT
    return Firing(
        subject=f"workload:{row.workload}",
        title=title,
        detail=detail,
        severity=Severity.INFO if lab else Severity.WARNING,
        environment=row.environment,
        service=row.workload.service.slug,
        path=page_of(row),
        runbook_url=row.workload.service.runbook_url,
    )

"""What each workload runs, for the overview: its version, what is under way, and what failed last."""

from datetime import datetime
from typing import Any

from django.db.models import OuterRef, Q, Subquery

from apps.core.display import badge, moment, page_of, span
from apps.deployments.choices import DeploymentKind, DeploymentStatus, GateVerdict
from apps.deployments.display import gate_of, status_label
from apps.deployments.models import Deployment
from apps.inventory.models import Workload

READ = 500  # workloads at most


def rollouts(now: datetime) -> dict[str, list[dict[str, Any]]]:
    """A line for each workload that was ever deployed, by environment; what needs somebody first. Two queries."""
    failed = Deployment.objects.filter(workload=OuterRef("pk"), status=DeploymentStatus.FAILED).newest_first()
    rows = list(
        Workload.objects.select_related("service")
        .annotate(failed=Subquery(failed.values("pk")[:1]))
        .filter(Q(current_deployment_id__isnull=False) | Q(change_lock__isnull=False) | Q(failed__isnull=False))
        .order_by("service__slug")[:READ]
    )
    keys = {key for row in rows for key in (row.current_deployment_id, row.change_lock, row.failed) if key}
    found = Deployment.objects.select_related("gate").defer("commit_message").in_bulk(keys)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row.get_environment_display(), []).append(_line(row, found, now))
    return {name: sorted(group, key=lambda line: line["rank"]) for name, group in groups.items()}


def _line(workload: Workload, found: dict[str, Deployment], now: datetime) -> dict[str, Any]:
    current = found.get(workload.current_deployment_id or "")
    running = found.get(workload.change_lock or "")
    failed = found.get(workload.failed or "")
    rank, label = _judged(current, running, failed)
    return {
        "rank": rank,
        "badge": badge(*label),
        "workload": workload,
        "version": current.version if current else "never brought out",
        "url": page_of(current) if current else "",
        "since": moment(current.completed_at or current.started_at) if current else "-",
        "by": current.triggered_by if current else "-",
        "running": f"{running.version}, for {span(now - running.started_at, units=1)}" if running else "",
        "running_url": page_of(running) if running else "",
        "holder": workload.change_lock_by,
        "failed": _failed(failed, now) if failed else "never",
        "failed_url": page_of(failed) if failed else "",
    }


def _failed(row: Deployment, now: datetime) -> str:
    what = "rollback to " if row.kind == DeploymentKind.ROLLBACK else ""
    return f"{what}{row.version}, {span(now - (row.completed_at or row.started_at), units=1)} ago"


def _judged(
    current: Deployment | None, running: Deployment | None, failed: Deployment | None
) -> tuple[int, tuple[str, str, str]]:
    """How urgent a workload is, and its badge."""
    if current is not None and current.status == DeploymentStatus.FAILED:
        return 0, ("runs what failed", "danger", current.error_message or "")
    if running is not None:
        word, colour, why = status_label(running)
        return 2, (f"rollback {word}" if running.kind == DeploymentKind.ROLLBACK else word, colour, why)
    if failed is not None and (current is None or failed.pk > current.pk):
        return 1, ("the last one failed", "danger", failed.error_message or "")
    gate = gate_of(current) if current is not None else None
    if gate is not None and gate.verdict == GateVerdict.INCONCLUSIVE:
        return 3, ("health not proven", "warning", " ".join(gate.reasons))
    return 4, ("deployed", "success", "")

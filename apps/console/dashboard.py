"""The overview: what every workload runs, every instance's newest sample, every database's backups; the worst first."""

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from apps.alerts.overview import open_alerts
from apps.backups.display import STANDING_COLOURS
from apps.backups.recovery import kit_missing
from apps.backups.standing import State, states, worst_first
from apps.console.rollout import rollouts
from apps.core.choices import Environment
from apps.core.display import moment, span
from apps.health.admin import STATUS_LABELS, reason_text
from apps.health.choices import HealthStatus
from apps.health.models import HealthCheck
from apps.inventory.models import Database, Instance

_WORST_FIRST = (HealthStatus.UNHEALTHY, HealthStatus.DEGRADED, HealthStatus.UNKNOWN, HealthStatus.HEALTHY)
_MOST_PRECIOUS_FIRST = [Environment.PRODUCTION.label, Environment.STAGING.label, Environment.DEVELOPMENT.label]
SHOWN = 50  # instances, and databases, of an environment on the overview; the lists have them all
READ = 500  # of each at most


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback: adds `open_alerts`, and `environments` with workloads, instances, databases."""
    may_see_health = request.user.has_perm("health.view_healthcheck")
    may_see_backups = request.user.has_perm("inventory.view_database")
    may_see_deployments = request.user.has_perm("deployments.view_deployment")
    context["environments"] = None
    context["open_alerts"] = open_alerts(request)
    if not (may_see_health or may_see_backups or may_see_deployments):
        return context
    deployed = rollouts(timezone.now()) if may_see_deployments else {}
    instances = _instances() if may_see_health else {}
    databases = _databases() if may_see_backups else {}
    verified = any(state.verified for group in databases.values() for state in group)
    context["kit_missing"] = kit_missing() if verified else ""
    context["headers"] = ("Status", "Service", "Instance", "Response", "CPU", "Memory", "Version", "Sampled", "Why")
    context["rollout_headers"] = ("Deployments", "Service", "Version", "Since", "By", "Under way", "Last failed")
    context["backup_headers"] = ("Backups", "Database", "Newest verified", "Last drill", "Restore time", "Next backup")
    context["environments"] = [
        {
            "name": name,
            "rollouts": deployed.get(name, [])[:SHOWN],
            "more_rollouts": max(0, len(deployed.get(name, [])) - SHOWN),
            **_health(instances.get(name, [])),
            **_backups(databases.get(name, [])),
        }
        for name in _MOST_PRECIOUS_FIRST
        if name in instances or name in databases or name in deployed
    ]
    return context


def _instances() -> dict[str, list[dict[str, Any]]]:
    """The lines of each environment's instances."""
    newest = HealthCheck.objects.filter(instance=OuterRef("pk")).newest_first().values("pk")[:1]
    instances = (
        Instance.objects.filter(active=True)
        .annotate(newest=Subquery(newest))
        .select_related("workload__service")
        .order_by("workload__environment", "workload__service__slug", "name")
    )
    rows = list(instances[:READ])
    samples = HealthCheck.objects.in_bulk([row.newest for row in rows if row.newest])
    groups: dict[str, list[dict[str, Any]]] = {}
    for instance in rows:
        sample = samples.get(instance.newest)
        groups.setdefault(instance.workload.get_environment_display(), []).append(_row(instance, sample))
    return groups


def _health(group: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "counts": [
            (status.label, STATUS_LABELS[status.label], count)
            for status in _WORST_FIRST
            if (count := sum(row["status"] == status for row in group))
        ],
        "rows": sorted(group, key=lambda row: _WORST_FIRST.index(row["status"]))[:SHOWN],
        "more": max(0, len(group) - SHOWN),
    }


def _databases() -> dict[str, list[State]]:
    """The state of each environment's databases."""
    groups: dict[str, list[State]] = {}
    for state in states(list(Database.objects.backed_up().select_related("plan")[:READ]), timezone.now()):
        groups.setdefault(state.database.get_environment_display(), []).append(state)
    return groups


def _backups(group: list[State]) -> dict[str, Any]:
    return {
        "databases": [
            {
                "state": state,
                "label": state.standing.value,
                "colour": STANDING_COLOURS[state.standing],
                "url": reverse("admin:inventory_database_change", args=[state.database.pk]),
                "age": span(state.age),
                "drill_age": span(state.drill_age),
                "restore_time": span(state.measured.restore_seconds) if state.measured else "-",
                "next": moment(state.next_slot),
            }
            for state in worst_first(group)[:SHOWN]
        ],
        "more_databases": max(0, len(group) - SHOWN),
    }


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

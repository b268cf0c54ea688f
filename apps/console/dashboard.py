"""The overview: what is wrong, the last 24 hours of each environment, what runs where; the worst first."""

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Count, OuterRef, Q, Subquery
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from apps.alerts.overview import open_alerts
from apps.backups.display import STANDING_COLOURS
from apps.backups.recovery import kit_missing
from apps.backups.standing import State, states, worst_first
from apps.console import checks
from apps.console.rollout import rollouts
from apps.console.timeline import Timeline
from apps.core.choices import Environment
from apps.core.display import moment, page_of, span
from apps.health.admin import STATUS_LABELS, reason_text
from apps.health.choices import CheckStatus, HealthStatus
from apps.health.models import HealthCheck
from apps.inventory.choices import DatabaseEngine
from apps.inventory.models import Database, Endpoint, Instance
from apps.scaling.overview import counts

_WORST_FIRST = (HealthStatus.UNHEALTHY, HealthStatus.DEGRADED, HealthStatus.UNKNOWN, HealthStatus.HEALTHY)
_MOST_PRECIOUS_FIRST = [Environment.PRODUCTION.label, Environment.STAGING.label, Environment.DEVELOPMENT.label]
SHOWN = 50  # instances, and databases, of an environment on the overview; the lists have them all
READ = 500  # of each at most
UNWELL = 20  # endpoints of an environment that are not well


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback: adds `open_alerts`, and `environments` with workloads, instances, databases."""
    may_see_health = request.user.has_perm("health.view_healthcheck")
    may_see_backups = request.user.has_perm("inventory.view_database")
    may_see_deployments = request.user.has_perm("deployments.view_deployment")
    context["environments"] = None
    context["open_alerts"] = open_alerts(request)
    may_see_scaling = request.user.has_perm("scaling.view_scalingpolicy")
    if not (may_see_health or may_see_backups or may_see_deployments or may_see_scaling):
        return context
    now = timezone.now()
    deployed = rollouts(now) if may_see_deployments else {}
    scaled = counts(now) if may_see_scaling else {}
    rows = _watched_instances() if may_see_health else []
    instances = _instances(rows)
    found = list(Database.objects.select_related("plan", "health")[:READ]) if may_see_backups else []
    databases, others = _databases(found), _never_backed_up(found)
    endpoints = _endpoints(now) if may_see_health and request.user.has_perm("inventory.view_endpoint") else {}
    timeline = Timeline(now, instances=rows, databases=found)
    for wanted, read in (
        (may_see_health, timeline.health),
        (context["open_alerts"] is not None, timeline.alerts),
        (may_see_deployments, timeline.deployments),
        (request.user.has_perm("scaling.view_scalingevent"), timeline.scaling),
        (request.user.has_perm("console.view_note"), timeline.notes),
        (may_see_backups, timeline.backups),
    ):
        if wanted:
            read()
    context["may_note"] = request.user.has_perm("console.add_note")
    verified = any(state.verified for group in databases.values() for state in group)
    context["kit_missing"] = kit_missing() if verified else ""
    context["headers"] = ("Status", "Service", "Instance", "Response", "CPU", "Memory", "Version", "Sampled", "Why")
    context["rollout_headers"] = ("Deployments", "Service", "Version", "Since", "By", "Under way", "Last failed")
    context["backup_headers"] = (
        "Health",
        "Backups",
        "Database",
        "Newest verified",
        "Last drill",
        "Restore time",
        "Next backup",
    )
    context["environments"] = [
        {
            "name": name,
            "rollouts": deployed.get(name, [])[:SHOWN],
            "more_rollouts": max(0, len(deployed.get(name, [])) - SHOWN),
            "environment": name.lower(),
            "chart": timeline.chart(name.lower()),
            "events": timeline.events(name.lower()),
            "endpoints": endpoints.get(name),
            "scaling": scaled.get(name, [])[:SHOWN],
            "more_scaling": max(0, len(scaled.get(name, [])) - SHOWN),
            **_health(instances.get(name, [])),
            **_backups(databases.get(name, []), others.get(name, [])),
        }
        for name in _MOST_PRECIOUS_FIRST
        if any(name in groups for groups in (instances, databases, others, deployed, endpoints, scaled))
    ]
    return context


def _endpoints(now: datetime) -> dict[str, dict[str, Any]]:
    """How many endpoints of each environment are in which state, and those that are not well. Two queries."""
    groups: dict[str, dict[str, Any]] = {}
    counted = Endpoint.objects.watched().order_by().values_list("workload__environment", "health__status")
    totals: dict[str, dict[str, int]] = {}
    for environment, status, count in counted.annotate(Count("pk")):
        group = totals.setdefault(Environment(environment).label, {})
        group[status or CheckStatus.UNKNOWN] = group.get(status or CheckStatus.UNKNOWN, 0) + count
    for name, group in totals.items():
        shown = [
            (status.label, checks.COLOURS[status], group[status]) for status in checks.WORST_FIRST if group.get(status)
        ]
        groups[name] = {"counts": shown, "rows": [], "more": 0}
        groups[name]["more"] = sum(group.values()) - group.get(CheckStatus.HEALTHY, 0)
    unwell = Endpoint.objects.watched().filter(health__status__in=(CheckStatus.FAILED, CheckStatus.DEGRADED))
    ranked = checks.ranked(unwell.select_related("workload__service", "health"), off=Q(enabled=False))
    for row in ranked.order_by("rank", "health__since", "pk")[:READ]:
        group = groups[row.workload.get_environment_display()]
        if len(group["rows"]) < UNWELL:
            group["rows"].append(checks.attention(row, now))
    for group in groups.values():
        group["more"] = max(0, group["more"] - len(group["rows"]))
    return groups


def _watched_instances() -> list[Instance]:
    newest = HealthCheck.objects.of(OuterRef("pk")).values("pk")[:1]
    instances = (
        Instance.objects.filter(active=True)
        .annotate(newest=Subquery(newest))
        .select_related("workload__service")
        .order_by("workload__environment", "workload__service__slug", "name")
    )
    return list(instances[:READ])


def _instances(rows: list[Instance]) -> dict[str, list[dict[str, Any]]]:
    """The lines of each environment's instances."""
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


def _databases(rows: list[Database]) -> dict[str, list[State]]:
    """The state of each environment's databases that are backed up."""
    groups: dict[str, list[State]] = {}
    for state in states([row for row in rows if row.engine != DatabaseEngine.REDIS], timezone.now()):
        groups.setdefault(state.database.get_environment_display(), []).append(state)
    return groups


def _never_backed_up(rows: list[Database]) -> dict[str, list[dict[str, Any]]]:
    """The lines of the others, the worst first."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=checks.rank_of):
        if row.engine == DatabaseEngine.REDIS:
            line = {"database": row, "health": checks.status_badge(row), "url": page_of(row), "label": "watched only"}
            groups.setdefault(row.get_environment_display(), []).append(line)
    return groups


def _backups(group: list[State], others: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "databases": [
            {
                "state": state,
                "database": state.database,
                "health": checks.status_badge(state.database),
                "label": state.standing.value,
                "colour": STANDING_COLOURS[state.standing],
                "url": reverse("admin:inventory_database_change", args=[state.database.pk]),
                "age": span(state.age),
                "drill_age": span(state.drill_age),
                "restore_time": span(state.measured.restore_seconds) if state.measured else "-",
                "next": moment(state.next_slot),
            }
            for state in worst_first(group)[:SHOWN]
        ]
        + others[:SHOWN],
        "more_databases": max(0, len(group) - SHOWN) + max(0, len(others) - SHOWN),
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

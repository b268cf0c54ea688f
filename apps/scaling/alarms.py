"""What is wrong with scaling each workload, as alerts: a change that failed, or a platform that does not answer."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from django.db.models import F, OuterRef, Subquery

from apps.alerts.choices import AlertKind, Severity
from apps.alerts.services import Firing, settle
from apps.core.choices import Environment
from apps.core.display import moment, page_of
from apps.inventory.models import Workload
from apps.scaling import records
from apps.scaling.models import ScalingDecision, ScalingEvent, ScalingPolicy
from apps.scaling.runner import UNREACHED

MAX_REASON = 500  # characters of a platform's own words
# What failed earlier, without anybody having wanted another count since, says nothing of the present.
SPEAKS_FOR = timedelta(hours=24)
NEWEST = timedelta(hours=3)  # two of the longest windows and the time around them: an older decision is no news


def check(now: datetime, *, workload_id: int | None = None) -> None:
    """Settle the alerts of all workloads, or of one. The number of queries does not grow with them."""
    subjects = None
    if workload_id is not None:
        subjects = [_subject(row) for row in Workload.objects.select_related("service").filter(pk=workload_id)]
    # The change that failed tells more than the platform's silence, which may be its cause.
    found = {one.subject: one for one in (*_silent(now), *_failed(now))}
    firing = [one for one in found.values() if subjects is None or one.subject in subjects]
    settle(AlertKind.SCALING_FAILED, firing, now=now, subjects=subjects)


def _failed(now: datetime) -> Iterator[Firing]:
    """Workloads whose newest settled change failed."""
    settled = ScalingEvent.objects.filter(workload=OuterRef("workload"), timestamp__lte=now).exclude(success=None)
    rows = (
        ScalingEvent.objects.filter(success=False, timestamp__gte=now - SPEAKS_FOR, timestamp__lte=now)
        .annotate(newest=Subquery(settled.newest_first().values("pk")[:1]))
        .filter(newest=F("pk"))
        .select_related("workload__service")
    )
    for row in rows:
        yield _firing(
            row.workload,
            f"{row.workload} was not scaled to {row.instances_after} instances",
            f"{(row.error_message or 'It says no reason.')[:MAX_REASON]} It was to have {row.instances_after}: "
            f"{row.trigger_reason}. The next window decides anew; look whether the platform does what it is asked.",
            page_of(row),
        )


def _silent(now: datetime) -> Iterable[Firing]:
    """Workloads whose platform did not say, at the newest evaluation, how many instances run."""
    recent = ScalingDecision.objects.filter(boundary__gte=now - NEWEST, boundary__lte=now)
    newest = recent.filter(policy=OuterRef("pk")).order_by("-boundary")
    rows = list(
        ScalingPolicy.objects.filter(enabled=True)
        .annotate(rule=Subquery(newest.values("rule")[:1]), decision=Subquery(newest.values("pk")[:1]))
        .filter(rule=UNREACHED)
        .select_related("service")
    )
    decisions = ScalingDecision.objects.in_bulk([row.decision for row in rows])
    workloads = {
        (row.service_id, row.environment): row
        for row in Workload.objects.filter(service__in={row.service_id for row in rows}).select_related("service")
    }
    for row in rows:
        workload, decision = workloads.get((row.service_id, row.environment)), decisions.get(row.decision)
        if workload is None or decision is None or not records.scales(workload):
            continue  # of a workload that nothing scales, health tells that no samples come
        yield _firing(
            workload,
            f"The platform of {workload} does not say how many instances run",
            f"{decision.reason.removeprefix('held: ')[:MAX_REASON]} At {moment(decision.boundary)}; nothing is scaled "
            "until it answers, and each window tries again.",
            page_of(row),
        )


def _firing(workload: Workload, title: str, detail: str, path: str) -> Firing:
    lab = workload.environment == Environment.DEVELOPMENT
    return Firing(
        subject=_subject(workload),
        title=title,
        detail=detail,
        severity=Severity.INFO if lab else Severity.WARNING,
        environment=workload.environment,
        service=workload.service.slug,
        path=path,
        runbook_url=workload.service.runbook_url,
    )


def _subject(workload: Workload) -> str:
    return f"workload:{workload}"

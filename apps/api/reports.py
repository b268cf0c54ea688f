"""What a report from outside means here: which workload it is about, and which verb it calls for."""

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from apps.api.choices import DeliveryOutcome
from apps.core.audit import Actor
from apps.deployments import observation, services
from apps.deployments.choices import DeploymentKind, DeploymentStatus
from apps.deployments.models import Deployment, Gate
from apps.deployments.sources.base import COMPLETED, Event, Ignored, Report, RunEnded, environment_of, repository_key
from apps.inventory.choices import Platform
from apps.inventory.models import Service, Workload

CLOCKS = timedelta(minutes=1)  # by which our clock and the sender's may differ


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a report, in a sentence, and which deployment it was about."""

    outcome: str
    detail: str
    deployment_id: str = ""


def act(event: Event, *, actor: Actor) -> Result:
    """Do what a report asks for, inside the caller's transaction. Raises Conflict or Invalid when it cannot be done."""
    if isinstance(event, Ignored):
        return Result(DeliveryOutcome.IGNORED, event.reason)
    if isinstance(event, RunEnded):
        return _end_run(event, actor)
    workload = _workload(event)
    if isinstance(workload, str):
        return Result(DeliveryOutcome.IGNORED, workload)
    return _observe(event, workload, actor)


def _end_run(run: RunEnded, actor: Actor) -> Result:
    """End all that a CI run has started through the API and left open. What was observed has reports of its own.

    What a later attempt of the run has started is not this one's to end. Its commit's time is news to all deployments.
    """
    services_of_run = _services(run.repository)
    dated = _date(run, services_of_run)
    # Who does not say in which attempt it is started before the attempt's end, unless clocks differ.
    later = Q(github_run_attempt__gt=run.attempt) if run.attempt else Q(pk__in=())
    if run.claimed_at:
        later |= Q(github_run_attempt=None, started_at__gt=run.claimed_at + CLOCKS)
    found = Deployment.objects.open().filter(
        github_run_id=run.run_id, observed=False, workload__service__in=services_of_run
    )
    results = [_end(row, run, actor) for row in found.exclude(later).newest_first()]
    if not results and dated:
        return Result(DeliveryOutcome.APPLIED, f"It says when the commit of {dated} deployments was made.")
    if not results:
        return Result(DeliveryOutcome.IGNORED, f"No open deployment was started by run {run.run_id}.")
    ended = [result for result in results if result.outcome == DeliveryOutcome.APPLIED]
    if len(ended) < 2:
        return (ended or results)[0]
    return Result(DeliveryOutcome.APPLIED, f"{run.detail} {len(ended)} deployments were open.", ended[0].deployment_id)


def _date(run: RunEnded, services_of_run: list[Service]) -> int:
    if not run.committed_at or not services_of_run:
        return 0
    now = timezone.now()
    commits = [run.commit_sha[:digits] for digits in range(7, len(run.commit_sha) + 1)]
    rows = Deployment.objects.filter(
        service__in=services_of_run, commit_sha__in=commits, kind=DeploymentKind.DEPLOYMENT
    )
    return observation.date(rows, run.committed_at, now=now)


def _end(row: Deployment, run: RunEnded, actor: Actor) -> Result:
    if Gate.objects.filter(pk=row.pk).exists():
        return Result(DeliveryOutcome.IGNORED, f"The gate of {row.pk} decides, whatever else the run has done.", row.pk)
    if row.status == DeploymentStatus.QUEUED:
        services.cancel(deployment=row, actor=actor, reason=f"{run.detail} It had not begun.")
    elif run.status == COMPLETED:
        services.finish(deployment=row, actor=actor)
    else:
        services.fail(deployment=row, actor=actor, error_message=run.detail)
    return Result(DeliveryOutcome.APPLIED, run.detail, row.pk)


def _workload(report: Report) -> Workload | str:
    """The workload a report is about, or why there is none."""
    if report.place:
        wanted = tuple(part.lower() for part in report.place)
        for workload in Workload.objects.select_related("service").filter(platform=Platform.ZEABUR):
            given = workload.platform_settings
            if (str(given.get("service_id")).lower(), str(given.get("environment_id")).lower()) == wanted:
                return workload
    matching = _services(report.repository)
    if not matching:
        where = report.repository or "what this names"
        return f"No service here has the repository {where}: enter it as the repository of its service."
    named = [service for service in matching if service.slug == report.service] if report.service else matching
    if len(named) != 1:
        slugs = ", ".join(service.slug for service in matching)
        return f"Several services have this repository ({slugs}): name one as `service` in the deployment's payload."
    environment = environment_of(report.environment, settings.WEBHOOK_ENVIRONMENTS)
    if not environment:
        return f"The environment {report.environment!r} is none of ours: map it with WEBHOOK_ENVIRONMENTS."
    workload = Workload.objects.select_related("service").filter(service=named[0], environment=environment).first()
    return workload or f"There is no workload {named[0].slug}/{environment}: add it under Inventory, Workloads first."


def _services(repository: str) -> list[Service]:
    if not repository:
        return []
    return [
        service
        for service in Service.objects.exclude(repository_url="").order_by("slug")
        if repository_key(service.repository_url) == repository
    ]


def _observe(report: Report, workload: Workload, actor: Actor) -> Result:
    # One report on a workload after the other: they come in bursts, and two about one deployment would both make it.
    Workload.objects.select_for_update().get(pk=workload.pk)
    row = observation.observe(
        workload=workload,
        external_id=report.external_id,
        status=report.status,
        version=report.version,
        commit_sha=report.commit_sha,
        commit_message=report.commit_message,
        triggered_by=report.triggered_by,
        claimed_at=report.claimed_at,
        committed_at=report.committed_at,
        github_run_id=report.github_run_id,
        log_url=report.log_url,
        deployment_url=report.deployment_url,
        error_message=report.error_message,
        actor=actor,
    )
    said = f"{row.pk}: {row.version} on {workload} reported as {report.status}."
    return Result(DeliveryOutcome.APPLIED, f"{said} {row.conflict}".strip(), row.pk)

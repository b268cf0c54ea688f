"""Deployments that others report after the fact: they cannot be refused; what contradicts is flagged, not dropped."""

from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from apps.core import audit
from apps.core.redaction import redact
from apps.deployments import records
from apps.deployments.choices import DeploymentStatus, StepKind
from apps.deployments.models import OPEN, Deployment
from apps.deployments.rules import transitions
from apps.inventory import services as inventory
from apps.inventory.models import Workload

# GitHub lets a deployment wait as long for the approval of a reviewer; Pulsewatch must not call it failed before.
APPROVAL = timedelta(days=30)
# Nobody tells of what began longer ago than `webhooks reconcile` looks back: that is a clock which runs wild.
OLDEST = timedelta(days=30)
SAME_RUN = timedelta(days=1)  # a deployment of ours and a report this far apart may be about the same thing


def observe(
    *,
    workload: Workload,
    external_id: str,
    status: str,
    version: str,
    commit_sha: str,
    actor: audit.Actor,
    commit_message: str = "",
    triggered_by: str = "",
    claimed_at: datetime | None = None,
    committed_at: datetime | None = None,
    github_run_id: str | None = None,
    log_url: str | None = None,
    deployment_url: str | None = None,
    error_message: str = "",
) -> Deployment:
    """Record what somebody else's system says of a deployment, in any order and as often as it likes.

    Reports of one `external_id` are about one record; only a report that leads on in the state machine moves it, and
    the time it claims decides nothing. A deployment that CI started here through the API is recognised by its run or
    commit, even when the sender told of it first, and stays CI's to move. Raises Invalid for a version and commit that
    are none.
    """
    now = timezone.now()
    status = transitions.status_of(status)
    commit = transitions.check_commit(commit_sha)
    claimed = min(claimed_at, now) if claimed_at else None
    facts = {"github_run_id": github_run_id, "deployment_log_url": log_url, "deployment_url": deployment_url}
    with transaction.atomic():
        row = _known(workload, external_id, commit, github_run_id, now)
        if row is None:
            row = _new(workload, now=now, claimed=claimed, status=status, version=version, commit=commit, facts=facts,
                       external_id=external_id, message=commit_message, by=triggered_by or actor.name)  # fmt: skip
        text = f"{actor.name} reports {status}" + (f": {error_message}" if error_message else "")
        records.step(row, StepKind.REPORTED, text, by=actor.name, at=now, claimed_at=claimed)
        date(Deployment.objects.filter(pk=row.pk), committed_at, now=now)
        if row.observed:
            _move(row, status, error_message, facts, claimed, now)
        records.audit_entry(row, "observe", actor, after={"status": status, "external_id": external_id})
    row.refresh_from_db()
    return row


def merge(row: Deployment, *, now: datetime) -> None:
    """Make one record of a deployment that CI has just started here and that others had announced before.

    GitHub tells of a job's deployment before the job's first step runs. Inside the caller's transaction.
    """
    told = Deployment.objects.select_for_update().filter(
        workload=row.workload_id, observed=True, completed_at=None, started_at__gte=now - SAME_RUN
    )
    same = Q(commit_sha__startswith=row.commit_sha[:7])
    if row.github_run_id:
        same |= Q(github_run_id=row.github_run_id)
    twin = told.filter(same).newest_first().first()
    if twin is None:
        return
    external_id = twin.external_id
    Deployment.objects.filter(pk=twin.pk).update(external_id=None)
    records.end(twin, status=DeploymentStatus.CANCELLED, now=now, text=f"It is {row.pk}, which CI started here.")
    Deployment.objects.filter(pk=row.pk).update(external_id=external_id)
    row.external_id = external_id
    records.step(row, StepKind.REPORTED, f"It had been announced as {twin.pk}.", by=records.AUTOMATIC, at=now)


def date(rows: QuerySet[Deployment], committed_at: datetime | None, *, now: datetime) -> int:
    """Say of deployments for which nobody has said so when their commit was made; of how many it was news."""
    if committed_at is None:
        return 0
    return rows.filter(committed_at=None).update(committed_at=min(committed_at, now))


def _known(workload: Workload, external_id: str, commit: str, run_id: str | None, now: datetime) -> Deployment | None:
    rows = Deployment.objects.select_for_update()
    found = rows.filter(external_id=external_id).first()
    if found is not None and not (found.observed and found.is_open):
        return found
    ours = rows.filter(workload=workload, observed=False, external_id=None, started_at__gte=now - SAME_RUN)
    same_run = ours.filter(github_run_id=run_id) if run_id else ours.none()
    own = same_run.newest_first().first() or ours.open().filter(commit_sha__startswith=commit[:7]).first()
    if own is None:
        return found
    if found is not None:
        text = f"It is {own.pk}, which CI reports by itself."
        facts = {"external_id": None, "conflict": text}
        records.end(found, status=DeploymentStatus.CANCELLED, now=now, text=text, **facts)
    Deployment.objects.filter(pk=own.pk).update(external_id=external_id)
    return own


def _new(
    workload: Workload,
    *,
    now: datetime,
    claimed: datetime | None,
    status: str,
    version: str,
    commit: str,
    external_id: str,
    message: str,
    by: str,
    facts: dict[str, str | None],
) -> Deployment:
    workload = Workload.objects.select_related("service").get(pk=workload.pk)  # as it is now
    conflict = "" if workload.change_lock is None else inventory.lock_text(workload)
    row = Deployment(
        service=workload.service,
        environment=workload.environment,
        workload=workload,
        version=transitions.check_version(version or commit),
        commit_sha=commit,
        commit_message=redact(transitions.cut_message(message))[: transitions.MAX_MESSAGE],
        status=DeploymentStatus.QUEUED if status == DeploymentStatus.QUEUED else DeploymentStatus.IN_PROGRESS,
        triggered_by=by[:150],
        started_at=max(claimed, now - OLDEST) if claimed else now,
        created_at=now,
        open_until=now + (APPROVAL if status == DeploymentStatus.QUEUED else _patience(workload)),
        deployment_platform=workload.platform,
        domain=workload.domain,
        observed=True,
        external_id=external_id,
        claimed_at=claimed,
        conflict=conflict[:300],
        **facts,
    )
    # Its id tells when it began, not when we heard of it: others catch up on what we missed.
    records.insert(row, now=row.started_at)
    if conflict:
        records.step(row, StepKind.CONFLICT, f"It came while {conflict}", by=records.AUTOMATIC, at=now)
    return row


def _move(
    row: Deployment,
    status: str,
    error_message: str,
    facts: dict[str, str | None],
    claimed: datetime | None,
    now: datetime,
) -> None:
    """Let a report lead an observed deployment on; say so when it cannot."""
    given: dict[str, Any] = {name: value for name, value in facts.items() if value}
    if claimed is not None and (row.claimed_at is None or claimed > row.claimed_at):
        given["claimed_at"] = claimed
    if given:
        Deployment.objects.filter(pk=row.pk).update(**given)
    # That it timed out was our guess, and the sender knows better.
    corrects = row.timed_out and status not in OPEN
    late = transitions.is_late(row.status, status) and not corrects
    if (row.status == status and not corrects) or (late and status in OPEN):
        return
    if late:
        text = f"It had ended as {row.status} and is now reported as {status}."
        Deployment.objects.filter(pk=row.pk).update(conflict=text)
        records.step(row, StepKind.CONFLICT, text, by=records.AUTOMATIC, at=now)
        return
    if status == DeploymentStatus.IN_PROGRESS:
        Deployment.objects.filter(pk=row.pk).update(status=status, open_until=now + _patience(row.workload))
        return
    text = error_message or f"Reported as {status}."
    if corrects:
        text = f"{text} It had only timed out here."
    ended = max(claimed or now, row.started_at)
    records.end(row, status=status, now=ended, text=text, corrects=corrects, learned=now)
    if status == DeploymentStatus.FAILED:
        records.remember_failure(row, reason=text, now=now)
    elif status == DeploymentStatus.COMPLETED and not _superseded(row):
        records.make_current(row)


def _superseded(row: Deployment) -> bool:
    """Whether something that began later has been brought out already. Times others tell have whole seconds only."""
    same_second = Q(started_at=row.started_at, id__gt=row.pk)
    later = Deployment.objects.good().filter(Q(started_at__gt=row.started_at) | same_second)
    return later.filter(workload=row.workload_id).exclude(pk=row.pk).exists()


def _patience(workload: Workload) -> timedelta:
    """How long a deployment that has begun may stay without an end."""
    return timedelta(minutes=workload.deployment_timeout_minutes)

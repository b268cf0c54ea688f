"""What a person or a client may ask about deployments. Every verb validates, writes, audits, wakes, returns the row.

Checklists and environment variables have their verbs in apps.deployments.preparation.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone

from apps.alerts import windows
from apps.backups import services as backups
from apps.backups.choices import BackupType, Trigger
from apps.builds.models import Build
from apps.core import audit, inserts
from apps.core.errors import Conflict, Invalid
from apps.core.redaction import redact
from apps.core.wake import wake
from apps.deployments import checks, observation, preparation, records
from apps.deployments.choices import DeploymentKind, DeploymentStatus, GateVerdict, StepKind
from apps.deployments.models import Deployment, FailedVersion, Gate
from apps.deployments.rules import checklist, transitions, variables
from apps.inventory.models import DEFAULT_SERVICE, Database, Workload, http_url

_URLS = ("deployment_log_url", "deployment_url", "health_check_url")
# What a reporter may still add while a deployment is open.
REPORTABLE = (
    *("migration_applied", "migration_version", "instances_deployed", "github_run_id", "github_run_attempt"),
    *("deployment_log_url", "deployment_url", "health_check_url"),
)


def start_deployment(
    *,
    service: str = DEFAULT_SERVICE,
    environment: str,
    version: str,
    commit_sha: str,
    triggered_by: str,
    actor: audit.Actor,
    commit_message: str = "",
    build: Build | None = None,
    status: str = DeploymentStatus.IN_PROGRESS,
    committed_at: datetime | None = None,
    github_run_id: str | None = None,
    github_run_attempt: int | None = None,
    migration_applied: bool = False,
    migration_version: str | None = None,
    instances_deployed: int = 1,
    deployment_platform: str = "",
    domain: str = "",
    deployment_log_url: str | None = None,
    deployment_url: str | None = None,
    health_check_url: str | None = None,
    reported: Mapping[str, str] | None = None,
    environment_variables: Sequence[variables.Report] = (),
    backup: bool = False,
    override_reason: str = "",
) -> Deployment:
    """Record a deployment that begins, or with status `queued` one that waits, and take the workload's change lock.

    `reported`: checklist items CI has settled, such as `{"migrations_run": "passed"}`. `backup`: take a backup of each
    of the workload's databases; only for a queued deployment, which may begin when they are verified.
    Raises Invalid for wrong input and for an unknown workload. Raises Conflict while somebody else changes the
    workload, and, unless `override_reason` is given, when a blocking item has failed, this version has failed here
    before, or a maintenance window freezes deployments. Then nothing is stored.
    """
    now = timezone.now()
    status = transitions.status_of(status)
    if status not in transitions.OPEN:
        raise Invalid("A deployment begins as queued or in_progress.", field="status")
    if backup and status != DeploymentStatus.QUEUED:
        raise Invalid(
            "A backup takes a while: send status queued with it, and start when it is verified.", field="backup"
        )
    commit = transitions.check_commit(commit_sha)
    version = transitions.check_version(version)
    reason = records.reason_text(override_reason, required=False)
    known = records.known(service=service, environment=environment, version=version, now=now)
    workload = known.workload
    if build is not None:
        _check_build(build, workload, commit)
    row = Deployment(
        service=workload.service,
        environment=workload.environment,
        workload=workload,
        version=version,
        commit_sha=commit,
        commit_message=redact(transitions.cut_message(commit_message))[: transitions.MAX_MESSAGE],
        committed_at=transitions.check_past(committed_at, now=now, field="committed_at"),
        status=status,
        triggered_by=triggered_by,
        build=build,
        started_at=now,
        created_at=now,
        open_until=now + timedelta(minutes=workload.deployment_timeout_minutes),
        github_run_id=github_run_id,
        github_run_attempt=github_run_attempt,
        migration_applied=migration_applied,
        migration_version=migration_version,
        instances_deployed=instances_deployed,
        deployment_platform=deployment_platform or workload.platform,
        domain=domain or workload.domain,
        deployment_log_url=deployment_log_url,
        deployment_url=deployment_url or workload.base_url or None,
        health_check_url=health_check_url,
        override_reason=reason,
    )
    _validate(row)
    said = preparation.reported_items(reported or {})
    from_build = [] if "images_tested" in (reported or {}) else checks.built(build)
    demanded = preparation.rules(workload) if known.variable_rules else []
    found = variables.judge(demanded, environment_variables)
    before = checks.before(workload, found if demanded else None, now=now, databases=known.databases)
    standings = [*said, *from_build, *before]
    with transaction.atomic():
        if known.failure and not reason:
            _refuse_failed_version(row)
        if status == DeploymentStatus.IN_PROGRESS and not reason:
            if known.freeze:
                _refuse_frozen(row, now)
            checks.refuse(standings, workload)
        records.insert(row, now=now, taken=known.in_this_second)
        verb = "started" if status == DeploymentStatus.IN_PROGRESS else "queued"
        if known.observed:
            observation.merge(row, now=now)
        with inserts.together():
            records.step(row, StepKind.CREATED, f"{row.version} {verb} by {row.triggered_by}.", by=actor.name, at=now)
            if reason:
                text = f"Started in spite of what blocks: {reason}"
                records.step(row, StepKind.OVERRIDDEN, text, by=actor.name, at=now)
            by = dict.fromkeys((standing.key for standing in said), actor.name)
            overridden_by = actor.name if reason else ""
            checks.insert(row, standings, by=by, at=now, overridden_by=overridden_by, override_reason=reason)
            after = {"version": row.version, "status": row.status}
            records.audit_entry(row, "start", actor, reason=reason, after=after)
        preparation.store_variables(row, found)
        if backup:
            _back_up(row, actor)
    return row


def begin(*, deployment: Deployment, actor: audit.Actor, override_reason: str = "", **facts: Any) -> Deployment:
    """Let a queued deployment begin. Raises Conflict as `start_deployment` does."""
    reason = records.reason_text(override_reason, required=False)
    with transaction.atomic():
        row = records.locked(deployment)
        now = timezone.now()
        _only_deployments(row)
        transitions.check_move(row.kind, row.status, DeploymentStatus.IN_PROGRESS)
        _take_facts(row, facts)
        checks.store(row, checks.before(row.workload, checks.findings(row), now=now), by=records.AUTOMATIC, at=now)
        if not reason:
            _refuse_frozen(row, now)
            checks.refuse(checks.standings(row), row.workload)
        else:
            _override_failed(row, reason, actor, now, phase=checklist.BEFORE)
        row.status, row.started_at = DeploymentStatus.IN_PROGRESS, now
        row.open_until = now + timedelta(minutes=row.workload.deployment_timeout_minutes)
        row.save(update_fields=["status", "started_at", "open_until", "updated_at"])
        records.step(row, StepKind.STARTED, f"{row.version} started.", by=actor.name, at=now)
        records.audit_entry(row, "begin", actor, reason=reason)
    return row


def finish(*, deployment: Deployment, actor: audit.Actor, **facts: Any) -> Deployment:
    """CI has brought the version out: start the gate. The deployment stays in progress until the gate's verdict.

    Asked again while the gate runs it only keeps the facts. Raises Conflict when the deployment is queued or has ended.
    """
    with transaction.atomic():
        row = records.locked(deployment)
        now = timezone.now()
        _only_deployments(row)
        transitions.check_move(row.kind, row.status, DeploymentStatus.COMPLETED)
        told = _take_facts(row, facts)
        if Gate.objects.filter(pk=row.pk).exists():
            if told:
                records.audit_entry(row, "facts", actor, after=facts)
            return row
        Gate.objects.create(
            deployment=row,
            started_at=now,
            samples=row.workload.gate_samples,
            window_seconds=row.workload.gate_window_seconds,
            next_look_at=now,
            reasons=["The first look is under way."],
        )
        records.make_current(row)
        records.step(
            row,
            StepKind.GATE_STARTED,
            f"Brought out; the gate wants {row.workload.gate_samples} healthy samples in a row from each instance "
            f"within {row.workload.gate_window_seconds} s.",
            by=actor.name,
            at=now,
        )
        records.audit_entry(row, "finish", actor)
        wake("deployments.gate", row.pk)
    return row


def fail(*, deployment: Deployment, actor: audit.Actor, error_message: str = "", **facts: Any) -> Deployment:
    """CI could not bring the version out. Ends a gate that runs; rolls nothing back by itself."""
    text = redact(error_message.replace("\x00", "").strip()) or "Reported as failed, without a reason."
    with transaction.atomic():
        row = records.locked(deployment)
        now = timezone.now()
        _only_deployments(row)
        transitions.check_move(row.kind, row.status, DeploymentStatus.FAILED)
        _take_facts(row, facts)
        Gate.objects.running().filter(pk=row.pk).update(
            verdict=GateVerdict.FAILED, decided_at=now, reasons=["The deployment was reported as failed."]
        )
        records.remember_failure(row, reason=text, now=now)
        records.end(row, status=DeploymentStatus.FAILED, now=now, text=text, by=actor.name)
        records.audit_entry(row, "fail", actor)
    return row


def cancel(*, deployment: Deployment, actor: audit.Actor, reason: str = "", **facts: Any) -> Deployment:
    """Withdraw a queued deployment. Raises Conflict once it has begun."""
    text = f"Cancelled: {records.reason_text(reason, required=False)}" if reason.strip() else "Cancelled."
    with transaction.atomic():
        row = records.locked(deployment)
        now = timezone.now()
        transitions.check_move(row.kind, row.status, DeploymentStatus.CANCELLED)
        _take_facts(row, facts)
        records.end(row, status=DeploymentStatus.CANCELLED, now=now, text=text, by=actor.name)
        records.audit_entry(row, "cancel", actor, reason=reason)
    return row


def report(*, deployment: Deployment, status: str, actor: audit.Actor, error_message: str = "",
           override_reason: str = "", **facts: Any) -> Deployment:  # fmt: skip
    """Move a deployment to the status a client reports, by the verb that stands for it. `facts` as in REPORTABLE.

    What it is already may be said again, as a client does that has missed the answer. While it is open the facts given
    with it are kept; else nothing changes.
    """
    wanted = transitions.status_of(status)
    with transaction.atomic():
        if (now_it_is := records.locked(deployment)).status == wanted:
            if now_it_is.is_open and _take_facts(now_it_is, facts):
                records.audit_entry(now_it_is, "facts", actor, after=facts)
            return now_it_is
    if wanted == DeploymentStatus.IN_PROGRESS:
        return begin(deployment=deployment, actor=actor, override_reason=override_reason, **facts)
    if wanted == DeploymentStatus.COMPLETED:
        return finish(deployment=deployment, actor=actor, **facts)
    if wanted == DeploymentStatus.FAILED:
        return fail(deployment=deployment, actor=actor, error_message=error_message, **facts)
    if wanted == DeploymentStatus.CANCELLED:
        return cancel(deployment=deployment, actor=actor, reason=error_message, **facts)
    transitions.check_move(deployment.kind, deployment.status, wanted)
    raise Conflict(f"Nobody can report {wanted}: a rollback's platform decides that.", facts={"legal": []})


def rollback(*, deployment: Deployment, reason: str, actor: audit.Actor) -> Deployment:
    """Queue a record that brings back what ran before `deployment`, and give that record back.

    Raises Invalid without a reason, Conflict when there is nothing to return to or somebody changes the workload.
    """
    text = records.reason_text(reason)
    now = timezone.now()
    with transaction.atomic():
        row = records.locked(deployment)
        target = rollback_target(row)
        new = records.open_rollback(row, target, reason=text, by=actor.name, now=now)
        records.audit_entry(row, "rollback", actor, reason=text, after={"rollback": new.pk, "version": target.version})
    return new


def rollback_target(row: Deployment) -> Deployment:
    """What a rollback of this deployment returns to. Raises Conflict, with the reason, when it cannot be undone."""
    if row.kind != DeploymentKind.DEPLOYMENT:
        raise Conflict(f"{row.pk} is a rollback itself; deploy the version that is wanted.")
    if row.is_open:
        raise Conflict(f"{row.pk} is still {row.status}; end it first.", facts={"legal": []})
    if row.status == DeploymentStatus.CANCELLED:
        raise Conflict(f"{row.pk} was cancelled: it brought nothing out.")
    if row.rolled_back_by_id:
        raise Conflict(f"{row.pk} was rolled back by {row.rolled_back_by_id} already.")
    newer = Deployment.objects.good().filter(workload=row.workload_id, id__gt=row.pk).newest_first().first()
    if newer is not None:
        raise Conflict(f"{newer.pk} ({newer.version}) has been brought out since; roll that one back.")
    target = Deployment.objects.targets(row).first()
    if target is None:
        raise Conflict(f"There is no earlier good version of {row.workload} to return to.")
    return target


def rollback_available(row: Deployment) -> bool:
    """Whether this deployment can be undone now."""
    try:
        rollback_target(row)
    except Conflict:
        return False
    return True


def _check_build(build: Build, workload: Workload, commit: str) -> None:
    """Raises unless this build may bring this commit to this workload."""
    if not build.deployable:
        raise Conflict(f"{build.pk} is {build.build_status}: only a successful build is deployed.")
    if build.service_id != workload.service_id:
        raise Invalid(f"{build.pk} is a build of another service.", field="build")
    made_of = build.commit_sha
    if made_of and not (made_of.startswith(commit) or commit.startswith(made_of)):
        raise Invalid(f"{build.pk} was made of commit {made_of}, and {commit} is to be deployed.", field="build")


def _only_deployments(row: Deployment) -> None:
    if row.kind == DeploymentKind.ROLLBACK:
        raise Conflict("Pulsewatch moves a rollback itself; wait for its end.", facts={"legal": []})


def _validate(row: Deployment) -> None:
    """What each column demands of what a client gave. Raises Invalid with the first wrong field."""
    try:
        for name in _URLS:
            if value := getattr(row, name):
                http_url(value)
        row.clean_fields(exclude=[field.name for field in Deployment._meta.fields if field.name not in _GIVEN])
    except ValidationError as error:
        if hasattr(error, "error_dict"):
            field, messages = next(iter(error.message_dict.items()))
        else:
            field, messages = name, error.messages
        raise Invalid(messages[0], field=field) from error


# The columns whose values come from a client.
_GIVEN = (
    *(
        "triggered_by",
        "github_run_id",
        "github_run_attempt",
        "migration_applied",
        "migration_version",
        "instances_deployed",
    ),
    *("deployment_platform", "domain", *_URLS),
)


def _take_facts(row: Deployment, facts: Mapping[str, Any]) -> bool:
    """Keep what a reporter adds; whether there was any. Raises Conflict for a rollback, Invalid for wrong ones."""
    given = {name: value for name, value in facts.items() if value is not None}
    if unknown := set(given) - set(REPORTABLE):
        raise TypeError(f"nobody may change {', '.join(sorted(unknown))} of a deployment")
    if not given:
        return False
    _only_deployments(row)
    for name, value in given.items():
        setattr(row, name, value)
    _validate(row)
    row.save(update_fields=[*given, "updated_at"])
    return True


def _refuse_failed_version(row: Deployment) -> None:
    failed = FailedVersion.objects.filter(workload=row.workload, version=row.version).first()
    if failed is not None:
        raise Conflict(
            f"{row.version} failed on {row.workload} in {failed.deployment_id} at "
            f"{failed.failed_at:%Y-%m-%d %H:%M} UTC: {failed.reason} Deploy another version, or give override_reason.",
            facts={"failed_in": failed.deployment_id, "failed_at": failed.failed_at.isoformat()},
        )


def _refuse_frozen(row: Deployment, now: datetime) -> None:
    found = windows.freezes(service=row.workload.service.slug, environment=row.environment, now=now)
    if found is not None:
        raise Conflict(
            f"Deployments to {row.workload} are frozen until {found.ends_at:%Y-%m-%d %H:%M} UTC by the maintenance "
            f"window “{found.window.name}” of {found.window.created_by}. Wait for its end, or give override_reason.",
            facts={
                "frozen_by": found.window.name,
                "frozen_for": found.window.created_by,
                "frozen_until": found.ends_at.isoformat(),
            },
        )


def _override_failed(row: Deployment, reason: str, actor: audit.Actor, now: datetime, *, phase: str) -> None:
    """Override what blocks this phase now."""
    also = checks.demanded(row.workload)
    blocking = [
        standing.key
        for standing in checks.standings(row)
        if checklist.blockers([standing], phase=phase, strict=False, also=also)
    ]
    row.checklist_items.filter(key__in=blocking).update(overridden_by=actor.name, override_reason=reason)
    records.step(row, StepKind.OVERRIDDEN, f"Started in spite of what blocks: {reason}", by=actor.name, at=now)


def _back_up(row: Deployment, actor: audit.Actor) -> None:
    """Queue a backup of each database of the workload."""
    for database in Database.objects.backed_up().filter(service=row.service_id, environment=row.environment):
        job = backups.request_backup(
            database=database,
            actor=actor,
            storage_location=settings.BACKUP_STORAGE,
            triggered_by=Trigger.PRE_DEPLOYMENT,
            backup_type=BackupType.FULL,
        )
        records.step(row, StepKind.CHECKLIST, f"Backup {job.pk} queued.", by=actor.name, at=row.created_at)

"""What a worker does with deployments: look for a gate, roll back, end what was left open, archive.

No call to the outside happens inside a transaction: intent recorded, act, record. Each look of a gate is a short task;
a worker that dies between two looks, or in one, delays the gate until the next tick. One that dies while it asks a
platform for a rollback is followed by another, which asks again where that does no harm.
"""

import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import DatabaseError, transaction
from django.db.models import F, OuterRef, Subquery

from apps.core.errors import PulsewatchError
from apps.core.models import StopSwitch
from apps.core.wake import wake
from apps.deployments import checks, records
from apps.deployments.choices import DeploymentStatus, GateVerdict, ItemState, StepKind
from apps.deployments.models import OPEN, Deployment, Gate
from apps.deployments.rules import checklist
from apps.deployments.rules import gate as rules
from apps.health import runner as health
from apps.health.choices import CheckStatus, SampleSource
from apps.health.models import HealthCheck
from apps.health.probers.instance import Target
from apps.health.trial import ask_all
from apps.inventory.models import Endpoint, Instance, Workload
from apps.inventory.platforms.base import ROLLBACK, PlatformError, Release
from apps.inventory.runner import platform_of, scaler_of

logger = logging.getLogger(__name__)

SAMPLES_SHOWN = 200  # of a gate's samples kept as evidence
BATCH = 500  # rows archived or ended at once
ENDPOINTS, ENDPOINT_SECONDS = 50, 5.0  # of a workload that a look asks about, and how long one may take to answer
ASKED_AT_MOST = 3  # times a platform is asked for one rollback, when workers die over it


def look(deployment_id: str, *, now: datetime) -> Gate | None:
    """Look once for a gate whose time has come, and decide when that is possible. None when it is not to be had."""
    gate = Gate.objects.due(now).filter(pk=deployment_id).select_related("deployment__workload__service").first()
    if gate is None:
        return None
    # Whoever moves the next look on has this one: of two workers, and of a message that comes twice, one looks.
    mine = Gate.objects.due(now).filter(pk=gate.pk, next_look_at=gate.next_look_at)
    if not mine.update(next_look_at=rules.next_look(gate.next_look_at, now), looks=F("looks") + 1):
        return None
    row = gate.deployment
    _sample(row.workload, now)
    faults = _faults(row, gate, now)
    verdict = _judge(gate, row, faults, now)
    if verdict.verdict:
        _decide(gate, row, verdict, now)
    else:
        Gate.objects.running().filter(pk=gate.pk).update(**_kept(verdict))
    gate.refresh_from_db()
    return gate


def _sample(workload: Workload, now: datetime) -> None:
    instances = Instance.objects.sampled().filter(workload=workload).select_related("workload__service")
    if found := list(instances):
        health.look_at(found, now, now=now, source=SampleSource.GATE)


def _faults(row: Deployment, gate: Gate, now: datetime) -> list[str]:
    """What is wrong beside the samples; the findings go onto the checklist."""
    found = []
    if row.workload.base_url:
        found.append(_accessible(row.workload))
    found += _database_connected(row, now)
    found += checks.responding(row, _endpoints(row.workload, gate.started_at))
    found += _running(row)
    checks.store(row, found, by=records.AUTOMATIC, at=now)
    stored = [standing for standing in checks.standings(row) if standing.key != "health_passing"]
    return list(checklist.blockers(stored, phase=checklist.AFTER))


def _running(row: Deployment) -> list[checklist.Standing]:
    """Whether as many instances serve as the platform was told to run. A platform that does not say costs nothing."""
    try:
        scaler = scaler_of(row.workload)
        count = scaler.count() if scaler else None
    except PulsewatchError as error:
        return checks.running(row, None, f"Platform {row.workload.platform} did not say: {error}")
    if count is None or count.ready is None:
        return []
    return checks.running(row, count.ready >= count.desired, f"{count.ready} of {count.desired} are ready")


def _accessible(workload: Workload) -> checklist.Standing:
    base = workload.base_url.rstrip("/")
    [seen] = health.observe([Target(str(workload.pk), f"{base}{workload.readiness_path}", preset="none")])
    if seen.failure or seen.http_status is None or seen.http_status >= 500:
        detail = seen.failure or f"{base} answered {seen.http_status}"
        return checklist.Standing("services_accessible", ItemState.FAILED, detail)
    return checklist.Standing("services_accessible", ItemState.PASSED, f"answered {seen.http_status}")


def _database_connected(row: Deployment, now: datetime) -> list[checklist.Standing]:
    """What the newest samples of this gate say of the database; nothing when they say nothing."""
    newest = HealthCheck.objects.of(OuterRef("pk")).since(now - rules.INTERVAL)
    states = Instance.objects.filter(workload=row.workload, active=True).annotate(
        database=Subquery(newest.values("database_status")[:1])
    )
    said = [(name, state) for name, state in states.values_list("name", "database") if state not in (None, "unknown")]
    if not said:
        return []
    lost = [name for name, state in said if state == "disconnected"]
    if lost:
        detail = f"{', '.join(lost[: checks.SHOWN])} cannot reach the database"
        return [checklist.Standing("database_connected", ItemState.FAILED, detail)]
    return [checklist.Standing("database_connected", ItemState.PASSED, f"{len(said)} instances connected")]


def _endpoints(workload: Workload, since: datetime) -> dict[str, dict[str, str]]:
    """By item of the checklist: what is wrong with each endpoint since then, an empty text for one that is well.

    What the prober has asked since then is known; the others are asked at once. One that tells nothing, for the fault
    is Pulsewatch's own, is left out.
    """
    rows = list(Endpoint.objects.watched().filter(workload=workload).select_related("workload", "health")[:ENDPOINTS])
    known = {
        row.pk: row.health for row in rows if hasattr(row, "health") and (row.health.last_checked or since) > since
    }
    asked = ask_all([row for row in rows if row.pk not in known], patience=ENDPOINT_SECONDS)
    found: dict[str, dict[str, str]] = {"api_responding": {}, "front_end_loading": {}}
    for row in rows:
        if state := known.get(row.pk):
            failing, why = bool(state.consecutive_failures), state.error_message
        else:
            failing, why = asked[row.pk].status == CheckStatus.FAILED, asked[row.pk].reason
            if asked[row.pk].status == CheckStatus.UNKNOWN:
                continue
        item = "front_end_loading" if row.front_end else "api_responding"
        found[item][row.name] = (why or "fails") if failing else ""
    return found


def _judge(gate: Gate, row: Deployment, faults: Sequence[str], now: datetime) -> rules.Verdict:
    candidates = _candidates(row.workload, gate.started_at)
    choice = rules.choose(candidates, version=row.version, commit=row.commit_sha, since=row.started_at)
    samples = _samples(choice.instances, gate.started_at, now)
    before = _samples(
        [row.instance for row in candidates],
        row.started_at - rules.BASELINE,
        row.started_at - timedelta(microseconds=1),
    )
    policy = rules.Policy(samples=gate.samples, window=timedelta(seconds=gate.window_seconds))
    return rules.judge(
        policy,
        choice,
        samples,
        before=rules.figures(before),
        started=gate.started_at,
        now=now,
        other_faults=faults,
    )


def _candidates(workload: Workload, since: datetime) -> list[rules.Candidate]:
    newest = HealthCheck.objects.of(OuterRef("pk"))
    # An answer without a version says nothing of it: a process that fails may be the one that said it a moment ago.
    reported = newest.filter(version__isnull=False)
    of_gate = newest.filter(timestamp__gte=since)
    rows = Instance.objects.filter(workload=workload, active=True).annotate(
        said=Subquery(reported.values("version")[:1]),
        seen=Subquery(newest.values("measured_at")[:1]),
        up=Subquery(newest.values("uptime_seconds")[:1]),
        looked=Subquery(of_gate.values("pk")[:1]),
    )
    rows = list(rows)
    last = HealthCheck.objects.in_bulk([row.looked for row in rows if row.looked])
    return [
        rules.Candidate(
            row.pk,
            row.said,
            row.seen - timedelta(seconds=row.up) if row.seen and row.up is not None else row.registered_at,
            mute=row.looked in last and last[row.looked].version is None and _answered(last[row.looked]),
        )
        for row in rows
    ]


def _answered(row: HealthCheck) -> bool:
    return not any(reason.get("rule") == "no_answer" for reason in row.reasons)


def _samples(instances: Sequence[str], since: datetime, until: datetime) -> list[rules.Sample]:
    rows = HealthCheck.objects.filter(instance_id__in=instances, timestamp__gte=since, timestamp__lte=until)
    return [
        rules.Sample(
            row.instance_id,
            row.timestamp,
            row.overall_status,
            row.response_time_ms,
            row.error_rate_5min,
            answered=_answered(row),
            why=", ".join(str(reason.get("rule", "")).replace("_", " ") for reason in row.reasons),
        )
        for row in rows.order_by("timestamp")
    ]


def _kept(verdict: rules.Verdict) -> dict[str, object]:
    """A verdict as the gate's columns hold it."""

    def figures(found: rules.Figures) -> dict[str, object]:
        return {"samples": found.samples, "error_rate": found.error_rate, "response_ms": found.response_ms}

    evidence = {
        "chosen_by": verdict.basis,
        "before": figures(verdict.before),
        "after": figures(verdict.after),
        "instances": [
            {
                "instance": row.instance,
                "samples": row.samples,
                "healthy_in_a_row": row.healthy_in_a_row,
                "needed": row.needed,
                "last_status": row.last_status,
                "last_why": row.last_why,
            }
            for row in verdict.evidence[:SAMPLES_SHOWN]
        ],
    }
    return {"reasons": list(verdict.reasons), "evidence": evidence}


def _decide(gate: Gate, row: Deployment, verdict: rules.Verdict, now: datetime) -> None:
    """Record the verdict, end the deployment, and open the rollback when the workload asks for one. All or nothing."""
    text = " ".join(verdict.reasons)
    with transaction.atomic():
        decided = Gate.objects.running().filter(pk=gate.pk)
        if not decided.update(verdict=verdict.verdict, decided_at=now, **_kept(verdict)):
            return  # CI has reported a failure meanwhile
        row = records.locked(row)
        passed = verdict.verdict == GateVerdict.PASSED
        state = {GateVerdict.PASSED: ItemState.PASSED, GateVerdict.FAILED: ItemState.FAILED}.get(
            GateVerdict(verdict.verdict), ItemState.OPEN
        )
        checks.store(row, [checklist.Standing("health_passing", state, text[:300])], by=records.AUTOMATIC, at=now)
        records.step(row, StepKind.GATE_DECIDED, f"Gate {verdict.verdict}: {text}", by=records.AUTOMATIC, at=now)
        if verdict.verdict == GateVerdict.FAILED:
            _failed(row, text, now)
            return
        if passed:
            records.forget_failure(row)
        else:
            logger.warning(
                "The gate of %s is inconclusive: %s",
                row.pk,
                text,
                extra={"event": "deployment_inconclusive", "event_type": "deployment", "resource_id": row.pk},
            )
        _completed(row, now, passed=passed)


def _completed(row: Deployment, now: datetime, *, passed: bool) -> None:
    text = "Completed." if passed else "Completed, without a verdict of health."
    records.end(row, status=DeploymentStatus.COMPLETED, now=now, text=text, health_check_passed=passed)


def _give_up(gate: Gate, now: datetime) -> None:
    """End a gate whose looks break off each time. Nothing is known of the instances, so nothing is rolled back."""
    text = f"{gate.looks} looks were begun, and the last ones came to no end: the log of the workers says why."
    with transaction.atomic():
        stuck = Gate.objects.running().filter(pk=gate.pk, next_look_at=gate.next_look_at)
        if not stuck.update(verdict=GateVerdict.INCONCLUSIVE, decided_at=now, reasons=[text]):
            return
        row = records.locked(gate.deployment)
        records.step(row, StepKind.GATE_DECIDED, f"Gate inconclusive: {text}", by=records.AUTOMATIC, at=now)
        _completed(row, now, passed=False)
    logger.error(
        "The gate of %s was given up: %s",
        gate.pk,
        text,
        extra={"event": "gate_given_up", "event_type": "deployment", "resource_id": gate.pk},
    )


def _failed(row: Deployment, text: str, now: datetime) -> None:
    """End a deployment whose gate failed; hand its lock to the rollback, so that nobody comes in between."""
    records.remember_failure(row, reason=text, now=now)
    why_not, target = _no_rollback(row)
    if target is None:
        records.end(row, status=DeploymentStatus.FAILED, now=now, text=text)
        if why_not:
            records.step(row, StepKind.ROLLBACK, why_not, by=records.AUTOMATIC, at=now)
        return
    holder = row.pk
    records.end(row, status=DeploymentStatus.FAILED, now=now, text=text, keeps_lock=True)
    records.open_rollback(row, target, reason=f"The gate failed: {text}", by=records.AUTOMATIC, now=now, lock_of=holder)


def _no_rollback(row: Deployment) -> tuple[str, Deployment | None]:
    """Why nothing is rolled back, in a sentence for the timeline, or what to return to."""
    if not row.workload.auto_rollback:
        return "", None
    if StopSwitch.objects.filter(on=True).exists():
        return "Not rolled back: the stop switch is on. Roll back by hand if that is wanted.", None
    target = Deployment.objects.targets(row).first()
    if target is None:
        return "Not rolled back: there is no earlier good version to return to.", None
    return "", target


def roll_back(deployment_id: str, *, now: datetime) -> Deployment | None:
    """Bring a former version back through the workload's platform. None when the record is not to be had.

    The platform is asked at least once, and after a worker's death again, where that does no harm: each time with the
    same id.
    """
    row = _claimed(deployment_id, now)
    if row is None:
        return None
    release = Release(
        service=row.workload.service.slug,
        environment=row.environment,
        version=row.version,
        commit_sha=row.commit_sha,
        deployment_id=row.pk,
        reason=row.rollback_reason or "",
        kind=ROLLBACK,
    )
    began = time.monotonic()
    try:
        platform = platform_of(row.workload)
        asked = row.steps.filter(kind=StepKind.STARTED).count()
        if asked > 1 and not platform.repeatable:
            raise PlatformError(
                f"A worker died while it asked platform {row.workload.platform}, which may have begun: look there what "
                "runs now, then roll back again if it is not wanted."
            )
        if asked > ASKED_AT_MOST:
            raise PlatformError(
                f"{ASKED_AT_MOST} workers died while they asked platform {row.workload.platform}: look at their log, "
                "then roll back again."
            )
        receipt = platform.roll_out(release)
        done, text, url = receipt.accepted, receipt.detail, receipt.url
    except PulsewatchError as error:
        done, text, url = False, str(error), ""
    _record_rollback(row, done=done, text=text, url=url, now=now + timedelta(seconds=time.monotonic() - began))
    row.refresh_from_db()
    return row


def _claimed(deployment_id: str, now: datetime) -> Deployment | None:
    """Take a rollback that waits, or one over which a worker has died. None when there is none to take."""
    waiting = Deployment.objects.rollbacks_due(now).filter(pk=deployment_id)
    with transaction.atomic():
        text = "A worker asks the platform."
        if not waiting.filter(status=DeploymentStatus.QUEUED).update(
            status=DeploymentStatus.IN_PROGRESS, started_at=now, updated_at=now
        ):
            text = "The worker has died before it said how it ended; another one takes over."
            if not waiting.update(updated_at=now):
                return None
        row = Deployment.objects.select_related("workload__service", "undoes").get(pk=deployment_id)
        records.step(row, StepKind.STARTED, text, by=records.AUTOMATIC, at=now)
    return row


def _record_rollback(row: Deployment, *, done: bool, text: str, url: str, now: datetime) -> None:
    with transaction.atomic():
        records.step(row, StepKind.PLATFORM, text, by=records.AUTOMATIC, at=now)
        facts = {"deployment_log_url": url} if url else {}
        status = DeploymentStatus.ROLLED_BACK if done else DeploymentStatus.FAILED
        if records.end(row, status=status, now=now, text=text, **facts) and done:
            Deployment.objects.filter(pk=row.undoes_id, rolled_back_by=None).update(rolled_back_by=row, updated_at=now)
            # Else the next run of CI would bring the bad version out again.
            records.remember_failure(row.undoes, reason=row.rollback_reason or "It was rolled back.", now=now)
            records.make_current(row)


def tick(now: datetime) -> int:
    """Once a minute: wake what waits, end what was left open, archive what is old. Gives how many it touched."""
    touched = 0
    for key in Gate.objects.due(now).values_list("pk", flat=True):
        wake("deployments.gate", key)
        touched += 1
    for key in Deployment.objects.rollbacks_due(now).values_list("pk", flat=True):
        wake("deployments.roll_back", key)
        touched += 1
    for row in Deployment.objects.overdue(now).select_related("workload")[:BATCH]:
        text = f"Nobody finished it by {row.open_until:%Y-%m-%d %H:%M} UTC."
        with transaction.atomic():
            touched += records.end(row, status=DeploymentStatus.FAILED, now=now, text=text, timed_out=True)
    old = Deployment.objects.old(now).filter(archived=False).exclude(status__in=OPEN)
    keys = list(old.values_list("pk", flat=True)[:BATCH])
    touched += Deployment.objects.filter(pk__in=keys).update(archived=True)
    return touched + _end_stuck_gates(now)


def _end_stuck_gates(now: datetime) -> int:
    """Give up the gates whose looks break off each time. What keeps one from being ended keeps no other one."""
    given_up = 0
    for gate in Gate.objects.due(now).select_related("deployment__workload"):
        if not rules.is_stuck(gate.started_at, timedelta(seconds=gate.window_seconds), gate.next_look_at, now):
            continue
        try:
            _give_up(gate, now)
            given_up += 1
        except (DatabaseError, PulsewatchError):
            logger.exception(
                "The gate of %s could not be ended",
                gate.pk,
                extra={"event": "gate_not_ended", "event_type": "deployment", "resource_id": gate.pk},
            )
    return given_up

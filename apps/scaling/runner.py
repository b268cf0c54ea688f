"""What a worker does for scaling: evaluate the policies whose window has ended, and make the changes intended.

A change is intended in a row, then made, then confirmed by reading the platform back. Whatever dies in between leaves
the row unsettled; the next tick has another worker look at what the platform says now.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from time import monotonic, sleep
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from apps.core.errors import Conflict
from apps.core.models import MAX_REASON, StopSwitch
from apps.core.wake import wake
from apps.health.models import UtilisationMinute
from apps.inventory.models import Workload
from apps.inventory.platforms.base import Count, CountChanged, PlatformError, PlatformUnavailable, Scaler
from apps.inventory.runner import scaler_of
from apps.scaling import history, records
from apps.scaling.choices import DecisionAction, Outcome, Trigger
from apps.scaling.models import MAX_PERIOD, ScalingDecision, ScalingEvent, ScalingPolicy, ScalingTotal
from apps.scaling.rules.evaluation import HOLD, NOTHING_YET, Decision, evaluate
from apps.scaling.rules.usage import boundary, windows

logger = logging.getLogger(__name__)

LEASE = timedelta(seconds=90)  # longer than a platform may take to answer and to follow
CONFIRM_SECONDS = 20.0  # how long the platform may take until its own count says what was asked for
LOOK_SECONDS = 0.5  # between two looks at it
DECISIONS_KEPT, EVENTS_KEPT = timedelta(days=7), timedelta(days=90)
BATCH = 1000  # rows removed at once
LATE_WITHIN = timedelta(minutes=15)  # what the sampler writes again; older minutes once their hour is summed up
LATEST = timedelta(hours=26)  # a push may be 24 hours old
READERS = 50  # platforms read at the same time
READ_SECONDS = 45.0  # for all of them; each is given up after 12, and a tick may take 100
MOST_COUNTED = 100_000  # instances that a platform may say it runs
UNREACHED = "platform"  # the rule of a decision that did not learn how many instances run


def tick(now: datetime) -> None:
    """Once a minute: settle what dead workers left, evaluate the windows that have ended."""
    unsettled = list(ScalingEvent.objects.unsettled())
    recover(unsettled, now)
    evaluate_due(now, unsettled)
    mark_late(now - LATE_WITHIN)


# --- Evaluating -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Case:
    """One policy whose window has ended."""

    policy: ScalingPolicy
    workload: Workload
    end: int
    stopped: bool  # by the stop switch
    known: tuple[datetime, int] | None = None  # what the platform said at the evaluation before, and when
    count: int | None = None  # None: the platform did not say
    trouble: str = ""  # why not


def evaluate_due(now: datetime, events: Iterable[ScalingEvent]) -> list[ScalingDecision]:
    """Decide for every enabled policy whose newest window has ended and is not decided yet.

    `events` are those that are not settled: their workloads are left alone.
    """
    cases = _due(now)
    if not cases:
        return []
    minutes = history.minutes_of(
        {case.workload.pk: (case.end - case.policy.rule().lookback, case.end) for case in cases}
    )
    pasts = records.pasts([case.workload.pk for case in cases], until=now)
    unsettled = {event.workload_id: event.pk for event in events}
    _count_all(cases, minutes)
    held: list[ScalingDecision] = []
    moved: list[tuple[Case, ScalingDecision, Decision]] = []
    for case in cases:
        rows = minutes.get(case.workload.pk, [])
        policy = case.policy.rule()
        decision = evaluate(
            policy,
            windows(policy, rows, case.end),
            end=case.end,
            count=case.count or 0,
            past=pasts.get(case.workload.pk, NOTHING_YET),
            held=case.trouble or _held(case, unsettled.get(case.workload.pk), now),
        )
        row = _row(case, decision, rows, now)
        if decision.action == HOLD:
            held.append(row)
        else:
            moved.append((case, row, decision))
    # Of two beats one evaluates a window: the constraint leaves out what the other has stored.
    ScalingDecision.objects.bulk_create(held, ignore_conflicts=True)
    for case, row, decision in moved:
        _intend(case, row, decision, now)
    return [*held, *(row for _, row, _ in moved)]


def _due(now: datetime) -> list[Case]:
    stopped = Exists(StopSwitch.objects.filter(on=True))
    policies = list(ScalingPolicy.objects.filter(enabled=True).annotate(stopped=stopped).select_related("service"))
    seconds = int(now.timestamp())
    ends = {policy.pk: boundary(policy.evaluation_period_seconds, seconds) for policy in policies}
    if not ends:
        return []
    since = _moment(min(ends.values()) - MAX_PERIOD)
    # What lies ahead was written while the clock was wrong: nothing waits until then.
    earlier = ScalingDecision.objects.filter(boundary__gte=since, boundary__lte=now).order_by("boundary")
    newest = {policy: (boundary, at, count if rule != UNREACHED else None) for policy, boundary, at, count, rule
              in earlier.values_list("policy", "boundary", "evaluated_at", "instances_before", "rule")}  # fmt: skip
    waiting = [
        policy for policy in policies if policy.pk not in newest or newest[policy.pk][0] < _moment(ends[policy.pk])
    ]
    workloads = {
        (workload.service_id, workload.environment): workload
        for workload in Workload.objects.filter(service__in={policy.service_id for policy in waiting}).select_related(
            "service"
        )
    }
    return [
        Case(policy, workload, ends[policy.pk], policy.stopped, known=_known(newest.get(policy.pk)))
        for policy in waiting
        if (workload := workloads.get((policy.service_id, policy.environment))) is not None
    ]


def _known(before: tuple[datetime, datetime, int | None] | None) -> tuple[datetime, int] | None:
    return None if before is None or before[2] is None else (before[1], before[2])


def _count_all(cases: Sequence[Case], minutes: Mapping[int, Sequence[history.Minute]]) -> None:
    """How many instances each workload has: what its platform says, else how many should have reported last."""
    asked = []
    for case in cases:
        if records.scales(case.workload):
            asked.append(case)
        else:
            rows = minutes.get(case.workload.pk)
            case.count = max(rows, key=lambda minute: minute.at).ran if rows else None
            case.trouble = "" if rows else "nobody knows how many instances run: no sample has come yet"
    if not asked:
        return
    began = datetime.now(UTC)
    _read(asked)
    _note_foreign(asked, datetime.now(UTC), since=began)
    history.note_units({(case.workload.pk, case.end): case.count for case in asked if case.count is not None})


def _read(asked: Sequence[Case]) -> None:
    """Ask all platforms at once. A slow one holds up nobody else: what is not there in time is not waited for."""
    readers = ThreadPoolExecutor(min(READERS, len(asked)), thread_name_prefix="platform")
    try:
        scalers = [(case, _scaler(case)) for case in asked]  # secrets are unsealed here, where the database is at hand
        futures = [(case, readers.submit(scaler.count)) for case, scaler in scalers if scaler is not None]
        wait([future for _, future in futures], timeout=READ_SECONDS)
        for case, future in futures:
            case.count, case.trouble = _counted(future)
    finally:
        readers.shutdown(wait=False, cancel_futures=True)


def _counted(future: Future[Count]) -> tuple[int | None, str]:
    """The count that a platform said, or why none is known."""
    if not future.done():
        return None, f"the platform did not answer within {READ_SECONDS:g} s, or others before it took so long"
    try:
        count = future.result().desired
    except PlatformError as error:
        return None, f"the platform did not say how many instances run: {error}"
    if not 0 <= count <= MOST_COUNTED:
        return None, f"the platform says that {count} instances run, which cannot be: look at it"
    return count, ""


def _note_foreign(asked: Sequence[Case], now: datetime, *, since: datetime) -> None:
    """Record that a count is another than the one last known, and that it was none of our changes.

    The platforms were asked from `since` on: what was confirmed later may be missing in what they said.
    """
    changes: dict[int, tuple[datetime, int]] = {}
    failed: dict[int, tuple[str, int]] = {}
    moving: set[int] = set()
    ours = ScalingEvent.objects.filter(workload__in=[case.workload.pk for case in asked])
    recent = ours.filter(created_at__gte=now - timedelta(seconds=3 * MAX_PERIOD)).order_by("created_at")
    recent = recent.filter(Q(created_at__lte=now) | Q(success=None))  # not what was written while the clock was wrong
    columns = ("pk", "workload", "success", "settled_at", "instances_after")
    for key, workload_id, success, settled_at, after in recent.values_list(*columns):
        if settled_at is None or settled_at >= since:
            moving.add(workload_id)  # one of ours may or may not have happened yet
        elif success:
            changes[workload_id] = (settled_at, after)
            failed.pop(workload_id, None)
        else:
            failed[workload_id] = (key, after)
    for case in asked:
        if case.workload.pk in moving:
            continue
        known = max(filter(None, (case.known, changes.get(case.workload.pk))), default=None)
        if case.count is not None and known is not None and case.count != known[1]:
            key, wanted = failed.get(case.workload.pk, ("", None))
            records.note_foreign(
                case.workload,
                before=known[1],
                after=case.count,
                late=key if wanted == case.count else "",
                known_at=known[0],
                now=now,
            )


def _scaler(case: Case) -> Scaler | None:
    try:
        return scaler_of(case.workload)
    except PlatformError as error:
        case.trouble = str(error)
        return None


def _held(case: Case, unsettled: str | None, now: datetime) -> str:
    policy, workload = case.policy, case.workload
    if case.stopped:
        return "the stop switch is on"
    if policy.paused_until is not None and policy.paused_until > now:
        return f"paused by {policy.paused_by} until {policy.paused_until:%Y-%m-%d %H:%M} UTC: {policy.paused_reason}"
    if unsettled:
        return f"{unsettled} is not settled yet"
    if workload.change_lock:
        return f"{workload.change_lock} ({workload.change_lock_by}) is changing it"
    return ""


def _row(case: Case, decision: Decision, minutes: Iterable[history.Minute], now: datetime) -> ScalingDecision:
    start = decision.windows[0].start
    return ScalingDecision(
        policy=case.policy,
        boundary=_moment(decision.at),
        looked_from=_moment(start),
        samples=sum(minute.samples for minute in minutes if start <= minute.at < decision.at),
        evaluated_at=now,
        action=decision.action,
        rule=UNREACHED if case.trouble else decision.rule,
        reason=decision.reason[:MAX_REASON],
        instances_before=decision.before,
        instances_after=decision.after,
        figures=[history.figures(window) for window in decision.windows],
    )


def _intend(case: Case, row: ScalingDecision, decision: Decision, now: datetime) -> None:
    """Store a decision to act together with the intent; where another beat has, or somebody is faster, nothing."""
    newest = decision.windows[-1].usage if decision.windows else {}
    measured = {metric: usage.measured for metric, usage in newest.items()}
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            if not records.scales(case.workload):
                return  # the decision is the advice
            records.intend(
                workload=case.workload,
                at=row.boundary,
                action=decision.action,
                before=decision.before,
                after=decision.after,
                reason=row.reason,
                trigger=Trigger.AUTOSCALER,
                cpu=measured.get("cpu"),
                memory=measured.get("memory"),
                now=now,
            )
    except IntegrityError:
        if not ScalingDecision.objects.filter(policy=row.policy_id, boundary=row.boundary).exists():
            raise
    except Conflict as conflict:
        row.action, row.rule, row.instances_after = DecisionAction.HOLD, "held", row.instances_before
        row.reason = f"held: {conflict}"[:MAX_REASON]
        ScalingDecision.objects.bulk_create([row], ignore_conflicts=True)


def mark_late(since: datetime) -> int:
    """Mark the decisions from then on whose windows are made from other samples now; gives how many.

    They stay as they were made. A replay, which knows all samples, may differ from them.
    """
    now_there = (
        UtilisationMinute.objects.filter(
            workload__service=OuterRef("policy__service"),
            workload__environment=OuterRef("policy__environment"),
            minute__gte=OuterRef("looked_from"),
            minute__lt=OuterRef("boundary"),
        )
        .order_by()
        .values("workload")
        .annotate(all=Sum("samples"))
        .values("all")
    )
    known = ScalingDecision.objects.filter(boundary__gte=since, late_samples=False, samples__isnull=False)
    late = known.exclude(samples=Coalesce(Subquery(now_there), 0)).order_by().values_list("pk", flat=True)
    return sum(ScalingDecision.objects.filter(pk__in=keys).update(late_samples=True) for keys in _batches(late))


# --- Acting -----------------------------------------------------------------------------------------------------------


def act(event_id: str, *, now: datetime) -> ScalingEvent | None:
    """Make one intended change and settle it. None when it is settled, or in the hands of another worker."""
    # A lease that ends later than any can was taken while the clock was wrong.
    free = Q(lease_until=None) | Q(lease_until__lte=now) | Q(lease_until__gt=now + LEASE)
    waiting = ScalingEvent.objects.unsettled().filter(free, pk=event_id)
    if not waiting.update(lease_until=now + LEASE):
        return None
    event = ScalingEvent.objects.select_related("workload__service").get(pk=event_id)
    try:
        error = _change(event, now)
    except PlatformError as fault:
        error = str(fault)
    records.settle(event, error=error, now=datetime.now(UTC))
    event.refresh_from_db()
    level = logging.WARNING if error else logging.INFO
    logger.log(
        level,
        "%s: %s from %d to %d instances%s",
        event.pk,
        event.workload,
        event.instances_before,
        event.instances_after,
        f" failed: {error}" if error else "",
        extra={"event": "scaled" if not error else "scaling_failed", "event_type": "scaling", "resource_id": event.pk},
    )
    return event


def _change(event: ScalingEvent, now: datetime) -> str:
    """Bring the platform to the intended count; why not, or empty. Raises PlatformError."""
    scaler = scaler_of(event.workload)
    if scaler is None:
        return f"{event.workload.get_platform_display()} scales nothing: the platform was changed meanwhile."
    seen = scaler.count()
    if seen.desired == event.instances_after:
        return ""  # a worker before us got so far, or somebody did the same
    if event.triggered_by == Trigger.AUTOSCALER:
        if seen.desired != event.instances_before:
            return (
                f"Somebody else had changed the count from {event.instances_before} to {seen.desired} meanwhile; the "
                "next window decides anew."
            )
        if withdrawn := _withdrawn(event, now):
            return f"{withdrawn} before the change was made."
    else:
        ScalingEvent.objects.filter(pk=event.pk).update(instances_before=seen.desired)
    try:
        scaler.scale(event.instances_after, seen=seen)
    except CountChanged as fault:
        return str(fault)
    except PlatformUnavailable as fault:
        # The answer may have been lost on its way, and not the order.
        return "" if _runs(scaler, event.instances_after) else str(fault)
    return _unconfirmed(scaler, event.instances_after)


def _withdrawn(event: ScalingEvent, now: datetime) -> str:
    """What somebody has done since the decision so that nothing be changed; empty: nothing."""
    if StopSwitch.objects.filter(on=True).exists():
        return "The stop switch was turned on"
    policy = ScalingPolicy.objects.filter(service=event.service_id, environment=event.environment, enabled=True).first()
    if policy is None:
        return "The policy was switched off"
    if policy.paused_until is not None and policy.paused_until > now:
        return f"{policy.paused_by} paused the policy ({policy.paused_reason})"
    return ""


def _runs(scaler: Scaler, wanted: int) -> bool:
    """Whether the platform says so; one that says nothing does not."""
    try:
        return scaler.count().desired == wanted
    except PlatformError:
        return False


def _unconfirmed(scaler: Scaler, wanted: int) -> str:
    """Look until the platform's own count is the one that was asked for; what it is instead, or empty."""
    deadline = monotonic() + CONFIRM_SECONDS
    while True:
        try:
            runs = scaler.count().desired
            instead = f"The platform accepted {wanted} and runs {runs} after {CONFIRM_SECONDS:g} s."
        except PlatformUnavailable as fault:
            runs, instead = None, f"The platform accepted {wanted}, and then did not say how many run: {fault}"
        if runs == wanted:
            return ""
        if monotonic() > deadline:
            return instead
        sleep(LOOK_SECONDS)


def recover(unsettled: Iterable[ScalingEvent], now: datetime) -> int:
    """Wake a worker for every change that was intended and whose worker has died; gives how many."""
    ends = ((event, event.lease_until or event.created_at + LEASE) for event in unsettled)
    left = [event for event, end in ends if not now < end <= now + LEASE]
    for event in left:
        wake("scaling.act", event.pk)
    return len(left)


def _batches(rows: Iterable[Any]) -> Iterator[list[Any]]:
    """All of it at once from the database, then so many at a time: what is done with them changes the rows."""
    waiting = iter(list(rows))
    while batch := list(islice(waiting, BATCH)):
        yield batch


def forget(now: datetime) -> None:
    """Remove decisions of more than 7 days ago and events of more than 90, in short transactions."""
    if StopSwitch.objects.filter(on=True).exists():
        return
    policies = {row.pk: row for row in ScalingPolicy.objects.all()}
    _remove(
        ScalingDecision.objects.filter(boundary__lt=now - DECISIONS_KEPT).defer("figures", "reason"),
        lambda row: (policies.get(row.policy_id) or row.policy, Outcome.DECIDED),
    )
    _remove(
        ScalingEvent.objects.filter(timestamp__lt=now - EVENTS_KEPT).exclude(success=None),
        lambda row: (row, Outcome.SUCCESS if row.success else Outcome.FAILED),
    )


def _remove(rows: QuerySet[Any], place: Callable[[Any], tuple[ScalingPolicy | ScalingEvent, Outcome]]) -> None:
    """Remove rows and add them to the totals, a batch in a transaction: whoever comes second passes them over."""
    # Locked by their keys: a locking search would lock the gaps between them too, and two of those lock crosswise.
    while keys := sorted(rows.values_list("pk", flat=True)[:BATCH]):
        with transaction.atomic():
            gone = list(rows.filter(pk__in=keys).order_by("pk").select_for_update(skip_locked=True))
            if not gone:
                return
            counted: Counter[tuple[int, str, str, str]] = Counter()
            for row in gone:
                where, outcome = place(row)
                counted[where.service_id, where.environment, row.action, outcome] += 1
            for (service_id, environment, action, outcome), count in sorted(counted.items()):
                ScalingTotal.objects.get_or_create(
                    service_id=service_id, environment=environment, action=action, outcome=outcome
                )
                ScalingTotal.objects.filter(
                    service=service_id, environment=environment, action=action, outcome=outcome
                ).update(count=F("count") + count)
            rows.model._default_manager.filter(pk__in=[row.pk for row in gone]).delete()


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)

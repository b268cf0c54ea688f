"""What Pulsewatch's own parts, a person or a client may ask of alerts.

Routes and maintenance windows have their verbs in apps.alerts.arrangements.

`settle` is for the parts: they say what is wrong now, and alerts open and close accordingly. It is told levels, not
events, so that nothing is lost when a process dies between noticing and telling: the next call makes it good.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from django.db import IntegrityError, transaction
from django.db.models import Value
from django.db.models.functions import Greatest
from django.utils import timezone

from apps.alerts import outbox
from apps.alerts.choices import AlertKind, EventKind, Severity
from apps.alerts.models import MAX_DETAIL, MAX_SUBJECT, MAX_TITLE, SUBJECT, Alert, AlertEvent
from apps.alerts.rules import levels
from apps.alerts.rules.levels import Move
from apps.core import audit, ids
from apps.core.audit import Actor
from apps.core.choices import Environment
from apps.core.display import moment, span
from apps.core.errors import Conflict, Invalid
from apps.core.models import MAX_REASON
from apps.core.redaction import redact

logger = logging.getLogger(__name__)

ASKED_AT_ONCE = 500  # subjects in one query; with more of them all open alerts of the kind are read
WORDS = ("title", "detail", "environment", "service", "path", "runbook_url")
CHANGING = (
    *(*WORDS, "severity", "cleared_at", "flapping", "flaps"),
    *("acknowledged_at", "acknowledged_by", "acknowledged_note", "updated_at"),
)


@dataclass(frozen=True, slots=True)
class Firing:
    """One subject that is wrong now."""

    subject: str  # key such as "endpoint:17", "workload:app/production", "database:shop"
    title: str  # "GET https://shop.example/api is down"
    detail: str  # a sentence with figures; what to do next
    severity: str  # critical | warning | info
    environment: str = ""
    service: str = ""  # slug
    path: str = ""  # page in the console, such as /admin/health/endpointstate/17/change/
    runbook_url: str = ""


@dataclass(slots=True)
class Settled:
    """What a call has changed, as keys of alerts."""

    opened: list[str] = field(default_factory=list)
    escalated: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.opened or self.escalated or self.closed)


def settle(
    kind: str,
    firing: Iterable[Firing],
    *,
    now: datetime,
    subjects: Collection[str] | None = None,
    again: Callable[[Collection[str]], Iterable[Firing]] | None = None,
) -> Settled:
    """Make the open alerts of a kind those that `firing` says, the complete set of what is wrong now.

    With `subjects`, complete for these only; other alerts stay as they are. `again` says anew which of some subjects
    are wrong, and locks what it reads: it is asked before anything changes, for what was seen may have passed
    meanwhile. May be called by many at once and again and again: what is settled already costs one query. Raises
    ValueError for what no caller may say.
    """
    wrong = _checked(kind, firing)
    about = None if subjects is None else {subject.lower() for subject in subjects} | wrong.keys()
    moving = {subject for subject, _ in _moves(_open(kind, about), wrong, {}, now)}
    if not moving:
        return Settled()
    with transaction.atomic():
        # Read once more, now that nobody else can change them: of two who noticed the same, one does it.
        known = {subject: row for subject, row in _open(kind, about, lock=True).items() if subject in moving}
        wrong = {subject: one for subject, one in wrong.items() if subject in moving}
        if again is not None:
            wrong = {subject: one for subject, one in _checked(kind, again(moving)).items() if subject in moving}
        changing = [subject for subject in moving if (subject in known) != (subject in wrong)]
        moves = list(_moves(known, wrong, _changes(kind, changing, now), now))
        return _apply(kind, moves, known, wrong, now)


def _checked(kind: str, firing: Iterable[Firing]) -> dict[str, Firing]:
    """By subject; case does not count, for it does not in MySQL's columns either."""
    if kind not in AlertKind.values:
        raise ValueError(f"{kind!r} is no kind of alert")
    wrong: dict[str, Firing] = {}
    for one in firing:
        if not SUBJECT.fullmatch(one.subject) or len(one.subject) > MAX_SUBJECT:
            raise ValueError(f"{one.subject!r} is no subject: kind and key in ASCII without spaces are")
        if one.severity not in Severity.values or one.environment not in ("", *Environment.values):
            raise ValueError(f"{one.subject} has an unknown severity or environment")
        if not one.title.strip():
            raise ValueError(f"{one.subject} does not say what is wrong")
        wrong[one.subject.lower()] = one
    return wrong


def _open(kind: str, about: Collection[str] | None, *, lock: bool = False) -> dict[str, Alert]:
    rows = Alert.objects.open().filter(kind=kind).order_by("pk")
    if about is not None and len(about) <= ASKED_AT_ONCE:
        rows = rows.filter(open_subject__in=about)
    if lock:
        rows = rows.select_for_update()
    found = {row.subject.lower(): row for row in rows}
    return found if about is None else {subject: row for subject, row in found.items() if subject in about}


_Move = tuple[str, Move]


def _moves(
    known: dict[str, Alert], wrong: dict[str, Firing], earlier: dict[str, list[datetime]], now: datetime
) -> Iterable[_Move]:
    """What is to be done, in the order of the subjects: two workers that insert the same never lock crosswise."""
    for subject in sorted({*known, *wrong}):
        alert, one = known.get(subject), wrong.get(subject)
        stored = alert and levels.Known(alert.severity, alert.opened_at, alert.flapping, alert.cleared_at)
        if one is not None:
            move = levels.firing(stored, one.severity, same_words=alert is not None and _words(one) == _kept(alert))
        else:
            assert stored is not None
            move = levels.quiet(stored, earlier.get(subject, ()), now)
        if move != Move.NOTHING:
            yield subject, move


@lru_cache(maxsize=20_000)  # the same words come every minute, and hiding secrets in them takes a while
def _harmless(text: str, length: int) -> str:
    return redact(text)[:length]


def _words(one: Firing) -> tuple[str, ...]:
    """What is stored of it: without secrets, on one line where that is due, and no longer than the columns."""
    return (
        _harmless(" ".join(one.title.split()), MAX_TITLE),
        _harmless(one.detail.strip(), MAX_DETAIL),
        one.environment,
        one.service,
        one.path[:300],
        one.runbook_url[:300],
    )


def _kept(alert: Alert) -> tuple[str, ...]:
    return tuple(getattr(alert, name) for name in WORDS)


def _changes(kind: str, subjects: Sequence[str], now: datetime) -> dict[str, list[datetime]]:
    """When former alerts of these subjects opened and closed of late."""
    rows = Alert.objects.filter(kind=kind, closed_at__gt=now - levels.FLAP_WINDOW)
    if len(subjects) <= ASKED_AT_ONCE:
        rows = rows.filter(subject__in=subjects)
    found: dict[str, list[datetime]] = {}
    for subject, opened_at, closed_at in rows.values_list("subject", "opened_at", "closed_at"):
        found.setdefault(subject.lower(), []).extend((opened_at, closed_at))
    return found


def _apply(
    kind: str, moves: Sequence[_Move], known: dict[str, Alert], wrong: dict[str, Firing], now: datetime
) -> Settled:
    done, events, changed, closed = Settled(), [], [], []
    opened = _insert([_new(kind, wrong[subject], now) for subject, move in moves if move == Move.OPEN])
    for alert in opened:
        done.opened.append(alert.pk)
        events.append(outbox.line(alert, EventKind.OPENED, _cut(alert.detail or alert.title), at=now))
    for subject, move in moves:
        if move == Move.OPEN:
            continue
        alert, one = known[subject], wrong.get(subject)
        if one is not None:
            for name, value in zip(WORDS, _words(one), strict=True):
                setattr(alert, name, value)
            alert.cleared_at = None
        alert.updated_at = now
        (closed if move == Move.CLOSE else changed).append(alert)
        if move == Move.ESCALATE and one is not None:
            done.escalated.append(alert.pk)
            events.append(_escalate(alert, one.severity, now))
        elif move == Move.HOLD:
            events += _hold(alert, now)
        elif move == Move.CLOSE:
            done.closed.append(alert.pk)
            events.append(_close(alert, now))
    Alert.objects.bulk_update(changed, CHANGING, batch_size=outbox.BATCH)
    # Many may close at once, and all in the same way.
    rows = Alert.objects.filter(pk__in=[alert.pk for alert in closed])
    rows.update(closed_at=Greatest("opened_at", Value(now)), updated_at=now)
    outbox.record(events)
    if done:
        logger.warning(
            "Alerts of kind %s: %d opened, %d escalated, %d closed",
            *(kind, len(done.opened), len(done.escalated), len(done.closed)),
            extra={"event": "alerts_settled", "event_type": "alert", "kind": kind},
        )
    return done


def _new(kind: str, one: Firing, now: datetime) -> Alert:
    words = dict(zip(WORDS, _words(one), strict=True))
    return Alert(
        id=f"{ids.timestamped('alert', now)}_{ids.suffix(8)}",
        kind=kind,
        subject=one.subject.lower(),
        severity=one.severity,
        opened_at=now,
        **words,
    )


def _insert(alerts: list[Alert]) -> list[Alert]:
    """Store new alerts; gives those that another worker has not opened meanwhile."""
    try:
        with transaction.atomic():
            return Alert.objects.bulk_create(alerts, batch_size=outbox.BATCH)
    except IntegrityError:
        return [alert for alert in alerts if _inserted(alert)]


def _inserted(alert: Alert) -> bool:
    try:
        with transaction.atomic():
            alert.save(force_insert=True)
    except IntegrityError:
        if not Alert.objects.filter(kind=alert.kind, open_subject=alert.subject).exists():
            raise
        return False
    return True


def _escalate(alert: Alert, severity: str, now: datetime) -> AlertEvent:
    """Raise the severity. Who acknowledged the lesser trouble has not acknowledged this one."""
    before, alert.severity = alert.severity, severity
    alert.acknowledged_at, alert.acknowledged_by, alert.acknowledged_note = None, "", ""
    return outbox.line(alert, EventKind.ESCALATED, _cut(f"From {before} to {severity}. {alert.detail}"), at=now)


def _hold(alert: Alert, now: datetime) -> list[AlertEvent]:
    was_flapping, alert.flapping = alert.flapping, True
    alert.cleared_at, alert.flaps = now, alert.flaps + 1
    minutes = int(levels.CALM.total_seconds() // 60)
    text = f"It keeps breaking and recovering, so it stays open until it has been well for {minutes} minutes."
    return [] if was_flapping else [outbox.line(alert, EventKind.FLAPPING, text, at=now)]


def _close(alert: Alert, now: datetime) -> AlertEvent:
    alert.closed_at = max(now, alert.opened_at)  # a clock that was set back
    lasted = span(alert.closed_at - alert.opened_at)
    return outbox.line(alert, EventKind.CLOSED, f"Well again after {lasted}.", at=now)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON - 1]}…"


def acknowledge(*, alert: Alert, actor: Actor, note: str = "") -> Alert:
    """Say that somebody looks after it: no reminders from now on. Raises Conflict when it is closed, or was before."""
    now = timezone.now()
    text = redact(" ".join(note.split()))
    if len(text) > MAX_REASON:
        raise Invalid(f"Keep the note to {MAX_REASON} characters.", field="note")
    with transaction.atomic():
        mine = Alert.objects.open().filter(pk=alert.pk, acknowledged_at=None)
        done = mine.update(acknowledged_at=now, acknowledged_by=actor.name, acknowledged_note=text, updated_at=now)
        alert.refresh_from_db()
        if not done:
            raise Conflict(
                f"{alert.acknowledged_by} has acknowledged it already, at {moment(alert.acknowledged_at)}."
                if alert.is_open
                else f"It has been well again since {moment(alert.closed_at)}; there is nothing to acknowledge."
            )
        outbox.line(alert, EventKind.ACKNOWLEDGED, text or "Acknowledged.", at=now, by=actor.name).save()
        audit.record(
            actor=actor,
            action="alert.acknowledge",
            subject=f"alert:{alert.pk}",
            after={"kind": alert.kind, "subject": alert.subject},
            reason=text,
        )
    return alert

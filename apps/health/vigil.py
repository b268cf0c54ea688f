"""Pulsewatch watches itself: each queue's worker notes that it lives, and tells of the parts that do not."""

from datetime import datetime, timedelta

from django.db.models import Max

from apps.alerts.choices import AlertKind, Severity
from apps.alerts.services import Firing, settle
from apps.core import freshness, heartbeats
from apps.health.models import ProbeSlice

PROBER = "prober"
PROBER_PATIENCE = timedelta(minutes=3)  # each minute has a slice, and its holder says every ten seconds that it lives

_TITLES = {
    PROBER: "Endpoints and databases are not checked",
    freshness.FAST: "The worker of queue “fast” is silent",
    freshness.LONG: "The worker of queue “long” is silent",
    freshness.SAMPLER: "No instance is sampled",
    freshness.ROLLUPS: "Old checks pile up",
}


def keep(queue: str, now: datetime) -> bool:
    """Note that the worker of a queue lives, then open and close the alerts about the other parts.

    False, and no alerts, when the queue itself had been silent: whatever made it so may have silenced the others too,
    and they get a minute to come back. That beat is silent nobody can tell from here, for nobody is called then; the
    banner and the dead-man's watcher do.
    """
    silent = heartbeats.stale(now)
    heartbeats.beat(queue, now)
    if any(part.source in (queue, freshness.BEAT) for part in silent):
        return False
    if not any(part.source == freshness.FAST for part in silent):
        silent += _prober(now)
    settle(AlertKind.PULSEWATCH_STALE, [_firing(part) for part in silent], now=now)
    return True


def _prober(now: datetime) -> list[freshness.Stale]:
    """The prober, if it is silent: all targets would look as they last did. One that never ran is not expected yet."""
    last = ProbeSlice.objects.aggregate(at=Max("beat_at"))["at"]
    if last is None or abs(now - last) <= PROBER_PATIENCE:
        return []
    text = (
        "No slice of checks is at work, though queue “fast” is: the log of its worker says why. What is shown is old."
    )
    return [freshness.Stale(PROBER, last, text)]


def _firing(part: freshness.Stale) -> Firing:
    return Firing(
        subject=f"pulsewatch:{part.source}",
        title=_TITLES[part.source],
        detail=f"{part.text} Last sign of life: {part.since:%Y-%m-%d %H:%M} UTC.",
        severity=Severity.WARNING if part.source == freshness.ROLLUPS else Severity.CRITICAL,
        path="/admin/",
    )

"""Pulsewatch watches itself: each queue's worker notes that it lives, and tells of the parts that do not."""

from datetime import datetime

from apps.alerts.choices import AlertKind, Severity
from apps.alerts.services import Firing, settle
from apps.core import freshness, heartbeats

_TITLES = {
    freshness.PROBER: "Endpoints and databases are not checked",
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
    settle(AlertKind.PULSEWATCH_STALE, [_firing(part) for part in silent], now=now)
    return True


def _firing(part: freshness.Stale) -> Firing:
    return Firing(
        subject=f"pulsewatch:{part.source}",
        title=_TITLES[part.source],
        detail=f"{part.text} Last sign of life: {part.since:%Y-%m-%d %H:%M} UTC.",
        severity=Severity.WARNING if part.source == freshness.ROLLUPS else Severity.CRITICAL,
        path="/admin/",
    )

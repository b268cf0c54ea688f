"""Whether Pulsewatch itself is at work. Pure: no clock, no database, no Django."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

# The words are those of apps.core.choices; plain strings here keep the rules free of Django.
FAST, LONG, SAMPLER, PROBER, ROLLUPS = "fast", "long", "sampler", "prober", "rollups"

# How long each may be silent. Beat's messages come every minute, so 150 s are two of them and some.
PATIENCE = {
    FAST: timedelta(seconds=150),
    LONG: timedelta(seconds=150),
    SAMPLER: timedelta(seconds=180),
    # Each minute has a slice, whose holder says every ten seconds that it lives; but a worker may be silent for 150 s,
    # and back it waits for the next minute's message.
    PROBER: timedelta(minutes=4),
    # Every quarter of an hour, but behind a dump, which may take 12 hours.
    ROLLUPS: timedelta(hours=13),
}
BEAT = "beat"
_IN_FAST = (SAMPLER, PROBER)  # what waits in that queue is silent with it


@dataclass(frozen=True, slots=True)
class Stale:
    """A part of Pulsewatch that gives no sign of life: since when, what it means, and what to do."""

    source: str
    since: datetime
    text: str


def stale(beats: Mapping[str, datetime], now: datetime, patience: Mapping[str, timedelta] = PATIENCE) -> list[Stale]:
    """Who has been silent for too long, the cause before its consequences.

    A source that never gave a sign is not expected yet: `prepare` expects all of them from then on.
    """
    silent = {
        source: beats[source]
        for source, limit in patience.items()
        # A sign from the future, from a clock that was set back since, is no sign either.
        if source in beats and abs(now - beats[source]) > limit
    }
    if FAST in silent:
        silent = {source: since for source, since in silent.items() if source not in _IN_FAST}
    if FAST in silent and LONG in silent:
        # What both wait for is the likelier culprit than both at once.
        since = max(silent.pop(FAST), silent.pop(LONG))
        silent = {BEAT: since, **silent}
    return [Stale(source, since, _TEXTS[source]) for source, since in silent.items()]


_TEXTS = {
    BEAT: "Nothing that beat sends is done: check that beat and the workers run and reach Redis and the database.",
    FAST: "The worker of queue “fast” does nothing, neither samples nor alerts: check that it runs and reaches Redis.",
    LONG: "The worker of queue “long” does nothing, no backup either: check that it runs and reaches Redis.",
    SAMPLER: "No instance is sampled, though the worker of queue “fast” is at work: its log says why.",
    PROBER: "No endpoint or database is checked, though the worker of queue “fast” is at work: its log says why. What "
    "is shown of them is old.",
    ROLLUPS: "Old checks are neither summed up nor deleted: the log of the worker of queue “long” says why.",
}

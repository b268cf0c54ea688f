"""Whether the fault is ours: when nearly everything fails at once, the prober's own network is the likelier cause."""

from collections.abc import Iterable
from dataclasses import dataclass

SHARE = 0.9  # of the targets that were good before: from here on we suspect ourselves
CLEARED = 0.5  # below: no longer
# Seconds looked back, and how many targets must have been checked in them. A large fleet is judged on a few seconds,
# before the first of its targets counts as failed; a small one on a minute.
WINDOWS = ((20.0, 10), (60.0, 5))


@dataclass(slots=True)
class Seen:
    """The newest check of a target: when (seconds of any clock), whether it failed, and since when it is down."""

    at: float
    failed: bool
    down_since: float | None = None


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Whether we suspect ourselves, and on how many targets the judgement rests."""

    held: bool
    failing: int = 0
    of: int = 0


def suspect(seen: Iterable[Seen], now: float, *, before: bool) -> Suspicion:
    """Judge on the newest checks of all targets; `before` is what was thought until now.

    Targets that are down for longer than the window say nothing about us.
    """
    ages = [(now - one.at, one.failed) for one in seen if _says_something(one, now)]
    for seconds, least in WINDOWS:
        recent = [failed for age, failed in ages if age <= seconds]
        if len(recent) >= least:
            failing = sum(recent)
            if failing >= SHARE * len(recent):
                return Suspicion(True, failing, len(recent))
            return Suspicion(before and failing >= CLEARED * len(recent), failing, len(recent))
    # Too few to judge on. A suspicion stays only while every answer confirms it.
    recent = [failed for age, failed in ages if age <= WINDOWS[-1][0]]
    return Suspicion(before and all(recent), sum(recent), len(recent))


def _says_something(one: Seen, now: float) -> bool:
    return one.down_since is None or now - one.down_since <= WINDOWS[-1][0]

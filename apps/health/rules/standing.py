"""Whether a workload is unhealthy, by the newest samples of its instances. Pure.

One bad sample proves nothing, and neither does a sample that is unknown. An instance that Pulsewatch reads itself is
expected each minute; one that pushes may have been replaced by another that goes by another name, so those are only
missed when all of them are silent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

BAD_IN_A_ROW = 3  # samples
SILENT_AFTER = timedelta(minutes=4)  # of one that is read: three missed samples and the time to read them
PUSH_SILENT_AFTER = timedelta(minutes=10)  # applications push when it suits them
LOOKED_BACK = timedelta(minutes=10)  # for three samples that are not unknown
AT_WORK = 8  # minutes of these ten in which we took samples: else we were away, and so was what takes pushed ones
UNHEALTHY, UNKNOWN = "unhealthy", "unknown"


@dataclass(frozen=True, slots=True)
class Seen:
    """An active instance, and its samples of the last ten minutes, the newest last."""

    name: str
    read: bool  # by Pulsewatch itself
    expected_since: datetime  # its registration
    samples: Sequence[tuple[datetime, str]]  # time, status


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with a workload."""

    unhealthy: tuple[str, ...]  # names of instances
    silent: tuple[str, ...]
    expected: int
    grave: bool  # half of its instances, or more


def trouble(instances: Sequence[Seen], now: datetime, *, at_work: bool = True) -> Trouble | None:
    """What is wrong with a workload; None when nothing is, or nothing is known. `at_work`: we were, as AT_WORK says."""
    unhealthy = tuple(one.name for one in instances if _unhealthy(one))
    silent = [one for one in instances if _silent(one, now)]
    pushing = [one for one in instances if not one.read]
    if not at_work or any(one not in silent for one in pushing):
        silent = [one for one in silent if one.read]
    counted = [one for one in instances if one.read or one.samples or one in silent]
    bad = len(unhealthy) + len(silent)
    if not bad:
        return None
    names = tuple(one.name for one in silent)
    return Trouble(unhealthy, names, len(counted), grave=2 * bad >= len(counted))


def _unhealthy(one: Seen) -> bool:
    known = [status for _, status in one.samples if status != UNKNOWN][-BAD_IN_A_ROW:]
    return len(known) == BAD_IN_A_ROW and all(status == UNHEALTHY for status in known)


def _silent(one: Seen, now: datetime) -> bool:
    patience = SILENT_AFTER if one.read else PUSH_SILENT_AFTER
    last = one.samples[-1][0] if one.samples else one.expected_since
    return last + patience < now

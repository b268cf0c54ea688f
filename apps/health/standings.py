"""How all targets of a slice stand at one moment: who fails, whether that is our own fault, and who has to be told."""

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime

from apps.health import alerting, recording, slices
from apps.health.models import ProbeSlice
from apps.health.recording import Flip
from apps.health.rules.checks import FAILED, UNKNOWN
from apps.health.rules.suspicion import WINDOWS, Seen, suspect
from apps.health.watched import Watched


class Standings:
    """The newest check of every target, kept from slice to slice through what is stored of it."""

    def __init__(self) -> None:
        self.held = False  # do we suspect ourselves?
        self._targets: dict[str, Watched] = {}
        self._seen: dict[str, Seen] = {}
        self._stands: dict[str, str] = {}  # the status of each target that is stored
        self._failures: deque[float] = deque()  # when, of the last minute

    def __bool__(self) -> bool:
        return bool(self._targets)

    def add(self, one: Watched) -> None:
        """A target as it was loaded."""
        self._targets[one.key] = one
        if one.last is not None:
            self._stands[one.key] = one.status
            down = one.since.timestamp() if one.status == FAILED and one.since else None
            self._seen[one.key] = Seen(one.last.timestamp(), one.failing, down)
            if one.failing:
                self._failures.append(one.last.timestamp())

    def note(self, one: Watched, at: float, status: str) -> None:
        """A check that ended; one of unknown outcome says nothing."""
        if status == UNKNOWN:
            return
        before = self._seen.get(one.key)
        if before is None and status == FAILED:
            return  # never good until now
        self._seen[one.key] = Seen(at, status == FAILED, before.down_since if before else None)
        if status == FAILED:
            self._failures.append(at)

    def failing(self, one: Watched) -> bool:
        """Whether its newest check failed."""
        seen = self._seen.get(one.key)
        return seen is not None and seen.failed

    def was_well(self, one: Watched) -> bool:
        """Whether it was up before this minute."""
        seen = self._seen.get(one.key)
        return seen is not None and (seen.down_since is None or seen.at - seen.down_since <= WINDOWS[-1][0])

    def changes(self, one: Watched, status: str) -> bool:
        """Whether a check may change how a target stands, so that its state and alert should follow soon.

        A first good answer is no news that anybody waits for, and one of unknown outcome says nothing.
        """
        known = self._stands.get(one.key)
        return status not in (UNKNOWN, known) and (known is not None or status == FAILED)

    def flipped(self, flips: Iterable[Flip]) -> None:
        """Remember how targets stand now, and since when one is down."""
        for flip in flips:
            self._stands[flip.watched.key] = flip.after.status
            if seen := self._seen.get(flip.watched.key):
                down = flip.after.status == FAILED and flip.after.since is not None
                seen.down_since = flip.after.since.timestamp() if down and flip.after.since else None

    def reconsider(self, now: float) -> list[Watched]:
        """Judge ourselves anew; when a suspicion begins, the targets whose last failures prove nothing."""
        (seconds, least), before = WINDOWS[-1], self.held
        while self._failures and self._failures[0] < now - seconds:
            self._failures.popleft()
        if not before and len(self._failures) < least:
            return []  # all is well: the usual case, which looks at nobody
        verdict = suspect(self._seen.values(), now, before=self.held)
        self.held = verdict.held
        if not self.held or before:
            return []
        oldest = now - seconds
        return [
            self._targets[key] for key, seen in self._seen.items()
            if seen.failed and seen.at >= oldest and self.was_well(self._targets[key])
        ]  # fmt: skip


def tell(held: Sequence[ProbeSlice], failing: Sequence[Watched], suspicious: bool, now: datetime) -> None:
    """Store that we suspect ourselves, or no more, and have the alerts settled."""
    slices.beat(held, now, suspicious=suspicious)
    if failing:
        recording.discount(failing, now)
    alerting.settle_mass_failure(now)
    alerting.settle_targets(failing, now)


def notice(flips: Sequence[Flip], now: datetime) -> None:
    """Have the alerts of targets settled whose status has changed."""
    alerting.settle_targets([flip.watched for flip in flips], now)

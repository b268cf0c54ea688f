"""What becomes of an alert when its subject is wrong, or is not any more. The clock is an argument.

An alert opens at once and closes at once, until it has done so too often: then it flaps, and is kept open until its
subject has been well for a while. Its severity only rises; who was woken by a critical alert hears of it once more,
when it is over.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

# Four within a quarter of an hour: broke, recovered, broke again, recovered again. The second recovery is not believed.
FLAP_CHANGES = 4
FLAP_WINDOW = timedelta(minutes=15)
CALM = timedelta(minutes=10)  # without trouble, until an alert that flaps closes

# An alert that is so much younger than a look was opened by one that came later and knows more. More than that: the
# clock was set back.
SEEN_BEFORE = timedelta(minutes=1)

RANKS = {"info": 0, "warning": 1, "critical": 2}


class Move(StrEnum):
    """What is to be done."""

    NOTHING = "nothing"
    OPEN = "open"
    ESCALATE = "escalate"  # its severity has risen
    UPDATE = "update"  # its words are others now
    RETURN = "return"  # it fires again while it was kept open
    HOLD = "hold"  # it fires no longer, and is kept open, for it flaps
    CLOSE = "close"


@dataclass(frozen=True, slots=True)
class Known:
    """An open alert as it is stored."""

    severity: str
    opened_at: datetime
    flapping: bool = False
    cleared_at: datetime | None = None  # not firing since, though open


def flaps(changes: Iterable[datetime], now: datetime) -> bool:
    """Whether a subject has changed too often of late, given when it opened and closed; the future does not count."""
    return sum(now - FLAP_WINDOW < change <= now for change in changes) >= FLAP_CHANGES


def firing(known: Known | None, severity: str, *, same_words: bool = True) -> Move:
    """The move for a subject that is wrong now."""
    if known is None:
        return Move.OPEN
    if RANKS[severity] > RANKS[known.severity]:
        return Move.ESCALATE
    if known.cleared_at is not None:
        return Move.RETURN
    return Move.NOTHING if same_words else Move.UPDATE


def quiet(known: Known, earlier: Iterable[datetime], now: datetime) -> Move:
    """The move for an open alert whose subject is well; `earlier`: when former alerts of it opened and closed."""
    if now < known.opened_at <= now + SEEN_BEFORE:
        return Move.NOTHING
    if not known.flapping:
        return Move.HOLD if flaps((*earlier, known.opened_at, now), now) else Move.CLOSE
    # In the future: the clock was set back. The calm begins anew, so that nothing waits for a time long gone.
    if known.cleared_at is None or known.cleared_at > now:
        return Move.HOLD
    return Move.CLOSE if known.cleared_at + CALM <= now else Move.NOTHING

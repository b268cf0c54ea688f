"""What a scaler is tested against: a platform that runs, that somebody else can change, and that can misbehave."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

from apps.inventory.platforms import scaler_for
from apps.inventory.platforms.base import Scaler
from apps.inventory.platforms.transport import Limits

SECRET = "a-secret-of-the-test-7c41f0"  # also the token
# One attempt waits so long that a busy machine answers within it, and so short that two of them are soon over.
BOUND = Limits(attempts=2, attempt_seconds=0.5, total_seconds=1.2, backoff_seconds=0.02)


class Play(Protocol):
    """The other side: what it runs, and how it behaves."""

    running: int
    trouble: str  # empty; slow, garbage, refused, missing, broken, alien
    wishes: list[int]  # the counts it was asked for and accepted


@dataclass(frozen=True)
class Stand:
    """A kind of scaler, the settings that lead to its play, and how it is called there."""

    kind: str
    unit: str
    play: Play
    settings: dict[str, Any]
    nowhere: dict[str, Any]  # settings that lead to nobody
    wrong: dict[str, Any]  # setting → a value it cannot have
    secret: str = SECRET

    def scaler(self, **settings: Any) -> Scaler:
        made = scaler_for(self.kind, {**self.settings, **settings}, self.secret)
        assert made is not None
        return replace(made, scale_limits=BOUND) if hasattr(made, "scale_limits") else made

    def lost(self) -> Scaler:
        return self.scaler(**self.nowhere)

"""What a platform does for a deployment: plain values in and out, no rows, no Django."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol

from apps.core.errors import Conflict, Invalid, PulsewatchError, Transient

DEPLOYMENT, ROLLBACK = "deployment", "rollback"


class PlatformError(PulsewatchError):
    """The platform refused or failed. The text names cause and remedy and carries no credential."""


class PlatformUnavailable(PlatformError, Transient):
    """The platform did not answer, or asked for patience: nothing was rolled out, and it may go well later."""


class CountChanged(PlatformError, Conflict):
    """Somebody else changed the number of instances since it was read: nothing was done."""


class SettingsInvalid(PlatformError, Invalid):
    """A workload's platform settings or secret are wrong. `field` is `platform_settings` or `platform_secret`."""


@dataclass(frozen=True, slots=True)
class Release:
    """What is to run where."""

    service: str
    environment: str
    version: str
    commit_sha: str
    deployment_id: str  # of the record that asks for it; the same id asks for the same thing
    reason: str
    kind: str  # deployment, rollback


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the platform said. Accepted is not yet done: whether the version runs, the samples tell."""

    accepted: bool
    detail: str  # a sentence for people, without secrets
    url: str = ""  # where to follow it; empty when the platform names no place


class Platform(Protocol):
    """One workload's platform.

    `repeatable`: asking again for the same deployment does nothing a second time.
    """

    repeatable: ClassVar[bool]

    def roll_out(self, release: Release) -> Receipt:
        """Ask for a version. Waits for the answer, at most as long as `Limits` allow.

        Raises PlatformUnavailable when nothing was accepted and another try may help, else PlatformError.
        """
        ...


@dataclass(frozen=True, slots=True)
class Count:
    """How many instances a platform runs."""

    desired: int  # what it was told last
    ready: int | None = None  # how many of them serve; None: it cannot tell
    revision: str = ""  # of what was read: a change made meanwhile is seen by it; empty: the platform has none


@dataclass(frozen=True, slots=True)
class Found:
    """One running copy, as the platform names it."""

    name: str
    ready: bool
    version: str = ""  # of its image or revision, empty when the platform does not know
    url: str = ""  # where it is read; empty: it pushes its samples
    started_at: datetime | None = None


class Scaler(Protocol):
    """A platform that can run more instances of a workload, or fewer. Its count is the truth."""

    @property
    def unit(self) -> str:
        """What is counted, such as "pod", "replica" or "worker process"."""
        ...

    def count(self) -> Count:
        """How many run. Raises PlatformUnavailable or PlatformError."""
        ...

    def scale(self, to: int, *, seen: Count) -> None:
        """Ask for `to` instances where `seen` was read before; the same request twice is the same as once.

        Raises CountChanged where the platform tells that somebody was faster, PlatformUnavailable when nothing was
        accepted and another try may help, else PlatformError. Accepted is not yet done: `count` tells.
        """
        ...

    def instances(self) -> Sequence[Found]:
        """The running copies; empty when the platform cannot name them. Raises as `count`."""
        ...

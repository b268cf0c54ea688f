"""What a platform does for a deployment: plain values in and out, no rows, no Django."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from apps.core.errors import Invalid, PulsewatchError, Transient

DEPLOYMENT, ROLLBACK = "deployment", "rollback"


class PlatformError(PulsewatchError):
    """The platform refused or failed. The text names cause and remedy and carries no credential."""


class PlatformUnavailable(PlatformError, Transient):
    """The platform did not answer, or asked for patience: nothing was rolled out, and it may go well later."""


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

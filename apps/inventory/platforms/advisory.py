"""The platform that is never changed: Pulsewatch says what to do, a person does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from apps.inventory.platforms.base import Receipt, Release
from apps.inventory.platforms.fields import Fields


@dataclass(frozen=True, slots=True)
class Advisory:
    """Does nothing, and says so."""

    repeatable: ClassVar[bool] = True

    @classmethod
    def made(cls, settings: Mapping[str, Any], secret: str) -> Self:
        Fields("advisory", settings).done()
        return cls()

    @staticmethod
    def destination(settings: Mapping[str, Any]) -> str:
        return ""

    def roll_out(self, release: Release) -> Receipt:
        return Receipt(
            accepted=False,
            detail=f"Nothing was changed, because {release.service}/{release.environment} is on platform advisory: "
            f"deploy version {release.version} yourself.",
        )

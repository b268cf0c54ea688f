"""One reader a sender of webhooks."""

from collections.abc import Callable, Mapping
from typing import Any

from apps.deployments.sources import github, zeabur
from apps.deployments.sources.base import Event

GITHUB, ZEABUR = "github", "zeabur"

SOURCES: dict[str, Callable[[str, Mapping[str, Any]], Event]] = {
    GITHUB: github.read,
    ZEABUR: lambda event, payload: zeabur.read(payload),
}


def read(source: str, event: str, payload: Mapping[str, Any]) -> Event:
    """What a delivery of this source says. Never raises for a known source, whatever the payload holds."""
    return SOURCES[source](event, payload)

"""One adapter a platform: how a version is rolled out there, and how many instances run."""

from collections.abc import Mapping
from typing import Any, Protocol

from apps.core.redaction import register_secret
from apps.inventory.platforms.advisory import Advisory
from apps.inventory.platforms.base import Platform, PlatformError, Scaler
from apps.inventory.platforms.docker import Docker
from apps.inventory.platforms.github import GitHub
from apps.inventory.platforms.gunicorn import Gunicorn
from apps.inventory.platforms.kubernetes import Kubernetes
from apps.inventory.platforms.webhook import Webhook
from apps.inventory.platforms.zeabur import Zeabur

__all__ = [
    "NAMING",
    "PLATFORMS",
    "check_settings",
    "destination",
    "platform_for",
    "scaler_for",
    "scales",
    "takes_secret",
]


class Kind(Protocol):
    """A class of platforms."""

    def made(self, settings: Mapping[str, Any], secret: str) -> Platform:
        """The platform these settings describe. Raises SettingsInvalid."""
        ...

    def destination(self, settings: Mapping[str, Any]) -> str:
        """Where the secret of valid settings is sent, as `https://host:port`; empty: the kind takes no secret."""
        ...


PLATFORMS: dict[str, Kind] = {
    "advisory": Advisory,
    "docker": Docker,
    "github": GitHub,
    "kubernetes": Kubernetes,
    "webhook": Webhook,
    "zeabur": Zeabur,
}


class ScalerKind(Protocol):
    """A class of platforms that scale."""

    def made(self, settings: Mapping[str, Any], secret: str) -> Scaler:
        """The platform these settings describe. Raises SettingsInvalid."""
        ...


SCALERS: dict[str, ScalerKind] = {
    "docker": Docker,
    "gunicorn": Gunicorn,
    "kubernetes": Kubernetes,
    "webhook": Webhook,
}
# Kinds that name their instances, and so know which there are.
NAMING = frozenset({"docker", "kubernetes"})
_SCALES_WITH = {"webhook": "scale_url"}  # kinds that scale only where this setting is given


def scales(kind: str, settings: Mapping[str, Any]) -> bool:
    """Whether Pulsewatch can change the number of instances of a workload with these settings."""
    return kind in SCALERS and (kind not in _SCALES_WITH or _SCALES_WITH[kind] in settings)


def scaler_for(kind: str, settings: Mapping[str, Any], secret: str) -> Scaler | None:
    """What scales a workload; None where a person does it. Raises SettingsInvalid with the first wrong setting."""
    if not scales(kind, settings):
        return None
    register_secret(secret)
    return SCALERS[kind].made(settings, secret)


def platform_for(kind: str, settings: Mapping[str, Any], secret: str) -> Platform:
    """The platform of a workload.

    Raises SettingsInvalid with the first wrong setting, PlatformError for a kind that cannot roll out a version.
    """
    if kind not in PLATFORMS:
        raise PlatformError(
            f"Pulsewatch cannot roll out a version on platform {kind}: do it by hand, or have a webhook do it."
        )
    register_secret(secret)
    return PLATFORMS[kind].made(settings, secret)


def check_settings(kind: str, settings: Mapping[str, Any], secret: str) -> None:
    """Raises SettingsInvalid with the first wrong setting of a workload, or when its secret is missing or malformed."""
    (PLATFORMS.get(kind) or SCALERS[kind]).made(settings, secret)


def takes_secret(kind: str) -> bool:
    """Whether a platform of this kind has use for a secret."""
    return kind in PLATFORMS and kind != "advisory"


def destination(kind: str, settings: Mapping[str, Any]) -> str:
    """Where the secret of a workload is sent; empty for kinds that take none. The settings must be valid."""
    return PLATFORMS[kind].destination(settings) if kind in PLATFORMS else ""

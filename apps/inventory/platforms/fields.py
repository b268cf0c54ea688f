"""Reads a workload's platform settings strictly: the first fault is one sentence."""

import re
from collections.abc import Mapping
from typing import Any

from apps.inventory.platforms.base import SettingsInvalid
from apps.inventory.rules import http_url_fault

SETTINGS, SECRET = "platform_settings", "platform_secret"
MAX_URL = 300  # characters, as in every address of the inventory
MAX_SECRET = 4096  # characters; the longest tokens in use stay below 2,000
LONGEST_SECRET = 32 * 1024  # characters of a kubeconfig or of a certificate with its key


class Fields:
    """The settings of one kind of platform. Every reader marks its key as known; `done` refuses the others."""

    def __init__(self, kind: str, settings: Mapping[str, Any]) -> None:
        if not isinstance(settings, Mapping):
            raise SettingsInvalid(
                'The platform settings must be a JSON object such as {"url": "https://…"}.', field=SETTINGS
            )
        self._kind = kind
        self._settings = settings
        self._known: set[str] = set()

    def url(self, name: str, default: str = "") -> str:
        """An address without credentials."""
        value = self._string(name, default)
        if len(value) > MAX_URL:
            raise self._wrong(name, f"must have at most {MAX_URL} characters")
        if fault := http_url_fault(value):
            raise self._wrong(name, f"is no usable address. {fault}")
        return value

    def text(self, name: str, pattern: str, what: str, default: str = "") -> str:
        """A text that matches the pattern as a whole; `what` describes it."""
        value = self._string(name, default)
        if not re.fullmatch(pattern, value):
            raise self._wrong(name, f"must be {what}")
        return value

    def optional(self, name: str, pattern: str, what: str) -> str:
        """Such a text, or an empty one when the setting is not given."""
        return self.text(name, pattern, what) if self._get(name, None) is not None else ""

    def number(self, name: str, default: int, most: int) -> int:
        """A whole number from 1 on; the default when the setting is not given."""
        value = self._get(name, default)
        if value == default and name not in self._settings:
            return default
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
            raise self._wrong(name, f"must be a whole number from 1 to {most}")
        return value

    def boolean(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "must be true or false")
        return value

    def mapping(self, name: str, default: Mapping[str, str], what: str) -> dict[str, str]:
        """An object whose values are texts."""
        value = self._get(name, default)
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise self._wrong(name, f"must be {what}")
        return dict(value)

    def done(self) -> None:
        """Refuse keys that nobody reads: a misspelled one would be ignored for ever."""
        for name in self._settings:
            if name not in self._known:
                known = ", ".join(sorted(self._known)) or "none"
                raise SettingsInvalid(
                    f"Platform {self._kind} has no setting {str(name)[:40]!r}; known are: {known}.", field=SETTINGS
                )

    def _get(self, name: str, default: Any) -> Any:
        self._known.add(name)
        return self._settings.get(name, default)

    def _string(self, name: str, default: str) -> str:
        value = self._get(name, default)
        if not isinstance(value, str):
            raise self._wrong(name, "must be a text in quotes")
        if not value:
            raise self._wrong(name, "is required")
        return value

    def _wrong(self, name: str, problem: str) -> SettingsInvalid:
        return SettingsInvalid(f"Platform {self._kind}: setting {name} {problem.rstrip('.')}.", field=SETTINGS)


def token(kind: str, secret: str) -> str:
    """A secret that travels in a header. Raises SettingsInvalid without repeating it."""
    if not secret:
        raise SettingsInvalid(
            f"Platform {kind} needs a token: enter it as the workload's platform secret.", field=SECRET
        )
    if len(secret) > MAX_SECRET or not re.fullmatch(r"[\x21-\x7e]+", secret):
        raise SettingsInvalid(
            f"The token of platform {kind} holds white space or other characters that no token has: copy it again.",
            field=SECRET,
        )
    return secret

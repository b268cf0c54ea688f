"""What can go wrong, in one tree.

PulsewatchError          its text is written for the person who asked; it never carries a secret
├── Invalid              the input is wrong; nothing was changed         (form error, HTTP 422)
├── Conflict             the input is right, the moment is not           (message, HTTP 409)
├── Transient            may go well when tried again                    (Celery retries only this one)
├── KeyUnknown           sealed with a key the keyset does not hold      (give the right keyset)
├── Tampered             a sealed secret is not authentic                (give an unaltered copy)
└── Corrupt              a stored backup is not what was written         (use another copy or backup)
"""

from collections.abc import Mapping
from typing import Any


class PulsewatchError(Exception):
    """Anything Pulsewatch itself raises for a reason it can explain."""


class Invalid(PulsewatchError):
    """The input is wrong. `field` names the input, or is empty when no single one is at fault."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Conflict(PulsewatchError):
    """Something else holds what was asked for, or its state does not allow it now.

    `facts` are what a program needs to go on, in plain JSON values, such as `{"legal": ["completed", "failed"]}` or
    `{"held_by": "deploy_20251020_143052", "held_since": "2025-10-20T14:30:52Z"}`. The API adds them to its answer.
    """

    def __init__(self, message: str, *, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.facts = dict(facts or {})


class Transient(PulsewatchError):
    """The other side did not answer, or asked for patience."""


class KeyUnknown(PulsewatchError):
    """What is sealed needs a key that this keyset does not hold."""


class Tampered(PulsewatchError):
    """What is sealed was altered, cut off, or belongs to something else; or the passphrase is wrong."""


class Corrupt(PulsewatchError):
    """What is stored is not what was written: altered, cut off, or belonging to another backup."""

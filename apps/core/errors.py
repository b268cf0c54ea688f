"""What can go wrong, in one tree.

PulsewatchError          its text is written for the person who asked; it never carries a secret
├── Invalid              the input is wrong; nothing was changed         (form error, HTTP 422)
├── Conflict             the input is right, the moment is not           (message, HTTP 409)
└── Transient            may go well when tried again                    (Celery retries only this one)
"""


class PulsewatchError(Exception):
    """Anything Pulsewatch itself raises for a reason it can explain."""


class Invalid(PulsewatchError):
    """The input is wrong. `field` names the input, or is empty when no single one is at fault."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class Conflict(PulsewatchError):
    """Something else holds what was asked for, or its state does not allow it now."""


class Transient(PulsewatchError):
    """The other side did not answer, or asked for patience."""

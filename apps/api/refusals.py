"""What is refused before any service is asked, and the one place where an error becomes an answer."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django.core.exceptions import TooManyFieldsSent
from django.db import IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpResponse, UnreadablePostError
from ninja.errors import HttpError, ValidationError

from apps.api.rules import Unreadable
from apps.core.errors import Conflict, Invalid, PulsewatchError, Transient
from apps.core.problems import problem
from apps.inventory.exchange import FileRefused

logger = logging.getLogger(__name__)

RETRY_SECONDS = 5  # after which a server that was away is worth another try
MAX_FIELD = 200  # characters repeated of a field's name, which may be the client's invention
MAX_ERRORS = 20  # named in one answer: a list of 10,000 samples may be wrong in as many places
DUPLICATE_KEY = 1062  # MySQL's and MariaDB's numbers, here and below
BUSY = (1205, 1213)  # lock wait timeout, deadlock
_MESSAGES = {"extra_forbidden": "This field is unknown here", "missing": "This field is required"}


class Refused(PulsewatchError):
    """A request that HTTP has a status of its own for."""

    def __init__(self, status: int, message: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(message)
        self.status, self.headers, self.members = status, headers, members


class NotFound(Refused):
    """Nothing has the identifier that was given; the text does not repeat it."""

    def __init__(self, noun: str) -> None:
        super().__init__(404, f"There is no {noun} with this identifier.")


def answer(error: Exception) -> HttpResponse:
    """The problem+json of an error. What Pulsewatch cannot explain is logged and answered without detail."""
    for kind in type(error).__mro__:
        if shown := _SHOWN.get(kind):
            return shown(error)
    logger.error("An API request failed", exc_info=error)
    return problem(500, "The log holds the cause under this request id.")


def invalid(detail: str, *errors: tuple[str, str]) -> HttpResponse:
    """422, with each wrong field named."""
    named = [{"field": field, "message": message} for field, message in errors if field][:MAX_ERRORS]
    if not detail:
        detail = "; ".join(f"{field}: {message}" if field else message for field, message in errors[:3])
    return problem(422, detail, errors=named)


def _named(error: Mapping[str, Any]) -> tuple[str, str]:
    """Where a validation error lies, as in `[3].timestamp`, and what is wrong there. Never the value itself."""
    source, *place = error["loc"]
    if source == "body":
        place = place[1:]  # the parameter that holds the body; clients do not know its name
    text = ""
    for part in place:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in ("one", "many"):  # the two forms of a body that is an object or a list of them
            text += f".{part}" if text else str(part)
    message = _MESSAGES.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ")
    return text[:MAX_FIELD] or "body", message if message.endswith(".") else f"{message}."


def _refused(error: Refused) -> HttpResponse:
    return problem(error.status, str(error), headers=error.headers, **error.members)


def _invalid(error: Invalid) -> HttpResponse:
    return invalid(str(error), (error.field, str(error)))


def _file(error: FileRefused) -> HttpResponse:
    """Every wrong row by its number, as `[12].interval_seconds`."""
    errors = [
        (f"[{fault.row}].{fault.column}".removesuffix(".") if fault.row else "file", fault.reason)
        for fault in error.faults
    ]
    shown = f"the first {len(errors)} of {error.count} faults are" if error.count > len(errors) else "every fault is"
    return invalid(f"Nothing was imported; {shown} under errors.", *errors)


def _conflict(error: Conflict) -> HttpResponse:
    return problem(409, str(error), **error.facts)


def _later(message: str) -> HttpResponse:
    return problem(503, message, headers={"Retry-After": str(RETRY_SECONDS)})


def _away(error: OperationalError | InterfaceError) -> HttpResponse:
    if error.args[:1] and error.args[0] in BUSY:
        return _later("Other writes were in the way. Try again in a few seconds.")
    logger.error("The database does not answer an API request", exc_info=error)
    return _later("The database does not answer. Try again in a few seconds.")


def _integrity(error: IntegrityError) -> HttpResponse:
    if error.args[:1] == (DUPLICATE_KEY,) or str(error).startswith("UNIQUE constraint failed"):
        return problem(409, "Somebody else wrote the same thing at this moment; look what is there and try again.")
    logger.error("The database refused what an API request wrote", exc_info=error)
    return problem(500, "The log holds the cause under this request id.")


# The tree of apps.core.errors and what comes from below it; an error is answered as its nearest ancestor here.
_SHOWN: dict[type, Callable[[Any], HttpResponse]] = {
    Refused: _refused,
    Invalid: _invalid,
    FileRefused: _file,
    Conflict: _conflict,
    Transient: lambda error: _later(str(error)),
    Unreadable: lambda error: problem(400, str(error)),
    ValidationError: lambda error: invalid("", *map(_named, error.errors)),
    HttpError: lambda error: problem(error.status_code, str(error)),
    TooManyFieldsSent: lambda error: invalid("There are far more parameters than this takes."),
    Http404: lambda error: problem(404, "There is nothing with this identifier."),
    UnreadablePostError: lambda error: problem(400, "The connection ended before the body was complete."),
    OperationalError: _away,
    InterfaceError: _away,
    IntegrityError: _integrity,
}

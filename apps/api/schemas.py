"""Types and shapes that several nouns share. What comes in is strict: no unknown field, no "45" where 45 is meant."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from django.db.models import TextChoices
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from apps.core.choices import Environment

Item = TypeVar("Item")

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_SPACE_FOR_PLUS = re.compile(r" (?=\d\d:\d\d\Z)", re.ASCII)
FIRST_YEAR, LAST_YEAR = 1970, 2999  # what all databases store and all zones can express


def words(choices: type[TextChoices]) -> Any:
    """The type of a field that takes one of these words."""
    return Literal[tuple(choices.values)]


def _moment(value: Any) -> datetime:
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        try:
            moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            moment = None
        if moment and FIRST_YEAR <= moment.year <= LAST_YEAR:
            return moment
    raise ValueError("Give a time with its zone as RFC 3339 has it, such as 2026-03-01T12:00:00Z")


# A moment coming in. `date-time` is RFC 3339.
Moment = Annotated[
    datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation")
]
# The same as a parameter, where a plus that was not encoded stands for a space.
AskedMoment = Annotated[
    datetime,
    BeforeValidator(lambda value: _moment(_SPACE_FOR_PLUS.sub("+", value) if isinstance(value, str) else value)),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="validation"),
]
EnvironmentName = words(Environment)
Slug = Annotated[str, Field(min_length=1, max_length=50, pattern=r"^[-a-zA-Z0-9_]+$")]
Identifier = Annotated[str, Field(min_length=1, max_length=170)]


def _name(value: str) -> str:
    """A name without spaces around it. MySQL takes a text of spaces for an empty one, and so do people."""
    if not any(letter.isprintable() and letter != " " for letter in value):
        raise ValueError("Give a name that can be read")
    return value.strip()


Name = Annotated[str, AfterValidator(_name)]


class Given(BaseModel):
    """What comes in as a body."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Filters(BaseModel):
    """What every list takes."""

    limit: int = Field(50, ge=1, le=200, description="Rows of one page")
    cursor: str | None = Field(None, description="`next` of the page before")


class Shown(BaseModel):
    """What goes out, read from a row."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next: str | None = Field(description="Give it as `cursor` to get what follows; null on the last page")


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Where it lies, such as version or [3].timestamp")
    message: str


class Problem(BaseModel):
    """problem+json, RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="urn:pulsewatch:problem:… ; docs/api.md lists them")
    title: str
    status: int
    detail: str | None = None
    request_id: str | None = Field(None, description="Finds the request in the log")
    errors: list[FieldProblem] | None = None

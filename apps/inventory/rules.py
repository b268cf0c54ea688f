"""What addresses, paths and expectations may look like, and how expectations are read. Pure."""

import json
import re
from dataclasses import dataclass
from math import isfinite
from urllib.parse import urlsplit

# Git's own forms: git@host:owner/name.git and ssh://git@host:22/owner/name.git
_OVER_SSH = re.compile(r"(?:[\w.-]+@[\w.-]+:|ssh://[\w.-]+@[\w.-]+(?::\d{1,5})?/)[\w./~-]+", re.ASCII)
_SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")

# How often and how long something may be asked, in seconds.
MIN_INTERVAL, MAX_INTERVAL = 10, 3600
MIN_TIMEOUT, MAX_TIMEOUT = 0.1, 60.0


def http_url_fault(value: str) -> str:
    """Why a text is no address that may be stored and shown, or an empty text.

    Unlike Django's own validator it takes the single-label names of containers and clusters.
    """
    try:
        parts = urlsplit(value)
        named = bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unbalanced bracket, a port that is no port
        return "Enter a URL that starts with http:// or https:// and names a host."
    if parts.scheme not in ("http", "https") or not named or _SPACE_OR_CONTROL.search(value):
        return "Enter a URL that starts with http:// or https:// and names a host."
    if parts.username is not None or parts.password is not None:
        return "Leave user and password out of the URL: it is shown to everyone here."
    return ""


def repository_fault(value: str) -> str:
    """Why a text is no address of a repository, or an empty text."""
    if _OVER_SSH.fullmatch(value) or not http_url_fault(value):
        return ""
    return "Enter the repository's address, such as https://github.com/acme/shop or git@github.com:acme/shop.git."


# ---- Paths -----------------------------------------------------------------------------------------------------------

_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def path_fault(value: str) -> str:
    """Why a text is no path, with or without a query, that can be put behind a base URL, or an empty text."""
    if not value.startswith("/") or value.startswith("//") or _SPACE_OR_CONTROL.search(value) or "#" in value:
        return "Enter a path that starts with one / and has no spaces and no #, such as /api/orders?limit=1."
    if _BAD_PERCENT.search(value):
        return "Two hexadecimal digits must follow each % of the path; write % itself as %25."
    return ""


# ---- Expected status -------------------------------------------------------------------------------------------------

_STATUSES = re.compile(r"\s*([1-5]\d\d)\s*(?:-\s*([1-5]\d\d)\s*)?", re.ASCII)


def read_statuses(text: str) -> tuple[tuple[int, int], ...]:
    """The ranges of a text such as `200`, `200-299` or `200,301-308`, first and last included. Raises ValueError."""
    ranges = []
    for part in text.split(","):
        found = _STATUSES.fullmatch(part)
        if found is None:
            raise ValueError("Enter HTTP status codes from 100 to 599, such as 200, 200-299 or 200,301-308.")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ValueError(f"The range {first}-{last} is upside down: write {last}-{first}.")
        ranges.append((first, last))
    return tuple(ranges)


def statuses_fault(text: str) -> str:
    """Why a text says no expected status, or an empty text."""
    try:
        read_statuses(text)
    except ValueError as error:
        return str(error)
    return ""


# ---- Conditions on a JSON answer -------------------------------------------------------------------------------------
#
# A small part of JSONPath (RFC 9535): `$`, `.name`, `["name"]` and `[index]`; no wildcards, slices, filters or `..`,
# for an alert must rest on one value. Then nothing ("is there") or a comparison with a JSON literal.

MAX_STEPS = 20
_STEP = re.compile(r"\.([A-Za-z_][\w-]*)|\[\s*(-?\d{1,6})\s*\]|\[\s*(\"(?:[^\"\\]|\\.)*\")\s*\]")
_COMPARISON = re.compile(r"\s*(==|!=|<=|>=|<|>)\s*(.+?)\s*", re.DOTALL)
_EXAMPLE = 'such as $.status == "ok", $.queue.length < 100 or $.items[0]'


@dataclass(frozen=True, slots=True)
class JsonCondition:
    """Where to look, and what must be there. Without `operator` it must only be there."""

    steps: tuple[str | int, ...]
    operator: str = ""
    literal: str | float | bool | None = None


def read_json_condition(text: str) -> JsonCondition:
    """The condition a text states. Raises ValueError with a sentence that names the place."""
    rest = text.strip()
    if not rest.startswith("$"):
        raise ValueError(f"The JSON condition must begin with $, {_EXAMPLE}.")
    place, steps = 1, list[str | int]()
    while found := _STEP.match(rest, place):
        name, index, quoted = found.groups()
        steps.append(name if name is not None else int(index) if index is not None else str(_literal(quoted)))
        place = found.end()
    if len(steps) > MAX_STEPS:
        raise ValueError(f"The JSON condition goes deeper than {MAX_STEPS} steps.")
    if not rest[place:].strip():
        return JsonCondition(tuple(steps))
    comparison = _COMPARISON.fullmatch(rest, place)
    if comparison is None:
        raise ValueError(
            f"The JSON condition cannot be read from character {place + 1} on; write names, indexes and one "
            f"comparison, {_EXAMPLE}."
        )
    operator, literal = comparison[1], _literal(comparison[2])
    if operator in ("<", "<=", ">", ">=") and (isinstance(literal, bool) or not isinstance(literal, int | float)):
        raise ValueError(f"The JSON condition compares with {operator}: that needs a number behind it.")
    return JsonCondition(tuple(steps), operator, literal)


def json_condition_fault(text: str) -> str:
    """Why a text is no condition, or an empty text."""
    try:
        read_json_condition(text)
    except ValueError as error:
        return str(error)
    return ""


def _literal(text: str) -> str | int | float | bool | None:
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise ValueError(f"The JSON condition needs a JSON value here, {_EXAMPLE}; texts stand in quotes.") from None
    if isinstance(value, float) and not isfinite(value):
        raise ValueError("The JSON condition compares with a number that is too large.")
    if isinstance(value, dict | list):
        raise ValueError("The JSON condition compares with a text, a number, true, false or null only.")
    return value  # type: ignore[no-any-return]  # json.loads gives nothing else


def _no_constant(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON

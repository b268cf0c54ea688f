"""Headers that a check sends: how people write them, and which may be sent. Pure."""

import re
from collections.abc import Mapping

MAX_HEADERS, MAX_VALUE = 20, 4096  # of one endpoint; characters of a value: the longest tokens in use stay below 2,000
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e]*", re.ASCII)
# They are the connection's own: sent by hand they would make one request into two.
_RESERVED = frozenset(
    {"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"}
)


def read(text: str) -> dict[str, str]:
    """The headers of a text with one in each line, as in `Authorization: Bearer …`. Raises ValueError.

    The text of the error names the line, never what it holds.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"Line {number} has no colon: write one header a line, such as Authorization: Bearer ….")
        if name.strip().lower() in map(str.lower, found):
            raise ValueError(f"Line {number} names a header that another line has named already.")
        found[name.strip()] = value.strip()
    if why := fault(found):
        raise ValueError(why)
    return found


def fault(headers: Mapping[str, str]) -> str:
    """Why these may not be sent, or an empty text. It names a header when that can be named, never a value."""
    if len(headers) > MAX_HEADERS:
        return f"At most {MAX_HEADERS} headers can be sent."
    if len({name.lower() for name in headers}) < len(headers):
        return "A header is named twice."
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            return "The name of a header has letters, digits and - only, such as X-Api-Key."
        if name.lower() in _RESERVED:
            return f"{name} is set by the connection itself; leave it out."
        if len(value) > MAX_VALUE or not _VALUE.fullmatch(value):
            return f"The value of {name} must be at most {MAX_VALUE} characters of ASCII in one line."
    return ""

"""How tokens, cursors and bodies are read. Pure: no clock, no database, no Django."""

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

MAX_DEPTH = 32  # levels of nesting in a body; the deepest one Pulsewatch asks for has 4
MAX_CURSOR = 1200  # characters: one of the longest identifier, in characters of four bytes, has 1000
MAX_KEY = 200  # characters of an idempotency key: a UUID has 36

_TOKEN = re.compile(r"pw_(?P<prefix>[0-9a-z]{8})_(?P<secret>[A-Za-z0-9_-]{43})")
_KEY = re.compile(rf"[\x21-\x7e]{{1,{MAX_KEY}}}")
_LIFETIME = re.compile(r"([1-9][0-9]{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_SURROGATE = re.compile("[\ud800-\udfff]")


class Unreadable(ValueError):
    """Text that is not what it should be; the message says why, without quoting it."""


@dataclass(frozen=True, slots=True)
class TokenParts:
    """A token as its holder sends it: `pw_<prefix>_<secret>`. The prefix finds its row, the secret proves it."""

    prefix: str
    secret: str

    def __str__(self) -> str:
        return f"pw_{self.prefix}_{self.secret}"


def split_token(text: str) -> TokenParts | None:
    """The parts of a token, None when the text has not the form of one."""
    match = _TOKEN.fullmatch(text)
    return TokenParts(match["prefix"], match["secret"]) if match else None


def hashed(secret: str) -> str:
    """What is stored of a token's secret.

    One round of SHA-256 is enough, and slower is no safer: the secret is 256 random bits, which no dictionary holds and
    nobody can try through, whereas passwords need a slow hash because people choose them.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def allows(scopes: Iterable[str], needed: str) -> bool:
    """Whether a token of these scopes may do what needs `needed`; writing a noun includes reading it."""
    noun, _, verb = needed.partition(":")
    held = set(scopes)
    return needed in held or (verb == "read" and f"{noun}:write" in held)


def lifetime(text: str) -> timedelta:
    """How long `12h`, `90d` or `4w` lasts. Raises Unreadable for anything else."""
    match = _LIFETIME.fullmatch(text)
    if match is None:
        raise Unreadable("Give a number of hours, days or weeks, such as 12h, 90d or 52w; or never.")
    return int(match[1]) * _UNITS[match[2]]


def is_idempotency_key(text: str) -> bool:
    """Whether it is 1 to 200 printable ASCII characters without a space."""
    return _KEY.fullmatch(text) is not None


# ---- Cursors ---------------------------------------------------------------------------------------------------------


def write_cursor(noun: str, values: Iterable[datetime | str | int]) -> str:
    """An opaque mark of the last row of a page: the values its list is ordered by."""
    plain = [value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(json.dumps([noun, *plain], ensure_ascii=False).encode()).decode().rstrip("=")


def read_cursor(noun: str, text: str, types: Iterable[type]) -> list[datetime | str | int]:
    """The values in a cursor of this noun. Raises Unreadable; a cursor holds no secret and grants nothing."""
    wanted = list(types)
    try:
        if len(text) > MAX_CURSOR:
            raise ValueError
        given = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        if not isinstance(given, list) or len(given) != 1 + len(wanted) or given[0] != noun:
            raise ValueError
        return [_value(item, kind) for item, kind in zip(given[1:], wanted, strict=True)]
    except (ValueError, RecursionError, OverflowError, binascii.Error):
        raise Unreadable("This cursor is not one of this list: take `next` of the page before as it is.") from None


def _value(item: Any, kind: type) -> datetime | str | int:
    if kind is datetime and isinstance(item, str):
        moment = datetime.fromisoformat(item)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC)
    if kind is int and type(item) is int and 0 <= item < 1 << 63:
        return item
    if kind is str and isinstance(item, str) and not unstorable(item):
        return item
    raise ValueError


# ---- Bodies ----------------------------------------------------------------------------------------------------------


def unstorable(text: str) -> bool:
    """Whether a text holds what no database column takes: NUL, or half of a surrogate pair."""
    return "\0" in text or _SURROGATE.search(text) is not None


def parse_json(body: bytes) -> Any:
    """The value of a JSON body. Raises Unreadable for all that is not exactly one clean JSON value in UTF-8."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Unreadable("The body is not UTF-8 text.") from None
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise Unreadable(f"The body is nested deeper than {MAX_DEPTH} levels.") from None
    except json.JSONDecodeError as error:
        raise Unreadable(f"The body is not JSON: line {error.lineno}, column {error.colno}.") from None
    except Unreadable:
        raise
    except ValueError:  # Python refuses to read a number of more than 4300 digits
        raise Unreadable("The body holds a number that is too long.") from None
    # Raw control characters are refused by the parser, so only an escape can bring in what `unstorable` means.
    _inspect(value, texts="\\u" in text)
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Unreadable("A name occurs twice in one object of the body.")
    return found


def _constant(name: str) -> Any:
    raise Unreadable(f"The body holds {name}, which is no JSON number.")


def _inspect(value: Any, *, texts: bool) -> None:
    """Refuse what is nested too deep and, if wanted, text that cannot be stored. Walks level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
                if texts:
                    below += item.keys()
            elif isinstance(item, list):
                below += item
            elif texts and isinstance(item, str) and unstorable(item):
                raise Unreadable("The body holds text with a NUL character or half a surrogate pair.")
        if not below:
            return
        level = below
    raise Unreadable(f"The body is nested deeper than {MAX_DEPTH} levels.")

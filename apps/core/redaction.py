"""Takes secrets out of text and values before they are logged, stored as an error, or shown.

`redact` finds a secret by its surroundings (the password of a URL, what follows `password=` or `Authorization:`), by
its shape (JWT, AWS, GitHub, Slack and our own tokens, private keys, e-mail addresses) or because the process knows it
(`register_secret`). `redact_value` does so in nested values, where the name of a key says more than any text.

In doubt it hides: a URL with a port loses what lies between that and an `@` further on. Its limits, so that nobody
relies on more:

- Not in quotes, what follows `password=` ends at white space (in a query string at `&`); so does a URL.
- In quotes, it ends at the next unescaped quote of that kind which no letter or digit follows.
- A secret without surroundings, shape or registration is a word like any other: so is an SQL parameter.
- `git@github.com` and a Celery node `fast@worker.example.com` look like e-mail addresses and are hidden as such.
"""

import base64
import binascii
import html
import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, time
from functools import lru_cache
from itertools import islice
from urllib.parse import quote, quote_plus

PLACEHOLDER = "[redacted]"
UNPRINTABLE = "[unprintable]"  # stands for an object whose own text cannot be had
CUT = "[cut]"  # stands for what lies deeper or is longer than one log line should carry

MAX_TEXT = 32_768  # characters kept of one text: the longest stack trace worth reading, half of Docker's 64 KiB piece
MAX_READ = 8 * MAX_TEXT  # characters looked at in one text: bounds the time a huge one costs, at worst to a second
MAX_DEPTH = 6  # levels of nesting kept: nobody reads deeper ones in a log
MAX_ITEMS = 200  # entries kept of one container, for the same reason
MAX_PASSES = 5  # hiding one secret may lay bare the next; two passes settle all but contrived texts
CONTAINERS = (Mapping, list, tuple, set, frozenset)  # what is walked; anything else is taken for its text
MIN_REGISTERED = 6  # characters: a shorter registered secret would blank out ordinary words

# ---- Names -----------------------------------------------------------------------------------------------------------

# Words that make any name a secret's, in text even before a bare colon ("password: x").
_LOUD = (
    r"passw(?:or)?d|passphrase|passcode|pwd|secret|token|credential|authorization|cookie|csrf|keyset|key[_-]?data"
    r"|(?:api|private|access|secret|encryption|signing|master)[ _-]?key|session[_-]?(?:id|key|data)"
)
# Words that do so only at the end of a name, and in text only before `=` or in quotes: prose uses them too.
_QUIET = (
    r"(?:(?<![a-z0-9])(?:auth|dsn|jwt|pass|session|connection[_-]?string)|(?<=[_-])(?:pass|dsn)|result[_-]backend"
    r"|(?:database|db|redis|broker|backend|cache|mysql|mariadb|postgres(?:ql)?|amqp|mongo(?:db)?|scratch|replica|smtp)"
    r"[_-]?ur[li])s?"
)
_SENSITIVE_NAME = re.compile(rf"{_LOUD}|{_QUIET}\Z", re.ASCII)


@lru_cache(maxsize=1024)
def is_sensitive(name: str) -> bool:
    """Whether a variable, header or field of this name holds a secret, going by the name alone."""
    return _SENSITIVE_NAME.search(name.lower()) is not None


# ---- `name = value` in text ------------------------------------------------------------------------------------------

# These run over the text in lower case, which is several times faster than a pattern that ignores case.
_NAME = re.compile(
    rf"""
    (?:
        (?P<loud>(?<!\(using\ )(?:{_LOUD})[\w-]{{0,64}}+)       # "(using password: YES)" is MySQL's own text
      | (?P<quiet>{_QUIET})
      | (?P<phrase>identified\ (?:with\ \S{{1,40}}\ )?(?:by|as)(?:\ password)?  # SQL
          | could\ not\ be\ cast\ to\ integer\ value\ as)       # urllib's complaint, which quotes the password
    )
    (?P<quoted>\\{{0,15}}["'])? [\])]{{0,2}} [ \t]*+
    (?P<sign>=>|:=|==?|:|,|\((?=[bru]{{0,2}}\\{{0,15}}["'])|(?<=[ \t])) [ \t]*+
    """,
    re.ASCII | re.VERBOSE,
)
_BEFORE_NAME = re.compile(r"(?:(?P<query>[?&])|(?P<pair>\([bu]?\\{0,15}[\"'])|(?P<option>--))[\w.-]{0,64}\Z")
_BEFORE = 84  # characters before a name that can matter: the most that `_BEFORE_NAME` matches
_HARMLESS_VALUE = re.compile(r"(?:none|null|true|false)[,;)}\]]*(?!\S)")
_OPENING = re.compile(r"[bruf]{0,2}(\\{0,15})([\"'])")
_CLOSING = {mark: re.compile(rf"(?<!\\)(\\*){mark}(?!\w)") for mark in "\"'"}
_AFTER_QUOTES = re.compile(r"[\"',;:.)}\]>]*(?!\S)")
_CALL_OR_BRACKET = re.compile(r"[\w.]{0,64}[\[({]")
_STRUCTURE = re.compile(r"(?<!\\)(\\*)([\"'])|[\[({]|[\])}]")
_HEADER = re.compile(r"authorization|(?:set-)?cookie")
_KEPT_SCHEME = re.compile(r"(?:bearer|basic)[ \t]+")
_OPEN_AT_END = re.compile(r"(?:[bruf]{0,2}\\{0,15}[\"']|(?:bearer|basic|token)[ \t]+)?\Z")
_LINE, _WORD = re.compile(r"[^\r\n]*"), re.compile(r"\S*")
_QUERY_WORD, _JSON_WORD = re.compile(r"[^\s&\"<>]*"), re.compile(r"[^\s,}\])]*")


def _lower(text: str) -> str:
    """The text in lower case with every character at its old place (a few letters outside ASCII change length)."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(small if len(small := letter.lower()) == 1 else letter for letter in text)


def _named_values(text: str) -> Iterator[tuple[int, int]]:
    """Where the values of sensitive names begin and end."""
    lower, position = _lower(text), 0
    ends: _Ends = {}
    while name := _NAME.search(lower, position):
        position = name.end()
        if span := _value_span(lower, name, ends):
            start, end, position = span
            yield start, end


_Span = tuple[int, int, int]  # where a value begins and ends, and where to look for the next name: maybe within it
_Ends = dict[re.Pattern[str], int]  # where the last word of each kind ended, so that no word is walked over twice


def _value_span(text: str, name: re.Match[str], ends: _Ends) -> _Span | None:
    """Where the value of a name stands; None when the name names nothing here."""
    sign, start = name["sign"], name.end()
    before = _BEFORE_NAME.search(text[max(0, name.start() - _BEFORE) : name.start()])
    if name["phrase"]:
        named = not sign
    elif sign in ("", ","):  # --password x, ('--password', 'x'), ('password', 'x')
        named = before is not None and bool(before["option"] or (before["pair"] and sign))
    else:
        named = bool(name["loud"] or name["quoted"] or "=" in sign)
    if not named or _HARMLESS_VALUE.match(text, start):
        return None
    if opening := _OPENING.match(text, start):
        inside, (end, after) = opening.end(), _closing_quote(text, opening.end(), opening[1], opening[2])
        if end < after and (name["quoted"] or _AFTER_QUOTES.match(text, after)):
            return inside, end, after
        return start, _end(_WORD, text, after, ends), after  # never closed, or the quotes are part of the value
    return _bare_span(text, name, ends, query=before is not None and bool(before["query"]))


def _bare_span(text: str, name: re.Match[str], ends: _Ends, *, query: bool) -> _Span:
    """The same for a value that is not in quotes."""
    start = name.end()
    if query:
        return start, _end(_QUERY_WORD, text, start, ends), start
    if not name["quoted"] and _HEADER.fullmatch(name["loud"] or ""):
        if scheme := _KEPT_SCHEME.match(text, start):
            return scheme.end(), _end(_WORD, text, scheme.end(), ends), scheme.end()
        return start, _end(_LINE, text, start, ends), start
    if _CALL_OR_BRACKET.match(text, start):
        after = _closing_bracket(text, start)
        return start, after if name["quoted"] else _end(_WORD, text, after, ends), after
    return start, _end(_JSON_WORD if name["quoted"] else _WORD, text, start, ends), start


def _end(pattern: re.Pattern[str], text: str, start: int, ends: _Ends) -> int:
    if start > ends.get(pattern, -1) and (match := pattern.match(text, start)):
        ends[pattern] = match.end()
    return ends[pattern]


def _closing_quote(text: str, start: int, escapes: str, mark: str) -> tuple[int, int]:
    """Where quoted content ends and where its closing quote does; the end of the text when it never closes.

    A quote closes with as many backslashes as it opened with, and 2n+1 where n opened it are an escaped quote (JSON in
    JSON: n = 1). Any other number may be either, an escaped quote within one more `repr()` or a backslash that ends the
    secret: then all the rest is hidden.
    """
    for closing in _CLOSING[mark].finditer(text, start):
        if closing[1] == escapes:
            return closing.start(), closing.end()
        if len(closing[1]) != 2 * len(escapes) + 1:
            break
    return len(text), len(text)


def _closing_bracket(text: str, start: int) -> int:
    """Behind the bracket that closes the first one after `start`; the end of the text when none does."""
    depth = 0
    while mark := _STRUCTURE.search(text, start):
        start = mark.end()
        if mark[2]:
            start = _closing_quote(text, start, mark[1], mark[2])[1]
            continue
        depth += 1 if mark[0] in "[({" else -1
        if depth <= 0:
            return start
    return len(text)


def announces_secret(template: str, start: int, end: int) -> bool:
    """Whether the text around a place in a template says that a secret goes there: `password='%s'`."""
    before = _lower(template[max(0, start - 2 * _BEFORE) : start])
    if before.endswith(":") and template.startswith("@", end):
        return True  # scheme://user:%s@host
    return any(
        _OPEN_AT_END.match(before, name.end()) and _value_span(before + "x", name, {}) is not None
        for name in _NAME.finditer(before)
    )


# ---- URLs, headers and shapes ----------------------------------------------------------------------------------------

_RUN = re.compile(r"\S+")
_AUTHORITY = re.compile(r"(?P<web>https?)?:(?:\\?/){2}", re.IGNORECASE)
_USER = re.compile(r"[^/?#:]*:")
_TOKEN_AS_USER = re.compile(r"[^/?#:@]*@")
# What may stand before it: netloc='root:… and {"netloc":"root:…
_USER_WITHOUT_SCHEME = re.compile(
    r"""(?:[\w.-]*+(?:["']:|[="'(\[{<,\\])++)*+(?!jdbc:)[\w.+%-]+:(?!\\?/\\?/)""", re.IGNORECASE
)
_ENCODED_URL = re.compile(r"%3a%2f%2f[^\s\"'&]*", re.IGNORECASE)


def _userinfos(text: str) -> Iterator[tuple[int, int]]:
    """Where the passwords of `scheme://user:password@host` begin and end, at the LAST at sign before white space."""
    for match in _RUN.finditer(text) if "@" in text else ():
        run = match[0]
        if (at := run.rfind("@")) >= 0 and (span := _userinfo(run, at)):
            yield match.start() + span[0], match.start() + span[1]


def _userinfo(run: str, at: int) -> tuple[int, int] | None:
    if (user := _USER_WITHOUT_SCHEME.match(run, 0, at)) and not run.startswith("@sha256:", at):  # no image:tag@sha256:…
        return user.end(), at
    for authority in _AUTHORITY.finditer(run, 0, at):
        start = authority.end()
        if user := _USER.match(run, start, at):
            # In a web address, and where the password is empty, the user may be the token.
            return start if authority["web"] or user.end() == at else user.end(), at
        if authority["web"] and (token := _TOKEN_AS_USER.match(run, start)):
            return start, token.end() - 1
    return None


def _hide_surrounded(text: str) -> str:
    """Both kinds at once, for each may hide what the other goes by."""
    pieces: list[str] = []
    shown_from = 0
    for start, end in sorted((*_named_values(text), *_userinfos(text))):
        if start < end and (start > shown_from or not pieces):
            pieces += (text[shown_from:start], PLACEHOLDER)
        if start < end:
            shown_from = max(shown_from, end)
    return "".join((*pieces, text[shown_from:]))


def _hide_encoded_userinfo(match: re.Match[str]) -> str:
    run, lower = match[0], match[0].lower()
    colon, at = lower.find("%3a", len("%3a%2f%2f")), lower.rfind("%40")
    return run[: colon + 3] + PLACEHOLDER + run[at:] if 0 <= colon < at else run


_PRIVATE_KEY = re.compile(
    r"-----BEGIN[^-]{0,40}PRIVATE KEY[^-]{0,10}-----(?:.*?-----END[^-]{0,50}-----|.*)", re.DOTALL | re.IGNORECASE
)
_BEARER = re.compile(r"(bearer[ \t]+)(\S+)", re.IGNORECASE)
_BEARER_PROSE = frozenset({"auth", "authentication", "authorization", "of", "or", "realm", "scheme", "token", "tokens"})
_BASIC = re.compile(r"(basic[ \t]+)([a-z0-9+/_-]{4,}+)={0,2}", re.IGNORECASE)
_SHAPES = re.compile(
    r"""
    ey[AJ][\w-]{13,}+(?:[.:][\w=-]*+){0,4}                              # base64 of {": JWT, JWE, Django's signed values
  | (?:AKIA|ASIA)[A-Z0-9]{16}                                           # AWS access key
  | gh[opsur]_[A-Za-z0-9]{20,}+ | github_pat_\w{20,}+                   # GitHub
  | xox[a-z]-[\w-]{10,}+ | xapp-[\w-]{10,}+ | glpat-[\w-]{16,}+         # Slack, GitLab
  | (?:(?<!\w)|(?<=\\[nrt]))pw_(?=[a-z_]{0,64}[A-Z0-9-])[\w-]{20,}+     # our own; not a long lower-case identifier
    """,
    re.ASCII | re.VERBOSE,
)
_LOCAL, _RARE, _DOMAIN = r"\w.+%-", r"!#$&'*/=?^`{|}~", r"@(?:[\w-]++\.)+[^\W\d_][\w-]*+"
# Before the at sign as far as the usual characters go (`user=bob@…` keeps its `user=`), all of it where it ends in a
# rare one.
_EMAIL = re.compile(
    rf"(?<![{_LOCAL}])[{_LOCAL}]++{_DOMAIN}"
    rf"|(?<![{_RARE}{_LOCAL}])[{_RARE}{_LOCAL}]++(?<=[{_RARE}]){_DOMAIN}"
    rf"|(?<![\w.+~%-])(?:[\w.+~-]++|%(?!40)[0-9A-Fa-f]{{2}})++%40{_DOMAIN[1:]}"
)


def _hide_bearer(match: re.Match[str]) -> str:
    word = match[2].strip(".,;:'\"()").lower()
    return match[0] if word in _BEARER_PROSE or word.startswith("realm=") else match[1] + PLACEHOLDER


def _hide_basic(match: re.Match[str]) -> str:
    """Only what decodes to `user:password`, for "basic" is a word of its own."""
    try:
        decoded = base64.b64decode(match[2] + "==", altchars=b"-_" if set("-_") & set(match[2]) else None)
    except (binascii.Error, ValueError):
        return match[0]
    return match[1] + PLACEHOLDER if b":" in decoded else match[0]


# Each rule with the words, in lower case, without any of which it has nothing to do: most texts have none of them.
_RULES: tuple[tuple[tuple[str, ...], Callable[[str], str]], ...] = (
    (("private key",), lambda text: _PRIVATE_KEY.sub(PLACEHOLDER, text)),
    (
        (
            *("@", "pass", "pwd", "secret", "token", "key", "auth", "cookie", "csrf", "session", "credential", "dsn"),
            *("jwt", "url", "uri", "backend", "identified", "connection", "cast to integer"),
        ),
        _hide_surrounded,
    ),
    (("%3a%2f%2f",), lambda text: _ENCODED_URL.sub(_hide_encoded_userinfo, text)),
    (("bearer",), lambda text: _BEARER.sub(_hide_bearer, text)),
    (("basic",), lambda text: _BASIC.sub(_hide_basic, text)),
    (
        (
            *("eyj", "eya", "akia", "asia", "gho_", "ghp_", "ghr_", "ghs_", "ghu_", "github_pat_"),
            *("xox", "xapp-", "glpat-", "pw_"),
        ),
        lambda text: _SHAPES.sub(PLACEHOLDER, text),
    ),
    (("@", "%40"), lambda text: _EMAIL.sub(PLACEHOLDER, text)),
)

# ---- Secrets the process knows ---------------------------------------------------------------------------------------

_registering = threading.Lock()
_registered: dict[str, frozenset[str]] = {}  # secrets with their spellings; replaced, never changed
_known: tuple[dict[str, frozenset[str]], re.Pattern[str] | None] = (_registered, None)  # for which, the pattern of all


def register_secret(value: str) -> None:
    """Hide this exact text from now on wherever it occurs, also url-encoded or escaped as in JSON, HTML and `repr()`.

    Call it for every secret of the configuration, as often as it is read. Values below `MIN_REGISTERED` characters are
    ignored.
    """
    global _registered
    if len(value) < MIN_REGISTERED or value in PLACEHOLDER or value in _registered:
        return
    with _registering:
        _registered = {**_registered, value: frozenset(_spellings(value))}


def _pattern() -> re.Pattern[str] | None:
    """Every spelling of what is registered, made when a text is to be hidden: many secrets in a row cost one."""
    global _known
    made_for, pattern = _known
    if made_for is not _registered:
        with _registering:
            spellings = frozenset().union(*_registered.values())
            pattern = re.compile("|".join(map(re.escape, sorted(spellings, key=lambda text: (-len(text), text)))))
            _known = _registered, pattern
    return pattern


def _spellings(value: str) -> Iterator[str]:
    encodable = value.encode("utf-8", "replace").decode()
    for encoded in (quote(encodable, safe=""), quote(encodable), quote_plus(encodable)):
        yield encoded
        yield re.sub("%..", lambda code: code[0].lower(), encoded)
    represented = repr(value)[1:-1]
    yield from (value, represented, represented.replace('"', '\\"'), represented.replace("'", "\\'"))
    yield from (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1])
    yield from (html.escape(value), value.encode("unicode_escape").decode("ascii"))


# ---- What others call ------------------------------------------------------------------------------------------------


def redact(text: str) -> str:
    """The text with every secret replaced by `[redacted]`; a text without one comes back as it is.

    Takes time linear in the length of the text; `redact(redact(text)) == redact(text)`.
    """
    known = _pattern()
    for _ in range(MAX_PASSES):
        lower = text.lower()
        hidden = text if known is None else known.sub(PLACEHOLDER, text)
        for words, rule in _RULES:
            for word in words:
                if word in lower:
                    hidden = rule(hidden)
                    break
        if hidden == text:
            break
        text = hidden
    return text


def redact_value(key: str | None, value: object) -> object:
    """A redacted copy of any object, made of plain types JSON knows; `key` is the name it is kept under, if any.

    Under a sensitive name everything but None and booleans is hidden. Other objects become their text. What is nested
    deeper or longer than the bounds of this module is cut. Never raises.
    """
    try:
        return _plain(None if key is None else str.__str__(key), value, MAX_DEPTH)
    except Exception:  # The object is a stranger's: whatever it does, the caller's log line must come out.
        return UNPRINTABLE


def summary(error: BaseException) -> str:
    """`ClassName: message` of an exception, redacted; the name alone when it has no message. Never raises."""
    message = redacted_message(error)
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def redacted_message(error: BaseException) -> str:
    """The message of an exception, redacted. Never raises."""
    return str(redact_value(None, _text_of(error)))


def _plain(key: str | None, value: object, depth: int) -> object:
    if value is None or value is True or value is False:
        return value
    if key is not None and is_sensitive(key):
        return PLACEHOLDER
    if isinstance(value, str):
        return _bounded(_text_of(value))
    if isinstance(value, (int, float)):
        return _number(value)
    if isinstance(value, CONTAINERS):
        return _container(value, depth) if depth > 0 else CUT
    return summary(value) if isinstance(value, BaseException) else _bounded(_text_of(value))


def _number(value: float) -> object:
    """The number, as text where JSON has no way to write it."""
    if isinstance(value, int):
        return int.__index__(value) if abs(value) < 1 << 1024 else CUT  # Python refuses to write very long numbers
    return float.__float__(value) if math.isfinite(value) else str(float.__float__(value))


def _container(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        entries = islice(value.items(), MAX_ITEMS)
        return {_bounded(_text_of(key)): _entry(_name_of(key), item, depth) for key, item in entries}
    items = list(islice(value, MAX_ITEMS))  # type: ignore[call-overload]  # one of the four other containers
    pair = isinstance(value, tuple) and len(items) == 2
    plain = [_entry(_name_before(items, index, pair), item, depth) for index, item in enumerate(items)]
    return tuple(plain) if isinstance(value, tuple) else plain


def _entry(key: str | None, item: object, depth: int) -> object:
    """One entry of a container: when it fails, the others must not."""
    try:
        return _plain(key, item, depth - 1)
    except Exception:  # As in `redact_value`.
        return UNPRINTABLE


def _name_of(key: object) -> str | None:
    return _text_of(key) if isinstance(key, str | bytes) else None


def _name_before(items: Sequence[object], index: int, pair: bool) -> str | None:
    """The name an item of a sequence goes by: ("password", "x") is a pair, ["--password", "x"] a command line."""
    name = _name_of(items[index - 1]) if index else None
    return name if name is not None and (pair or name.startswith("--")) else None


def _text_of(value: object) -> str:
    try:
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value[: 5 * MAX_READ]).decode("utf-8", "backslashreplace")
        if isinstance(value, date | time):
            return value.isoformat()
        return str.__str__(str(value))
    except Exception:  # A stranger's __str__.
        return UNPRINTABLE


def _bounded(text: str) -> str:
    if len(text) > MAX_READ:
        text = "".join(text[:MAX_READ].rsplit(None, 1)[:1])  # without the last word: half a secret looks like none
    text = redact(text)
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # half a surrogate pair is no text to a JSON reader
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + CUT

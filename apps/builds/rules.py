"""How builds and diagnostics move, what a diagnostic is worth, and which two are the same one. Pure: no Django,
no clock.

Statuses are the plain words of `choices`; where a file lies is judged in `paths`.
"""

import re
from collections.abc import Hashable, Iterable, Mapping
from hashlib import blake2b

# ---- State flows -----------------------------------------------------------------------------------------------------

BUILD_FLOW: Mapping[str, frozenset[str]] = {
    "pending": frozenset({"building", "cancelled"}),
    # CI cancels builds that run, too: when a newer commit comes, for instance. Those have not failed.
    "building": frozenset({"success", "failed", "cancelled"}),
    "success": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
# By hand. Reports move diagnostics too: they resolve what is gone, and identify again what has come back.
DIAGNOSTIC_FLOW: Mapping[str, frozenset[str]] = {
    "identified": frozenset({"in_progress", "deferred"}),
    "in_progress": frozenset({"resolved", "deferred"}),
    "deferred": frozenset({"in_progress"}),
    "resolved": frozenset(),
}


def may_move(flow: Mapping[str, frozenset[str]], source: str, target: str) -> bool:
    """Whether the flow has an arrow from one status to the other. A status leads to itself nowhere."""
    return target in flow.get(source, frozenset())


def targets_of(flow: Mapping[str, frozenset[str]], source: str) -> list[str]:
    """What may follow a status, sorted."""
    return sorted(flow.get(source, frozenset()))


# ---- Words and numbers -----------------------------------------------------------------------------------------------

# https://semver.org, with the `v` that `node --version` prints.
SEMVER = (
    r"^v?(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})\.(0|[1-9]\d{0,9})"
    r"(-(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(\.(0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*)?"
    r"(\+[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?\Z"
)
COMMIT = r"^[0-9a-f]{7,40}\Z"
BRANCH = r"^(?![/.-])(?!.*(//|\.\.|@\{))[^\x00-\x20\x7f~^:?*\[\\]+(?<![/.])\Z"
TOOL = r"^[a-z0-9][a-z0-9 ._+@/#-]{0,63}\Z"
TSC = "tsc"  # the one tool whose codes have a form of their own
TSC_CODE = r"^TS\d{1,6}\Z"
MAX_CODE = 100  # characters; CodeQL's longest rule names have about 60
MAX_MESSAGE = 4000  # characters; tsc itself shortens types long before
MAX_NUMBER = 2**31 - 1  # the largest line or column a column of the table holds

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ufdd0-\ufdef\ufffe\uffff]")
_SURROGATES = re.compile("[\ud800-\udfff]")


def plain(text: str, limit: int) -> str:
    """Text that any database stores and any page shows: no control characters, no half characters, not too long."""
    if not text.isprintable():
        text = _SURROGATES.sub("\ufffd", _CONTROLS.sub("", text))
    text = text.strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def plain_end(text: str, limit: int) -> str:
    """As `plain`, but of a text that is too long the end is kept: the cause stands at the end of a log."""
    text = plain(text, len(text) + 1)
    return text if len(text) <= limit else "…" + text[len(text) - limit + 1 :]


def tool_name(name: str) -> str:
    """A tool's name as it is stored: lower case, single spaces. Raises ValueError with a sentence."""
    found = " ".join(name.split()).lower()
    if not re.match(TOOL, found):
        raise ValueError("A tool's name is 1 to 64 letters, digits, spaces and . _ + @ / # -, such as ruff.")
    return found


def tool_code(tool: str, code: str) -> str:
    """A diagnostic's code as it is stored; tsc's are TS and a number. Raises ValueError with a sentence."""
    code = plain(code, MAX_CODE + 1)
    if tool == TSC:
        code = code.upper()
        if not re.match(TSC_CODE, code):
            raise ValueError("A code of tsc is TS and a number, such as TS2322.")
    if len(code) > MAX_CODE:
        raise ValueError(f"A diagnostic's code has at most {MAX_CODE} characters.")
    return code


# ---- Severity and category -------------------------------------------------------------------------------------------

_SEVERITIES = {"error": "high", "warning": "medium", "note": "low"}


def severity(level: str, *, build_failed: bool) -> str:
    """What a diagnostic is worth: an error is critical when its build failed."""
    return "critical" if build_failed and level == "error" else _SEVERITIES[level]


# Codes of tsc, from the messages in its source (src/compiler/diagnosticMessages.json).
TSC_CODES = {
    # A value of one type where another is wanted: assignments, arguments, operators, overloads, heritage.
    "type_mismatch": """
        2322 2326 2328 2330 2344 2345 2347-2352 2355 2358 2359 2362-2367 2375 2378 2379 2403 2412 2415-2418 2420 2430
        2461 2488 2489 2495 2504 2511 2514 2536 2538 2554-2556 2558-2560 2589 2590 2678 2684 2719 2743 2746 2747 2769
        2786 2820 7036 18033""",
    # noImplicitAny and noImplicitThis.
    "implicit_any": """
        2602 2683 7005 7006 7008-7015 7017-7020 7022-7026 7031-7034 7039 7041 7043 7045-7055 7057""",
    # A name, type or declaration file that the compiler does not find.
    "missing_types": "2304 2314 2315 2318 2503 2552 2570 2580-2584 2591-2593 2662 2663 2688 2749 7016",
    # A property that is missing, unknown, private or read-only.
    "property_violation": """
        2324 2325 2339-2341 2353 2445 2446 2540 2542 2550 2551 2561 2568 2576 2739-2741 4111 18013""",
    # Modules, and what they import and export.
    "import_export": """
        1192 1202 1203 1205 1259 1261 1280 1286 1287 1293 1448 1471 1479 1484 1485 2305-2309 2323 2440 2459 2460 2484
        2497 2498 2613 2614 2616 2664 2665 2694 2724 2732 2792 2821 2834 2835 2846 2856 2857 2865 5097 6142 7038 7042
        18042""",
    # What --strict and the further checks refuse: null and undefined, unused names, unreachable code, overrides.
    "strict_mode": """
        1100-1102 1210 1212-1215 2454 2531-2533 2564 2565 2571 2721-2723 2774 2779 2801 2872 2873 4112-4117 6133 6138
        6192 6196 6198 6199 6205 7027-7030 18046-18050""",
}


def numbers(text: str) -> Iterable[int]:
    """Numbers and ranges in words, such as `2322-2324 2345`."""
    for word in text.split():
        first, _, last = word.partition("-")
        yield from range(int(first), int(last or first) + 1)


_TSC_CATEGORIES = {number: category for category, text in TSC_CODES.items() for number in numbers(text)}


def category(tool: str, code: str) -> str:
    """The class of a diagnostic by its code; `other` when the table does not know it."""
    return _TSC_CATEGORIES.get(int(code[2:]), "other") if tool == TSC else "other"


# ---- Which two are the same one --------------------------------------------------------------------------------------

# Places in the text of a message, as in "redefinition of unused `x` from line 12": they move as lines do.
_PLACES = re.compile(r"\b(lines?|columns?|col) \d+|(?<=[(:])\d+[,:]\d+(?=\b)", re.IGNORECASE)


def basis(file: str, code: str, message: str) -> tuple[str, str, str]:
    """What makes two diagnostics of one tool the same one: all but their place in the file."""
    if not message.isascii() or any(digit in message for digit in "0123456789"):
        message = _PLACES.sub("#", message)
    return file, code, " ".join(message.split())


def fingerprint(key: tuple[str, str, str], ordinal: int) -> str:
    """128 bits in hexadecimal. Equal diagnostics of one file are told apart by their ordinal, counted from 0."""
    return blake2b("\0".join((*key, str(ordinal))).encode(), digest_size=16).hexdigest()


def ordinals(keys: Iterable[Hashable]) -> list[int]:
    """How often each key was there before, in order."""
    seen: dict[Hashable, int] = {}
    found = []
    for key in keys:
        found.append(number := seen.get(key, 0))
        seen[key] = number + 1
    return found

"""Environment variables: what a service demands of them, and the verdict on each. No value survives its verdict."""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from apps.core.errors import Invalid

VALID, INVALID, NOT_VALIDATED = "valid", "invalid", "not_validated"

MAX_KEY = 128  # characters
MAX_VALUE = 512  # characters of a value that a pattern is tried on: what MAX_WAYS allows takes three seconds at worst
MAX_REPEATS = 3  # open repeats (* + {n,}) in one pattern
# What one open repeat counts for. Three of them cut a value at three places in order, which can be done in 512³/6 ways.
OPEN_WAYS = 282
# To try a pattern on a value, at some 15 million a second: three open repeats, each in a part that may be left out, and
# one choice of two.
MAX_WAYS: int = 2 * (OPEN_WAYS + 1) ** MAX_REPEATS
MAX_VARIABLES = 500  # in one report
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# A variable without a rule whose name says this much is treated as sensitive.
_TELLING = re.compile(r"SECRET|PASSWORD|PASSWD|TOKEN|CREDENTIAL|PRIVATE|API_?KEY|(^|_)KEY$|(^|_)DSN$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a service demands of one variable."""

    key: str
    required: bool = True
    pattern: str = ""  # the whole value has to match
    min_length: int = 0
    sensitive: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What CI says of one variable: its value, or for a sensitive one only what can be said without it."""

    key: str
    value: str | None = field(default=None, repr=False)
    is_set: bool | None = None
    length: int | None = None
    matches: bool | None = None
    is_sensitive: bool | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """The verdict on one variable; this is all that is kept of it."""

    key: str
    is_set: bool
    is_sensitive: bool
    status: str
    reason: str = ""
    required: bool = False


def check_key(key: str) -> str:
    """The name as given. Raises Invalid unless it is an identifier."""
    if len(key) > MAX_KEY or not _KEY.fullmatch(key):
        raise Invalid("A variable's name has letters, digits and _ only and starts with no digit.", field="key")
    return key


def check_pattern(pattern: str) -> None:
    """Raises Invalid for a pattern that is none, or that some value could keep busy for years.

    Such patterns repeat a group that itself repeats or chooses, as in `(a+)+`, or have many repeats and choices side by
    side, as in `a*a*a*a*` and `a?a?a?…`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # such as [[a]: later Pythons will read it otherwise
            re.compile(pattern)
    except (re.error, RecursionError, OverflowError, FutureWarning) as error:
        raise Invalid("This is no regular expression.", field="pattern") from error
    if re.search(r"\\[1-9]|\(\?(?!:)", pattern):
        raise Invalid(
            "Write the pattern without references to groups and without (?…) other than (?:…).", field="pattern"
        )
    if _ways(pattern) > MAX_WAYS:
        raise Invalid(
            f"Write the pattern with at most {MAX_REPEATS} open repeats and few choices, and repeat no group without "
            "end that itself repeats or chooses.",
            field="pattern",
        )


def _ways(pattern: str) -> int:
    """In how many ways a pattern could be tried on a value, at most: so often at worst is it looked at in vain.

    What stands side by side multiplies, alternatives add up. Of a pattern that compiles.
    """
    groups: list[tuple[int, int]] = []
    others, before, last = 0, 1, 1  # ways of the alternatives that have ended, of this one so far, of its last part
    repeated = False
    for part in re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,?\d*\}|\(\?:|.", pattern, re.DOTALL):
        if part in ("*", "+", "?") or (part[0] == "{" and len(part) > 2):
            if not repeated:  # else it says that the repeat is lazy or possessive
                last = _repeated(last, part)
            repeated = True
            continue
        repeated = False
        before, last = min(before * last, MAX_WAYS + 1), 1
        if part in ("(", "(?:"):
            groups.append((others, before))
            others, before = 0, 1
        elif part == "|":
            others, before = others + before, 1
        elif part == ")":
            last = others + before
            others, before = groups.pop()
    return others + before * last


def _repeated(ways: int, repeat: str) -> int:
    """The ways of something that is repeated. More than MAX_WAYS are not counted."""
    least, most = {"*": ("", ""), "+": ("1", ""), "?": ("", "1")}.get(repeat) or _bounds(repeat)
    low, high = int(least or 0), int(most) if most else None
    if ways == 1:
        return OPEN_WAYS if high is None else min(high - low + 1, OPEN_WAYS)
    if high is None:
        return MAX_WAYS + 1
    total, power = 0, 1
    for times in range(high + 1):
        total += power if times >= low else 0
        power *= ways
        if power > MAX_WAYS:
            return total + (power if times < high else 0)
    return total


def _bounds(repeat: str) -> tuple[str, str]:
    """`{2,5}` as its two numbers; one that is open has none."""
    least, comma, most = repeat[1:-1].partition(",")
    return least, most if comma else least


def judge(rules: Iterable[Rule], reports: Sequence[Report]) -> tuple[Finding, ...]:
    """A finding for every variable that was reported or that a rule names, by name.

    Raises Invalid, field `environment_variables`, for a name given twice, and for the value of a sensitive variable:
    that one has been seen by too many already, and nothing of it is kept.
    """
    if len(reports) > MAX_VARIABLES:
        raise Invalid(f"Report at most {MAX_VARIABLES} variables.", field="environment_variables")
    demanded = {rule.key: rule for rule in rules}
    reported: dict[str, Report] = {}
    for report in reports:
        if check_key(report.key) in reported:
            raise Invalid(f"{report.key} is reported twice; send it once.", field="environment_variables")
        reported[report.key] = report
    return tuple(
        _finding(key, demanded.get(key), reported.get(key)) for key in sorted(demanded.keys() | reported.keys())
    )


def is_sensitive(key: str, rule: Rule | None, report: Report | None) -> bool:
    """A rule decides; without one the reporter may say so, and a telling name is enough."""
    if rule is not None and rule.sensitive:
        return True
    if report is not None and report.is_sensitive:
        return True
    return rule is None and bool(_TELLING.search(key))


def _finding(key: str, rule: Rule | None, report: Report | None) -> Finding:
    sensitive = is_sensitive(key, rule, report)
    required = bool(rule and rule.required)
    if report is not None and report.value is not None and sensitive:
        raise Invalid(
            f"{key} is sensitive: its value must not be sent, and was not kept. Send is_set, length and matches "
            "instead, and consider changing the secret.",
            field="environment_variables",
        )
    if report is not None and report.value is not None:
        set_, length = True, len(report.value)
    else:
        set_ = bool(report and (report.is_set or report.length))
        length = report.length if report and report.length is not None else -1
    if not set_ or length == 0:
        reason = "required, but not set" if report else "required, but not reported"
        status = INVALID if required else VALID if report else NOT_VALIDATED
        return Finding(key, False, sensitive, status, reason if required else "not set", required)
    status, reason = _demands(rule, report, length)
    return Finding(key, True, sensitive, status, reason, required)


def _demands(rule: Rule | None, report: Report | None, length: int) -> tuple[str, str]:
    """Whether what a set variable has is what its rule asks."""
    if rule is None:
        return NOT_VALIDATED, "no rule asks anything of it"
    if rule.min_length and 0 <= length < rule.min_length:
        return INVALID, f"shorter than {rule.min_length} characters"
    matches = report.matches if report else None
    if rule.pattern and report is not None and report.value is not None:
        if len(report.value) > MAX_VALUE:
            return NOT_VALIDATED, f"longer than the {MAX_VALUE} characters a pattern is tried on"
        matches = re.fullmatch(rule.pattern, report.value) is not None
    if rule.pattern and matches is False:
        return INVALID, "does not match its pattern"
    asked = (("length", rule.min_length and length < 0), ("matches", rule.pattern and matches is None))
    missing = [word for word, wanted in asked if wanted]
    if missing:
        return NOT_VALIDATED, f"{' and '.join(missing)} not reported"
    return VALID, ""

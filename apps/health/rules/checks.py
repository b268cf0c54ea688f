"""How one answer of an endpoint or a database is judged, and what a row of answers makes of its status. Pure.

The status of a check is its own; the status of a target follows from several, so that one lost packet wakes nobody.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from apps.inventory.rules import JsonCondition

HEALTHY, DEGRADED, FAILED, UNKNOWN = "healthy", "degraded", "failed", "unknown"
MOST = 1_000_000  # where counters stop: a column has an end, a target that is fine for years has none
AVERAGE_SHARE = 0.2  # what the newest query counts for in the moving average


# ---- One answer of an endpoint ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expectation:
    """What must come back."""

    statuses: tuple[tuple[int, int], ...]  # ranges, both ends included
    slow_ms: int
    contains: str = ""
    condition: JsonCondition | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, or why nothing did. `body` is cut at a limit; then `whole` is false."""

    response_ms: float | None  # until the answer or the failure; None: not measured
    failure: str = ""
    ours: bool = False  # the failure is Pulsewatch's own
    status: int | None = None
    body: bytes = b""
    whole: bool = True
    expires_at: datetime | None = None  # the certificate


@dataclass(frozen=True, slots=True)
class Verdict:
    """The status of one check and, unless it is healthy, why."""

    status: str
    reason: str = ""


def judge_answer(answer: Answer, expected: Expectation) -> Verdict:
    """Whether an answer is the expected one, and fast enough."""
    if answer.ours:
        return Verdict(UNKNOWN, answer.failure)
    if answer.failure or answer.status is None:
        return Verdict(FAILED, answer.failure or "gave no answer")
    if not any(first <= answer.status <= last for first, last in expected.statuses):
        wanted = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in expected.statuses)
        return Verdict(FAILED, f"answered {answer.status} instead of {wanted}")
    if fault := _body_fault(answer, expected):
        return Verdict(FAILED, fault)
    return _by_speed(answer.response_ms, expected.slow_ms, "answered")


def _by_speed(took_ms: float | None, slow_ms: int, verb: str) -> Verdict:
    if took_ms is not None and took_ms >= slow_ms:
        return Verdict(DEGRADED, f"{verb} in {took_ms:.0f} ms; {slow_ms} ms and more is slow")
    return Verdict(HEALTHY)


def _body_fault(answer: Answer, expected: Expectation) -> str:
    if expected.contains and expected.contains.encode() not in answer.body:
        where = "answer" if answer.whole else "beginning of the answer"
        return f"the {where} does not contain the expected text"
    if expected.condition is None:
        return ""
    if not answer.whole:
        return "the answer is too large to check its JSON"
    try:
        value = json.loads(answer.body)
    except (ValueError, RecursionError):
        return "the answer is not JSON"
    return "" if holds(expected.condition, value) else "the answer does not meet the JSON condition"


def holds(condition: JsonCondition, value: Any) -> bool:
    """Whether a JSON value meets a condition. A place that is not there meets none, whatever the comparison."""
    for step in condition.steps:
        if isinstance(step, str):
            there = isinstance(value, dict) and step in value
        else:
            there = isinstance(value, list) and -len(value) <= step < len(value)
        if not there:
            return False
        value = value[step]
    return _compares(value, condition.operator, condition.literal)


def _compares(value: object, operator: str, literal: str | float | bool | None) -> bool:
    if operator == "":
        return True
    # In JSON true is no number, although it is one in Python.
    same = isinstance(value, bool) == isinstance(literal, bool) and value == literal
    if operator in ("==", "!="):
        return same == (operator == "==")
    if isinstance(value, bool) or not isinstance(value, int | float) or not isinstance(literal, int | float):
        return False
    if operator in ("<", "<="):
        return value < literal or (operator == "<=" and value == literal)
    return value > literal or (operator == ">=" and value == literal)


# ---- One look at a database ------------------------------------------------------------------------------------------

CONNECTED, DISCONNECTED, TIMEOUT, ERROR = "connected", "disconnected", "timeout", "error"
SUCCESS, SLOW, QUERY_FAILED, NOT_TESTED = "success", "slow", "failed", "not_tested"


@dataclass(frozen=True, slots=True)
class Look:
    """One connection to a database and one query over it."""

    connection: str | None = None  # connected, disconnected, timeout, error; None: not tried
    query: str = NOT_TESTED
    connect_ms: float | None = None
    query_ms: float | None = None
    used: int | None = None  # connections of the server now
    limit: int | None = None  # the most it takes
    failure: str = ""
    ours: bool = False  # the failure is Pulsewatch's own

    @property
    def took_ms(self) -> float | None:
        """Connecting and query together."""
        return None if self.connect_ms is None else self.connect_ms + (self.query_ms or 0)


def judge_look(look: Look, slow_ms: int) -> tuple[Look, Verdict]:
    """The status of a look; a query that took too long is marked slow in it."""
    if look.ours or look.connection is None:
        return look, Verdict(UNKNOWN, look.failure)
    if look.connection != CONNECTED or look.query == QUERY_FAILED:
        return look, Verdict(FAILED, look.failure or "gave no answer")
    verdict = _by_speed(look.query_ms, slow_ms, "answered the query")
    return (replace(look, query=SLOW) if verdict.status == DEGRADED else look), verdict


def moving_average(before: float | None, value: float | None) -> float | None:
    """The newest value counts a fifth; one that was not measured counts nothing."""
    if value is None or before is None:
        return before if value is None else value
    return before + AVERAGE_SHARE * (value - before)


# ---- A row of answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Course:
    """How a target fares: its status, since when, and what it rests on."""

    status: str = UNKNOWN
    since: datetime | None = None
    failures: int = 0  # in a row
    successes: int = 0  # in a row


def advance(course: Course, check: str, at: datetime, *, down_after: int, up_after: int) -> Course:
    """What one more check makes of it.

    A target is failed after so many failures in a row, and stays so until as many good answers came in a row; with
    fewer failures it is degraded. A check of unknown outcome proves nothing: what is failed stays so, all else is
    unknown until the next one.
    """
    failures, successes = 0, 0
    if check == UNKNOWN:
        status = FAILED if course.status == FAILED else UNKNOWN
    elif check == FAILED:
        failures = min(course.failures + 1, MOST)
        status = FAILED if course.status == FAILED or failures >= down_after else DEGRADED
    else:
        successes = min(course.successes + 1, MOST)
        status = FAILED if course.status == FAILED and successes < up_after else check
    return Course(status, course.since if status == course.status else at, failures, successes)


# ---- Ourselves -------------------------------------------------------------------------------------------------------

STALL_SECONDS = 1.0  # an event loop that sleeps that long past its time cannot have measured anything


def stalled(started: float, ended: float, stalls: Sequence[tuple[float, float]]) -> bool:
    """Whether the process itself slept while it measured; all times of one monotonic clock."""
    return any(start < ended and end > started for start, end in stalls)


def certificate_level(expires_at: datetime | None, now: datetime, *, warning_days: int, critical_days: int) -> str:
    """`critical`, `warning` or an empty text, for a certificate that ends then. Without warning days: never."""
    if expires_at is None or not warning_days:
        return ""
    left = expires_at - now
    if left <= timedelta(days=critical_days):
        return "critical"
    return "warning" if left <= timedelta(days=warning_days) else ""

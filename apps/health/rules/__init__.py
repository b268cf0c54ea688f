"""How a sample is judged, and how rates come out of counters. Pure: no clock, no database, no Django.

`None` always means "not measured" and breaks no rule.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SLOT = timedelta(seconds=60)  # one scheduled sample per instance and minute
HOUR = timedelta(hours=1)
RAW_KEPT = timedelta(hours=24)  # raw checks; whole hours, so that some are up to an hour older
HISTORY_KEPT = timedelta(days=90)  # what hours and minutes came to
ERROR_WINDOW = timedelta(minutes=5)  # what `error_rate_5min` looks back on

DATABASE_SLOW_MS = 100  # above: slow
REDIS_SLOW_MS = 50  # above: slow
RESPONSE_SLOW_MS = 200  # from here on: degraded
ERROR_RATE_DEGRADED = 0.01  # from here on: degraded
ERROR_RATE_UNHEALTHY = 0.05  # above: unhealthy

# The words are those of apps.health.choices; plain strings here keep the rules free of Django.
HEALTHY, DEGRADED, UNHEALTHY, UNKNOWN = "healthy", "degraded", "unhealthy", "unknown"
CONNECTED, SLOW, DISCONNECTED = "connected", "slow", "disconnected"


@dataclass(frozen=True, slots=True)
class Dependency:
    """What an instance says of one server it depends on; `response_ms` in milliseconds."""

    status: str = UNKNOWN
    response_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """What an instance has counted since it started, and the gauges beside it."""

    cpu_seconds: float | None = None
    requests: float | None = None  # probe requests left out
    errors: float | None = None  # answers with a 5xx status among `requests`
    memory_bytes: float | None = None
    start_time: float | None = None  # Unix seconds
    cpu_limit_cores: float | None = None
    memory_limit_bytes: float | None = None
    active_connections: float | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at an instance: its readiness answer, or why there was none, and its counters."""

    measured_at: datetime
    response_time_ms: int  # until the answer or the failure
    failure: str = ""  # empty when it answered
    http_status: int | None = None
    version: str | None = None
    database: Dependency = field(default_factory=Dependency)
    redis: Dependency = field(default_factory=Dependency)
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class Reading:
    """The counters of an earlier sample of the same instance."""

    measured_at: datetime
    cpu_seconds: float | None = None
    requests: float | None = None
    errors: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """What counters and limits come to. Percentages are of the limit; `error_rate` is 0 to 1."""

    cpu_percent: float | None = None
    memory_mb: int | None = None
    memory_percent: float | None = None
    uptime_seconds: int | None = None
    error_rate: float | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a status is not `healthy`: the rule, the value that broke it, the limit it broke."""

    rule: str
    status: str
    value: float | int | str | None = None
    limit: float | int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """A status and every rule that speaks against a better one, worst first."""

    status: str
    reasons: tuple[Reason, ...] = ()


def slot_of(moment: datetime) -> datetime:
    """The start of the slot a moment lies in, in UTC: the time scheduled samples carry."""
    return EPOCH + (moment - EPOCH) // SLOT * SLOT


def hour_of(moment: datetime) -> datetime:
    """The start of the hour a moment lies in, in UTC, whatever any local clock does."""
    return EPOCH + (moment - EPOCH) // HOUR * HOUR


def nearest_rank(values: Iterable[float], percent: int) -> float | None:
    """The smallest of the values that at least so many percent of them do not exceed; None without values.

    Always one of the values, never something between two of them.
    """
    ordered = sorted(values)
    return ordered[-(-percent * len(ordered) // 100) - 1] if ordered else None


def uptime(up: int, down: int) -> float | None:
    """The share of checks that found their target up, 0 to 1; None when none of them could tell."""
    return up / (up + down) if up + down else None


def dependency(status: str, response_ms: float | None, *, slow_ms: int) -> Dependency:
    """A dependency as reported; a connected one whose answer took longer than `slow_ms` is slow."""
    rounded = None if response_ms is None else round(response_ms)
    if status == CONNECTED and response_ms is not None and response_ms > slow_ms:
        status = SLOW
    return Dependency(status, None if status == DISCONNECTED else rounded)


def increase(values: Sequence[float]) -> float:
    """How much a counter grew over its readings, oldest first. A fall means a restart from zero (Prometheus' rule)."""
    return sum(later - earlier if later >= earlier else later for earlier, later in pairwise(values))


def usage(observation: Observation, earlier: Iterable[Reading], *, cpu_limit: float | None = None,
          memory_limit_bytes: float | None = None) -> Usage:  # fmt: skip
    """Rates and shares. Explicit limits win over reported ones; without earlier readings rates are None."""
    now = observation.counters
    history = sorted(
        (r for r in earlier if observation.measured_at - ERROR_WINDOW <= r.measured_at < observation.measured_at),
        key=lambda reading: reading.measured_at,
    )
    cores = cpu_limit or now.cpu_limit_cores
    memory_limit = memory_limit_bytes or now.memory_limit_bytes
    cpu_percent = None
    last = next((r for r in reversed(history) if r.cpu_seconds is not None), None)
    if last is not None and last.cpu_seconds is not None and now.cpu_seconds is not None and cores:
        elapsed = (observation.measured_at - last.measured_at).total_seconds()
        cpu_percent = _percent(increase((last.cpu_seconds, now.cpu_seconds)), elapsed * cores)
    uptime = None
    if now.start_time is not None:
        uptime = max(0, round(observation.measured_at.timestamp() - now.start_time))
    return Usage(
        cpu_percent=cpu_percent,
        memory_mb=None if now.memory_bytes is None else round(now.memory_bytes / 2**20),
        memory_percent=_percent(now.memory_bytes, memory_limit) if now.memory_bytes is not None else None,
        uptime_seconds=uptime,
        error_rate=_error_rate(now, history),
    )


def _percent(part: float, whole: float | None) -> float | None:
    """`part` of `whole` in percent; None where the whole is missing or next to nothing."""
    return 100 * part / whole if whole and whole > 1e-3 else None


def _error_rate(now: Counters, history: Sequence[Reading]) -> float | None:
    """5xx ÷ all over the window; 0 without traffic; None until there are two readings."""
    if now.requests is None or now.errors is None:
        return None
    readings = [(r.requests, r.errors) for r in history if r.requests is not None and r.errors is not None]
    if not readings:
        return None
    requests = increase([*(r[0] for r in readings), now.requests])
    errors = increase([*(r[1] for r in readings), now.errors])
    # Two metrics of one scrape are not read at one instant: an error may be counted before its request.
    return min(1.0, errors / requests) if requests > 0 else 0.0


def judge(observation: Observation, error_rate: float | None) -> Verdict:
    """The status of a sample, with a reason for every rule that was broken."""
    reasons = [*_against_life(observation), *_against_speed(observation), *_against_errors(error_rate)]
    for status in (UNHEALTHY, DEGRADED):
        if any(reason.status == status for reason in reasons):
            return Verdict(status, tuple(sorted(reasons, key=lambda reason: reason.status != status)))
    return Verdict(HEALTHY)


def _against_life(seen: Observation) -> Iterable[Reason]:
    if seen.failure:
        yield Reason("no_answer", UNHEALTHY, seen.failure)
    elif seen.http_status is not None and not 200 <= seen.http_status < 300:
        yield Reason("not_ready", UNHEALTHY, seen.http_status)
    for name, server in (("database", seen.database), ("redis", seen.redis)):
        if server.status == DISCONNECTED:
            yield Reason(f"{name}_disconnected", UNHEALTHY)


def _against_speed(seen: Observation) -> Iterable[Reason]:
    for name, server, limit in (("database", seen.database, DATABASE_SLOW_MS), ("redis", seen.redis, REDIS_SLOW_MS)):
        if server.status == SLOW:
            yield Reason(f"{name}_slow", DEGRADED, server.response_ms, limit)
    if not seen.failure and seen.response_time_ms >= RESPONSE_SLOW_MS:
        yield Reason("response_slow", DEGRADED, seen.response_time_ms, RESPONSE_SLOW_MS)


def _against_errors(error_rate: float | None) -> Iterable[Reason]:
    if error_rate is None or error_rate < ERROR_RATE_DEGRADED:
        return
    if error_rate > ERROR_RATE_UNHEALTHY:
        yield Reason("error_rate", UNHEALTHY, error_rate, ERROR_RATE_UNHEALTHY)
    else:
        yield Reason("error_rate", DEGRADED, error_rate, ERROR_RATE_DEGRADED)

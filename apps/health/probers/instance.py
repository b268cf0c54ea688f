"""Looks at instances over HTTP: the readiness answer and the metrics page. Plain values in and out."""

import asyncio
import json
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import aiohttp

from apps.core.reach import Forbidden
from apps.health.probers.exposition import PRESETS, read_counters
from apps.health.rules import (
    CONNECTED,
    DATABASE_SLOW_MS,
    DISCONNECTED,
    REDIS_SLOW_MS,
    SLOW,
    UNKNOWN,
    Counters,
    Dependency,
    Observation,
    dependency,
)

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

TIMEOUT_SECONDS = 10.0  # for one request, from connecting to the last byte
READINESS_LIMIT = 64 * 1024  # bytes of an answer that are read
METRICS_LIMIT = 8 * 1024 * 1024  # bytes; a large Django application exports about 1 MB
CONCURRENCY = 400  # instances looked at at once, two sockets each: below the usual limit of 1,024 open files
VERSION_LENGTH = 64  # characters, as the column has

_REPORTED = {"healthy": CONNECTED, "degraded": SLOW, "unhealthy": DISCONNECTED}
_SAID = {"connected": CONNECTED, "slow": SLOW, "disconnected": DISCONNECTED}


@dataclass(frozen=True, slots=True)
class Target:
    """Where an instance is read: two URLs (no metrics URL: readiness only), and how its metrics are named."""

    instance_id: str
    readiness_url: str
    metrics_url: str = ""
    preset: str = "django"
    metrics_token: str = ""


async def observe_all(
    targets: Sequence[Target],
    *,
    timeout: float = TIMEOUT_SECONDS,
    sockets: Callable[[Any], socket.socket] | None = None,
) -> list[Observation]:
    """Look at all targets at the same time; the answers come in the targets' order. Never raises for a target.

    `sockets` makes the sockets, and refuses what may not be reached (apps.core.reach).

    First everyone's readiness, then the metrics pages: reading a large page takes time that would make the answers of
    the others look slow.
    """
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=sockets),
        timeout=aiohttp.ClientTimeout(total=timeout),
        headers={"User-Agent": "Pulsewatch", "Accept-Encoding": "identity"},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # nothing small that grows large
    ) as session:
        observations = await _all(targets, lambda target: _observe(session, target, timeout), _unseen)
        counted = await _all(targets, lambda target: _counters(session, target), _uncounted)
    return [
        replace(seen, counters=counters, measured_at=at or seen.measured_at)
        for seen, (counters, at) in zip(observations, counted, strict=True)
    ]


async def _all(
    targets: Sequence[Target], look: Callable[[Target], Awaitable[Answer]], otherwise: Callable[[], Answer]
) -> list[Answer]:
    """One answer a target. A fault of ours with one of them is logged, and costs nobody else an answer."""
    # A place is waited for outside the measured time, so that a crowd makes nobody look slow.
    places = asyncio.Semaphore(CONCURRENCY)

    async def in_turn(target: Target) -> Answer:
        async with places:
            try:
                return await look(target)
            except Exception:  # whatever one target provokes must not end the tick of all
                logger.exception("Instance %s could not be read", target.instance_id, extra={"event": "sample_failed"})
                return otherwise()

    return list(await asyncio.gather(*(in_turn(target) for target in targets)))


def _unseen() -> Observation:
    return Observation(datetime.now(UTC), 0, failure="could not be read; Pulsewatch's log says why")


def _uncounted() -> tuple[Counters, datetime | None]:
    return Counters(), None


async def _observe(session: aiohttp.ClientSession, target: Target, timeout: float) -> Observation:
    status, body, failure, elapsed_ms, measured_at = await _readiness(session, target, timeout)
    said = _json_object(body)
    checks = _mapping(said.get("checks"))
    return Observation(
        measured_at=measured_at,
        response_time_ms=elapsed_ms,
        failure=failure,
        http_status=status,
        version=_version(said.get("version")),
        database=_dependency(checks.get("database"), said.get("database"), DATABASE_SLOW_MS),
        redis=_dependency(checks.get("redis"), said.get("redis"), REDIS_SLOW_MS),
    )


async def _readiness(
    session: aiohttp.ClientSession, target: Target, timeout: float
) -> tuple[int | None, bytes, str, int, datetime]:
    started = time.perf_counter()
    status, body, failure = None, b"", ""
    try:
        async with session.get(target.readiness_url, allow_redirects=False) as response:
            body = await _bounded(response, READINESS_LIMIT)
            status = response.status
    except TimeoutError:
        failure = f"did not answer within {timeout:g} s"
    except aiohttp.ClientConnectorCertificateError:
        failure = "its certificate is not valid"
    except aiohttp.ClientConnectorDNSError:
        failure = "its host name cannot be resolved"
    except aiohttp.ClientConnectorError as error:
        forbidden = isinstance(error.os_error, Forbidden)
        failure = f"leads to an address that {error.os_error}" if forbidden else "refused the connection"
    except (aiohttp.ClientError, OSError, ValueError):
        failure = "broke the connection or answered with something that is not HTTP"
    return status, body, failure, round((time.perf_counter() - started) * 1000), datetime.now(UTC)


async def _counters(session: aiohttp.ClientSession, target: Target) -> tuple[Counters, datetime | None]:
    """The counters and when they were read, or none of them: an application without metrics is not an ill one."""
    preset = PRESETS.get(target.preset)
    if preset is None or not target.metrics_url:
        return _uncounted()
    headers = {"Authorization": f"Bearer {target.metrics_token}"} if target.metrics_token else {}
    try:
        async with session.get(target.metrics_url, headers=headers, allow_redirects=False) as response:
            if response.status != 200:
                return _uncounted()
            body = await _bounded(response, METRICS_LIMIT)
        return read_counters(body.decode("utf-8"), preset), datetime.now(UTC)
    except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
        return _uncounted()


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body, cut off after `limit` bytes: a target cannot fill this process' memory."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ValueError("the answer is larger than any readiness answer or metrics page")
    return bytes(body)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        return _mapping(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _version(value: object) -> str | None:
    """Printable text only: a lone surrogate or a control character would be refused by the database."""
    text = "".join(filter(str.isprintable, value))[:VERSION_LENGTH] if isinstance(value, str) else ""
    return text or None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dependency(check: object, word: object, slow_ms: int) -> Dependency:
    """From a readiness check (`status`, `latency_ms`), or from the single word older answers use."""
    if isinstance(check, dict):
        status = _REPORTED.get(str(check.get("status")), UNKNOWN)
        latency = check.get("latency_ms")
        if not isinstance(latency, int | float) or isinstance(latency, bool) or not 0 <= latency < 1e9:
            latency = None
        return dependency(status, latency, slow_ms=slow_ms)
    return Dependency(_SAID.get(str(word), UNKNOWN))

"""One request with bounds on everything: attempts, time, size. Redirects, cookies and proxies are not for us.

Environment variables such as HTTPS_PROXY are ignored; certificates are verified against the system's authorities
(SSL_CERT_FILE adds an own one). A name server that does not answer may add its own time limit to ours.
"""

import asyncio
import json
import random
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError

from apps.core.reach import guarded_socket
from apps.core.redaction import redact
from apps.core.threads import run
from apps.inventory.platforms.base import PlatformError, PlatformUnavailable
from apps.inventory.rules import http_url_fault

MAX_BODY = 64 * 1024  # bytes of an answer to an order that are read: none we understand is longer
RESOLVERS = 4  # threads that look names up, for one call
MAX_LIST = 4 * 1024 * 1024  # bytes of a list that was asked for: 100 deployments of GitHub's are about 0.4 MB
MAX_SAID = 200  # characters of another side's words that are passed on
MAX_LINK = 300  # characters of a link


@dataclass(frozen=True, slots=True)
class Limits:
    """How long one request may take, all attempts together: below the 100 s that a worker gives a short task."""

    attempts: int = 4
    attempt_seconds: float = 10.0
    total_seconds: float = 60.0
    backoff_seconds: float = 0.5  # before the second attempt; twice as long before each further one


LIMITS = Limits()
# To read a count or to change it. A change reads, asks and then looks for 20 s whether it was done, all of it within
# the 90 s for which a worker has the change to itself.
QUICK = Limits(attempts=2, attempt_seconds=5.0, total_seconds=12.0)


@dataclass(frozen=True, slots=True)
class Route:
    """How a server is reached where that is not plain from its address."""

    tls: ssl.SSLContext | None = None  # whom we trust and who we are; None: the system's authorities, nobody
    socket: str = ""  # path of a Unix socket; empty: TCP


ROUTE = Route()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; header names in lower case, the body cut at its limit."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """The body as an object; anything else is an empty one."""
        value = self._value()
        return value if isinstance(value, dict) else {}

    def objects(self) -> list[dict[str, Any]] | None:
        """The body as a list of objects, or None when it is no list."""
        value = self._value()
        return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else None

    def _value(self) -> object:
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None

    def link(self, name: str) -> str:
        """A web address the answer holds under `name`, or an empty text."""
        value = self.json().get(name)
        fits = isinstance(value, str) and len(value) <= MAX_LINK and not http_url_fault(value)
        return str(value) if fits and redact(str(value)) == value else ""


class _Failure(Exception):
    """No answer. `sent`: the request may have arrived. `lasting`: another attempt would end the same way."""

    def __init__(self, text: str, *, sent: bool, lasting: bool = False) -> None:
        super().__init__(text)
        self.sent = sent
        self.lasting = lasting


def post(
    url: str,
    prepare: Callable[[], tuple[Mapping[str, str], bytes]],
    *,
    limits: Limits,
    again: Callable[[Answer], bool],
    repeatable: bool,
) -> Answer:
    """Send what `prepare` gives, made anew for each attempt, until there is an answer `again` has nothing against.

    `repeatable`: the other side does it once however often it is sent. Without that, a request that may have arrived
    is not sent twice. Raises PlatformUnavailable or PlatformError when there was no answer.
    """
    return run(_exchange(_Call("POST", url, prepare, again, repeatable, MAX_BODY), limits), resolvers=RESOLVERS)


def get(url: str, headers: Mapping[str, str], *, limits: Limits, again: Callable[[Answer], bool]) -> Answer:
    """Ask for a list. Raises as `post` does."""
    return run(_exchange(_Call("GET", url, lambda: (headers, b""), again, True, MAX_LIST), limits), resolvers=RESOLVERS)


def call(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes = b"",
    *,
    limits: Limits,
    again: Callable[[Answer], bool],
    route: Route = ROUTE,
) -> Answer:
    """Any request that does no harm when it arrives twice. Raises as `post` does."""
    return run(
        _exchange(_Call(method, url, lambda: (headers, body), again, True, MAX_LIST, route), limits),
        resolvers=RESOLVERS,
    )


@dataclass(frozen=True, slots=True)
class _Call:
    method: str
    url: str
    prepare: Callable[[], tuple[Mapping[str, str], bytes]]
    again: Callable[[Answer], bool]
    repeatable: bool
    max_body: int
    route: Route = ROUTE


def _connector(route: Route) -> aiohttp.BaseConnector:
    if route.socket:
        return aiohttp.UnixConnector(route.socket, force_close=True)
    return aiohttp.TCPConnector(
        force_close=True, socket_factory=guarded_socket(allow_loopback=True), ssl=route.tls or True
    )


async def _exchange(call: _Call, limits: Limits) -> Answer:
    started = time.monotonic()
    async with aiohttp.ClientSession(
        connector=_connector(call.route),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,  # nothing small that grows large
        trust_env=False,
    ) as session:
        for attempt in range(1, limits.attempts + 1):
            left = limits.total_seconds - (time.monotonic() - started)
            answer: Answer | None = None
            failure: _Failure | None = None
            try:
                answer = await _attempt(session, call, min(limits.attempt_seconds, left))
            except _Failure as error:
                failure = error
            if answer is not None and not call.again(answer):
                return answer
            if failure is not None:
                _give_up_on(failure, call)
            pause = limits.backoff_seconds * 2 ** (attempt - 1) * random.uniform(1.0, 1.25)  # noqa: S311  (no secret)
            if answer is not None:
                pause = max(pause, retry_after(answer))
            left = limits.total_seconds - (time.monotonic() - started)
            if attempt == limits.attempts or pause >= left:
                break
            await asyncio.sleep(pause)
    if answer is not None:
        return answer
    tries = "once" if attempt == 1 else f"{attempt} times"
    raise PlatformUnavailable(
        f"{host(call.url)} {failure} (tried {tries}): check that it runs and can be reached from Pulsewatch's workers."
    )


def _give_up_on(failure: _Failure, call: _Call) -> None:
    if failure.lasting:
        raise PlatformError(f"{host(call.url)} {failure}.")
    if failure.sent and not call.repeatable:
        raise PlatformError(
            f"{host(call.url)} {failure}, so it may have accepted the request or not: look there before you try again."
        )


async def _attempt(session: aiohttp.ClientSession, call: _Call, seconds: float) -> Answer:
    headers, body = call.prepare()
    try:
        async with session.request(
            call.method,
            call.url,
            data=body or None,
            headers={"User-Agent": "Pulsewatch", "Accept-Encoding": "identity", **headers},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=seconds, sock_connect=seconds),
        ) as response:
            content = await _bounded(response, call.max_body)
            named = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status, named, content)
    except aiohttp.ConnectionTimeoutError:
        raise _Failure(f"took no connection within {seconds:.3g} s", sent=False) from None
    except TimeoutError:
        raise _Failure(f"did not answer within {seconds:.3g} s", sent=True) from None
    except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError):
        raise _Failure(
            "has no valid certificate: renew it, or make its authority known with SSL_CERT_FILE",
            sent=False,
            lasting=True,
        ) from None
    except aiohttp.ClientConnectorDNSError:
        raise _Failure("cannot be resolved by name", sent=False) from None
    except UnixClientConnectorError as error:
        raise _Failure(
            f"cannot be reached at {call.route.socket} ({error.strerror}): the worker's user needs access to it",
            sent=False,
        ) from None
    except aiohttp.ClientConnectorError:
        raise _Failure("refused the connection", sent=False) from None
    except (aiohttp.ClientError, OSError, ValueError):
        raise _Failure("broke the connection or answered with something that is not HTTP", sent=True) from None


async def _bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(16 * 1024):
        body += chunk
        if len(body) >= limit:
            response.close()
            break
    return bytes(body[:limit])


def retry_after(answer: Answer) -> float:
    """Seconds the other side asks us to wait; 0 when it does not say, or says it in no known form."""
    value = answer.headers.get("retry-after", "").strip()
    reset = answer.headers.get("x-ratelimit-reset", "")  # GitHub's: seconds since 1970
    if not value and answer.headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit():
        return max(0.0, float(reset[:12]) - time.time())
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def host(url: str) -> str:
    """How an address is called in a sentence: its host and port. Its path may be a secret."""
    return urlsplit(url).netloc


def origin(url: str) -> str:
    """Scheme, host and port: what a secret is sent to."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def overloaded(answer: Answer) -> bool:
    """Whether the other side is in trouble of its own, or wants to be asked less often."""
    return answer.status == 429 or answer.status >= 500


def words(text: object, secret: str) -> str:
    """What the other side said, fit to be passed on: printable, short, without the secret; empty when it is no text."""
    if not isinstance(text, str):
        return ""
    shown = "".join(letter if letter.isprintable() else " " for letter in text[:MAX_BODY])
    return redact(" ".join((shown.replace(secret, "[redacted]") if secret else shown).split()))[:MAX_SAID]

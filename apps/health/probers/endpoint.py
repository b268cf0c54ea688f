"""Asks endpoints over HTTP, one new connection a check. Plain values in and out; never raises for a target.

Redirects are followed here and not by aiohttp: at each hop the scheme is looked at again, the connector judges the
address, and neither headers nor a body that were given for one host are sent to another.
"""

import asyncio
import errno
import ssl
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from apps.core.reach import Forbidden, Place, guarded_socket
from apps.health.rules.checks import Answer, Expectation

MAX_BODY = 256 * 1024  # bytes of an answer that are read: a health page is short, and 3,000 of them may come at once
MAX_HOPS = 5  # redirects one after the other; browsers give up after twenty, a check need not
DNS_SECONDS = 10  # how long an address that a name led to is used again

_MOVED = frozenset({301, 302, 303, 307, 308})
_OUR_FAULT = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
_NO_WAY = "cannot be reached: there is no way to its network"
_BY_NUMBER = {
    errno.ECONNREFUSED: "refused the connection",
    errno.EHOSTUNREACH: _NO_WAY,
    errno.ENETUNREACH: _NO_WAY,
    errno.EHOSTDOWN: _NO_WAY,
}
_BY_KIND: tuple[tuple[type[Exception], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "its host name cannot be resolved"),
    (aiohttp.ClientSSLError, "does not speak TLS as it must"),
    (aiohttp.InvalidURL, "leads to something that is no web address"),
    (aiohttp.ClientConnectorError, "did not accept the connection"),
    (Exception, "broke the connection or answered with something that is not HTTP"),
)
# Of the connection that the running check makes: when its certificate ends.
_expiry: ContextVar[list[datetime]] = ContextVar("expiry")


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked, and what must come back. Headers never show in repr."""

    url: URL
    expected: Expectation
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | None = field(default=None, repr=False)
    timeout: float = 10.0  # seconds for all of it, redirects too
    follow: bool = True
    verify: bool = True
    keep_alive: bool = False


class _Watching(ssl.SSLObject):
    """Tells the running check when the certificate of its connection ends."""

    def do_handshake(self) -> None:
        super().do_handshake()
        found, certificate = _expiry.get(None), self.getpeercert()
        if found is not None and certificate and "notAfter" in certificate:
            found.append(datetime.fromtimestamp(ssl.cert_time_to_seconds(str(certificate["notAfter"])), UTC))


def _context(verify: bool) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.sslobject_class = _Watching
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Asker:
    """The connections of one slice; an asynchronous context manager. Made inside the event loop that uses it."""

    def __init__(self, *, allow_loopback: bool, always: frozenset[Place] = frozenset()) -> None:
        self._guard = guarded_socket(allow_loopback=allow_loopback, always=always)
        self._contexts: dict[bool, ssl.SSLContext] = {}  # made when one is needed: reading all authorities takes 40 ms
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._fresh = await self._session(force_close=True)
        self._kept = await self._session(keepalive_timeout=90)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _session(self, **options: Any) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=0, ttl_dns_cache=DNS_SECONDS, socket_factory=self._guard, **options)
        session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None),
            headers={"User-Agent": "Pulsewatch", "Accept": "*/*", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nothing small that grows large
            trust_env=False,
        )
        return await self._stack.enter_async_context(session)

    def _tls(self, verify: bool) -> ssl.SSLContext:
        if verify not in self._contexts:
            self._contexts[verify] = _context(verify)
        return self._contexts[verify]

    async def ask(self, target: Target) -> Answer:
        """One check."""
        expiry: list[datetime] = []
        _expiry.set(expiry)
        started = time.perf_counter()
        status, body, whole, failure, ours = None, b"", True, "", False
        try:
            async with asyncio.timeout(target.timeout):
                status, body, whole = await self._exchange(target)
        except TimeoutError:
            failure = f"did not answer within {target.timeout:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            failure, ours = _failure(error)
        took = (time.perf_counter() - started) * 1000
        return Answer(round(took, 3), failure, ours, status, body, whole, expiry[-1] if expiry else None)

    async def _exchange(self, target: Target) -> tuple[int, bytes, bool]:
        """Status, the beginning of the body, and whether that is all of it. The last hop's."""
        session = self._kept if target.keep_alive else self._fresh
        url, method, headers, body = target.url, target.method, target.headers, target.body
        for _ in range(MAX_HOPS + 1):
            async with session.request(
                method,
                url,
                headers=headers,
                data=body,
                allow_redirects=False,
                ssl=self._tls(target.verify) if url.scheme == "https" else True,
            ) as response:
                place = response.headers.get("Location")
                if not target.follow or response.status not in _MOVED or place is None:
                    return response.status, *await _read(response)
            status = response.status
            there = url.join(URL(place))
            if there.scheme not in ("http", "https") or not there.host:
                raise _Refused("redirects to something that is no web address")
            if status == 303 or (status in (301, 302) and method == "POST"):
                method, body = ("HEAD" if method == "HEAD" else "GET"), None
            if there.origin() != url.origin():
                if body is not None:
                    raise _Refused("redirects to another host and wants the request's body, which is not sent there")
                headers = {}
            url = there
        raise _Refused(f"redirects more than {MAX_HOPS} times")


class _Refused(ValueError):
    """We go no further; the text says why."""


async def _read(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """The body up to the limit: a target cannot fill this process' memory."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            response.close()
            return bytes(body[:MAX_BODY]), False
    return bytes(body), True


def _failure(error: Exception) -> tuple[str, bool]:
    """Why there was no answer, in words that carry nothing of the request, and whether the fault is ours."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    number = cause.errno if isinstance(cause, OSError) else None
    if isinstance(error, _Refused):
        return str(error), False
    if isinstance(cause, Forbidden):
        return f"leads to an address that {cause}", False
    if number in _OUR_FAULT:
        return "could not be asked: Pulsewatch ran out of sockets or memory", True
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        said = getattr(error.certificate_error, "verify_message", "") or "it is not valid"
        return f"its certificate is refused: {said}", False
    if number in _BY_NUMBER:
        return _BY_NUMBER[number], False
    return next(text for kind, text in _BY_KIND if isinstance(error, kind)), False

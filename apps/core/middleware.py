"""What surrounds every request: its id, its address, one log line, and the headers that protect the console."""

import ipaddress
import logging
import time
import uuid
from collections.abc import Callable
from functools import partial

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.utils.log import log_response

from apps.core import context

logger = logging.getLogger(__name__)

# Unfold's Alpine evaluates expressions from attributes and sets inline styles; scripts come only from files of ours.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


def client_address(request: HttpRequest) -> str:
    """The client's address: the peer's, or what the outermost of our own proxies saw of it."""
    peer: str = request.META.get("REMOTE_ADDR", "")
    if settings.TRUSTED_PROXIES:
        hops = [hop.strip() for hop in request.META.get("HTTP_X_FORWARDED_FOR", "").split(",") if hop.strip()]
        if len(hops) >= settings.TRUSTED_PROXIES and _is_address(hops[-settings.TRUSTED_PROXIES]):
            return str(hops[-settings.TRUSTED_PROXIES])
    return peer


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def request_id(request: HttpRequest) -> str:
    """The caller's `X-Request-ID` when it is a UUID, else a new one."""
    given = request.META.get("HTTP_X_REQUEST_ID", "")
    if len(given) == 36:
        try:
            return str(uuid.UUID(given))
        except ValueError:
            pass
    return str(uuid.uuid4())


def signed_in(request: HttpRequest) -> str | None:
    """The primary key of the user, once something has asked who it is; asking here could cost a query."""
    user = getattr(request, "_cached_user", None)
    return str(user.pk) if user is not None and user.pk else None


class RequestMiddleware:
    """Gives each request an id and a context for its log lines, and writes one line when it ends."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        started = time.perf_counter()
        identifier = request_id(request)
        bound = context.bind(
            request_id=identifier,
            ip_address=client_address(request) or None,
            method=request.method,
            path=request.path,
            find_user_id=partial(signed_in, request),
        )
        with bound:
            response = self.get_response(request)
            response["X-Request-ID"] = identifier
            response.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
            if response.status_code >= 400:
                # Django says so itself, but only after this block, where the line has no request id any more. It
                # marks a response it has spoken of, so this is the only line.
                log_response("%s: %s", response.reason_phrase, request.path, response=response, request=request)
            self._log(request, response, started)
        return response

    @staticmethod
    def _log(request: HttpRequest, response: HttpResponse, started: float) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        logger.info(
            "%s %s answered %d",
            request.method,
            request.path,
            response.status_code,
            extra={
                "event": "request",
                "event_type": "request",
                "status_code": response.status_code,
                "duration_ms": round((time.perf_counter() - started) * 1000, 2),
            },
        )

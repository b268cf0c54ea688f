"""Who may come in: bearer tokens, their scopes, and how often one may ask."""

import hmac
import logging
import threading
import time
from datetime import datetime, timedelta
from functools import lru_cache

import redis
from django.conf import settings
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone

from apps.api import rules
from apps.api.models import ApiToken
from apps.api.refusals import Refused
from apps.core.reads import Reader

logger = logging.getLogger(__name__)

_NOBODY = rules.hashed("")  # compared with when no row has the prefix, so that both cases take the same time
USED_EVERY = timedelta(minutes=1)  # how often the time of last use is written: a write for each request is not worth it
WINDOW = 60  # seconds in which requests are counted
REDIS_TIMEOUT = 0.2  # seconds a request waits for its count
REDIS_PAUSE = 5.0  # seconds without counting once Redis has failed: no request waits for a dead server twice


class Bearer:
    """What the schema says about authentication; `authenticate` below has done the work by the time this is called."""

    openapi_security_schema = {"type": "http", "scheme": "bearer", "description": "Made with `manage.py token create`"}

    def __call__(self, request: HttpRequest) -> ApiToken | None:
        return getattr(request, "token", None)


def authenticate(request: HttpRequest) -> ApiToken:
    """The live token a request carries. Raises Refused (401)."""
    scheme, _, given = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "bearer" or not given.strip():
        raise _unauthenticated("Send a token in the header: Authorization: Bearer pw_…", "")
    parts = rules.split_token(given.strip())
    token = _token(parts.prefix) if parts else None
    # In constant time, though a hash tells nothing: the next reader need not think about it.
    right = hmac.compare_digest(rules.hashed(parts.secret if parts else ""), token.secret_hash if token else _NOBODY)
    if parts is None or token is None or not right:
        raise _unauthenticated("This token is not known here: check it, or make one with `manage.py token create`.")
    now = timezone.now()
    if token.revoked_at:
        raise _unauthenticated(f"This token was revoked at {token.revoked_at:%Y-%m-%d %H:%M} UTC.")
    if token.expires_at and token.expires_at <= now:
        raise _unauthenticated(f"This token expired at {token.expires_at:%Y-%m-%d %H:%M} UTC.")
    _note_use(token, now)
    return token


def require(token: ApiToken, scope: str) -> None:
    """Raises Refused (403) unless the token has the scope."""
    if not rules.allows(token.scopes, scope):
        raise Refused(403, f"This takes a token with scope {scope}; token {token.name} has not got it.", scope=scope)


def count(token: ApiToken) -> None:
    """Count the request against API_RATE_LIMIT. Raises Refused (429).

    The limit protects against a loop gone wild, not against an attacker, who has no token. So without Redis requests
    pass: a deployment must not wait for a cache.
    """
    if not settings.API_RATE_LIMIT or _counter.paused_until > time.monotonic():
        return
    window, passed = divmod(time.time(), WINDOW)
    try:
        used = _counter.add(token.pk, int(window), settings.API_RATE_LIMIT)
    except redis.RedisError:
        _counter.paused_until = time.monotonic() + REDIS_PAUSE
        logger.warning("API requests are not counted: Redis does not answer", extra={"event": "api_uncounted"})
        return
    if used > settings.API_RATE_LIMIT:
        seconds = max(1, round(WINDOW - passed))
        raise Refused(
            429,
            f"Token {token.name} has used its {settings.API_RATE_LIMIT} requests of this minute; "
            f"go on in {seconds} s (API_RATE_LIMIT).",
            headers={"Retry-After": str(seconds)},
        )


class _Counter:
    """Counts in Redis, for all web processes together.

    A process takes a hundredth of the limit at once, and asks again when it has used that up: most requests wait for
    nobody. What a process has taken and not used is the token's loss, at most a hundredth for each.
    """

    def __init__(self) -> None:
        self.paused_until = 0.0
        self._left: dict[int, tuple[int, int]] = {}  # of a token: the window, and how many requests it may still make
        self._lock = threading.Lock()

    def add(self, token: int, window: int, limit: int) -> int:
        """Which request of this window this is; one that was taken before counts as none."""
        with self._lock:
            taken_in, left = self._left.get(token, (window, 0))
            if taken_in == window and left:
                self._left[token] = (window, left - 1)
                return 0
        portion = max(1, limit // 100)
        key = f"pulsewatch:api:{token}:{window}"
        with _redis(settings.REDIS_URL).pipeline(transaction=False) as pipe:
            pipe.incrby(key, portion)
            pipe.expire(key, 2 * WINDOW)
            used = int(pipe.execute()[0])
        first = used - portion + 1
        with self._lock:
            self._left[token] = (window, max(0, min(used, limit) - first))
        return first


_counter = _Counter()


@lru_cache(maxsize=2)
def _redis(url: str) -> "redis.Redis":
    return redis.Redis.from_url(
        url, socket_timeout=REDIS_TIMEOUT, socket_connect_timeout=REDIS_TIMEOUT, retry=None, retry_on_timeout=False
    )


_TOKEN = Reader(ApiToken, "WHERE prefix = %s")  # each request asks


def _token(prefix: str) -> ApiToken | None:
    found = _TOKEN.first([prefix])
    return found and found[0]


def _note_use(token: ApiToken, now: datetime) -> None:
    if token.last_used_at and now - token.last_used_at < USED_EVERY:
        return
    ApiToken.objects.filter(pk=token.pk).filter(Q(last_used_at=None) | Q(last_used_at__lte=now - USED_EVERY)).update(
        last_used_at=now
    )


def _unauthenticated(message: str, error: str = ', error="invalid_token"') -> Refused:
    return Refused(401, message, headers={"WWW-Authenticate": f'Bearer realm="pulsewatch"{error}'})

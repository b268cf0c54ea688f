"""The least a WSGI application can do."""

from collections.abc import Callable, Iterable
from typing import Any

BODY = b'{"status": "healthy", "timestamp": "2025-10-31T10:30:00.123456Z", "version": "0.1.0"}'


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(BODY)))])
    return [BODY]

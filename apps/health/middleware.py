"""Probes and metrics, answered before anything else: under any Host header, never redirected, without a session."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST

from apps.core import metrics
from apps.core.problems import problem
from apps.health.readiness import CheckResult, readiness

THREADS_FOR_PROBES = 4  # of each worker: kubelet, a load balancer and Prometheus at the same moment


class ProbeMiddleware:
    """Stands first. A path it does not know goes on to the rest, as long as threads for probes are left.

    While a database is frozen every page holds its thread until a time limit; liveness must not wait for one of them.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self._places = threading.BoundedSemaphore(settings.WEB_THREADS - THREADS_FOR_PROBES)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        answer = PROBES.get(request.path_info)
        if answer is None:
            return self._page(request)
        if request.method not in ("GET", "HEAD"):
            return HttpResponse(status=405, headers={"Allow": "GET, HEAD"})
        response = answer(request)
        response["Cache-Control"] = "no-store"
        if request.method == "HEAD":
            response.content = b""
        return response

    def _page(self, request: HttpRequest) -> HttpResponse:
        if not self._places.acquire(blocking=False):
            text = "All threads are busy, most likely waiting for the database. /ready says more. Try again soon."
            if request.path_info.startswith("/api/"):
                return problem(503, text, headers={"Retry-After": "5"})
            return HttpResponse(f"{text}\n", "text/plain", 503, headers={"Retry-After": "5"})
        try:
            return self.get_response(request)
        finally:
            self._places.release()


def healthz(request: HttpRequest) -> HttpResponse:
    """Liveness: this process answers. Touches nothing else."""
    return _json({"status": "healthy", "timestamp": _iso(datetime.now(UTC)), "version": settings.VERSION}, 200)


def ready(request: HttpRequest) -> HttpResponse:
    """Readiness: database, Redis and migrations. 503 when one of them is unhealthy."""
    report = readiness().report()
    trusted = metrics.holds_token(request.META.get("HTTP_AUTHORIZATION", ""))
    body = {
        "status": "ready" if report.ready else "not_ready",
        "timestamp": _iso(report.at),
        "version": settings.VERSION,
        "checks": {name: _check(check, trusted) for name, check in report.checks.items()},
    }
    return _json(body, 200 if report.ready else 503)


def health(request: HttpRequest) -> HttpResponse:
    """The short form: one status, and whether database and Redis are connected."""
    report = readiness().report()
    statuses = {check.status for check in report.checks.values()}
    status = next((word for word in ("unhealthy", "degraded") if word in statuses), "healthy")
    body = {
        "status": status,
        "database": _connected(report.checks["database"]),
        "redis": _connected(report.checks["redis"]),
        "timestamp": _iso(report.at),
        "version": settings.VERSION,
    }
    if status != "healthy":
        body["error"] = "; ".join(check.message for check in report.checks.values() if check.status == status)
    return _json(body, 503 if status == "unhealthy" else 200)


def prometheus(request: HttpRequest) -> HttpResponse:
    """The metrics page: 404 when switched off, 401 without the token where one is set."""
    if not settings.PROMETHEUS_METRICS_ENABLED:
        return HttpResponse("Metrics are switched off (PROMETHEUS_METRICS_ENABLED).\n", "text/plain", 404)
    if settings.METRICS_TOKEN and not metrics.holds_token(request.META.get("HTTP_AUTHORIZATION", "")):
        return HttpResponse(
            "Send the header: Authorization: Bearer <METRICS_TOKEN>\n",
            "text/plain",
            401,
            headers={"WWW-Authenticate": 'Bearer realm="metrics"'},
        )
    return HttpResponse(metrics.exposition(), CONTENT_TYPE_LATEST)


PROBES: dict[str, Callable[[HttpRequest], HttpResponse]] = {
    path: answer
    for name, answer in (("healthz", healthz), ("ready", ready), ("health", health), ("metrics", prometheus))
    for path in (f"/{name}", f"/{name}/")
}


def _check(check: CheckResult, trusted: bool) -> dict[str, str | float]:
    body: dict[str, str | float] = {
        "status": check.status,
        "latency_ms": check.latency_ms,
        "message": check.message,
    }
    if trusted and check.error:
        body["error"] = check.error
    return body


def _connected(check: CheckResult) -> str:
    return "disconnected" if check.status == "unhealthy" else "connected"


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _json(body: dict[str, object], status: int) -> HttpResponse:
    return HttpResponse(json.dumps(body), "application/json", status)

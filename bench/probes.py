"""`/healthz` against a bare WSGI application, `/ready` against django-health-check, and the uncached check."""

import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial

from bench.measure import Report, interleaved
from bench.serving import requests_per_second
from tests.serving import served

PULSEWATCH, PEERS = "pulsewatch.settings", "bench.peers.settings"
CALLS = 300  # of one timed loop


def run(report: Report) -> None:
    """Throughputs over HTTP, all servers up at once, driven in turn. Needs DATABASE_URL and REDIS_URL."""
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], check=True)
    with ExitStack() as stack:
        urls = {
            "bare": ("bench.peers.bare", "/", PULSEWATCH),
            "plain view": ("bench.peers.wsgi", "/plain", PEERS),
            "healthz": ("pulsewatch.wsgi", "/healthz", PULSEWATCH),
            "ready": ("pulsewatch.wsgi", "/ready", PULSEWATCH),
            "django-health-check": ("bench.peers.wsgi", "/checked", PEERS),
        }
        contenders = {
            name: partial(
                requests_per_second,
                stack.enter_context(served(application, path=path, DJANGO_SETTINGS_MODULE=module)).base + path,
            )
            for name, (application, path, module) in urls.items()
        }
        speed = interleaved(contenders)
    for name, value in speed.items():
        report.figure(f"{name}: throughput", value, "requests/s")
    report.ratio("/healthz ÷ bare WSGI application", speed["healthz"] / speed["bare"], at_least=0.55)
    report.ratio("plain Django view ÷ bare WSGI application", speed["plain view"] / speed["bare"], at_least=0)
    report.ratio("/ready ÷ django-health-check", speed["ready"] / speed["django-health-check"], at_least=5)
    _uncached(report)


def _uncached(report: Report) -> None:
    """One full check of all dependencies against the two calls it cannot do without, on open connections."""
    import redis
    from django.conf import settings

    from apps.health.readiness import DatabaseProbe, Readiness

    readiness = Readiness(timeout=settings.READY_TIMEOUT_SECONDS)
    database, client = DatabaseProbe(), redis.Redis.from_url(settings.REDIS_URL)

    def bare() -> None:
        database.fetch("SELECT 1")
        client.ping()

    try:
        cost = interleaved({"check": partial(_per_call, readiness.check), "bare": partial(_per_call, bare)})
    finally:
        readiness.close()
        database.close()
        client.close()
    report.figure("uncached readiness check", cost["check"] * 1e6, "µs")
    report.figure("SELECT 1, then PING", cost["bare"] * 1e6, "µs")
    report.ratio("uncached readiness check ÷ (SELECT 1 + PING)", cost["check"] / cost["bare"], at_most=1.5)


def _per_call(function: object) -> float:
    """Seconds a call, over a loop."""
    assert callable(function)
    started = time.perf_counter()
    for _ in range(CALLS):
        function()
    return (time.perf_counter() - started) / CALLS

"""The API under load on MariaDB: deployments begun, samples pushed in bulk, pages of a million deployments."""

import json
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

from bench import deployments
from bench.measure import Report, interleaved
from tests.serving import Served, served

SCOPES = "health:write,deployments:write,deployments:read"
BATCH = 10_000  # samples of one push, the most there may be
CLIENTS = 2  # as many as the server has processes
INSTANCES = 50


def run(report: Report, *, history: int) -> None:
    """Needs DATABASE_URL and REDIS_URL. `history`: deployments whose pages are asked for."""
    subprocess.run([sys.executable, "manage.py", "migrate", "--verbosity", "0"], check=True)
    command = [sys.executable, "manage.py", "token", "create", "bench", "--scope", SCOPES]
    made = subprocess.run(command, check=True, capture_output=True, text=True)
    token = made.stdout.split()[-1]
    deployments.creations(report, token)
    # Without the limit of a token: the deployments before have used it up for this minute.
    with served(WEB_CONCURRENCY=str(CLIENTS), API_RATE_LIMIT="0") as web:
        _pushes(report, web, token)
    deployments.pages(report, token, deployments=history)


def _pushes(report: Report, web: Served, token: str) -> None:
    numbers = count()
    beginning = datetime.now(UTC) - timedelta(hours=20)

    def push() -> float:
        # Written before the clock runs: what the senders do costs other machines.
        bodies = [_samples(beginning + next(numbers) * timedelta(seconds=BATCH // INSTANCES)) for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as senders:
            started = time.perf_counter()
            list(senders.map(partial(_post, web, token, "/health-checks"), bodies))  # raises what one of them met
            return CLIENTS * BATCH / (time.perf_counter() - started)

    speed = interleaved({"push": push})["push"]
    report.ratio("samples pushed in bulk, per second, all fields given", speed, at_least=5000)


def _samples(beginning: datetime) -> bytes:
    """A second apart for each instance."""
    return json.dumps(
        [
            {
                "instance_id": f"web-{number % INSTANCES}",
                "environment": "production",
                "timestamp": (beginning + timedelta(seconds=number // INSTANCES)).isoformat(),
                "overall_status": "healthy",
                "response_time_ms": 45,
                "database_status": "connected",
                "database_response_ms": 12,
                "redis_status": "connected",
                "redis_response_ms": 3,
                "memory_usage_mb": 450,
                "memory_usage_percent": 44.5,
                "cpu_usage_percent": 15.2,
                "uptime_seconds": 86400,
                "version": "v1.2.3",
                "total_requests": 125340,
                "active_connections": 8,
                "error_rate_5min": 0.002,
            }
            for number in range(BATCH)
        ]
    ).encode()


def _post(web: Served, token: str, path: str, body: bytes) -> Any:
    request = urllib.request.Request(
        f"{web.base}/api/v1{path}",
        body,
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        answer = json.load(reply)
    if answer["stored"] != BATCH:
        raise RuntimeError(f"{BATCH} samples were pushed, and the answer is {answer}")

"""Drives a web server with wrk."""

import re
import subprocess

from tests.servers import ensure_installed

CONNECTIONS = 16  # as many as gunicorn has threads: nobody queues
SECONDS = 3  # of one run


def requests_per_second(url: str) -> float:
    """Throughput over keep-alive connections, by wrk on one thread. Every answer must be a 200."""
    ensure_installed("wrk")
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}s", "-H", "Accept: application/json", url]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output:
        raise RuntimeError(f"{url} answered with errors under load:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise RuntimeError(f"wrk printed no throughput:\n{output}")
    return float(found.group(1))

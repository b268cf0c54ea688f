"""Drives a web server with wrk."""

import re
import subprocess
from pathlib import Path

from tests.servers import ensure_installed

CONNECTIONS = 16  # as many as gunicorn has threads: nobody queues
POSTING = 8  # connections that write; fewer than the threads one process lets to pages, whichever it is that takes them
SECONDS = 3  # of one run


def requests_per_second(url: str) -> float:
    """Throughput over keep-alive connections, by wrk on one thread. Every answer must be a 200."""
    return _wrk(url, "-H", "Accept: application/json", connections=CONNECTIONS)


def posts_per_second(url: str, body: str, *, token: str, first: int = 0) -> float:
    """Throughput of POSTs. In each one's body the next number, from `first` on, stands for @."""
    script = Path(__file__).with_name("post.lua")
    return _wrk(url, "-s", str(script), connections=POSTING, script=(str(first), token, body))


def _wrk(url: str, *options: str, connections: int, script: tuple[str, ...] = ()) -> float:
    ensure_installed("wrk")
    command = ["wrk", "-t1", f"-c{connections}", f"-d{SECONDS}s", *options, url, "--", *script]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output:
        raise RuntimeError(f"{url} answered with errors under load:\n{output}")
    found = re.search(r"Requests/sec:\s+([\d.]+)", output)
    if found is None:
        raise RuntimeError(f"wrk printed no throughput:\n{output}")
    return float(found.group(1))

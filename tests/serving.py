"""Runs gunicorn with Pulsewatch's own configuration, as `make run` and the image do."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulsewatch.env import bracketed
from tests.servers import free_port


@dataclass(frozen=True, slots=True)
class Reply:
    """What the server answered, and after how many seconds."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)


@dataclass(frozen=True, slots=True)
class Served:
    """A running web server."""

    base: str
    process: subprocess.Popen[bytes]
    log: Path

    def get(self, path: str, *, timeout: float = 10, **headers: str) -> Reply:
        """One GET on a new connection; underscores in header names stand for dashes. Redirects are not followed."""
        request = urllib.request.Request(
            self.base + path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        started = time.perf_counter()
        try:
            with _opener.open(request, timeout=timeout) as response:
                return Reply(response.status, dict(response.headers), response.read(), time.perf_counter() - started)
        except urllib.error.HTTPError as error:
            with error:
                return Reply(error.code, dict(error.headers), error.read(), time.perf_counter() - started)

    def worker_pids(self) -> list[int]:
        """The worker processes below gunicorn's master."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]


@contextmanager
def served(application: str = "pulsewatch.wsgi", *, path: str = "/healthz", **environment: str) -> Iterator[Served]:
    """Serve an application on a free port until the block ends; starts when `path` answers at all."""
    port = free_port()
    with tempfile.TemporaryDirectory() as var:
        variables = {
            **os.environ,
            "ENV_FILE": "",
            "SECRET_KEY": secrets.token_urlsafe(50),
            "VAR_DIR": var,
            "PORT": str(port),
            **environment,
        }
        command = [sys.executable, "-m", "gunicorn", "--config", "python:pulsewatch.web", application]
        log = Path(var) / "web.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=variables, stdout=output, stderr=subprocess.STDOUT)
        host = bracketed(environment.get("HOST", "127.0.0.1"))
        server = Served(f"http://{host}:{port}", process, log)
        try:
            _wait(server, path)
            yield server
        finally:
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(server: Served, path: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"gunicorn ended with status {server.process.returncode}:\n{server.log.read_text()}")
        try:
            server.get(path, timeout=5)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"{server.base}{path} did not answer within 30 s:\n{server.log.read_text()}")

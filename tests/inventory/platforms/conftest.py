"""A platform to talk to, and a release to roll out."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from apps.inventory.platforms import platform_for
from apps.inventory.platforms.base import Platform, Release
from apps.inventory.platforms.transport import Limits
from tests.inventory.platforms.stands import SECRET, Stand
from tests.receiver import Receiver, receiver
from tests.servers import free_port

SHA = "3f2c1b0a9d8e7f6a5b4c3d2e1f0a9b8c7d6e5f4a"
RELEASE = Release(
    service="shop",
    environment="production",
    version="v1.4.2",
    commit_sha=SHA,
    deployment_id="deploy_20261020_143052",
    reason="error rate 12 % after v1.4.3",
    kind="rollback",
)
FAST = Limits(attempts=3, attempt_seconds=0.4, total_seconds=3.0, backoff_seconds=0.02)


@dataclass(frozen=True)
class Case:
    """A kind of platform that talks to somebody, and what makes its platform at an address."""

    kind: str
    settings: dict[str, Any]  # {url} stands for the address
    accepted: bytes  # a body that says yes
    path: str

    def at(self, url: str, *, limits: Limits = FAST, secret: str = SECRET) -> Platform:
        settings = {
            name: value.replace("{url}", url) if isinstance(value, str) else value
            for name, value in self.settings.items()
        }
        return replace(platform_for(self.kind, settings, secret), limits=limits)


WEBHOOK = Case("webhook", {"url": "{url}/deploy?team=shop"}, b"", "/deploy?team=shop")

GITHUB = Case(
    "github",
    {"base_url": "{url}/api/v3", "repository": "acme/shop", "workflow": "deploy.yml"},
    b"",
    "/api/v3/repos/acme/shop/actions/workflows/deploy.yml/dispatches",
)
ZEABUR = Case(
    "zeabur",
    {
        "base_url": "{url}/graphql",
        "service_id": "65a1b2c3d4e5f60718293a4b",
        "environment_id": "65a1b2c3d4e5f60718293a4c",
        "redeploy_on_rollback": True,
    },
    b'{"data": {"redeployService": true}}',
    "/graphql",
)


@pytest.fixture(scope="module")
def _server() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture
def platform_server(_server: Receiver) -> Receiver:
    _server.starts_over()
    return _server


APP = "def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n"


@pytest.fixture(scope="session")
def gunicorn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("gunicorn")
    (folder / "tiny.py").write_text(APP)
    file = folder / "web.pid"
    command = [sys.executable, "-m", "gunicorn", "tiny:app", "--workers", "2", "--pid", str(file)]
    listening = ["--no-control-socket", "--bind", f"127.0.0.1:{free_port()}"]
    with subprocess.Popen([*command, *listening], cwd=folder) as process:
        try:
            play = Processes(process.pid)
            play.wait_for(2, file)
            yield Stand(
                "gunicorn", "worker process", play, {"pid_file": str(file)}, {"pid_file": str(folder / "no.pid")},
                {"pid_file": "web.pid"}, secret="",
            )  # fmt: skip
        finally:
            process.terminate()


class Processes:
    """A real gunicorn, which anybody may send signals to."""

    trouble = ""

    def __init__(self, master: int) -> None:
        self.master = master

    @property
    def wishes(self) -> list[int]:
        return [self.running]

    @property
    def running(self) -> int:
        return len(psutil.Process(self.master).children())

    def starts_over(self) -> None:
        """Two workers, by signals of somebody else."""
        while (now := self.running) != 2:
            os.kill(self.master, signal.SIGTTIN if now < 2 else signal.SIGTTOU)
            self.wait_for(now + (1 if now < 2 else -1))

    def wait_for(self, count: int, file: Path | None = None) -> None:
        deadline = time.monotonic() + 20
        while (file and not file.exists()) or self.running != count:
            assert time.monotonic() < deadline
            time.sleep(0.02)

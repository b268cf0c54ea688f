"""Storages on real folders and on a private S3, and what is left in them."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.backups import storage
from apps.backups.storage import Storage
from tests.servers import SeaweedFS

MIB = 2**20
SECRET = "a-secret-key-that-nobody-may-see"


def options(server: SeaweedFS) -> dict[str, str]:
    return {"endpoint": server.url, "access_key": server.access_key, "secret_key": server.secret_key}


def s3_storage(server: SeaweedFS, prefix: str, **changes) -> Storage:
    return Storage(f"s3://{server.bucket}/{prefix}", **{**options(server), **changes})


def leftovers(place: Storage) -> list[str]:
    """Everything there is, half-written objects too."""
    backend = place._backend
    if isinstance(backend, storage.Folder):
        return sorted(str(path.relative_to(backend.root)) for path in backend.root.rglob("*") if path.is_file())
    uploads = backend.call("list_multipart_uploads", Prefix=backend.prefix).get("Uploads", ())
    return sorted([*place.list(), *(upload["Key"] for upload in uploads)])


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    """A tmpfs of this size where we may mount one, else a limit on the size of files."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (megabytes * MIB, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

"""Backups in S3: what a server refuses, locks, loses, and the private one of the tests."""

import gc
import io
import json
import os
import shutil
import stat
import subprocess
import sys

import psutil
import pytest

from apps.backups import s3
from apps.backups.storage import Storage, StorageError, Unreachable
from apps.core.errors import Transient
from tests.backups.storage.places import MIB, SECRET, options, s3_storage
from tests.servers import SeaweedFS

# --- The private S3 server --------------------------------------------------------------------------------------------


def test_the_server_listens_on_loopback_below_the_ports_the_kernel_lends(seaweedfs: SeaweedFS) -> None:
    sockets = psutil.Process(seaweedfs.pid).net_connections(kind="inet")
    listening = {entry.laddr for entry in sockets if entry.status == psutil.CONN_LISTEN}
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert all(10_000 <= address.port < 32_768 for address in listening)
    assert seaweedfs.port in {address.port for address in listening}


def test_the_server_shows_no_key_and_reports_nothing(seaweedfs: SeaweedFS) -> None:
    command = psutil.Process(seaweedfs.pid).cmdline()
    assert not [word for word in command if seaweedfs.secret_key in word or seaweedfs.access_key in word]
    assert "-master.telemetry=false" in command
    assert stat.S_IMODE((seaweedfs.folder / "s3.json").stat().st_mode) == 0o600


def test_what_the_server_holds_survives_a_kill() -> None:
    with SeaweedFS() as server, s3_storage(server, "p") as place:
        place.write_bytes("a", b"x")
        server.kill()
        server.start()
        assert place.read_bytes("a", 1) == b"x"


# --- S3 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message", "transient"),
    [
        ({"secret_key": SECRET}, "does not accept the S3 keys", False),
        ({"access_key": SECRET}, "does not accept the S3 keys", False),
        ({"endpoint": "http://127.0.0.1:9"}, r"does not answer .* Check BACKUP_S3_ENDPOINT", True),
        ({"endpoint": "http://nobody.invalid"}, "does not answer", True),
        ({"object_lock_days": 3}, "refuses object lock", False),
    ],
)
def test_what_s3_refuses_becomes_cause_and_remedy(
    seaweedfs: SeaweedFS, changes: dict[str, str], message: str, transient: bool
) -> None:
    with s3_storage(seaweedfs, "refused", **changes) as place, pytest.raises(StorageError, match=message) as caught:
        place.check()
    assert isinstance(caught.value, Transient) == transient
    assert not {SECRET, seaweedfs.secret_key, seaweedfs.access_key} & set(str(caught.value).split())
    assert SECRET not in str(caught.value)


def test_an_unknown_bucket_is_said_so(seaweedfs: SeaweedFS) -> None:
    with (
        Storage("s3://no-such-bucket/x", **options(seaweedfs)) as place,
        pytest.raises(StorageError, match=r"There is no bucket no-such-bucket at 127\.0\.0\.1\. Make it"),
    ):
        place.check()


def test_a_locked_object_outlives_its_deletion(seaweedfs: SeaweedFS) -> None:
    backend = s3.S3(bucket="locked", prefix="p/", region="", object_lock_days=3, **options(seaweedfs))
    backend.call("create_bucket", ObjectLockEnabledForBucket=True)
    with Storage("s3://locked/p", **options(seaweedfs), object_lock_days=3) as place:
        for path, data in (("small", b"x"), ("large", bytes(s3.PART_BYTES + 1))):
            place.write_bytes(path, data)
            head = backend.call("head_object", Key=f"p/{path}")
            assert head["ObjectLockMode"] == "GOVERNANCE"
            assert 2 <= (head["ObjectLockRetainUntilDate"] - head["LastModified"]).days <= 3
            with pytest.raises(StorageError, match="refuses these S3 keys"):
                backend.call("delete_object", Key=f"p/{path}", VersionId=head["VersionId"])
            place.delete(path)
            assert not place.exists(path)
            kept = backend.call("head_object", Key=f"p/{path}", VersionId=head["VersionId"])
            assert kept["ContentLength"] == len(data)
        place.check()
    backend.close()


def test_a_storage_that_is_full_ends_the_upload_and_nothing_appears() -> None:
    with SeaweedFS(volumes=1) as server, s3_storage(server, "p") as place:
        place.write_bytes("kept", b"x")
        with pytest.raises(StorageError, match="full"):
            place.write_bytes("large", bytes(120 * MIB))
        assert not place.exists("large")
        assert place.read_bytes("kept", 1) == b"x"


def test_a_lost_server_is_worth_another_try_while_writing_and_while_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    with SeaweedFS() as server, s3_storage(server, "p") as place:
        place.write_bytes("there", os.urandom(3 * s3.RANGE_BYTES))
        source = place.open("there")
        assert len(source.read(1000)) == 1000
        with pytest.raises(Unreachable, match="does not answer"):
            write_and_lose(place, server)
        with pytest.raises(Unreachable, match="does not answer"):
            shutil.copyfileobj(source, io.BytesIO())


def write_and_lose(place: Storage, server: SeaweedFS) -> None:
    with place.writer("lost") as sink:
        sink.write(bytes(s3.PART_BYTES + 1))
        server.kill()
        sink.write(bytes(2 * s3.PART_BYTES))


def test_a_frozen_server_is_given_up_on(seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
    with s3_storage(seaweedfs, "frozen") as place:
        place.write_bytes("a", b"x")
        seaweedfs.freeze()
        try:
            with pytest.raises(Unreachable, match="does not answer"):
                place.size("a")
        finally:
            seaweedfs.thaw()


def test_a_storage_that_nobody_closes_holds_no_connection_when_it_is_gone(seaweedfs: SeaweedFS) -> None:
    before = len(s3._Connection.open_ones)
    place = s3_storage(seaweedfs, "forgotten")
    place.check()
    assert len(s3._Connection.open_ones) == before + 1
    del place
    gc.collect()
    assert len(s3._Connection.open_ones) == before


QUIET = """
import gc, json, os, sys
from apps.backups.storage import Storage
url, options = sys.argv[1], json.loads(os.environ["PLACE"])
with Storage(url, **options) as place:
    place.check()
forgotten = Storage(url, **options)
forgotten.write_bytes("quiet", b"x")
def scope():
    dropped = Storage(url, **options)
    assert dropped.read_bytes("quiet", 1) == b"x"
scope()
gc.collect()
child = os.fork()
if child == 0:
    assert forgotten.read_bytes("quiet", 1) == b"x"
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
assert forgotten.read_bytes("quiet", 1) == b"x"
"""


def test_connections_are_closed_without_a_word_even_when_nobody_closes_them(seaweedfs: SeaweedFS) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            QUIET,
            f"s3://{seaweedfs.bucket}/quiet",
        ],
        env={**os.environ, "PLACE": json.dumps(options(seaweedfs))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")

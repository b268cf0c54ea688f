"""One contract for all kinds of storage, on real ones: folders, and S3 as SeaweedFS speaks it."""

import errno
import gc
import hashlib
import io
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from apps.backups import s3, storage
from apps.backups.storage import Missing, Storage, StorageError, Unreachable
from apps.core.errors import Invalid, Transient
from tests.servers import SeaweedFS

MIB = 2**20
SECRET = "a-secret-key-that-nobody-may-see"


@pytest.fixture(scope="module")
def seaweedfs() -> Iterator[SeaweedFS]:
    with SeaweedFS() as server:
        yield server


def options(server: SeaweedFS) -> dict[str, str]:
    return {"endpoint": server.url, "access_key": server.access_key, "secret_key": server.secret_key}


def s3_storage(server: SeaweedFS, prefix: str, **changes) -> Storage:
    return Storage(f"s3://{server.bucket}/{prefix}", **{**options(server), **changes})


@pytest.fixture(params=["folder", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "folder":
        made = Storage(str(tmp_path / "backups"))
    else:
        made = s3_storage(request.getfixturevalue("seaweedfs"), f"tests/{tmp_path.name}")
    with made:
        yield made


def leftovers(place: Storage) -> list[str]:
    """Everything there is, half-written objects too."""
    backend = place._backend
    if isinstance(backend, storage.Folder):
        return sorted(str(path.relative_to(backend.root)) for path in backend.root.rglob("*") if path.is_file())
    uploads = backend.call("list_multipart_uploads", Prefix=backend.prefix).get("Uploads", ())
    return sorted([*place.list(), *(upload["Key"] for upload in uploads)])


# --- The contract -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 100_000, s3.PART_BYTES, 2 * s3.PART_BYTES + 1])
def test_an_object_comes_back_byte_for_byte(place: Storage, size: int) -> None:
    data = os.urandom(size)
    with place.writer("production/2025/10/20/b.sql.zst.enc") as sink:
        for begin in range(0, size, 131_072):
            assert sink.write(data[begin : begin + 131_072]) == len(data[begin : begin + 131_072])
    assert place.size("production/2025/10/20/b.sql.zst.enc") == size
    assert place.exists("production/2025/10/20/b.sql.zst.enc")
    digest, count = hashlib.sha256(), 0
    with place.open("production/2025/10/20/b.sql.zst.enc") as source:
        while block := source.read(131_072):
            digest.update(block)
            count += len(block)
    assert (count, digest.digest()) == (size, hashlib.sha256(data).digest())
    assert leftovers(place) == ["production/2025/10/20/b.sql.zst.enc"]


@pytest.mark.parametrize("size", [10, 2 * s3.PART_BYTES])
def test_nothing_appears_before_the_end_and_nothing_is_left_of_a_failure(place: Storage, size: int) -> None:
    place.write_bytes("folder/kept", b"before")
    with pytest.raises(RuntimeError, match="the dump died"):
        write_and_fail(place, "folder/new", size)
    with pytest.raises(RuntimeError, match="the dump died"):
        write_and_fail(place, "folder/kept", size)
    assert place.read_bytes("folder/kept", 100) == b"before"
    assert [path.rpartition("/")[2] for path in leftovers(place)] == ["kept"]


def write_and_fail(place: Storage, path: str, size: int) -> None:
    with place.writer(path) as sink:
        sink.write(bytes(size))
        assert path.endswith("kept") or not place.exists(path)
        raise RuntimeError("the dump died")


def test_an_object_is_replaced_whole(place: Storage) -> None:
    place.write_bytes("a/b", b"first, and longer")
    with place.writer("a/b") as sink:
        sink.write(b"second")
        assert place.read_bytes("a/b", 100) == b"first, and longer"
    assert place.read_bytes("a/b", 100) == b"second"


def test_what_is_not_there_is_missing(place: Storage) -> None:
    assert not place.exists("a/b")
    for call in (place.size, place.open, lambda path: place.read_bytes(path, 1)):
        with pytest.raises(Missing, match=r"There is no a/b in .*\. Look whether"):
            call("a/b")
    assert [*place.list()] == []
    place.delete("a/b")


def test_deleting_twice_is_no_error(place: Storage) -> None:
    place.write_bytes("a/b", b"x")
    place.write_bytes("a/bc", b"x")
    place.delete("a/b")
    place.delete("a/b")
    assert [*place.list()] == ["a/bc"]


def test_a_small_object_is_not_read_beyond_its_limit(place: Storage) -> None:
    place.write_bytes("a", b"12345")
    assert place.read_bytes("a", 5) == b"12345"
    with pytest.raises(StorageError, match="more than 4 bytes"):
        place.read_bytes("a", 4)


def test_lists_are_filtered_and_keep_the_sidecars_of_a_backup_together(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "PAGE_KEYS", 2)
    names = ["a.json", "a.123.json", "a.sql.zst.enc", "a-1.json", "a_1.json", "ab.json", "a.99.json"]
    for name in names:
        place.write_bytes(f"production/2025/{name}", b"")
        place.write_bytes(f"staging/2025/{name}", b"")
    every = [f"{environment}/2025/{name}" for environment in ("production", "staging") for name in sorted(names)]
    assert [*place.list()] == every
    assert [*place.list("staging/")] == every[len(names) :]
    assert [*place.list("production/2025/a.", ".json")] == [
        f"production/2025/{name}" for name in ("a.123.json", "a.99.json", "a.json")
    ]
    assert [*place.list("nothing/")] == []
    assert [*place.list("production/2025/a.json/")] == []


ESCAPES = ["/etc/passwd", "../a", "a/../../b", "a/./b", "a//b", ".hidden", "a/.b", "a\\b", "a\0", "ä", "a?b", "a" * 600]


@pytest.mark.parametrize("path", ["", "a/", *ESCAPES])
def test_no_path_leaves_the_storage(place: Storage, path: str) -> None:
    for call in (place.writer, place.open, place.size, place.exists, place.delete):
        with pytest.raises(Invalid, match="no path of an object"):
            call(path)
    with pytest.raises(Invalid, match="no path of an object"):
        place.write_bytes(path, b"")


@pytest.mark.parametrize("prefix", ESCAPES)
def test_no_prefix_leaves_the_storage(place: Storage, prefix: str) -> None:
    with pytest.raises(Invalid, match="no path of an object"):
        place.list(prefix)


def test_the_check_passes_and_leaves_nothing(place: Storage) -> None:
    place.check()
    assert leftovers(place) == []


def test_the_check_notices_a_storage_that_forges(place: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Storage, "read_bytes", lambda self, path, limit: b"something else")
    with pytest.raises(StorageError, match="other bytes than were stored"):
        place.check()
    assert leftovers(place) == []


KILLED = """
import json, os, signal, sys
from apps.backups.storage import Storage
place = Storage(sys.argv[1], **json.loads(os.environ["PLACE"]))
with place.writer("a/killed") as sink:
    for _ in range(40):
        sink.write(bytes(2**20))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_no_object_and_delete_clears_its_half(
    place: Storage, request: pytest.FixtureRequest
) -> None:
    given = options(request.getfixturevalue("seaweedfs")) if isinstance(place._backend, s3.S3) else {}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, place.url],
        env={**os.environ, "PLACE": json.dumps(given)},
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert not place.exists("a/killed")
    assert [*place.list()] == []
    assert len(leftovers(place)) == 1
    place.delete("a/killed")
    assert leftovers(place) == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # as Python 3.12 says
def test_a_forked_child_can_use_the_storage_of_its_parent_and_so_can_the_parent_again(place: Storage) -> None:
    """As in a Celery worker, whose processes are forks of one that may have used the storage."""
    place.write_bytes("a", b"from the parent")
    for number in range(2):
        child = os.fork()
        if child == 0:
            failed = 1
            try:
                good = place.read_bytes("a", 100) == b"from the parent"
                place.write_bytes(f"child-{number}", b"x")
                place.close()
                gc.collect()
                failed = 0 if good else 1
            finally:
                os._exit(failed)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert place.read_bytes("a", 100) == b"from the parent"
    assert [*place.list()] == ["a", "child-0", "child-1"]


def test_a_closed_storage_opens_again(place: Storage) -> None:
    place.write_bytes("a", b"x")
    place.close()
    place.close()
    assert place.read_bytes("a", 1) == b"x"


# --- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_folder_is_named_by_its_path_or_a_url(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "with space"
    url = form.format(str(folder).replace(" ", "%20") if "file" in form else folder)
    with Storage(url) as place:
        place.write_bytes("a", b"x")
    assert (folder / "a").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("url", "changes", "message"),
    [
        ("backups", {}, "absolute path"),
        ("", {}, "absolute path"),
        ("file://server/share", {}, "file://"),
        ("ftp://host/x", {}, "ftp://"),
        (f"s3://key:{SECRET}@bucket/x", {}, "nothing more"),
        (f"s3://bucket/x?secret={SECRET}", {}, "nothing more"),
        ("s3:///x", {}, "nothing more"),
        ("s3://bucket/../x", {}, "no path"),
        ("spaces://bucket/x", {}, "BACKUP_S3_ENDPOINT"),
        ("s3://bucket", {"endpoint": "ftp://x"}, "BACKUP_S3_ENDPOINT"),
        ("s3://bucket", {"endpoint": f"https://u:{SECRET}@x"}, "BACKUP_S3_ENDPOINT"),
        ("s3://bucket", {"secret_key": SECRET}, "or neither"),
    ],
)
def test_a_wrong_url_is_refused_in_one_sentence_without_its_secrets(
    url: str, changes: dict[str, str], message: str
) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        Storage(url, **changes)
    assert SECRET not in str(caught.value)


def test_spaces_is_s3_with_an_endpoint(seaweedfs: SeaweedFS) -> None:
    with Storage(f"spaces://{seaweedfs.bucket}/spaces", **options(seaweedfs)) as place:
        place.check()


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_for_its_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        Storage(str(tmp_path / "new" / "backups")).write_bytes("production/a", b"x")
    finally:
        os.umask(old)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")}
    assert modes == {"backups": 0o700, "production": 0o700, "a": 0o600}


def test_an_object_has_reached_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, rename = os.fsync, Path.rename

    def record_sync(descriptor: int) -> None:
        steps.append(f"sync {'folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file'}")
        sync(descriptor)

    def record_rename(self: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "rename", record_rename)
    Storage(str(tmp_path)).write_bytes("new/a", b"x")
    assert steps == ["sync folder", "sync file", "rename", "sync folder"]


def test_free_space_is_known_before_the_folder_exists(tmp_path: Path) -> None:
    free = Storage(str(tmp_path / "not" / "yet")).free_bytes()
    assert free
    assert free > 0


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


def test_a_full_disk_is_said_so_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    with small_disk(folder, 4):
        place = Storage(str(folder))
        place.write_bytes("kept", b"x")
        with pytest.raises(StorageError, match=r"is full\. Free some space|may not grow") as caught:
            place.write_bytes("large", bytes(8 * MIB))
        assert not isinstance(caught.value, Transient)
        assert leftovers(place) == ["kept"]
        place.write_bytes("next", bytes(MIB))


def test_a_file_size_limit_is_said_so_and_nothing_is_left(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    place = Storage(str(tmp_path))
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(StorageError, match="ulimit"):
            place.write_bytes("large", bytes(2 * MIB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert leftovers(place) == []


def test_a_file_in_place_of_the_folder_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Not a directory"):
        Storage(str(tmp_path / "file")).check()


@pytest.mark.parametrize(
    ("number", "message", "transient"),
    [
        (errno.ENOSPC, "full", False),
        (errno.EDQUOT, "full", False),
        (errno.EACCES, "may not be written or read by user", False),
        (errno.EROFS, "Read-only", False),
        (errno.EIO, "does not answer", True),
        (errno.ESTALE, "does not answer", True),
        (errno.ENAMETOOLONG, "cannot be used", False),
    ],
)
def test_what_the_system_says_becomes_cause_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str, transient: bool
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    place = Storage(str(tmp_path))
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=message) as caught:
        place.write_bytes("a", b"x")
    assert isinstance(caught.value, Transient) == transient
    assert caught.value.__cause__ is None
    assert leftovers(place) == []


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


def test_a_lost_server_is_worth_another_try_while_writing_and_while_reading() -> None:
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


def test_a_frozen_server_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
    with SeaweedFS() as server, s3_storage(server, "p") as place:
        place.write_bytes("a", b"x")
        server.freeze()
        with pytest.raises(Unreachable, match="does not answer"):
            place.size("a")
        server.thaw()


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

"""One contract for all kinds of storage, on real ones: folders, and S3 as SeaweedFS speaks it."""

import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from apps.backups import s3
from apps.backups.storage import Missing, Storage, StorageError
from apps.core.errors import Invalid
from tests.backups.storage.places import SECRET, leftovers, options
from tests.servers import SeaweedFS

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
    place.write_bytes("other", b"x")
    assert not place.exists("a/b")
    for call in (place.size, place.open, lambda path: place.read_bytes(path, 1)):
        with pytest.raises(Missing, match=r"There is no a/b in .*\. Look whether"):
            call("a/b")
    assert [*place.list()] == ["other"]
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
def test_a_forked_child_can_use_the_storage_of_its_parent_and_so_can_the_parent_again(
    request: pytest.FixtureRequest, place: Storage
) -> None:
    """As in a Celery worker, whose processes are forks of one that may have used the storage."""
    place.close()
    gc.freeze()  # what the suite holds is no part of this: a child that looked through all of it would copy it
    request.addfinalizer(gc.unfreeze)
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

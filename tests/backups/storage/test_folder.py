"""Backups in a folder: its rights, its disk, its faults."""

import errno
import os
import resource
import stat
from pathlib import Path

import pytest

from apps.backups.storage import Storage, StorageError, Unreachable
from apps.core.errors import Transient
from tests.backups.storage.places import MIB, leftovers, small_disk

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


def test_a_disk_that_is_not_mounted_has_lost_nothing(tmp_path: Path) -> None:
    place = Storage(str(tmp_path / "mount"))

    with pytest.raises(Unreachable, match=r"mount is not there\. Mount its disk"):
        place.open("a/b")

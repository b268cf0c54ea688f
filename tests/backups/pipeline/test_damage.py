"""Storages that refuse or lose what they were given, and backups that were altered: nothing is half done, nothing is
restored before all of it was checked.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from apps.backups import restorer, runner, s3, schedule
from apps.backups.engines.base import Engine
from apps.backups.models import BackupJob
from apps.core.errors import Corrupt, KeyUnknown
from apps.core.keys import Keyring, new_keyset
from tests.backups.pipeline.product import back_up, fill, register, restored, run, stored_in, url_of
from tests.backups.storage.places import small_disk
from tests.servers import SeaweedFS

pytestmark = [pytest.mark.django_db, pytest.mark.parametrize("source", ["SQLite"], indirect=True)]


@pytest.fixture
def small(source: Engine) -> Engine:
    run(source, "CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT)", "INSERT INTO customers VALUES (1, 'Ada')")
    return source


@pytest.fixture
def job(small: Engine) -> BackupJob:
    """A verified backup of a small database."""
    return back_up(register(url_of(small)))


# --- Storage ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_fails_the_attempt_with_the_remedy_and_leaves_room_again(
    source: Engine, settings, tmp_path: Path
) -> None:
    fill(source, 6)
    disk = tmp_path / "disk"
    with small_disk(disk, 2):
        settings.BACKUP_STORAGE = str(disk)
        job = back_up(register(url_of(source)))

        assert job.status == "queued"
        assert "is full. Free some space" in job.error_message or "may not grow" in job.error_message
        assert stored_in(disk) == []
        run(source, "DELETE FROM large", "VACUUM")
        BackupJob.objects.update(next_attempt_at=None)
        assert runner.back_up(job.pk, owner="again").status == "completed"


def test_a_storage_that_dies_fails_the_attempt_and_its_half_is_removed_when_it_is_back(
    source: Engine, settings, monkeypatch
) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 2**20)  # the least that S3 allows
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    fill(source, 14)  # stored as 7 MB: more than one part of an upload
    with SeaweedFS() as server:
        settings.BACKUP_STORAGE = f"s3://{server.bucket}/pulsewatch"
        settings.BACKUP_STORAGE_OPTIONS = {
            "endpoint": server.url,
            "access_key": server.access_key,
            "secret_key": server.secret_key,
        }

        def die_late(step: str, done: int) -> None:
            if step == "dump" and done > 12 * 2**20 and server.running:
                server.kill()

        job = back_up(register(url_of(source)), die_late)

        assert job.status == "queued"
        assert "does not answer" in job.error_message
        assert job.object_path, "it is remembered, for it could not be removed"
        server.start()
        BackupJob.objects.update(status="failed", completed_at=job.started_at)
        schedule.clean_up(job.started_at)
        job.refresh_from_db()
        assert job.object_path == ""
        with runner.storage() as place:
            assert list(place.list()) == []
            backend = place._backend
            assert not backend.call("list_multipart_uploads", Prefix="pulsewatch/").get("Uploads")


# --- What was altered -------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "flipped": flip,
    "cut": cut,
    "emptied": lambda path: path.write_bytes(b""),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": Path.unlink,
}


@pytest.mark.parametrize("part", ["object_path", "sidecar_path"])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_backup_is_refused_before_the_target_is_touched(
    small: Engine, job: BackupJob, kept_here: Path, part: str, how: str
) -> None:
    DAMAGE[how](kept_here / getattr(job, part))
    target = f"{small.address.database}-copy"

    row = restored(job, target, kind="restore")
    drill = restored(job)

    for refused in (row, drill):
        assert (refused.status, refused.equal) == ("failed", None)
        assert refused.error_message
    assert not small.at(target).exists()
    assert not small.at(drill.schema).exists()


def test_an_altered_byte_anywhere_in_an_object_and_any_cut_fails_the_check(job: BackupJob, kept_here: Path) -> None:
    chance = random.Random(5)
    with runner.storage() as place:

        def check() -> None:
            restorer.verify(place, restorer.read_sidecar(place, job.sidecar_path), None)

        check()
        for path, step in ((kept_here / job.object_path, 1), (kept_here / job.sidecar_path, 23)):
            whole = path.read_bytes()
            wrong = []
            for at in range(0, len(whole), step):
                altered = bytearray(whole)
                altered[at] ^= 1 << chance.randrange(8)
                wrong += [altered] if at % 7 else [altered, whole[:at]]
            for data in wrong:
                path.write_bytes(data)
                with pytest.raises(Corrupt):
                    check()
            path.write_bytes(whole)
        check()


def test_the_sidecar_and_object_of_another_backup_are_refused(small: Engine, job: BackupJob, kept_here: Path) -> None:
    other = back_up(job.database)
    target = f"{small.address.database}-copy"
    (kept_here / job.sidecar_path).write_bytes((kept_here / other.sidecar_path).read_bytes())

    row = restored(job, target, kind="restore")

    assert row.status == "failed"
    assert f"is the sidecar of backup {other.pk} in another place" in row.error_message
    assert not small.at(target).exists()


def test_without_the_right_key_nothing_is_touched_and_the_missing_one_is_named(
    small: Engine, job: BackupJob, settings
) -> None:
    key = Keyring(settings.BACKUP_KEYSET).key_id
    target = f"{small.address.database}-copy"
    settings.BACKUP_KEYSET = new_keyset()
    with runner.storage() as place, pytest.raises(KeyUnknown, match=key):
        restorer.read_sidecar(place, job.sidecar_path)

    row = restored(job, target, kind="restore")

    assert row.status == "failed"
    assert f"sealed with key {key}" in row.error_message
    assert not small.at(target).exists()


def test_a_database_whose_url_was_sealed_with_a_lost_key_fails_with_that_sentence(
    job: BackupJob, settings, kept_here: Path
) -> None:
    before = stored_in(kept_here)
    settings.BACKUP_KEYSET = new_keyset()

    failed = back_up(job.database)

    assert failed.status == "queued"
    assert "Use the keyset it was sealed with" in failed.error_message
    assert stored_in(kept_here) == before

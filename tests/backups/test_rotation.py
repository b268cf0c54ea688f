"""A new key: everything is sealed with it, nothing is lost on the way, and no object is rewritten."""

import errno
import io
import json
import stat
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.alerts.models import Route
from apps.alerts.runner import url_purpose
from apps.backups import restorer, rotation, runner, schedule, services
from apps.backups.choices import RestoreKind
from apps.backups.models import BackupJob
from apps.core import vault
from apps.core.errors import Invalid
from apps.core.keys import Keyring, new_keyset
from apps.inventory import services as inventory
from apps.inventory.runner import unseal_secret
from tests.backups.pipeline.product import ACTOR, OWNER, back_up
from tests.backups.test_restore_over import file, kept_here, shop  # noqa: F401  (fixtures)
from tests.factories import WorkloadFactory

pytestmark = pytest.mark.django_db


@pytest.fixture
def keyset(kept_here, tmp_path, settings) -> Path:  # noqa: F811
    """The keyset in a file."""
    path = tmp_path / "keyset.json"
    path.write_text(settings.BACKUP_KEYSET)
    settings.BACKUP_KEYSET_FILE = path
    return path


def rotate() -> rotation.Rotated:
    return rotation.rotate_keys(actor=ACTOR, progress=lambda _: None)


def test_everything_is_sealed_with_a_new_key_and_no_object_changes(keyset, shop, kept_here):  # noqa: F811
    jobs = [back_up(shop), back_up(shop)]
    workload = inventory.save(
        WorkloadFactory(platform="webhook", platform_settings={"url": "http://127.0.0.1:9/"}),
        actor=ACTOR,
        platform_secret="a-long-secret-of-the-webhook",
    )
    route = Route.objects.create(name="ops")
    route.url_sealed = vault.seal("json://127.0.0.1/a-long-secret", purpose=url_purpose(route))
    route.save()
    objects = {job.object_path: (kept_here / job.object_path).read_bytes() for job in jobs}
    old = vault.keyring().key_id

    done = rotate()

    assert done.new
    assert done.key_id != old
    assert (done.sealed, done.wrapped, done.problems) == (3, 2, ())
    assert vault.keyring().key_ids == (old, done.key_id)
    assert stat.S_IMODE(keyset.stat().st_mode) == 0o600
    for path, data in objects.items():
        assert (kept_here / path).read_bytes() == data
    for job in BackupJob.objects.all():
        assert job.key_id == done.key_id
        assert job.sidecar_path.endswith(f".{done.key_id}.json")
    workload.refresh_from_db()
    route.refresh_from_db()
    assert vault.unseal(route.url_sealed, purpose=url_purpose(route)) == "json://127.0.0.1/a-long-secret"
    assert unseal_secret(workload) == "a-long-secret-of-the-webhook"
    # The old key is no longer needed for anything.
    keys = json.loads(keyset.read_text())
    keyset.write_text(json.dumps({**keys, "key": [key for key in keys["key"] if str(key["keyId"]) == done.key_id]}))
    row = services.request_restore(backup=jobs[0], actor=ACTOR, kind=RestoreKind.DRILL)
    assert restorer.restore(row.pk, owner=OWNER).equal


@pytest.mark.parametrize("broken", ["_seal", "_wrap"])
def test_an_interrupted_rotation_goes_on_with_the_same_key(keyset, shop, monkeypatch, broken: str):  # noqa: F811
    back_up(shop)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rotation, broken, interrupt)
        with pytest.raises(KeyboardInterrupt):
            rotate()
    begun = vault.keyring().key_ids
    assert len(begun) == 2
    assert runner.engine_of(shop)  # all of it can be read meanwhile

    done = rotate()

    assert not done.new
    assert vault.keyring().key_ids == begun
    assert BackupJob.objects.get().key_id == begun[1]
    assert rotate().new


def test_a_backup_whose_sidecar_cannot_be_read_stays_with_its_old_key_and_is_named(keyset, shop, kept_here):  # noqa: F811
    job = back_up(shop)
    (kept_here / job.sidecar_path).rename(kept_here / "away")

    done = rotate()

    assert [name for name, _ in done.problems] == [job.pk]
    assert rotation.rotate_keys(actor=ACTOR, progress=lambda _: None, anew=True).new  # it stands not in the way
    (kept_here / "away").rename(kept_here / job.sidecar_path)
    assert rotate().wrapped == 1


def test_a_keyset_in_a_variable_is_rotated_by_hand(shop, settings):  # noqa: F811
    job = back_up(shop)
    before = settings.BACKUP_KEYSET
    with pytest.raises(Invalid, match=r"BACKUP_KEYSET, which cannot be written .* new-keyset --rotate"):
        rotate()
    assert before == settings.BACKUP_KEYSET
    output = io.StringIO()
    call_command("backup", "new-keyset", "--rotate", stdout=output)

    settings.BACKUP_KEYSET = output.getvalue().strip()
    done = rotate()

    assert (done.new, done.wrapped, done.problems) == (False, 1, ())
    job.refresh_from_db()
    assert job.key_id == Keyring(settings.BACKUP_KEYSET).key_id


def test_a_file_that_cannot_be_written_changes_nothing(keyset, shop, monkeypatch):  # noqa: F811
    job = back_up(shop)

    def refuse(*_: object) -> None:  # a mounted secret; root may write everywhere else
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(vault, "_replace", refuse)
    with pytest.raises(CommandError, match=r"cannot be written \(Read-only file system\)\. Print it"):
        call_command("backup", "rotate-keys")
    job.refresh_from_db()
    assert vault.keyring().key_ids == (job.key_id,)


def test_processes_that_run_already_follow_the_file(keyset):
    held = vault.seal("mysql://…", purpose="a row")

    vault.rotate()

    assert vault.unseal(held, purpose="a row") == "mysql://…"
    assert vault.unseal(vault.seal("new", purpose="a row"), purpose="a row") == "new"
    keyset.unlink()  # what was read at the start still holds
    assert len(vault.keyring().key_ids) == 1


def test_retention_removes_later_sidecars_with_their_object(keyset, shop, kept_here):  # noqa: F811
    old, newest = back_up(shop), back_up(shop)
    rotate()
    old.refresh_from_db()

    assert schedule.clean_up(old.retention_expires_at) == 1

    left = sorted(path.name for path in kept_here.rglob("*.json"))
    assert len(left) == 2
    assert all(name.startswith(newest.pk) for name in left)


def test_the_command_says_what_it_did_and_what_to_do_next(keyset, shop):  # noqa: F811
    back_up(shop)
    output = io.StringIO()

    call_command("backup", "rotate-keys", stdout=output)

    said = output.getvalue()
    assert "1 stored URLs and secrets and 1 backups are sealed with it" in said
    assert "backup kit --out DIR" in said
    assert new_keyset()[:40] not in said

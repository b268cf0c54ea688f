"""The console is lost: its backups are found again in their storage, and the kit opens them."""

import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.backups import recovery, restorer, schedule, services
from apps.backups.choices import RestoreKind
from apps.backups.models import BackupJob, RecoveryKit
from apps.core.errors import KeyUnknown
from apps.core.keys import Keyring, new_keyset, open_protected
from apps.inventory.models import Database
from tests.backups.pipeline.product import ACTOR, OWNER, back_up, register
from tests.backups.test_restore_over import file, kept_here, read, shop, write  # noqa: F401  (fixtures)

pytestmark = pytest.mark.django_db
PHRASE = "five random words are enough"


def run(*words: str) -> str:
    output = io.StringIO()
    call_command("backup", *words, stdout=output, stderr=io.StringIO())
    return output.getvalue()


def lose_the_console() -> None:
    BackupJob.objects.all().delete()
    Database.objects.all().delete()


def test_backups_of_a_lost_console_are_found_verified_and_restored(shop, file, kept_here):  # noqa: F811
    job = back_up(shop)
    facts = ("backup_bytes", "compressed_bytes", "tables", "started_at", "object_path", "engine", "database_name")
    before = {name: getattr(job, name) for name in facts}
    lose_the_console()

    said = run("import", "--storage", str(kept_here))

    found = BackupJob.objects.get()
    assert {name: getattr(found, name) for name in facts} == before
    assert (found.pk, found.imported, found.database, found.source) == (job.pk, True, None, "shop")
    assert found.integrity_check_passed is None
    assert "1 found again, 0 known before, 0 not usable" in said
    assert "not registered" in said
    assert "0 found again, 1 known before" in run("import", "--storage", str(kept_here))

    write(file, "lost")
    register(f"sqlite:///{file}", name="new-shop")
    run("restore", job.pk, "--to", "new-shop", "--overwrite", "--confirm", "new-shop")
    assert read(file) == ["ada", "grace"]
    found.refresh_from_db()
    assert found.integrity_check_passed is True


def test_a_registered_database_gets_its_backups_back(shop, kept_here):  # noqa: F811
    job = back_up(shop)
    BackupJob.objects.all().delete()

    found = recovery.import_backups(storage_url=str(kept_here), actor=ACTOR).added

    assert [(row.pk, row.database) for row in found] == [(job.pk, shop)]
    row = services.request_restore(backup=found[0], actor=ACTOR, kind=RestoreKind.DRILL)
    assert restorer.restore(row.pk, owner=OWNER).equal


def test_what_cannot_be_used_is_named_and_the_rest_is_found(shop, kept_here, monkeypatch):  # noqa: F811
    whole, altered, gone, cut = (back_up(shop) for _ in range(4))
    sidecar = kept_here / altered.sidecar_path
    sidecar.write_bytes(sidecar.read_bytes().replace(b'"plain_bytes": ', b'"plain_bytes": 1', 1))
    (kept_here / gone.object_path).unlink()
    (kept_here / cut.object_path).write_bytes(b"half")
    lose_the_console()
    errors = io.StringIO()

    with pytest.raises(CommandError, match="3 could not be used"):
        call_command("backup", "import", "--storage", str(kept_here), stdout=io.StringIO(), stderr=errors)

    assert BackupJob.objects.get().pk == whole.pk
    said = errors.getvalue()
    assert f"{altered.sidecar_path}: The sidecar was altered" in said
    assert f"{gone.sidecar_path}: Its object {gone.object_path} is not there" in said
    assert f"{cut.sidecar_path}: Its object has 4 bytes instead of" in said


def test_import_answers_in_json_and_names_a_storage_that_is_none(shop, kept_here):  # noqa: F811
    job = back_up(shop)
    lose_the_console()

    answer = json.loads(run("import", "--storage", str(kept_here), "--json"))
    assert answer == {
        "added": [{"id": job.pk, "database": "shop", "registered": False}],
        "known": [],
        "problems": [],
    }
    with pytest.raises(CommandError, match="cannot be stored under ftp://"):
        run("import", "--storage", "ftp://host/backups")


def test_another_keyset_finds_nothing_and_says_which_key_is_missing(shop, kept_here, settings):  # noqa: F811
    back_up(shop)
    key = Keyring(settings.BACKUP_KEYSET).key_id
    lose_the_console()
    settings.BACKUP_KEYSET = new_keyset()

    found = recovery.import_backups(storage_url=str(kept_here), actor=ACTOR)

    assert not found.added
    assert f"sealed with key {key}" in found.problems[0][1]


def test_a_wrong_key_refuses_before_the_target_is_touched_and_is_no_damage(shop, file, settings):  # noqa: F811
    job = back_up(shop)
    write(file, "what was there")
    settings.BACKUP_KEYSET = new_keyset()
    row = services.request_verify(backup=job, actor=ACTOR)

    done = restorer.restore(row.pk, owner=OWNER)

    assert done.status == "failed"
    assert "sealed with key" in done.error_message
    job.refresh_from_db()
    assert job.integrity_check_passed is True
    with pytest.raises(KeyUnknown):
        restorer.engine_of(shop)


def test_what_was_imported_from_another_storage_is_not_deleted_there(shop, kept_here, settings, tmp_path):  # noqa: F811
    old, _ = back_up(shop), back_up(shop)
    lose_the_console()
    settings.BACKUP_STORAGE = str(tmp_path / "new place")
    recovery.import_backups(storage_url=str(kept_here), actor=ACTOR)
    job = BackupJob.objects.get(pk=old.pk)
    BackupJob.objects.update(retention_expires_at=job.started_at)

    assert schedule.clean_up(job.completed_at) == 0
    assert (kept_here / old.object_path).exists()


def test_the_kit_is_exported_once_for_each_key_and_the_console_reminds_of_it(shop, tmp_path, settings):  # noqa: F811
    assert recovery.kit_missing() == ""  # nothing to lose yet
    back_up(shop)
    assert "No recovery kit was exported yet" in recovery.kit_missing()
    phrase = tmp_path / "phrase"
    phrase.write_text(PHRASE + "\n")

    said = run("kit", "--out", str(tmp_path / "kit"), "--passphrase-file", str(phrase))

    keyring = Keyring(settings.BACKUP_KEYSET)
    assert keyring.key_id in said
    assert sorted(path.name for path in (tmp_path / "kit").iterdir()) == ["README.txt", "decrypt.py", "keyset.json"]
    assert open_protected((tmp_path / "kit/keyset.json").read_text(), PHRASE).key_ids == keyring.key_ids
    assert recovery.kit_missing() == ""
    settings.BACKUP_KEYSET = keyring.rotated()
    assert "The keys were rotated since" in recovery.kit_missing()


@pytest.mark.parametrize(
    ("phrase", "out", "said"),
    [("short", "kit", "at least 12 characters"), (PHRASE, ".", "is not empty"), (None, "kit", "Cannot read")],
)
def test_a_kit_that_cannot_be_made_is_not_noted(tmp_path: Path, phrase: str | None, out: str, said: str):
    file = tmp_path / "phrase"  # noqa: F811
    if phrase is not None:
        file.write_text(phrase)
    else:
        (tmp_path / "other").touch()

    with pytest.raises(CommandError, match=said):
        run("kit", "--out", str(tmp_path / out), "--passphrase-file", str(file))
    assert not RecoveryKit.objects.exists()


def test_without_a_terminal_the_passphrase_is_not_asked_for(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(PHRASE + "\n"))
    with pytest.raises(CommandError, match="no terminal to ask at"):
        run("kit", "--out", str(tmp_path / "kit"))
    run("kit", "--out", str(tmp_path / "kit"), "--passphrase-file", "-")
    assert open_protected((tmp_path / "kit/keyset.json").read_text(), PHRASE)

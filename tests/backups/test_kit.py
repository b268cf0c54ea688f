"""The recovery kit, used as a person would: another Python, no Pulsewatch, only tink and zstandard."""

import os
import stat
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from apps.backups.kit import write_kit
from apps.backups.sidecar import rotate
from apps.backups.storage import Storage
from apps.core.errors import Invalid
from apps.core.keys import Keyring
from tests.backups.streams import KEYRING, ROWS
from tests.backups.test_sidecar import AT, stored

PASSPHRASE = "a passphrase nobody guesses"
DUMP = ROWS * 5000

# Runs a script where nothing can be imported but the standard library and what the kit says it needs.
ALONE = """
import runpy, sys
needed = {"tink", "zstandard", "google", "absl"}
allowed = needed | set(sys.stdlib_module_names)
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{name} is not here", name=name)
sys.meta_path.insert(0, Blocker())
sys.path[:] = [entry for entry in sys.path if entry]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit, a storage with one backup in it, and the passphrase in a file."""
    folder = tmp_path_factory.mktemp("recovery")
    write_kit(folder / "kit", KEYRING, PASSPHRASE, "the bucket at the other provider")
    stored(Storage(str(folder / "backups")), "backup_1", DUMP)
    stored(Storage(str(folder / "backups")), "backup_2", DUMP + ROWS)
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    return folder


def kept(folder: Path, name: str) -> Path:
    return folder / "backups" / "production" / "2025" / "10" / "20" / name


def decrypt(folder: Path, out: Path | str, **changes: Path) -> subprocess.CompletedProcess[bytes]:
    files = {
        "object": kept(folder, "backup_1.sql.zst.enc"),
        "sidecar": kept(folder, "backup_1.json"),
        "keyset": folder / "kit" / "keyset.json",
        "passphrase": folder / "passphrase",
        **changes,
    }
    command = [sys.executable, "-W", "ignore", "-c", ALONE, folder / "kit" / "decrypt.py"]
    command += [files["object"], files["sidecar"], files["keyset"], "--out", out]
    command += ["--passphrase-file", files["passphrase"]]
    return subprocess.run(command, capture_output=True, check=False, cwd=folder, env={"PATH": os.environ["PATH"]})


def fails(folder: Path, tmp_path: Path, **changes: Path) -> str:
    """The one sentence of a failure that left no file behind."""
    done = decrypt(folder, tmp_path / "dump.sql", **changes)
    assert done.returncode == 1, done
    assert not [path for path in tmp_path.iterdir() if "dump.sql" in path.name]
    said = done.stderr.decode()
    assert said.count("\n") == 1, said
    assert PASSPHRASE not in said
    return said


def test_the_kit_decrypts_a_backup_without_pulsewatch(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "dump.sql"
    done = decrypt(folder, out)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert out.read_bytes() == DUMP
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["dump.sql"]


def test_the_kit_writes_to_standard_output_after_checking_everything(folder: Path, tmp_path: Path) -> None:
    assert decrypt(folder, "-").stdout == DUMP
    altered = bytearray(kept(folder, "backup_1.sql.zst.enc").read_bytes())
    altered[-1] ^= 1
    (tmp_path / "object").write_bytes(altered)
    done = decrypt(folder, "-", object=tmp_path / "object")
    assert (done.returncode, done.stdout) == (1, b"")


def test_the_kit_really_runs_without_pulsewatch(folder: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import apps")
    done = subprocess.run([sys.executable, "-c", ALONE, script], capture_output=True, check=False)
    assert b"apps is not here" in done.stderr


def test_the_kit_reads_gzip_and_sidecars_of_a_later_key(folder: Path, tmp_path: Path) -> None:
    place = Storage(str(tmp_path / "backups"))
    made = stored(place, "backup_3", DUMP, "gzip")
    later = Keyring(KEYRING.rotated())
    rotated = rotate(place, made, later, AT)
    write_kit(tmp_path / "kit", later, PASSPHRASE, "a folder")
    for path in (made.path, rotated.rotated_path):
        done = decrypt(
            folder,
            "-",
            object=tmp_path / "backups" / made.object_path,
            sidecar=tmp_path / "backups" / path,
            keyset=tmp_path / "kit" / "keyset.json",
        )
        assert done.stdout == DUMP
    said = fails(
        folder,
        tmp_path,
        object=tmp_path / "backups" / made.object_path,
        sidecar=tmp_path / "backups" / rotated.rotated_path,
    )
    assert "keys this kit does not hold" in said


# --- What can be wrong ------------------------------------------------------------------------------------------------


def test_a_wrong_passphrase_is_said_so(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("another passphrase")
    assert "The passphrase is wrong" in fails(folder, tmp_path, passphrase=tmp_path / "passphrase")


@pytest.mark.parametrize("at", [0, 45, -1])
def test_an_altered_object_is_said_so(folder: Path, tmp_path: Path, at: int) -> None:
    data = bytearray(kept(folder, "backup_1.sql.zst.enc").read_bytes())
    data[at] ^= 1
    (tmp_path / "object").write_bytes(data)
    assert "was altered" in fails(folder, tmp_path, object=tmp_path / "object")


def test_a_cut_object_is_said_so(folder: Path, tmp_path: Path) -> None:
    data = kept(folder, "backup_1.sql.zst.enc").read_bytes()
    for cut in (b"", data[:-1], data + b"\0"):
        (tmp_path / "object").write_bytes(cut)
        assert f"has {len(cut)} bytes instead of {len(data)}" in fails(folder, tmp_path, object=tmp_path / "object")


def test_an_altered_or_cut_sidecar_is_said_so(folder: Path, tmp_path: Path) -> None:
    data = kept(folder, "backup_1.json").read_bytes()
    for changed in (
        data[:-5],
        data.replace(b'"todo"', b'"toda"'),
        b"",
        b"[]",
        data.replace(b'"seal": "A', b'"seal": "B'),
    ):
        assert changed != data
        (tmp_path / "sidecar.json").write_bytes(changed)
        assert "is no sidecar, was altered" in fails(folder, tmp_path, sidecar=tmp_path / "sidecar.json")


def test_the_sidecar_of_another_backup_is_said_so(folder: Path, tmp_path: Path) -> None:
    assert "belongs to another backup" in fails(folder, tmp_path, sidecar=kept(folder, "backup_2.json"))


def test_a_file_that_is_not_there_or_no_keyset_is_said_so(folder: Path, tmp_path: Path) -> None:
    assert "No such file" in fails(folder, tmp_path, object=tmp_path / "nothing")
    assert "no keyset of a recovery kit" in fails(folder, tmp_path, keyset=kept(folder, "backup_1.json"))


def test_a_file_that_is_there_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    done = decrypt(folder, tmp_path / "precious")
    assert (done.returncode, b"already there" in done.stderr) == (1, True)
    assert (tmp_path / "precious").read_text() == "mine"


# --- The folder -------------------------------------------------------------------------------------------------------


def test_the_kit_is_closed_to_others_and_holds_no_key_in_the_clear(folder: Path) -> None:
    kit = folder / "kit"
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in kit.iterdir()} == {
        "README.txt": 0o600,
        "keyset.json": 0o600,
        "decrypt.py": 0o600,
    }
    assert stat.S_IMODE(kit.stat().st_mode) == 0o700
    everything = "".join(path.read_text() for path in kit.iterdir())
    assert PASSPHRASE not in everything
    for key in KEYRING._keyset["key"]:
        assert key["keyData"]["value"] not in everything


def test_the_readme_names_the_storage_the_keys_and_the_packages(folder: Path) -> None:
    readme = (folder / "kit" / "README.txt").read_text()
    assert "the bucket at the other provider" in readme
    assert KEYRING.key_id in readme
    assert f"tink=={version('tink')} zstandard=={version('zstandard')}" in readme


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(Invalid, match="is not empty"):
        write_kit(tmp_path, KEYRING, PASSPHRASE, "a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(Invalid, match="cannot be written"):
        write_kit(tmp_path / "precious" / "kit", KEYRING, PASSPHRASE, "a folder")


def test_a_weak_passphrase_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="at least 12"):
        write_kit(tmp_path / "kit", KEYRING, "short", "a folder")
    assert [*tmp_path.iterdir()] == []

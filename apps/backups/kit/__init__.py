"""The recovery kit: under a passphrase, all it takes to read a backup when Pulsewatch is gone."""

import os
from importlib.metadata import version
from pathlib import Path

from apps.core.errors import Invalid
from apps.core.keys import Keyring

README = """\
Pulsewatch recovery kit
=======================

With this folder and the passphrase you can read every backup made with the keys below, without Pulsewatch.
Keep it where it survives the loss of the console and of the backup storage, and the passphrase elsewhere.
Export a new kit after each key rotation.

Keys:     {key_ids}
Storage:  {storage}

What is here
    keyset.json   the keys, encrypted under the passphrase (scrypt, AES-256-GCM)
    decrypt.py    the program; it needs Python 3.11 or newer and two packages

How to read a backup
    1. python3 -m venv venv && venv/bin/pip install tink=={tink} zstandard=={zstandard}
    2. From the storage, fetch two files of the backup; they are beside each other, in a folder for each day:
           <environment>/<year>/<month>/<day>/<id>.sql.zst.enc    the backup (or .sqlite3.zst.enc)
           <environment>/<year>/<month>/<day>/<id>.json           its sidecar
       The sidecar can be read with any editor. It says which database this is, and when it was backed up.
       Where there is also an <id>.<number>.json, any of them will do.
    3. venv/bin/python decrypt.py <id>.sql.zst.enc <id>.json keyset.json --out dump.sql
       It asks for the passphrase and checks all of the backup; dump.sql appears only when everything is right.
    4. Load it into an empty database with the program that fits:
           mariadb --comments DATABASE < dump.sql
           mysql --comments DATABASE < dump.sql
           psql --set ON_ERROR_STOP=1 --dbname DATABASE --file dump.sql
       A .sqlite3 backup is the database file itself.

dump.sql is not encrypted: delete it when you are done.
"""


def write_kit(folder: Path, keyring: Keyring, passphrase: str, storage_description: str) -> None:
    """Write the kit into a new or empty folder, closed to other users.

    `storage_description` says in words where the backups are. Raises Invalid for a weak passphrase or another folder;
    then nothing was written.
    """
    contents = {
        "README.txt": README.format(
            key_ids=", ".join(keyring.key_ids),
            storage=storage_description,
            tink=version("tink"),
            zstandard=version("zstandard"),
        ),
        "keyset.json": keyring.protected(passphrase),
        "decrypt.py": Path(__file__).with_name("decrypt.py").read_text(encoding="utf-8"),
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise Invalid(f"{folder} is not empty. Name a new folder for the recovery kit.", field="out")
        folder.chmod(0o700)
        for name, text in contents.items():
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise Invalid(
            f"The recovery kit cannot be written to {folder}: {error.strerror}. Name another folder.", field="out"
        ) from None

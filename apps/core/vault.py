"""The keyring of this installation, and what it seals."""

import fcntl
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from apps.core.errors import Conflict, Invalid
from apps.core.keys import Keyring
from apps.core.redaction import register_secret


def keyring() -> Keyring:
    """The keys of BACKUP_KEYSET. Raises Invalid when it is not set or malformed.

    A keyset in a file is read again each time, so that all processes follow a rotation at once.
    """
    text = _in_file(settings.BACKUP_KEYSET_FILE) or settings.BACKUP_KEYSET
    if not text:
        raise Invalid(
            "BACKUP_KEYSET is not set, and backups are encrypted with it: print a new one with "
            "`python manage.py backup new-keyset`, keep it safe, and set it or BACKUP_KEYSET_FILE."
        )
    return _made(text)


def rotate() -> Keyring:
    """Add a new primary key to the keyset's file, whole or not at all; gives the keyring as it is then.

    Raises Invalid when the keyset is in no file that can be written, Conflict when somebody changed it meanwhile.
    """
    path: Path | None = settings.BACKUP_KEYSET_FILE
    by_hand = (
        "Print it with a new key added (`python manage.py backup new-keyset --rotate`), set that as BACKUP_KEYSET "
        "wherever Pulsewatch runs, restart, and run this again."
    )
    if path is None:
        raise Invalid(f"The keyset is in the variable BACKUP_KEYSET, which cannot be written from here. {by_hand}")
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            before = keyring()
            if _in_file(path) != before.text:
                raise Conflict(f"{path} was changed meanwhile; look at it, then run this again.")
            _replace(path, before.rotated())
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise Invalid(f"{path} cannot be written ({error.strerror}). {by_hand}") from error
    return keyring()


def seal(text: str, *, purpose: str) -> bytes:
    """Encrypt a secret for a column. `purpose` names the column and row: elsewhere it does not unseal."""
    return keyring().seal(text.encode(), context=purpose.encode())


def unseal(blob: bytes | memoryview, *, purpose: str) -> str:
    """What `seal` was given. Raises KeyUnknown or Tampered."""
    return keyring().unseal(bytes(blob), context=purpose.encode()).decode()


@lru_cache(maxsize=2)
def _made(keyset: str) -> Keyring:
    register_secret(keyset)
    return Keyring(keyset)


def _in_file(path: Path | None) -> str:
    """What the file holds; empty when there is none now: it was there at the start, and that still holds."""
    try:
        return path.read_text(encoding="utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _replace(path: Path, text: str) -> None:
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    finally:
        Path(draft).unlink(missing_ok=True)

"""The keyring of this installation, and what it seals."""

from functools import lru_cache

from django.conf import settings

from apps.core.errors import Invalid
from apps.core.keys import Keyring


def keyring() -> Keyring:
    """The keys of BACKUP_KEYSET. Raises Invalid when it is not set or malformed."""
    if not settings.BACKUP_KEYSET:
        raise Invalid(
            "BACKUP_KEYSET is not set, and backups are encrypted with it: print a new one with "
            "`python manage.py backup new-keyset`, keep it safe, and set it or BACKUP_KEYSET_FILE."
        )
    return _made(settings.BACKUP_KEYSET)


@lru_cache(maxsize=2)
def _made(keyset: str) -> Keyring:
    return Keyring(keyset)


def seal(text: str, *, purpose: str) -> bytes:
    """Encrypt a secret for a column. `purpose` names the column and row: elsewhere it does not unseal."""
    return keyring().seal(text.encode(), context=purpose.encode())


def unseal(blob: bytes | memoryview, *, purpose: str) -> str:
    """What `seal` was given. Raises KeyUnknown or Tampered."""
    return keyring().unseal(bytes(blob), context=purpose.encode()).decode()

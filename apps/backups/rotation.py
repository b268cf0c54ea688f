"""Key rotation: a new primary key, then everything sealed anew with it. The backups' objects themselves never change.

Old keys stay in the keyset, so at every moment all of it can be read. What an interruption leaves undone, the next call
does before it makes another key.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from django.conf import settings
from django.db import models
from django.utils import timezone

from apps.alerts.models import Route
from apps.alerts.runner import url_purpose
from apps.backups import sidecar as sidecars
from apps.backups.choices import BackupStatus
from apps.backups.models import BackupJob
from apps.backups.runner import storage
from apps.core import audit, vault
from apps.core.errors import PulsewatchError
from apps.core.keys import Keyring, sealed_with
from apps.inventory.models import Database, Workload
from apps.inventory.runner import secret_purpose

URLS = ("url", "replica_url", "scratch_url")


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did."""

    key_id: str
    new: bool  # the key was made by this call
    sealed: int  # stored URLs and secrets
    wrapped: int  # backups
    problems: tuple[tuple[str, str], ...]  # what could not be done, and why; it can still be read with its old key


def rotate_keys(*, actor: audit.Actor, progress: Callable[[str], None], anew: bool = False) -> Rotated:
    """Make a new primary key, unless an earlier rotation is not finished, and seal with the primary key what is not.

    `anew` makes one in any case: what an earlier rotation could not read must not stand in the way for ever.

    Raises Invalid when a new key is needed and the keyset's file cannot be written.
    """
    keyring = vault.keyring()
    new = anew or (not any(_secrets(keyring)) and not _behind(keyring).exists())
    if new:
        keyring = vault.rotate()
        audit.record(actor=actor, action="keys.rotate", subject="keyset", after={"key_id": keyring.key_id})
    sealed = _seal(keyring, problems := [])
    wrapped = 0
    for job in _behind(keyring).order_by("-started_at").iterator(chunk_size=200):
        progress(job.pk)
        try:
            _wrap(job, keyring)
        except PulsewatchError as error:
            problems.append((job.pk, str(error)))
        else:
            wrapped += 1
    return Rotated(keyring.key_id, new, sealed, wrapped, tuple(problems))


def _behind(keyring: Keyring) -> models.QuerySet[BackupJob]:
    """Stored backups whose data key is sealed with an older key."""
    ours = BackupJob.objects.ours(settings.BACKUP_STORAGE)
    stored = ours.filter(status=BackupStatus.COMPLETED, object_deleted_at=None)
    return stored.exclude(key_id=keyring.key_id)


def _wrap(job: BackupJob, keyring: Keyring) -> None:
    with storage(job.storage_location) as place:
        sidecar = sidecars.read(place, job.sidecar_path, keyring)
        later = sidecars.rotate(place, sidecar, keyring, timezone.now())
        # Read back before the row relies on it.
        path = job.sidecar_path if later is sidecar else later.rotated_path
        sidecars.read(place, path, keyring)
    BackupJob.objects.filter(pk=job.pk, sidecar_path=job.sidecar_path).update(sidecar_path=path, key_id=later.key_id)


def _secrets(keyring: Keyring) -> Iterator[tuple[models.Model, str, str, bytes]]:
    """Each column that is sealed with an older key: row, column, purpose, what it holds."""
    for database in Database.objects.all():
        for name in URLS:
            yield from _old(database, f"{name}_sealed", f"database:{database.name}:{name}", keyring)
    for workload in Workload.objects.exclude(platform_secret_sealed=None):
        yield from _old(workload, "platform_secret_sealed", secret_purpose(workload), keyring)
    for route in Route.objects.all():
        yield from _old(route, "url_sealed", url_purpose(route), keyring)


def _old(
    row: models.Model, column: str, purpose: str, keyring: Keyring
) -> Iterator[tuple[models.Model, str, str, bytes]]:
    blob = getattr(row, column)
    if blob and sealed_with(bytes(blob)) != keyring.key_id:
        yield row, column, purpose, bytes(blob)


def _seal(keyring: Keyring, problems: list[tuple[str, str]]) -> int:
    done = 0
    for row, column, purpose, blob in list(_secrets(keyring)):
        try:
            plain = keyring.unseal(blob, context=purpose.encode())
        except PulsewatchError as error:
            problems.append((purpose, str(error)))
            continue
        # Only while it is what was read: somebody may be entering a new one.
        rows = type(row)._default_manager.filter(pk=row.pk, **{column: blob})
        done += rows.update(**{column: keyring.seal(plain, context=purpose.encode())})
    return done

"""What a worker does with one backup: claim it, dump, read it back, commit it by its sidecar, record."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from django.conf import settings
from django.db import DatabaseError, IntegrityError, InterfaceError, OperationalError, connection, transaction
from django.utils import timezone

from apps.backups import rules
from apps.backups.choices import BackupStatus, BackupType, Trigger
from apps.backups.engines import engine_for
from apps.backups.engines.address import parse_url
from apps.backups.engines.base import Content, Engine, EngineError, Objects
from apps.backups.models import BackupJob, Restore
from apps.backups.sidecar import Sidecar, object_path, sidecar_path
from apps.backups.storage import Storage
from apps.backups.stream import Encoded, Stopped, decode, encode
from apps.core import lease, vault
from apps.core.errors import Conflict, PulsewatchError
from apps.core.redaction import redact
from apps.inventory.models import Database

logger = logging.getLogger(__name__)
T = TypeVar("T")

SIZES_COMPARED = 10  # backups whose median says what size is usual

# What the driver says while our own database is away.
AWAY = (OperationalError, InterfaceError)

# The object and its check; a person waiting at a terminal sees both.
Progress = Callable[[str, int], None]  # step, bytes so far


class LeaseLost(PulsewatchError):
    """Another worker holds the row: this one has to leave it alone."""


class Unproven(PulsewatchError):
    """The dump is not what the database holds."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A backup that was written and read back whole."""

    encoded: Encoded
    content: Content
    notes: tuple[str, ...]
    server: str
    client: str
    path: str


def storage(location: str = "") -> Storage:
    """Where backups go: BACKUP_STORAGE; or another place that the same keys open."""
    return Storage(location or settings.BACKUP_STORAGE, **settings.BACKUP_STORAGE_OPTIONS)


def engine_of(database: Database, *, purpose: str = "url") -> Engine:
    """The engine of a registered database. `purpose` chooses its main, replica or scratch URL."""
    sealed = getattr(database, f"{purpose}_sealed")
    return engine_for(parse_url(vault.unseal(sealed, purpose=f"database:{database.name}:{purpose}")))


def back_up(job_id: str, *, owner: str, progress: Progress | None = None) -> BackupJob | None:
    """Run a backup that is queued, or held by this owner, to its end. None when somebody else has it.

    The row tells how it went.
    """
    job = claim(job_id, owner=owner, now=timezone.now())
    if job is None:
        return None
    mine = BackupJob.objects.held(owner).filter(pk=job.pk)

    def renew() -> bool:
        return bool(mine.update(lease_until=timezone.now() + lease.LENGTH))

    with lease.Lease(renew) as held:
        try:
            with storage() as place, _nothing_left(place, job):
                stored = _dump_and_check(mine, job, place, Watch(mine, held, progress))
                _commit(mine, job, place, stored, timezone.now())
        except LeaseLost:
            logger.warning("Backup %s was taken over by another worker", job.pk, extra={"event": "backup_lease_lost"})
            return None
        except Stopped:
            finish(mine, BackupStatus.CANCELLED, "Cancelled.", timezone.now())
        except (PulsewatchError, OSError) as error:
            fail(mine, job, redact(str(error)), timezone.now())
        except BaseException as error:  # Ctrl-C, the time limit, a fault of ours: the row says so at once
            with suppress(DatabaseError):
                fail(mine, job, f"It was interrupted ({type(error).__name__}).", timezone.now())
            raise
    job.refresh_from_db()
    return job


@contextmanager
def _nothing_left(place: Storage, job: BackupJob) -> Iterator[None]:
    """Inside, an attempt that fails takes its object along."""
    try:
        yield
    except DatabaseError:
        raise  # whether it was recorded nobody knows now; the next attempt, or the clean-up, looks at the row again
    except (PulsewatchError, OSError):
        discard(place, job, _path(job))
        raise
    except BaseException:
        if not _recorded(
            job
        ):  # Ctrl-C may come after the row was written: then it is a backup, whoever was interrupted
            discard(place, job, _path(job))
        raise


def _recorded(job: BackupJob) -> bool:
    """Whether this attempt counts as a backup; also when nobody can tell, for then the clean-up looks again."""
    try:
        return BackupJob.objects.filter(pk=job.pk, status=BackupStatus.COMPLETED, object_path=_path(job)).exists()
    except DatabaseError:
        return True


def discard(place: Storage, job: BackupJob, path: str) -> bool:
    """Remove what an attempt left that made no backup. False when the storage refuses; the clean-up tries again."""
    try:
        # The sidecar first: without it the object is no backup, so a crash in between leaves none that looks like one.
        place.delete(sidecar_path(path))
        place.delete(path)
        BackupJob.objects.filter(pk=job.pk, object_path=path, sidecar_path="").update(object_path="")
    except (PulsewatchError, DatabaseError) as error:
        logger.warning("%s could not be removed: %s", path, error, extra={"event": "backup_delete_failed"})
        return False
    return True


def persist(act: Callable[[], T]) -> T:
    """Do something to a row, also when our own database is away for a moment; as long as a lease, then it raises."""
    until = time.monotonic() + lease.LENGTH.total_seconds()
    while True:
        try:
            return act()
        except AWAY:
            connection.close()
            if time.monotonic() > until:
                raise
            time.sleep(1)


def claim(job_id: str, *, owner: str, now: datetime) -> BackupJob | None:
    """Take a queued backup whose time has come, or one held already; None when it is not to be had."""
    taken = BackupJob.objects.held(owner).filter(pk=job_id, attended=True).exists() or (
        BackupJob.objects.claimable(now)
        .filter(pk=job_id)
        .update(
            status=BackupStatus.IN_PROGRESS,
            lease_owner=owner,
            lease_until=now + lease.LENGTH,
            started_at=now,
            progress_step="",
            progress_bytes=0,
            error_message=None,
        )
    )
    return BackupJob.objects.select_related("database", "plan").get(pk=job_id) if taken else None


class Watch:
    """Called after every block: shows progress, and notices a lost lease or a wish to cancel."""

    EVERY = 2.0  # seconds

    def __init__(self, mine, held: lease.Lease, progress: Progress | None) -> None:
        self._mine, self._held, self._progress = mine, held, progress
        self._next = time.monotonic()  # the wall clock may jump back, and nobody could cancel until it has caught up
        self._cancelled = False
        self.step = ""

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if self._held.lost:
            raise LeaseLost("The lease was lost.")
        if now < self._next:
            return
        self._next = now + self.EVERY
        try:
            if not self._mine.update(progress_step=self.step, progress_bytes=done):
                raise LeaseLost("The lease was lost.")
            self._cancelled = self._mine.filter(cancel_requested=True).exists()
        except AWAY:  # the work goes on without it; when it is back, the lease tells whether the row is still ours
            connection.close()
        if self._progress:
            self._progress(self.step, done)

    def stop(self) -> bool:
        return self._cancelled


def _dump_and_check(mine, job: BackupJob, place: Storage, watch: Watch) -> Stored:
    database = job.database
    if database is None:
        raise EngineError("The database is no longer registered.")
    before_restore = job.triggered_by == Trigger.PRE_RESTORE
    if not before_restore and (writing := Restore.objects.writing_to(database).first()):
        raise Conflict(f"{writing} is writing to {database} now; a backup taken meanwhile would be of half of it.")
    # What a restore is about to replace is what the database itself holds: a replica may be behind.
    replica = bool(database.replica_url_sealed) and not before_restore
    engine = engine_of(database, purpose="replica_url" if replica else "url")
    preflight = engine.preflight()
    if errors := [finding for finding in preflight.findings if finding.level == "error"]:
        raise EngineError(" ".join(f"{error.text} {error.remedy}".strip() for error in errors))
    keyring, path = vault.keyring(), _path(job)
    if job.object_path:  # of a worker that died; the sidecar first, as in `discard`
        place.delete(sidecar_path(job.object_path))
        place.delete(job.object_path)
    persist(lambda: mine.update(object_path=path))  # before the first byte, so that it is found whatever happens
    reader, watch.step = engine.reader(), "dump"
    with place.writer(path) as sink, engine.dump() as dump:
        encoded = encode(
            dump.fileno(),
            sink,
            keyring=keyring,
            backup_id=job.pk,
            source=f"{database.engine}:{engine.address.database}",
            format=engine.extension,
            reader=reader,
            on_block=watch,
            max_rate_mb=database.max_rate_mb,
            should_stop=watch.stop,
        )
        dump.finish()
        content = reader.close()
        prove(content, engine.objects())
    again, watch.step = engine.reader(), "check"
    with place.open(path) as source:
        decode(source, encoded, keyring=keyring, reader=again, on_block=watch, should_stop=watch.stop)
    if again.close() != content:
        raise Unproven("What was read back from the storage is not what was written. Check the storage.")
    return Stored(encoded, content, tuple(engine.notes()), preflight.server, preflight.client, path)


def prove(content: Content, catalogue: Objects) -> None:
    """A dump counts when it came to its end and holds every object of the catalogue. Raises Unproven."""
    if not content.complete:
        raise Unproven("The dump ended without its end marker: the client stopped early. Look at the server's log.")
    for kind in ("tables", "views", "routines", "triggers", "events"):
        dumped, there = getattr(content.objects, kind), getattr(catalogue, kind)
        if dumped != there:
            raise Unproven(
                f"The dump holds {dumped} {kind}, the catalogue {there}: a privilege is missing, or the schema was "
                "changed during the dump. Run: python manage.py database check, then back up again."
            )


def _commit(mine, job: BackupJob, place: Storage, stored: Stored, now: datetime) -> None:
    """Write the sidecar, which makes the object a backup, and record it."""
    if not persist(lambda: mine.update(lease_until=timezone.now() + lease.LENGTH)):
        raise LeaseLost("The lease was lost.")
    now = max(now, job.started_at)  # a clock may jump back
    archive = _archive_key(job)
    sidecar = Sidecar.of(
        stored.encoded,
        content=stored.content,
        job_facts={
            "service": job.database.service.slug,
            "environment": job.environment,
            "database": job.database.name,
            "schema": job.database_name,
            "engine": job.database.engine,
            "server": stored.server,
            "client": stored.client,
            "object_path": stored.path,
            "notes": list(stored.notes),
            "started_at": job.started_at,
            "completed_at": now,
            "slot": job.slot,
            "monthly_archive": archive is not None,
            "pulsewatch": settings.VERSION,
        },
    )
    path = sidecar_path(stored.path)
    place.write_bytes(path, sidecar.to_bytes(vault.keyring()))
    plain, kept = stored.encoded.plain_bytes, stored.encoded.stored_bytes
    facts = {
        "status": BackupStatus.COMPLETED,
        "completed_at": now,
        "duration_seconds": round((now - job.started_at).total_seconds()),
        "engine": stored.server,
        "backup_bytes": plain,
        "compressed_bytes": kept,
        "backup_size_mb": rules.megabytes(plain),
        "compressed_size_mb": rules.megabytes(kept),
        "compression_ratio": kept / plain if plain else None,
        "object_path": stored.path,
        "sidecar_path": path,
        "storage_location": place.url,
        "storage_url": f"{place.url.rstrip('/')}/{stored.path}",
        "key_id": sidecar.key_id,
        "size_anomaly": _anomaly(job, plain),
        "integrity_check_passed": True,
        "integrity_check_at": now,
        "notes": list(stored.notes),
        "tables": {name: table.digest for name, table in stored.content.tables.items()},
        "progress_bytes": plain,
        "lease_until": None,
    }

    def record() -> bool:
        if archive:
            try:
                with transaction.atomic():
                    done = mine.update(**facts, is_monthly_archive=True, archive_of=archive, **_archive_expiry(job))
                return bool(done)
            except IntegrityError:
                pass  # another backup of this month became its archive first
        return bool(mine.update(**facts))

    ours = BackupJob.objects.filter(pk=job.pk, lease_owner=job.lease_owner, status=BackupStatus.COMPLETED)
    # The second look: the answer to an update that was made can be lost with the connection.
    if not persist(lambda: record() or ours.exists()):
        raise LeaseLost("The lease was lost.")


def _anomaly(job: BackupJob, size: int) -> str:
    """Why the size is odd against the newest verified backups of the database, or nothing."""
    recent = BackupJob.objects.verified().filter(database=job.database).exclude(backup_bytes=None)
    sizes = list(recent.order_by("-started_at").values_list("backup_bytes", flat=True)[:SIZES_COMPARED])
    odd = rules.odd_size(size, sizes)
    if odd:
        logger.warning(
            "Backup %s has an odd size: %s",
            job.pk,
            odd,
            extra={"event": "backup_size_anomaly", "event_type": "backup", "resource_id": job.pk},
        )
    return odd


def _archive_key(job: BackupJob) -> str | None:
    """`database-year-month` when this backup may become its month's archive."""
    if job.triggered_by != Trigger.SCHEDULED or job.backup_type != BackupType.FULL or job.slot is None:
        return None
    key = f"{job.database.name}-{job.slot:%Y-%m}"
    return None if BackupJob.objects.filter(archive_of=key).exists() else key


def _archive_expiry(job: BackupJob) -> dict[str, datetime]:
    if job.plan is None:
        return {}
    plan = job.plan
    until = rules.expires_at(job.started_at, archive=True, days=plan.retention_days, months=plan.archive_months)
    return {"retention_expires_at": until}


def fail(mine, job: BackupJob, reason: str, now: datetime) -> None:
    """Record why it failed; queue the next attempt when there is one."""
    later = None if job.attended else rules.next_attempt(job.retry_count, now)
    if persist(mine.filter(cancel_requested=True).exists):
        finish(mine, BackupStatus.CANCELLED, reason, now)
    elif later is None:
        finish(mine, BackupStatus.FAILED, reason, now)
    else:
        again = {
            "status": BackupStatus.QUEUED,
            "error_message": reason,
            "retry_count": job.retry_count + 1,
            "next_attempt_at": later,
            "lease_until": None,
            "lease_owner": "",
        }
        persist(lambda: mine.update(**again))
    logger.error(
        "Backup %s failed: %s",
        job.pk,
        reason,
        extra={"event": "backup_failed", "event_type": "backup", "resource_id": job.pk},
    )


def finish(mine, status: str, reason: str, now: datetime) -> None:
    """Record an end that left no backup."""
    job = persist(mine.first)
    if job is None:
        return
    ends = {
        "status": status,
        "error_message": reason,
        "completed_at": max(now, job.started_at),
        "duration_seconds": max(0, round((now - job.started_at).total_seconds())),
        "lease_until": None,
    }
    persist(lambda: mine.update(**ends))


def _path(job: BackupJob) -> str:
    """Where this attempt's object goes: a worker that was thought dead never writes into a later attempt's object."""
    extension = {"sqlite": "sqlite3"}.get(job.database.engine, "sql") if job.database else "sql"
    suffix = f"-{job.retry_count}" if job.retry_count else ""
    return object_path(job.environment, job.started_at, job.pk + suffix, extension)

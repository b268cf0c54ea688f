"""What a worker does with one restore: verify the backup first, then touch the target, then prove the outcome."""

import logging
import time
from contextlib import suppress
from datetime import datetime

from django.conf import settings
from django.db import DatabaseError
from django.utils import timezone

from apps.backups import rules
from apps.backups import sidecar as sidecars
from apps.backups.choices import BackupStatus, BackupType, RestoreKind, RestoreStatus, Trigger
from apps.backups.engines import reader_for
from apps.backups.engines.base import Content, Engine, EngineError
from apps.backups.models import MAX_TARGET, BackupJob, Restore, place_of
from apps.backups.runner import LeaseLost, Progress, Unproven, Watch, back_up, engine_of, persist, prove, storage
from apps.backups.sidecar import Sidecar
from apps.backups.storage import Missing, Storage
from apps.backups.stream import Stopped, blocks, decode
from apps.core import lease, vault
from apps.core.errors import Conflict, Corrupt, PulsewatchError
from apps.core.redaction import redact

logger = logging.getLogger(__name__)

LEFT_AT_MOST = 20  # schemas of earlier drills that one drill looks for


def restore(restore_id: str, *, owner: str, progress: Progress | None = None) -> Restore | None:
    """Run a restore that is queued, or held by this owner, to its end. None when somebody else has it.

    The row tells how it went.
    """
    row = claim(restore_id, owner=owner, now=timezone.now())
    if row is None:
        return None
    mine = Restore.objects.held(owner).filter(pk=row.pk)

    def renew() -> bool:
        return bool(mine.update(lease_until=timezone.now() + lease.LENGTH))

    with lease.Lease(renew) as held:
        try:
            try:
                with storage(row.backup.storage_location) as place:
                    _work(row, mine, place, Watch(mine, held, progress))
            except Stopped:
                _end(
                    mine,
                    row,
                    RestoreStatus.CANCELLED,
                    timezone.now(),
                    error_message=f"Cancelled. {_left(mine)}".strip(),
                )
            except LeaseLost:
                raise
            except (PulsewatchError, OSError) as error:
                _failed(mine, row, redact(str(error)))
            except BaseException as error:  # Ctrl-C, the time limit, a fault of ours: the row says so at once
                with suppress(DatabaseError, LeaseLost):
                    _failed(mine, row, f"It was interrupted ({type(error).__name__}).")
                raise
        except LeaseLost:
            logger.warning("Restore %s was taken over", row.pk, extra={"event": "restore_lease_lost"})
            return None
    row.refresh_from_db()
    return row


def left_behind(row: Restore) -> str:
    """What a restore that did not come to its end leaves, in a sentence; empty for a drill or a verification."""
    if row.kind not in (RestoreKind.RESTORE, RestoreKind.TABLE):
        return ""
    if not row.target_touched:
        return "Nothing was changed."
    saved = f" What was there before is in {row.safety_backup_id}." if row.safety_backup_id else ""
    return f"What it left in {row.schema} is not complete.{saved}"


def _left(mine) -> str:
    row = persist(mine.first)
    return left_behind(row) if row else ""


def _failed(mine, row: Restore, reason: str) -> None:
    reason = f"{reason} {_left(mine)}".strip()
    _end(mine, row, RestoreStatus.FAILED, timezone.now(), error_message=reason)
    logger.error(
        "Restore %s failed: %s",
        row.pk,
        reason,
        extra={"event": "restore_failed", "event_type": "backup", "resource_id": row.pk},
    )


def claim(restore_id: str, *, owner: str, now: datetime) -> Restore | None:
    """Take a queued restore, or one held already; None when it is not to be had."""
    taken = Restore.objects.held(owner).filter(pk=restore_id, attended=True).exists() or (
        Restore.objects.claimable(now)
        .filter(pk=restore_id)
        .update(status=RestoreStatus.IN_PROGRESS, lease_owner=owner, lease_until=now + lease.LENGTH, started_at=now)
    )
    rows = Restore.objects.select_related("backup__database", "target_database", "safety_backup")
    return rows.get(pk=restore_id) if taken else None


def read_sidecar(place: Storage, path: str) -> Sidecar:
    """A backup's authentic sidecar. Raises Corrupt, also for another backup's, KeyUnknown or StorageError."""
    return sidecars.read(place, path, vault.keyring())


def verify(place: Storage, sidecar: Sidecar, watch: Watch | None = None) -> None:
    """Read a whole backup and compare it with what its sidecar says. Raises Corrupt, Unproven or Different."""
    reader = reader_for(sidecar.engine)
    with place.open(sidecar.object_path) as source:
        decode(
            source,
            sidecar.encoded,
            keyring=vault.keyring(),
            reader=reader,
            on_block=watch,
            should_stop=watch.stop if watch else None,
        )
    content = reader.close()
    prove(content, sidecar.objects)
    compare(sidecar.digests, content)


def compare(expected: dict[str, str], content: Content) -> None:
    """Raises Conflict naming the first table whose digest differs."""
    found = {name: table.digest for name, table in content.tables.items()}
    if table := rules.first_difference(expected, found):
        raise Different(table)


class Different(Conflict):
    """A table is not what was backed up."""

    def __init__(self, table: str) -> None:
        super().__init__(f"Table {table} differs from the backup.")
        self.table = table


def _work(row: Restore, mine, place: Storage, watch: Watch) -> None:
    if row.kind == RestoreKind.VERIFY:
        _proven(row, place, watch)
        _end(mine, row, RestoreStatus.COMPLETED, timezone.now())
        return
    source = _source(row)
    sidecar = _proven(row, place, watch)
    if sidecar.engine != source.address.engine:
        raise Conflict(f"This is a backup of {sidecar.engine}, and the target is {source.address.engine}.")
    if why := source.refuses(sidecar.server):
        raise Conflict(why)
    target = source.at(row.schema)
    if row.kind == RestoreKind.DRILL:
        _drill(row, mine, place, sidecar, target, watch)
        return
    if row.kind == RestoreKind.TABLE:
        _make_room_for_table(row, mine, target)
    else:
        _make_room(row, mine, target, watch)
    seconds = _load(place, sidecar, target, watch, events=True, table=row.table or None)
    _end(mine, row, RestoreStatus.COMPLETED, timezone.now(), restore_seconds=seconds)


def _proven(row: Restore, place: Storage, watch: Watch) -> Sidecar:
    """The sidecar of a backup that was just read back whole. What is found is recorded on the backup."""
    watch.step = "verify"
    backup = BackupJob.objects.filter(pk=row.backup_id)
    try:
        sidecar = read_sidecar(place, row.backup.sidecar_path)
        verify(place, sidecar, watch)
    except (Corrupt, Missing, Unproven, Different):
        # From now on it counts neither as the newest verified one nor as one that can be restored. A storage that does
        # not answer, or a key that is not at hand, says nothing of the backup.
        persist(lambda: backup.update(integrity_check_passed=False, integrity_check_at=timezone.now()))
        raise
    persist(lambda: backup.update(integrity_check_passed=True, integrity_check_at=timezone.now()))
    return sidecar


def _source(row: Restore) -> Engine:
    """The server the restore goes to: the scratch server of a drill, the named database, else where it came from."""
    database = row.target_database or row.backup.database
    if database is None:
        raise EngineError("The database of this backup is no longer registered: name another one with --to.")
    # What is overwritten is what the safety backup is of: the database itself.
    there = place_of(database, "" if row.overwrite else row.schema)
    if row.kind != RestoreKind.DRILL and there[:MAX_TARGET] != row.target:
        raise Conflict(f"{database} was moved after this restore into {row.target} was asked for; ask again.")
    if row.kind == RestoreKind.DRILL and database.scratch_url_sealed:
        return engine_of(database, purpose="scratch_url")
    return engine_of(database)


def _make_room_for_table(row: Restore, mine, target: Engine) -> None:
    """A schema that has no such table. Raises Conflict otherwise."""
    if not target.exists():
        target.create()
    elif target.has_table(row.table):
        raise Conflict(
            f"{row.schema} has a table {row.table}, and it is not replaced. Restore the table into a new schema and "
            "copy from there, or rename the one that is there."
        )
    _touch(mine)


def _make_room(row: Restore, mine, target: Engine, watch: Watch) -> None:
    """A new or empty schema, or one whose content has just been backed up and verified. Raises Conflict otherwise."""
    if not target.exists():
        target.create()
    elif not target.is_empty():
        if not row.overwrite:
            raise Conflict(f"{row.schema} is not empty. Restore into a new schema, or confirm that it is overwritten.")
        _save_what_is_there(row, mine, watch)
        _touch(mine)
        target.clear()
    _touch(mine)


def _touch(mine) -> None:
    """Record that the target changes from here on. Raises LeaseLost: whoever held up too long must not change it."""
    if not persist(lambda: mine.update(target_touched=True, lease_until=timezone.now() + lease.LENGTH)):
        raise LeaseLost("The lease was lost.")


def _save_what_is_there(row: Restore, mine, watch: Watch) -> None:
    """Back up the target before it is replaced. Raises Conflict, with the target as it was, when that fails."""
    watch.step = "safety"
    safety = BackupJob.objects.open(
        row.target_database,
        now=timezone.now(),
        storage_location=settings.BACKUP_STORAGE,
        triggered_by=Trigger.PRE_RESTORE,
        backup_type=BackupType.MANUAL,
        requested_by=row.requested_by,
        held_by=row.lease_owner,
    )
    persist(lambda: mine.update(safety_backup=safety))
    row.safety_backup = safety

    def progress(_: str, done: int) -> None:
        watch(done)
        if watch.stop():
            raise Stopped("Cancelled.")

    done = back_up(safety.pk, owner=row.lease_owner, progress=progress)
    if persist(mine.filter(cancel_requested=True).exists):  # the last moment at which nothing is changed
        raise Stopped("Cancelled.")
    if done is None or done.status != BackupStatus.COMPLETED:
        reason = done.error_message if done else "Another worker took it."
        raise Conflict(f"What is there could not be backed up first, so nothing was changed. {safety}: {reason}")


def _load(
    place: Storage, sidecar: Sidecar, target: Engine, watch: Watch, *, events: bool, table: str | None = None
) -> float:
    """Restore into the target; gives the seconds it took."""
    watch.step = "restore"
    started, done = time.monotonic(), 0

    def note(size: int) -> None:
        nonlocal done
        done = size
        watch(done)

    def wait() -> None:
        watch(done)
        if watch.stop():
            raise Stopped("Cancelled.")

    running = target.restore(events=events, table=table, on_wait=wait)
    with place.open(sidecar.object_path) as stored, running as client:
        decode(
            stored,
            sidecar.encoded,
            keyring=vault.keyring(),
            write=client.write,
            on_block=note,
            should_stop=watch.stop,
        )
        client.finish()
    return time.monotonic() - started


def _drill(row: Restore, mine, place: Storage, sidecar: Sidecar, target: Engine, watch: Watch) -> None:
    """Restore into a scratch schema, dump it again, compare; the schema is dropped whatever happens."""
    _drop_left(row, target)
    target.drop()
    target.create()
    try:
        seconds = _load(place, sidecar, target, watch, events=False)
        reader, watch.step = target.reader(), "compare"
        with target.dump() as dump:
            for block in blocks(dump.fileno(), on_block=watch, should_stop=watch.stop):
                reader.feed(block)
            dump.finish()
        content = reader.close()
    except BaseException:
        try:
            target.drop()
        except PulsewatchError as error:  # what went wrong first says more
            logger.warning("%s is left until the next drill: %s", row.schema, error, extra={"event": "drill_left"})
        raise
    target.drop()
    found = {name: table.digest for name, table in content.tables.items()}
    difference = rules.first_difference(dict(sidecar.digests), found)
    if not difference and content.other != sidecar.other:
        difference = "(views, routines, triggers, events or the schema itself)"
    now = timezone.now()
    _end(
        mine,
        row,
        RestoreStatus.FAILED if difference else RestoreStatus.COMPLETED,
        now,
        restore_seconds=seconds,
        equal=not difference,
        first_difference=difference[:300],
        tables=found,
        error_message=f"{difference} differs from the backup." if difference else None,
    )
    if not difference:
        type(row.backup).objects.filter(pk=row.backup_id).update(restore_tested=True, restore_tested_at=now)


def _drop_left(row: Restore, target: Engine) -> None:
    """Drop what earlier drills could not drop themselves, since their server or their worker had died."""
    ended = Restore.objects.filter(kind=RestoreKind.DRILL, target_database=row.target_database, equal=None)
    ended = ended.filter(status__in=(RestoreStatus.FAILED, RestoreStatus.CANCELLED)).order_by("-started_at")
    for schema in ended.values_list("schema", flat=True)[:LEFT_AT_MOST]:
        target.at(schema).drop()


def _end(mine, row: Restore, status: str, now: datetime, **facts: object) -> None:
    """Record how it ended. Raises LeaseLost when the row is no longer ours."""
    ends = {"status": status, "completed_at": max(now, row.started_at), "lease_until": None, **facts}
    ended = Restore.objects.filter(pk=row.pk, lease_owner=row.lease_owner, status=status)
    # The second look: the answer to an update that was made can be lost with the connection.
    if not persist(lambda: mine.update(**ends) or ended.exists()):
        raise LeaseLost("The lease was lost.")

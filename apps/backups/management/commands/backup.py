"""`python manage.py backup …`: everything about backups, in this process, without a worker."""

import argparse
import getpass
import json
import os
import signal
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.timesince import timesince

from apps.backups import recovery, restorer, rotation, runner, services
from apps.backups.choices import BackupStatus, RestoreKind, RestoreStatus
from apps.backups.models import BackupJob, Restore, place_of, schema_beside
from apps.core import vault
from apps.core.audit import Actor
from apps.core.errors import PulsewatchError
from apps.core.keys import new_keyset
from apps.inventory.models import Database

ACTOR = Actor.automation("command line")
STEPS = {"dump": "backing up", "check": "checking", "safety": "backing up what is there", "compare": "comparing"}


class Command(BaseCommand):
    help = "Take backups, verify them, prove them by a restore drill, restore them."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
        run = verbs.add_parser("run", help="back up a database now; the last line of output is the id alone")
        run.add_argument("name", help="a registered database")
        run.add_argument("--type", default="manual", choices=["manual", "full", "incremental"])
        listing = verbs.add_parser("list", help="the newest backups, and how far each is proven")
        listing.add_argument("name", nargs="?", help="of this database only")
        listing.add_argument("--limit", type=_count, default=20, help="how many; default: %(default)s")
        listing.add_argument("--json", action="store_true", help="print JSON")
        verify = verbs.add_parser("verify", help="read a backup back from the storage and check all of it")
        verify.add_argument("id")
        drill = verbs.add_parser("drill", help="restore into a scratch schema and compare table by table")
        drill.add_argument("id", help="a backup, or a database for its newest verified backup")
        restore = verbs.add_parser("restore", help="restore into a new schema, or over a registered database")
        restore.add_argument("id")
        restore.add_argument(
            "--to",
            required=True,
            metavar="SCHEMA|DATABASE",
            help="a registered database, or a schema on the backup's own server, made when it is missing",
        )
        restore.add_argument("--table", default="", help="this table only, into a schema that has none of that name")
        restore.add_argument(
            "--overwrite", action="store_true", help="replace what is there, after a backup of it; asks for the name"
        )
        restore.add_argument("--confirm", default="", metavar="NAME", help="the name typed in advance, for scripts")
        cancel = verbs.add_parser("cancel", help="stop a backup, drill, verification or restore")
        cancel.add_argument("id")
        found = verbs.add_parser("import", help="find the backups of a lost console again in their storage")
        found.add_argument("--storage", required=True, metavar="URL", help="a folder, or s3://BUCKET/PREFIX")
        found.add_argument("--json", action="store_true", help="print JSON")
        kit = verbs.add_parser("kit", help="export the keys, under a passphrase, with a program that needs no console")
        kit.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new folder")
        kit.add_argument("--passphrase-file", metavar="FILE", help="read it there; - is standard input; else it asks")
        keys = verbs.add_parser("rotate-keys", help="make a new key and seal all with it; old backups stay readable")
        keys.add_argument(
            "--new-key", action="store_true", help="make one although an earlier rotation could not read everything"
        )
        keyset = verbs.add_parser(
            "new-keyset", help="print a new keyset for BACKUP_KEYSET; keep it where backups are not"
        )
        keyset.add_argument("--rotate", action="store_true", help="print the present keyset with a new key added")

    def handle(self, *args: Any, **options: Any) -> None:
        given = argparse.Namespace(**options)
        # As Ctrl-C does: what runs is recorded as interrupted, and its half-object goes.
        before = signal.signal(signal.SIGTERM, _end)
        try:
            getattr(self, f"_{given.verb.replace('-', '_')}")(given)
        except PulsewatchError as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Interrupted.") from None
        finally:
            signal.signal(signal.SIGTERM, before)

    # ---- Backups -----------------------------------------------------------------------------------------------------

    def _run(self, given: argparse.Namespace) -> None:
        job = services.request_backup(
            database=_database(given.name),
            actor=ACTOR,
            backup_type=given.type,
            storage_location=settings.BACKUP_STORAGE,
            held_by=_owner(),
        )
        done = runner.back_up(job.pk, owner=_owner(), progress=self._progress)
        self._end_progress()
        if done is None or done.status != BackupStatus.COMPLETED:
            raise CommandError(f"{job.pk} failed: {done.error_message if done else 'another worker took it'}")
        for note in done.notes:
            self.stdout.write(f"Note: {note}")
        if done.size_anomaly:
            self.stdout.write(f"Warning: its size is {done.size_anomaly}.")
        if reminder := recovery.kit_missing():
            self.stderr.write(reminder)
        self.stdout.write(
            f"Verified: {done.backup_bytes:,} bytes in {len(done.tables)} tables, stored as {done.compressed_bytes:,} "
            f"bytes in {done.duration_seconds} s"
        )
        self.stdout.write(done.pk)

    def _list(self, given: argparse.Namespace) -> None:
        jobs = BackupJob.objects.select_related("database")
        if given.name:
            named = jobs.filter(source=given.name)
            jobs = named if named.exists() else jobs.filter(database=_database(given.name))
        rows = [
            {
                "id": job.pk,
                "database": job.source or job.database_name,
                "status": job.status,
                "stored_bytes": job.compressed_bytes,
                "verified": bool(job.integrity_check_passed),
                "damaged": job.integrity_check_passed is False,
                "drilled": job.restore_tested,
                "deleted": job.object_deleted_at is not None,
                "legal_hold": job.legal_hold,
                "size_anomaly": job.size_anomaly,
                "started_at": job.started_at.isoformat(),
                "kept_until": job.retention_expires_at.isoformat(),
                "error": job.error_message or "",
            }
            for job in jobs[: given.limit]
        ]
        if given.json:
            self.stdout.write(json.dumps(rows))
            return
        if not rows:
            self.stdout.write("There are no backups yet: python manage.py backup run NAME")
            return
        self.stdout.write(f"{'BACKUP':34} {'DATABASE':16} {'AGE':12} {'STATUS':12} {'STORED':>11}  PROOF")
        for row in rows:
            size = f"{row['stored_bytes'] / 1e6:,.1f} MB" if row["stored_bytes"] is not None else "-"
            age = _ago(row["started_at"])
            line = f"{row['id']:34} {row['database']:16} {age:12} {row['status']:12} {size:>11}  {_proof(row)}"
            self.stdout.write(line.rstrip())

    def _verify(self, given: argparse.Namespace) -> None:
        job = _backup(given.id)
        self._restored(services.request_verify(backup=job, actor=ACTOR, held_by=_owner()))
        self.stdout.write(f"verified: {job.pk} is whole, {len(job.tables)} tables")

    def _drill(self, given: argparse.Namespace) -> None:
        database = Database.objects.filter(name=given.id).first()
        job = (
            BackupJob.objects.verified().filter(database=database).order_by("-completed_at").first()
            if database
            else _backup(given.id)
        )
        if job is None:
            raise CommandError(f"{given.id} has no verified backup yet: python manage.py backup run {given.id}")
        row = self._restored(
            services.request_restore(backup=job, actor=ACTOR, kind=RestoreKind.DRILL, held_by=_owner())
        )
        for name in sorted(row.tables):
            same = row.tables[name] == job.tables.get(name)
            self.stdout.write(f"  {'equal   ' if same else 'DIFFERS '} {name}")
        if not row.equal:
            raise CommandError(f"{row.pk}: {row.error_message}")
        self.stdout.write(f"restored: digests equal, {len(row.tables)} tables in {row.restore_seconds:.1f} s")

    def _restore(self, given: argparse.Namespace) -> None:
        job = _backup(given.id)
        target = Database.objects.filter(name=given.to).first()
        host, schema = target or job.database, target.database_name if target else given.to
        if given.overwrite and host is not None:
            target = services.overwritten(host, schema_beside(host, schema))
            host, schema = target, target.database_name
            self._confirm(given.confirm, target)
        row = self._restored(
            services.request_restore(
                backup=job,
                actor=ACTOR,
                kind=RestoreKind.TABLE if given.table else RestoreKind.RESTORE,
                schema=schema,
                target_database=host,
                table=given.table,
                overwrite=given.overwrite,
                held_by=_owner(),
            )
        )
        if row.safety_backup_id:
            self.stdout.write(f"What was there before: {row.safety_backup_id}")
        self.stdout.write(f"restored: {row.target} in {row.restore_seconds:.1f} s")

    def _confirm(self, typed: str, target: Database) -> None:
        if not typed and sys.stdin.isatty():
            self.stderr.write(
                f"All that {place_of(target)} holds is replaced. It is backed up first, and that backup is verified. "
                "Programs that use it should be stopped."
            )
            typed = input(f"Type {target.name} to go on: ")
        if typed != target.name:
            raise CommandError(
                f"Nothing was changed. To replace what {target.name} holds, type its name when asked, or give "
                f"--confirm {target.name}."
            )

    def _restored(self, row: Restore) -> Restore:
        done = restorer.restore(row.pk, owner=_owner(), progress=self._progress)
        self._end_progress()
        if done is None:
            raise CommandError(f"{row.pk} was taken by another worker.")
        if done.status != RestoreStatus.COMPLETED and done.equal is None:
            raise CommandError(f"{row.pk}: {done.error_message}")
        return done

    def _cancel(self, given: argparse.Namespace) -> None:
        row = BackupJob.objects.filter(pk=given.id).first() or Restore.objects.filter(pk=given.id).first()
        if row is None:
            raise CommandError(f"There is no backup and no restore {given.id}.")
        if not services.cancel(row, actor=ACTOR):
            raise CommandError(f"{given.id} had ended already.")
        self.stdout.write(f"{given.id} is being cancelled.")

    # ---- Keys, and a lost console ------------------------------------------------------------------------------------

    def _import(self, given: argparse.Namespace) -> None:
        found = recovery.import_backups(storage_url=given.storage, actor=ACTOR)
        if given.json:
            problems = [{"path": path, "problem": problem} for path, problem in found.problems]
            added = [{"id": job.pk, "database": job.source, "registered": bool(job.database)} for job in found.added]
            self.stdout.write(json.dumps({"added": added, "known": list(found.known), "problems": problems}))
        else:
            for job in found.added:
                whose = "" if job.database else "  (not registered: restore it with --to DATABASE)"
                self.stdout.write(f"{job.pk}  {job.source}, {job.started_at:%Y-%m-%d %H:%M} UTC{whose}")
            for path, problem in found.problems:
                self.stderr.write(f"{path}: {problem}")
            self.stdout.write(
                f"{len(found.added)} found again, {len(found.known)} known before, {len(found.problems)} not usable. "
                "Each is verified before it is restored: python manage.py backup restore ID --to DATABASE"
            )
        if found.problems:
            raise CommandError(f"{len(found.problems)} could not be used.")

    def _kit(self, given: argparse.Namespace) -> None:
        row = recovery.export_kit(folder=given.out, passphrase=self._passphrase(given.passphrase_file), actor=ACTOR)
        self.stdout.write(
            f"Key {row.key_id} is in {given.out}. Keep the folder and the passphrase in two places, neither of them "
            "with the console or the backups."
        )

    def _passphrase(self, file: str | None) -> str:
        if file == "-":
            return sys.stdin.readline().rstrip("\r\n")
        if file is not None:
            try:
                return Path(file).read_text(encoding="utf-8").rstrip("\r\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is not text"
                raise CommandError(f"Cannot read {file}: {reason}.") from error
        if not sys.stdin.isatty():
            raise CommandError("There is no terminal to ask at: give the passphrase with --passphrase-file FILE.")
        phrase = getpass.getpass("Passphrase of the kit: ")
        if getpass.getpass("The same again: ") != phrase:
            raise CommandError("The two differ; nothing was written.")
        return phrase

    def _rotate_keys(self, given: argparse.Namespace) -> None:
        done = rotation.rotate_keys(
            actor=ACTOR, progress=lambda name: self._say(f"sealing anew: {name}"), anew=given.new_key
        )
        self._end_progress()
        for name, problem in done.problems:
            self.stderr.write(f"{name}: {problem}")
        made = f"Key {done.key_id} is new" if done.new else f"The rotation to key {done.key_id} went on"
        self.stdout.write(
            f"{made}: {done.sealed} stored URLs and secrets and {done.wrapped} backups are sealed with it. Older keys "
            "stay in the keyset. Export a new recovery kit: python manage.py backup kit --out DIR"
        )
        if done.problems:
            raise CommandError(
                f"{len(done.problems)} are still sealed with an older key and readable as before. Run this again later."
            )

    def _new_keyset(self, given: argparse.Namespace) -> None:
        self.stdout.write(vault.keyring().rotated() if given.rotate else new_keyset())

    # ---- The terminal ------------------------------------------------------------------------------------------------

    def _progress(self, step: str, done: int) -> None:
        self._say(f"{STEPS.get(step, step)}: {done / 1e6:,.0f} MB")

    def _say(self, text: str) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{text}")
            sys.stderr.flush()

    def _end_progress(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _end(*_: object) -> None:
    raise KeyboardInterrupt


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError("give a number of 1 or more")
    return int(text)


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def _ago(moment: str) -> str:
    return timesince(datetime.fromisoformat(moment), timezone.now(), depth=1).replace("\xa0", " ")


def _proof(row: dict[str, Any]) -> str:
    if row["deleted"]:
        return "deleted by retention"
    words = ["DAMAGED" if row["damaged"] else "drilled" if row["drilled"] else "verified" if row["verified"] else ""]
    words += ["held"] if row["legal_hold"] else []
    words += [f"size {row['size_anomaly']}"] if row["size_anomaly"] else []
    return ", ".join(word for word in words if word) or row["error"][:80]


def _database(name: str) -> Database:
    database = Database.objects.filter(name=name).first()
    if database is None:
        raise CommandError(f"There is no database {name}: `python manage.py database list` shows them.")
    return database


def _backup(identifier: str) -> BackupJob:
    job = BackupJob.objects.select_related("database").filter(pk=identifier).first()
    if job is None:
        raise CommandError(f"There is no backup {identifier}: `python manage.py backup list` shows them.")
    if not job.sidecar_path or job.object_deleted_at:
        raise CommandError(f"{identifier} left nothing that is stored (status {job.status}); choose another one.")
    return job

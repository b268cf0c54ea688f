"""`python manage.py backup run|list|verify|drill|restore|new-keyset`, in this process, without a worker."""

import argparse
import json
import os
import socket
import sys
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.backups import restorer, runner, services
from apps.backups.choices import BackupStatus, RestoreKind, RestoreStatus
from apps.backups.models import BackupJob, Restore
from apps.core.audit import Actor
from apps.core.errors import PulsewatchError
from apps.core.keys import new_keyset
from apps.inventory.models import Database

ACTOR = Actor.automation("command line")


class Command(BaseCommand):
    help = "Take backups, verify them, prove them by a restore drill, restore them."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="run|list|verify|drill|restore|new-keyset")
        run = verbs.add_parser("run", help="back up a database now; the last line of output is the id alone")
        run.add_argument("name", help="database")
        run.add_argument("--type", default="manual", choices=["manual", "full", "incremental"])
        listing = verbs.add_parser("list", help="the newest backups")
        listing.add_argument("name", nargs="?", help="of this database only")
        listing.add_argument("--limit", type=int, default=20)
        listing.add_argument("--json", action="store_true", help="print JSON")
        verify = verbs.add_parser("verify", help="read a backup back from the storage and check all of it")
        verify.add_argument("id")
        drill = verbs.add_parser("drill", help="restore into a scratch schema and compare table by table")
        drill.add_argument("id", help="a backup, or a database for its newest verified backup")
        restore = verbs.add_parser("restore", help="restore into a new or empty schema")
        restore.add_argument("id")
        restore.add_argument("--to", required=True, metavar="SCHEMA|DATABASE")
        restore.add_argument("--table", default="", help="this table only")
        verbs.add_parser("new-keyset", help="print a new keyset for BACKUP_KEYSET; keep it where backups are not")

    def handle(self, *args: Any, **options: Any) -> None:
        given = argparse.Namespace(**options)
        try:
            getattr(self, f"_{given.verb.replace('-', '_')}")(given)
        except PulsewatchError as error:
            raise CommandError(str(error)) from error

    def _run(self, given: argparse.Namespace) -> None:
        job = services.request_backup(
            database=_database(given.name),
            actor=ACTOR,
            backup_type=given.type,
            storage_location=settings.BACKUP_STORAGE,
        )
        done = runner.back_up(job.pk, owner=_owner(), progress=self._progress, retry=False)
        self._end_progress()
        if done is None or done.status != BackupStatus.COMPLETED:
            raise CommandError(f"{job.pk} failed: {done.error_message if done else 'another worker took it'}")
        for note in done.notes:
            self.stdout.write(f"Note: {note}")
        self.stdout.write(
            f"Verified: {done.backup_bytes:,} bytes in {len(done.tables)} tables, stored as {done.compressed_bytes:,} "
            f"bytes in {done.duration_seconds} s"
        )
        self.stdout.write(done.pk)

    def _list(self, given: argparse.Namespace) -> None:
        jobs = BackupJob.objects.select_related("database")
        if given.name:
            jobs = jobs.filter(database=_database(given.name))
        rows = [
            {
                "id": job.pk,
                "database": job.database.name if job.database else job.database_name,
                "status": job.status,
                "stored_bytes": job.compressed_bytes,
                "verified": bool(job.integrity_check_passed),
                "drilled": job.restore_tested,
                "started_at": job.started_at.isoformat(),
            }
            for job in jobs[: given.limit]
        ]
        if given.json:
            self.stdout.write(json.dumps(rows))
            return
        if not rows:
            self.stdout.write("There are no backups yet: python manage.py backup run NAME")
        for row in rows:
            proof = "drilled" if row["drilled"] else "verified" if row["verified"] else ""
            size = f"{row['stored_bytes']:,}" if row["stored_bytes"] is not None else "-"
            self.stdout.write(f"{row['id']:32} {row['database']:20} {row['status']:12} {size:>16} bytes  {proof}")

    def _verify(self, given: argparse.Namespace) -> None:
        job = _backup(given.id)
        with runner.storage() as place:
            sidecar = restorer.read_sidecar(place, job.sidecar_path)
            restorer.verify(place, sidecar, runner.engine_of(job.database) if job.database else None)
        self.stdout.write(f"verified: {job.pk} is whole, {len(sidecar.tables)} tables")

    def _drill(self, given: argparse.Namespace) -> None:
        database = Database.objects.filter(name=given.id).first()
        job = (
            BackupJob.objects.verified().filter(database=database).order_by("-completed_at").first()
            if database
            else _backup(given.id)
        )
        if job is None:
            raise CommandError(f"{given.id} has no verified backup yet: python manage.py backup run {given.id}")
        row = self._restored(services.request_restore(backup=job, actor=ACTOR, kind=RestoreKind.DRILL))
        for name in sorted(row.tables):
            same = row.tables[name] == job.tables.get(name)
            self.stdout.write(f"  {'equal   ' if same else 'DIFFERS '} {name}")
        if not row.equal:
            raise CommandError(f"{row.pk}: {row.error_message}")
        self.stdout.write(f"restored: digests equal, {len(row.tables)} tables in {row.restore_seconds:.1f} s")

    def _restore(self, given: argparse.Namespace) -> None:
        target = Database.objects.filter(name=given.to).first()
        row = self._restored(
            services.request_restore(
                backup=_backup(given.id),
                actor=ACTOR,
                kind=RestoreKind.TABLE if given.table else RestoreKind.RESTORE,
                schema=target.database_name if target else given.to,
                target_database=target,
                table=given.table,
            )
        )
        self.stdout.write(f"restored: {row.target} in {row.restore_seconds:.1f} s")

    def _restored(self, row: Restore) -> Restore:
        done = restorer.restore(row.pk, owner=_owner(), progress=self._progress)
        self._end_progress()
        if done is None:
            raise CommandError(f"{row.pk} was taken by another worker.")
        if done.status != RestoreStatus.COMPLETED and done.equal is None:
            raise CommandError(f"{row.pk}: {done.error_message}")
        return done

    def _new_keyset(self, given: argparse.Namespace) -> None:
        self.stdout.write(new_keyset())

    def _progress(self, step: str, done: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[K{step}: {done / 1e6:,.0f} MB")
            sys.stderr.flush()

    def _end_progress(self) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _owner() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


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

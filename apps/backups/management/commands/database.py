"""`python manage.py database add|list|check`: the databases that are backed up."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.backups import rules, services
from apps.backups.engines.base import Preflight
from apps.backups.models import BACKED_UP
from apps.backups.runner import engine_of, storage
from apps.core.audit import Actor
from apps.core.errors import PulsewatchError
from apps.inventory.models import DEFAULT_SERVICE, Database


class Command(BaseCommand):
    help = "Register databases for backup, list them, and check what a backup of them needs."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="add|list|check")
        add = verbs.add_parser("add", help="register a database; a preflight says first what is missing")
        add.add_argument("name", help="short name: letters, digits, - and _")
        source = add.add_mutually_exclusive_group(required=True)
        source.add_argument("--url", help="mysql://user:password@host/schema; - reads it from standard input")
        source.add_argument("--url-file", type=Path, help="a file that holds the URL")
        add.add_argument("--environment", required=True, help=" or ".join(BACKED_UP))
        add.add_argument("--service", default=DEFAULT_SERVICE, help="default: %(default)s")
        add.add_argument("--replica-url-file", type=Path, help="dump from this replica instead")
        add.add_argument("--scratch-url-file", type=Path, help="server for restore drills; default: the same")
        add.add_argument("--max-rate-mb", type=int, metavar="N", help="at most N megabytes of dump a second")
        for verb, text in (("list", "what is registered"), ("check", "repeat the preflight of one database")):
            sub = verbs.add_parser(verb, help=text)
            sub.add_argument("--json", action="store_true", help="print JSON")
            if verb == "check":
                sub.add_argument("name")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(argparse.Namespace(**options))
        except PulsewatchError as error:
            raise CommandError(str(error)) from error

    def _add(self, given: argparse.Namespace) -> None:
        database, preflight = services.add_database(
            name=given.name,
            url=self._url(given),
            environment=given.environment,
            service=given.service,
            replica_url=_read(given.replica_url_file),
            scratch_url=_read(given.scratch_url_file),
            max_rate_mb=given.max_rate_mb,
            actor=Actor.automation("command line"),
        )
        self._show(preflight)
        self.stdout.write(
            f"Registered {database}: backed up every day at 02:00 UTC, kept 30 days, proven by a restore drill every "
            f"month. Take the first backup now: python manage.py backup run {database}"
        )

    def _url(self, given: argparse.Namespace) -> str:
        if given.url_file:
            return _read(given.url_file)
        if given.url == "-":
            return sys.stdin.readline().strip()
        if "@" in given.url and ":" in given.url.partition("://")[2].partition("@")[0]:
            self.stderr.write(
                "Warning: a password in the command line can be read by other users of this machine while the command "
                "runs, and stays in the shell's history. Use --url - or --url-file."
            )
        return str(given.url)

    def _check(self, given: argparse.Namespace) -> None:
        database = Database.objects.filter(name=given.name).first()
        if database is None:
            raise CommandError(f"There is no database {given.name}: `python manage.py database list` shows them.")
        self._show(engine_of(database).preflight())

    def _show(self, preflight: Preflight) -> None:
        objects = preflight.objects
        self.stdout.write(
            f"{preflight.server}, {preflight.client}: {preflight.size_bytes / 1e6:,.1f} MB in {objects.tables} tables, "
            f"{objects.views} views, {objects.routines} routines, {objects.triggers} triggers, {objects.events} events"
        )
        for finding in preflight.findings:
            self.stdout.write(f"{finding.level.capitalize()}: {finding.text} {finding.remedy}".rstrip())
        self.stdout.write(
            f"A backup will store at most about {preflight.size_bytes / 1e6:,.0f} MB, usually a third of it, and take "
            f"roughly {rules.expected_seconds(preflight.size_bytes):,} s, the check included."
        )
        try:
            with storage() as place:
                place.check()
                free = place.free_bytes()
        except PulsewatchError as error:
            self.stderr.write(f"Warning: the storage cannot be used yet. {error}")
            return
        if free is not None and free < 2 * preflight.size_bytes:
            self.stderr.write(
                f"Warning: {settings.BACKUP_STORAGE} has {free / 1e6:,.0f} MB left, which is less than two backups may "
                "need. Free some space, or set BACKUP_STORAGE to another place."
            )

    def _list(self, given: argparse.Namespace) -> None:
        rows = [
            {
                "name": row.name,
                "service": row.service.slug,
                "environment": row.environment,
                "engine": row.engine,
                "host": row.host,
                "schema": row.database_name,
            }
            for row in Database.objects.select_related("service")
        ]
        if given.json:
            self.stdout.write(json.dumps(rows))
        elif not rows:
            self.stdout.write("No database is registered yet: python manage.py database add --help")
        for row in [] if given.json else rows:
            self.stdout.write(
                f"{row['name']:20} {row['environment']:11} {row['engine']:10} {row['host']} {row['schema']}"
            )


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(
            f"Cannot read {path}: {error.strerror if isinstance(error, OSError) else 'not text'}."
        ) from error

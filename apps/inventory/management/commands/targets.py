"""`python manage.py targets export|import FILE`: endpoints out of and into a file of CSV or YAML."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.audit import Actor
from apps.core.errors import PulsewatchError
from apps.inventory import exchange
from apps.inventory.models import Endpoint
from apps.inventory.parsers import EXTENSIONS, FORMATS, MAX_BYTES


class Command(BaseCommand):
    help = "Write the endpoints to a file, or add and change them from one: all of it or, when a row is wrong, nothing."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="export|import")
        out = verbs.add_parser("export", help="write all endpoints; headers are secret and left out")
        into = verbs.add_parser("import", help="add and change endpoints; the same file again changes nothing")
        for verb, what in ((out, "standard output"), (into, "standard input")):
            verb.add_argument("file", help=f"its name ends in {', '.join(EXTENSIONS)}; - is {what}")
            verb.add_argument("--format", choices=sorted(FORMATS), help="when the name does not say it")
        out.add_argument("--service", help="those of one service only")
        out.add_argument("--environment", help="those of one environment only")
        into.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        into.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        given = argparse.Namespace(**options)
        kind = given.format or EXTENSIONS.get(Path(given.file).suffix.lower())
        if kind is None:
            raise CommandError(f"Name the format: --format {' or '.join(sorted(FORMATS))}.")
        try:
            {"export": self._export, "import": self._import}[given.verb](given, kind)
        except OSError as error:
            raise CommandError(f"{given.file}: {error.strerror}.") from error
        except PulsewatchError as error:
            raise CommandError(str(error)) from error

    def _export(self, given: argparse.Namespace, kind: str) -> None:
        place = {"workload__service__slug": given.service, "workload__environment": given.environment}
        rows = Endpoint.objects.filter(**{name: value for name, value in place.items() if value})
        text = exchange.export_endpoints(kind=kind, endpoints=rows)
        if given.file == "-":
            self.stdout.write(text, ending="")
            return
        with Path(given.file).open("w", encoding="utf-8", newline="") as target:
            target.write(text)
        self.stderr.write(f"{rows.count()} endpoints written to {given.file}.")

    def _import(self, given: argparse.Namespace, kind: str) -> None:
        if given.file == "-":
            content = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(given.file).open("rb") as source:
                content = source.read(MAX_BYTES + 1)
        try:
            told = exchange.import_endpoints(
                content=content, kind=kind, actor=Actor.automation("command line"), dry_run=given.dry_run
            )
        except exchange.FileRefused as error:
            if given.json:
                faults = [asdict(fault) for fault in error.faults]
                self.stdout.write(json.dumps({"imported": False, "faults": faults, "fault_count": error.count}))
            lines = [f"  {fault}" for fault in error.faults]
            more = [f"  and {error.count - len(lines)} more"] if error.count > len(lines) else []
            raise CommandError("\n".join(["Nothing was imported:", *lines, *more])) from error
        if given.json:
            self.stdout.write(json.dumps({"imported": not given.dry_run, **asdict(told)}))
            return
        verb = "would be " if given.dry_run else ""
        self.stdout.write(f"{told.created} {verb}added, {told.changed} {verb}changed, {told.unchanged} as they were.")
        if told.workloads:
            self.stdout.write(f"Workloads {verb}added: {', '.join(told.workloads)}.")
        if told.unwatched:
            self.stdout.write(f"Not asked until the workload has a base URL: {', '.join(told.unwatched)}.")

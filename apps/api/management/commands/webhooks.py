"""`python manage.py webhooks reconcile`: fetch the deployments whose webhooks did not arrive."""

from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.api.reconcile import reconcile


class Command(BaseCommand):
    help = "Ask GitHub for recent deployments and record those that no webhook has told of."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="reconcile")
        verb = verbs.add_parser("reconcile", help="record what is missing; what is known changes nothing")
        verb.add_argument("--days", type=int, default=3, choices=range(1, 31), metavar="1..30", help="default: 3")

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        seen = new = 0
        errors = []
        for pulled in reconcile(since=now - timedelta(days=options["days"]), now=now):
            if pulled.error:
                errors.append(pulled.error)
                self.stderr.write(f"{pulled.repository}: {pulled.error}")
                continue
            seen += 1
            new += pulled.new
            if pulled.new and pulled.delivery:
                self.stdout.write(f"{pulled.repository}: {pulled.delivery.outcome}: {pulled.delivery.detail}")
        self.stdout.write(f"{seen} deployments seen, {new} of them news to Pulsewatch.")
        if errors:
            raise CommandError("Not every repository could be asked; see above.")

"""`python manage.py prepare`: everything a new version needs before it serves."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from apps.console.roles import ensure_groups
from apps.core import heartbeats
from apps.core.redaction import redact


class Command(BaseCommand):
    help = "Apply the migrations and make the groups viewer, operator and admin. Safe to run again."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            call_command("migrate", interactive=False, verbosity=min(options["verbosity"], 1), stdout=self.stdout)
            ensure_groups()
            heartbeats.expect(timezone.now())
        except (DatabaseError, InterfaceError) as error:
            reason = redact(str(error.args[-1] if error.args else error))
            raise CommandError(
                f"The database cannot be used ({reason}): check DATABASE_URL, that the server runs, and that the user "
                "may create tables."
            ) from error
        self.stdout.write("The database is ready.")

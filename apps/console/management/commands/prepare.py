"""`python manage.py prepare`: everything a new version needs before it serves."""

from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

from apps.console.roles import ensure_groups


class Command(BaseCommand):
    help = "Apply the migrations and make the groups viewer, operator and admin. Safe to run again."

    def handle(self, *args: Any, **options: Any) -> None:
        call_command("migrate", interactive=False, verbosity=min(options["verbosity"], 1), stdout=self.stdout)
        ensure_groups()
        self.stdout.write("The database is ready.")

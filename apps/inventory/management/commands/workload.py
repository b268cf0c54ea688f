"""`python manage.py workload list|set`: what runs where, and how deployments of it are watched and undone."""

import argparse
import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.core.audit import Actor
from apps.core.errors import Invalid, PulsewatchError
from apps.inventory import services
from apps.inventory.choices import Platform
from apps.inventory.models import Workload

# Options that are columns of the same name.
COLUMNS = (
    *("base_url", "readiness_path", "platform", "platform_settings", "auto_rollback"),
    *("gate_samples", "gate_window_seconds", "deployment_timeout_minutes"),
)


class Command(BaseCommand):
    help = "Show the workloads, or change one: its platform, its gate, whether it is rolled back by itself."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="list|set")
        verbs.add_parser("list", help="what runs where, and by which platform it is changed")
        change = verbs.add_parser("set", help="change a workload; what is not named stays")
        change.add_argument("workload", help="service/environment, such as app/production")
        change.add_argument("--base-url", help="where its users reach it")
        change.add_argument("--readiness-path", help="such as /ready")
        change.add_argument("--platform", choices=Platform.values, help="what can roll out a version")
        change.add_argument("--platform-settings", metavar="JSON", help="a JSON object; docs/platforms.md")
        change.add_argument("--secret-file", metavar="FILE", help="holds the platform's secret; - is standard input")
        change.add_argument(
            "--auto-rollback",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="bring the last good version back when the gate fails",
        )
        change.add_argument("--gate-samples", type=int, metavar="N", help="healthy ones in a row from each instance")
        change.add_argument("--gate-window-seconds", type=int, metavar="N", help="within so many seconds")
        change.add_argument(
            "--timeout-minutes",
            type=int,
            dest="deployment_timeout_minutes",
            metavar="N",
            help="a deployment that nobody finishes fails after so many minutes",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            getattr(self, f"_{options['verb']}")(argparse.Namespace(**options))
        except Invalid as error:
            raise CommandError(f"{error.field}: {error}") from error
        except PulsewatchError as error:
            raise CommandError(str(error)) from error

    def _list(self, given: argparse.Namespace) -> None:
        for row in Workload.objects.select_related("service"):
            back = "rolled back by itself" if row.auto_rollback else "rolled back by hand"
            self.stdout.write(f"{row}  {row.base_url or '-'}  platform {row.platform}, {back}")

    def _set(self, given: argparse.Namespace) -> None:
        service, _, environment = given.workload.partition("/")
        found = Workload.objects.select_related("service").filter(service__slug=service, environment=environment)
        row = found.first()
        if row is None:
            raise CommandError(f"There is no workload {given.workload}: `python manage.py workload list` shows them.")
        changes = {name: value for name in COLUMNS if (value := getattr(given, name)) is not None}
        if "platform_settings" in changes:
            changes["platform_settings"] = _settings(changes["platform_settings"])
        for name, value in changes.items():
            setattr(row, name, value)
        services.save(row, actor=Actor.automation("command line"), platform_secret=_secret(given.secret_file))
        back = "brings the last good version back" if row.auto_rollback else "rolls nothing back"
        self.stdout.write(
            f"{row} is changed by platform {row.platform}. A deployment needs {row.gate_samples} healthy samples in a "
            f"row from each instance within {row.gate_window_seconds} s; a gate that fails {back}."
        )


def _settings(text: str) -> dict[str, Any]:
    try:
        settings = json.loads(text)
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise CommandError('--platform-settings takes a JSON object: \'{"url": "https://ci.example.com/hook"}\'.')
    return settings


_DOCUMENTS = ("apiVersion:", "{", "-----BEGIN ")  # how a secret of several lines begins


def _secret(path: str | None) -> str:
    """The first line of the file, or the whole of a kubeconfig or certificate.

    Never an argument, which others can read while the command runs.
    """
    if path is None:
        return ""
    try:
        with nullcontext(sys.stdin) if path == "-" else Path(path).open() as file:
            first = file.readline()
            return (first + file.read() if first.startswith(_DOCUMENTS) else first).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} cannot be read as text: name a file that holds the secret in one line.") from error

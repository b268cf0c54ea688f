"""`manage.py token`: make, list and revoke API tokens."""

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from apps.api import rules, services
from apps.api.choices import Scope
from apps.api.models import ApiToken
from apps.core.audit import Actor
from apps.core.errors import PulsewatchError

NEVER = "never"
ACTOR = Actor.automation("command line")


class Command(BaseCommand):
    help = "API tokens. `create` prints the token once, alone on the last line of standard output."

    def add_arguments(self, parser: CommandParser) -> None:
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="create|list|revoke")
        create = verbs.add_parser("create", help="make a token and print it")
        create.add_argument("name", help="what it is for, such as ci")
        create.add_argument(
            "--scope",
            action="append",
            required=True,
            help=f"what it may do, several separated by commas: {', '.join(Scope.values)}",
        )
        create.add_argument(
            "--expires",
            metavar="90d",
            default=f"{services.LASTING.days}d",
            help="how long it lasts: 12h, 90d, 52w (default: %(default)s); never: until it is revoked",
        )
        verbs.add_parser("list", help="show all tokens, without their secrets")
        revoke = verbs.add_parser("revoke", help="end a token at once")
        revoke.add_argument("name", help="its name, or its first column in the list")

    def handle(self, *args: Any, **options: Any) -> None:
        given = argparse.Namespace(**options)
        try:
            {"create": self._create, "list": self._list, "revoke": self._revoke}[given.verb](given)
        except (PulsewatchError, rules.Unreadable) as error:
            raise CommandError(str(error)) from error

    def _create(self, given: argparse.Namespace) -> None:
        scopes = [scope for text in given.scope for scope in text.split(",")]
        lasting = None if given.expires == NEVER else rules.lifetime(given.expires)
        row, text = services.create_token(name=given.name, scopes=scopes, actor=ACTOR, lasting=lasting)
        until = f"It expires at {row.expires_at:%Y-%m-%d %H:%M} UTC." if row.expires_at else "It never expires."
        self.stderr.write(f"Token {row.name} may do: {', '.join(row.scopes)}. {until} It is shown only now:")
        self.stderr.flush()
        self.stdout.write(text)

    def _list(self, given: argparse.Namespace) -> None:
        now = timezone.now()
        for row in ApiToken.objects.all():
            used = f"{row.last_used_at:%Y-%m-%d %H:%M} UTC" if row.last_used_at else "never"
            until = f"{row.expires_at:%Y-%m-%d %H:%M} UTC" if row.expires_at else NEVER
            scopes = ",".join(row.scopes)
            self.stdout.write(f"{row.prefix}  {row.state(now):8} {row.name}  {scopes}  used {used}, expires {until}")

    def _revoke(self, given: argparse.Namespace) -> None:
        tokens = ApiToken.objects
        named = tokens.filter(live_name=given.name).first() or tokens.filter(prefix=given.name).first()
        if named is None:
            raise CommandError("There is no such token: `python manage.py token list` shows them.")
        services.revoke_token(token=named, actor=ACTOR)
        self.stdout.write(f"Token {named.name} is revoked.")

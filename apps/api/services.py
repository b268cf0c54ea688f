"""What a person may ask about tokens."""

import re
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from apps.api import rules
from apps.api.choices import Scope
from apps.api.models import ApiToken
from apps.core import audit, ids
from apps.core.errors import Conflict, Invalid

LASTING = timedelta(days=365)  # unless told otherwise: a token nobody remembers ends some day

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/-]{0,99}")


def create_token(
    *, name: str, scopes: Iterable[str], actor: audit.Actor, lasting: timedelta | None = LASTING
) -> tuple[ApiToken, str]:
    """A new token: its row, and the text to hand to its holder, which nobody can show a second time.

    `lasting` None: until it is revoked.
    Raises Invalid, or Conflict while another live token has this name.
    """
    name = name.strip()
    if not _NAME.fullmatch(name):
        raise Invalid("Name the token with 1 to 100 letters, digits, spaces and . _ : / - only.", field="name")
    wanted = sorted({scope.strip() for scope in scopes} - {""})
    if not wanted or not set(wanted) <= set(Scope.values):
        raise Invalid(f"Choose one or more of these scopes: {', '.join(Scope.values)}.", field="scopes")
    if lasting is not None and not timedelta() < lasting <= timedelta(days=3650):
        raise Invalid("A token may last for up to ten years, or without end.", field="expires")
    now = timezone.now()
    parts = rules.TokenParts(ids.suffix(8), secrets.token_urlsafe(32))  # 256 bits
    token = ApiToken(
        name=name,
        prefix=parts.prefix,
        secret_hash=rules.hashed(parts.secret),
        scopes=wanted,
        created_at=now,
        created_by=actor.name,
        expires_at=now + lasting if lasting else None,
    )
    try:
        with transaction.atomic():
            token.save(force_insert=True)
            audit.record(
                actor=actor,
                action="token.create",
                subject=f"token:{name}",
                after={"prefix": parts.prefix, "scopes": wanted, "expires_at": token.expires_at},
            )
    except IntegrityError as error:
        raise Conflict(f"There is a token named {name} already: revoke it first, or choose another name.") from error
    return token, str(parts)


def revoke_token(*, token: ApiToken, actor: audit.Actor) -> ApiToken:
    """End a token at once and for good; the next request that carries it is refused. Raises Conflict a second time."""
    now = max(timezone.now(), token.created_at)
    with transaction.atomic():
        revoked = ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now, revoked_by=actor.name)
        if not revoked:
            raise Conflict(f"The token {token.name} was revoked before.")
        audit.record(actor=actor, action="token.revoke", subject=f"token:{token.name}", before={"prefix": token.prefix})
    token.refresh_from_db()
    return token

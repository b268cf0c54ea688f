"""Writing the audit trail. Every service verb calls `record` inside its own transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from django.contrib.auth.models import AbstractBaseUser, AnonymousUser
from django.utils import timezone

from apps.core import context, inserts
from apps.core.choices import ActorKind
from apps.core.models import MAX_REASON, AuditEntry
from apps.core.redaction import redact, redact_value


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks for something."""

    kind: ActorKind
    name: str
    user_id: int | None = None

    @classmethod
    def person(cls, user: AbstractBaseUser | AnonymousUser) -> Self:
        """A signed-in user."""
        return cls(ActorKind.USER, user.get_username(), user.pk)

    @classmethod
    def token(cls, name: str) -> Self:
        """A program that holds an API token of this name."""
        return cls(ActorKind.TOKEN, name)

    @classmethod
    def automation(cls, name: str) -> Self:
        """Pulsewatch itself: beat, a worker, the start-up."""
        return cls(ActorKind.AUTOMATION, name)


def record(
    *,
    actor: Actor,
    action: str,
    subject: str,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
) -> None:
    """Add one entry. Address and request id come from the running request; secrets are cut out, a long reason short."""
    now = context.current()
    entry = AuditEntry(
        at=timezone.now(),
        actor_kind=actor.kind,
        actor=actor.name,
        user_id=actor.user_id,
        action=action,
        subject=subject,
        ip_address=now.ip_address,
        request_id=now.request_id or "",
        reason=redact(reason)[:MAX_REASON],  # hiding a short secret makes the text longer
        before=redact_value(None, dict(before or {})),
        after=redact_value(None, dict(after or {})),
    )
    inserts.insert([entry])

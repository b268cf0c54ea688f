"""Writing the audit trail. Every service verb calls `record` inside its own transaction."""

from collections.abc import Iterable, Mapping
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


@dataclass(frozen=True, slots=True)
class Entry:
    """One of many things that are recorded together."""

    action: str
    subject: str
    before: Mapping[str, Any]
    after: Mapping[str, Any]


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
    record_all([Entry(action, subject, before or {}, after or {})], actor=actor, reason=reason)


def record_all(entries: Iterable[Entry], *, actor: Actor, reason: str = "") -> None:
    """Add what was done at once to many subjects, each its own entry."""
    now, at = context.current(), timezone.now()
    inserts.insert(
        AuditEntry(
            at=at,
            actor_kind=actor.kind,
            actor=actor.name,
            user_id=actor.user_id,
            action=entry.action,
            subject=entry.subject,
            ip_address=now.ip_address,
            request_id=now.request_id or "",
            reason=redact(reason)[:MAX_REASON],  # hiding a short secret makes the text longer
            before=redact_value(None, dict(entry.before)),
            after=redact_value(None, dict(entry.after)),
        )
        for entry in entries
    )

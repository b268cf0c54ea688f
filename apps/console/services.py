"""What a person may ask of the console itself: notes."""

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from apps.console.models import MAX_NOTE, Note
from apps.core import audit
from apps.core.choices import Environment
from apps.core.errors import Invalid
from apps.core.redaction import redact

AHEAD = timedelta(minutes=1)  # a browser's clock may be a little ahead of ours
KEPT = timedelta(days=90)  # as far back as charts reach


@transaction.atomic
def add_note(*, text: str, environment: str, actor: audit.Actor, at: datetime | None = None) -> Note:
    """Write down what happened, now or at a time that is over. Raises Invalid with the wrong field."""
    now = timezone.now()
    text = redact(" ".join(text.split()))
    if not 1 <= len(text) <= MAX_NOTE:
        raise Invalid(f"Write 1 to {MAX_NOTE} characters (secrets hidden).", field="text")
    if environment not in Environment.values:
        raise Invalid(f"The environment must be one of {', '.join(Environment.values)}.", field="environment")
    at = at or now
    if not now - KEPT <= at <= now + AHEAD:
        raise Invalid(f"The time must lie in the last {KEPT.days} days: a note says what has happened.", field="at")
    row = Note.objects.create(at=at, text=text, environment=environment, by=actor.name)
    audit.record(
        actor=actor,
        action="note.add",
        subject=f"note:{row.pk}",
        after={"at": at.isoformat(), "text": text, "environment": environment},
    )
    return row


@transaction.atomic
def remove_note(*, note: Note, actor: audit.Actor) -> None:
    """Take a note away; the audit trail keeps what it said."""
    audit.record(
        actor=actor,
        action="note.remove",
        subject=f"note:{note.pk}",
        before={"at": note.at.isoformat(), "text": note.text, "environment": note.environment, "by": note.by},
    )
    note.delete()
